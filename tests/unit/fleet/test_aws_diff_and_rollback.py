"""What of a device at AWS is taken back, and what makes it somebody else's."""

from datetime import timedelta

import pytest

from birthmark.fleet.aws_diff_and_rollback import (
    AwsRecord,
    AwsRollbackEntry,
    CurrentThing,
    PreviousThing,
    Undo,
    build_rollback_entry,
    completes,
    undo_of,
)
from birthmark.fleet.enrollment_target import EnrollmentRequest
from support.fakes import NOON
from support.pki.pki_builders import a_device

CERTIFICATE = a_device(common_name="gateway").certificate
ID = CERTIFICATE.thumbprint.hex()
ARN = f"arn:aws:iot:us-east-1:123456789012:cert/{ID}"
WAY = AwsRollbackEntry(ID, is_new_thing=True, is_attached=False, is_registered=False, since=NOON)
CHANGED = AwsRollbackEntry(
    ID,
    is_new_thing=False,
    is_attached=True,
    is_registered=True,
    before=PreviousThing(3, "pump", {"site": "a"}, ("line",)),
    groups=("g",),
)


def now(
    version: int | None = 1, *, created: timedelta = timedelta(), groups: frozenset[str] = frozenset()
) -> CurrentThing:
    described = {"certificateArn": ARN, "creationDate": NOON + created}
    return CurrentThing([ARN], described, ["gateway"], frozenset(), version, groups)


def test_all_that_a_run_made_is_taken_back() -> None:
    assert undo_of(WAY, "gateway", now()) == Undo(detaches=True, ends_certificate=True, ends_thing=True)


def test_a_certificate_that_was_there_before_stays() -> None:
    undo = undo_of(WAY, "gateway", now(created=-timedelta(seconds=3)))
    assert undo == Undo(detaches=True, ends_thing=True)


@pytest.mark.parametrize(("way", "version"), [(WAY, 2), (CHANGED, 5)])
def test_a_thing_that_was_changed_since_is_left(way: AwsRollbackEntry, version: int) -> None:
    assert f"version {version}" in (undo_of(way, "gateway", now(version)).problem or "")


def test_a_thing_that_a_run_changed_is_put_back_with_its_groups() -> None:
    assert undo_of(CHANGED, "gateway", now(4, groups=frozenset("gh"))) == Undo(puts_back=True, groups=("g",))
    assert CHANGED.before is not None
    assert CHANGED.before.asked("gateway") == {
        "thingName": "gateway",
        "thingTypeName": "pump",
        "attributePayload": {"attributes": {"site": "a", "line": ""}, "merge": True},
    }


def test_what_a_killed_run_did_not_come_to_write_is_nothing_to_take_back() -> None:
    assert undo_of(CHANGED, "gateway", now(3)).is_nothing


def test_what_only_adds_completes_a_record_and_what_replaces_changes_it() -> None:
    present = AwsRecord([ARN], ARN, type_name="pump", attributes={"site": "a", "other": "x"}, groups=frozenset({"g"}))
    more = EnrollmentRequest("gateway", CERTIFICATE, policy="p", attributes={"line": "3"}, groups=("g", "h"))
    assert [change.what for change in present.difference(more)] == ["policy", "attribute line", "group"]
    assert completes(present.difference(more))
    other = EnrollmentRequest("gateway", CERTIFICATE, thing_type="fan", attributes={"site": "b"})
    assert [change[1:] for change in present.difference(other)] == [("pump", "fan"), ("a", "b")]
    assert not completes(present.difference(other))


def test_the_way_back_of_a_change_keeps_what_was_there() -> None:
    present = AwsRecord([ARN], ARN, type_name="pump", attributes={"site": "a"}, version=3)
    wish = EnrollmentRequest("gateway", CERTIFICATE, attributes={"site": "b", "line": "3"}, groups=("g",))
    way = build_rollback_entry(wish, present, frozenset(), status="ACTIVE")
    assert way["before"] == {"version": 3, "type_name": "pump", "attributes": {"site": "a"}, "added": ["line"]}
    assert (way["groups"], way["is_new_thing"], way["is_attached"]) == (["g"], False, True)
