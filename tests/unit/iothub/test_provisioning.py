"""Which registration may write an identity that its hub has."""

import pytest

from birthmark.iothub.model import OPERATOR, AuthenticationType, Device, DeviceAuthentication, parse_device_id
from birthmark.iothub.rules.provisioned_identity_ownership import DeviceHeldError, check_holder
from support.fakes import NOON

PROOF = b"t" * 32


def made_by(maker: str) -> Device:
    authentication = DeviceAuthentication(AuthenticationType.SELF_SIGNED, PROOF)
    return Device("main", parse_device_id("d"), "g", "e", True, None, authentication, False, NOON, NOON, maker)


def test_the_registration_that_made_it_may() -> None:
    check_holder(made_by("dps:0ne/d"), "dps:0ne/d")


@pytest.mark.parametrize("holder", [OPERATOR, "dps:0ne/other", "dps:1ne/d"])
def test_no_other_registration_of_a_group_may_and_the_holder_is_told(holder: str) -> None:
    with pytest.raises(DeviceHeldError) as refusal:
        check_holder(made_by(holder), "dps:0ne/d", [b"x" * 32])
    assert refusal.value.facts["holder"] == holder


@pytest.mark.parametrize("holder", [OPERATOR, "dps:0ne/other", "dps:1ne/d"])
def test_a_device_that_proves_itself_by_a_credential_of_the_hub_may(holder: str) -> None:
    check_holder(made_by(holder), "dps:0ne/d", [b"x" * 32, PROOF])


@pytest.mark.parametrize("holder", [OPERATOR, "dps:1ne/d"])
def test_an_individual_enrollment_of_that_name_may(holder: str) -> None:
    check_holder(made_by(holder), "dps:0ne/d", is_individual=True)


@pytest.mark.parametrize("holder", ["dps:0ne/other", "dps:1ne/other", "dps:1ne/other/d"])
def test_an_individual_enrollment_of_another_registration_id_may_not(holder: str) -> None:
    with pytest.raises(DeviceHeldError):
        check_holder(made_by(holder), "dps:0ne/d", is_individual=True)
