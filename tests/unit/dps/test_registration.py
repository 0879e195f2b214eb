"""What a registration earns."""

from datetime import timedelta

import pytest

from birthmark.dps.model import Enrollment, Registration, X509Group
from birthmark.dps.rules.registration import MIGRATED, RESET, NoHubError, RegistrationPinnedError, allocate, decide
from birthmark.pki.names_and_registration_ids import RegistrationId
from support.fakes import NOON

HUBS = ("hub-a.example", "hub-b.example", "hub-c.example")
ID = RegistrationId("device-1")


def an_enrollment(**fields: object) -> Enrollment:
    return Enrollment(**({"id": "device-1", "attestation": X509Group()} | fields))  # type: ignore[arg-type]  # fields by name


def a_group(name: str = "fleet") -> Enrollment:
    return an_enrollment(id=name, is_group=True)


def earned(
    enrollment: Enrollment,
    present: Registration | None = None,
    linked: tuple[str, ...] = HUBS,
    spelling: str = "device-1",
) -> Registration:
    now = NOON + timedelta(hours=1) if present else NOON
    return decide(
        enrollment, ID, present, linked, spelling=spelling, thumbprint=None, operation_id="op", etag="e", now=now
    )


def test_a_group_registers_its_device_again() -> None:
    assert earned(a_group(), earned(a_group())).group_id == "fleet"


@pytest.mark.parametrize("first", [a_group("other"), an_enrollment()])
def test_a_registration_of_another_enrollment_is_not_taken_over_by_a_group(first: Enrollment) -> None:
    with pytest.raises(RegistrationPinnedError) as refusal:
        earned(a_group(), earned(first))
    assert "birthmark dps release device-1" in refusal.value.explain_fix()


def test_an_individual_enrollment_takes_its_registration_over() -> None:
    assert earned(an_enrollment(), earned(a_group())).group_id is None


def test_another_spelling_of_a_registered_name_is_another_device() -> None:
    with pytest.raises(RegistrationPinnedError):
        earned(a_group(), earned(a_group()), spelling="DEVICE-1")


def test_the_device_id_is_the_registration_id_unless_the_enrollment_names_another() -> None:
    assert earned(an_enrollment()).device_id == "device-1"
    assert earned(an_enrollment(device_id="Truck 7")).device_id == "Truck 7"


def test_devices_spread_over_all_linked_hubs_and_each_keeps_its_place() -> None:
    places = {name: allocate(an_enrollment(), RegistrationId(name), HUBS) for name in map(str, range(60))}
    assert set(places.values()) == set(HUBS)
    assert all(allocate(an_enrollment(), RegistrationId(name), HUBS) == hub for name, hub in places.items())


def test_an_enrollment_that_names_a_hub_goes_there_if_it_is_linked() -> None:
    assert earned(an_enrollment(hubs=("HUB-B.example",))).hub == "hub-b.example"
    with pytest.raises(NoHubError):
        earned(an_enrollment(hubs=("hub-x.example",)))


def test_no_linked_hub_is_a_refusal() -> None:
    with pytest.raises(NoHubError):
        earned(an_enrollment(), linked=())


def test_registering_again_keeps_hub_device_and_beginning() -> None:
    first = earned(an_enrollment())
    again = earned(an_enrollment(), first)
    assert (again.hub, again.device_id, again.created_at, again.substatus) == (
        first.hub,
        first.device_id,
        NOON,
        "initialAssignment",
    )
    assert again.updated_at == NOON + timedelta(hours=1)


def test_a_hub_that_is_linked_later_takes_nobody_away() -> None:
    for name in HUBS:
        first = earned(an_enrollment(), linked=(name,))
        assert earned(an_enrollment(), first, linked=HUBS).hub == name


def test_a_device_moves_when_its_enrollment_names_another_hub_unless_the_policy_says_no() -> None:
    first = earned(an_enrollment(hubs=("hub-a.example",)))
    moved = earned(an_enrollment(hubs=("hub-b.example",)), first)
    assert (moved.hub, moved.substatus) == ("hub-b.example", MIGRATED)
    reset = earned(an_enrollment(hubs=("hub-b.example",), migrates=False), first)
    assert (reset.hub, reset.substatus) == ("hub-b.example", RESET)
    kept = earned(an_enrollment(hubs=("hub-b.example",), keeps_hub=True), first)
    assert kept.hub == "hub-a.example"
