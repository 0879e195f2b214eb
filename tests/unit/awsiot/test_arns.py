"""ARNs of the account's resources are read, and others refused by name."""

import pytest

from birthmark.awsiot.model import ArnInvalidError, group_of
from support.aws.account import ACCOUNT

TAGGABLE = "thinggroup", "policy"


@pytest.mark.parametrize(("kind", "name"), [("thinggroup", "line:3"), ("policy", "a+b=c,d.e@f-g")])
def test_an_arn_is_read_as_it_was_written(kind: str, name: str) -> None:
    assert ACCOUNT.parse_arn(ACCOUNT.arn(kind, name), *TAGGABLE) == (kind, name)


def test_an_arn_of_any_region_is_taken() -> None:
    assert ACCOUNT.parse_arn("arn:aws-cn:iot:cn-north-1:000000000000:policy/p", *TAGGABLE) == ("policy", "p")


@pytest.mark.parametrize(
    "arn",
    [
        "",
        "policy/p",
        "arn:aws:iot:us-east-1:000000000000:policy/",
        "arn:aws:iot:us-east-1:000000000000:thing/p",
        "arn:aws:iot:us-east-1:111111111111:policy/p",
        "arn:aws:iam:us-east-1:000000000000:policy/p",
        ACCOUNT.arn("policy", "p" * 301),
    ],
)
def test_another_arn_is_refused_by_the_kinds_that_are_meant(arn: str) -> None:
    with pytest.raises(ArnInvalidError, match="Invalid thinggroup or policy ARN") as caught:
        ACCOUNT.parse_arn(arn, *TAGGABLE)
    assert caught.value.arn == arn[:300]


def test_a_certificate_s_id_is_read_from_its_arn_alone() -> None:
    thumbprint = "ab" * 32
    assert ACCOUNT.parse_certificate_arn(ACCOUNT.arn("cert", thumbprint.upper())) == thumbprint
    with pytest.raises(ArnInvalidError, match="Invalid cert ARN"):
        ACCOUNT.parse_certificate_arn(ACCOUNT.arn("cacert", thumbprint))
    with pytest.raises(ArnInvalidError, match="Invalid cert ARN"):
        ACCOUNT.parse_certificate_arn(ACCOUNT.arn("thinggroup", "line-3"))


def test_a_policy_hangs_on_a_certificate_or_on_a_thing_group() -> None:
    for kind, name, group in (("cert", "ab" * 32, None), ("thinggroup", "line:3", "line:3")):
        target = ACCOUNT.parse_target(ACCOUNT.arn(kind, name))
        assert ACCOUNT.target_arn(target) == ACCOUNT.arn(kind, name)
        assert group_of(target) == group
