"""What a cloud does not take is told of each device before the cloud is asked, also in a rehearsal."""

from dataclasses import replace

import pytest

from birthmark.fleet.enrollment_target import EnrollmentRequest
from birthmark.fleet.template_value_validation import ValueNotAllowedError, check_values
from support.pki.pki_builders import a_device

PLAIN = EnrollmentRequest("gateway", a_device(common_name="gateway").certificate)


@pytest.mark.parametrize("value", ["Osaka 3", "Osaka\x1b[31m", "=cmd|' /C calc'!A0", "v" * 801, "東京"])
def test_an_attribute_is_refused_for_aws_alone(value: str) -> None:
    wish = replace(PLAIN, attributes={"site": value})
    with pytest.raises(ValueNotAllowedError) as refused:
        check_values(wish, is_azure=False)
    assert "the value of 'site' of aws.attributes" in refused.value.explain_cause()
    check_values(wish, is_azure=True)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (replace(PLAIN, tags={"site": "X" * 5000}), "azure.tags.site is a string that is too long"),
        (replace(PLAIN, tags={f"t{n}": "X" * 3000 for n in range(3)}), "azure.tags is too large"),
        (replace(PLAIN, desired={"site": "X" * 5000}), "azure.desired.site is a string that is too long"),
    ],
)
def test_a_twin_is_refused_for_azure_alone(wish: EnrollmentRequest, said: str) -> None:
    with pytest.raises(ValueNotAllowedError) as refused:
        check_values(wish, is_azure=True)
    assert said in refused.value.explain_cause()
    check_values(wish, is_azure=False)


def test_what_is_allowed_passes_at_both() -> None:
    wish = replace(PLAIN, tags={"site": "Osaka 3"}, desired={"interval": 30}, attributes={"site": "Osaka-3"})
    check_values(wish, is_azure=True)
    check_values(wish, is_azure=False)
