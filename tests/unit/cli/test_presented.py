"""`--presented THUMBPRINT`: the certificate that a device presented when the server rejected it."""

from typing import Any, cast

import pytest

from birthmark.cli.options.server import presented_certificate
from birthmark.pki.certificates import CertificateInvalidError


@pytest.mark.parametrize("value", ["", "deadbeef", "zz"])
def test_a_value_that_is_no_thumbprint_is_told_before_the_server_is_asked(value: str) -> None:
    with pytest.raises(CertificateInvalidError) as refused:
        presented_certificate(cast("Any", None), value)
    assert "64 hex digits" in refused.value.explain_cause()
    assert "`birthmark why`" in refused.value.explain_fix()
