"""Who may write an identity that is on record."""

import pytest

from birthmark.iothub.model import OPERATOR, AuthenticationType, Device, DeviceAuthentication, parse_device_id
from birthmark.iothub.rules.provisioning import DeviceHeldError, check_maker
from fakes import NOON


def made_by(maker: str) -> Device:
    authentication = DeviceAuthentication(AuthenticationType.SELF_SIGNED)
    return Device("main", parse_device_id("d"), "g", "e", True, None, authentication, False, NOON, NOON, maker)


def test_the_registration_that_made_it_may() -> None:
    check_maker(made_by("dps:0ne/d"), "dps:0ne/d")


@pytest.mark.parametrize("holder", [OPERATOR, "dps:0ne/other"])
def test_no_other_registration_may_take_it_and_the_holder_is_told(holder: str) -> None:
    with pytest.raises(DeviceHeldError) as refusal:
        check_maker(made_by(holder), "dps:0ne/d")
    assert refusal.value.facts["holder"] == holder
