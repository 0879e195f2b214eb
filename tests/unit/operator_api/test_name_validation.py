"""Names that an operator gives."""

import pytest

from birthmark.operator_api.name_validation import NameInvalidError, parse_name


@pytest.mark.parametrize("text", ["an na", "Größe", "x" * 80, "..", "a/b", "-", "\ud800"], ids=ascii)
def test_a_name_that_cannot_be_used_is_told_one_that_can(text: str) -> None:
    with pytest.raises(NameInvalidError) as raised:
        parse_name(text)
    assert parse_name(raised.value.facts["like"])
