"""What an operator does at an AWS account, by Amazon's client, at a server of ours."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from birthmark.devices.model import RevocationOutcome
from birthmark.fleet.aws_target import AwsTarget
from birthmark.fleet.bulk_enrollment import enroll_all, undo_all
from birthmark.fleet.device_onboarding_stages import DeviceStage
from birthmark.fleet.enrollment_rollback_journal import Journal, JournalOutcome
from birthmark.fleet.enrollment_target import EnrollmentRequest, TargetOutcome
from birthmark.fleet.errors import CredentialsRefusedError, DifferentRecordError, ReferenceMissingError
from birthmark.fleet.target_profiles import aws_profile
from support.azure.clients import NOW
from support.pki.pki_builders import a_device
from support.server.servers import RunningServer, a_new_server

ALL = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("account")) as running:
        iot: Any = AwsTarget(aws_profile("local", running.data))._iot
        iot.create_policy(policyName="all", policyDocument=json.dumps(ALL))
        iot.create_thing_type(thingTypeName="pump")
        for group in ("north", "south"):
            iot.create_thing_group(thingGroupName=group)
        yield running


@pytest.fixture
def target(server: RunningServer) -> AwsTarget:
    return AwsTarget(aws_profile("local", server.data))


def a_wish(name: str) -> EnrollmentRequest:
    return EnrollmentRequest(name, a_device(common_name=name, now=NOW).certificate)


def whole(name: str) -> EnrollmentRequest:
    """A wish for all that a device may have at an account."""
    return replace(a_wish(name), policy="all", thing_type="pump", attributes={"line": "3"}, groups=("north", "south"))


def enrolled(
    target: AwsTarget, wishes: list[EnrollmentRequest], path: Path, *, update: bool = False
) -> list[TargetOutcome]:
    """Enroll a list as a run does, and keep its journal."""
    told: list[JournalOutcome] = []
    with Journal(path, target.identity) as journal:
        enroll_all(target, wishes, journal, told.append, update=update, dry_run=False)
    return [outcome.done for outcome in told]


def taken_back(target: AwsTarget, path: Path, *, dry_run: bool = False) -> list[TargetOutcome]:
    told: list[JournalOutcome] = []
    with Journal(path, target.identity) as journal:
        undo_all(target, journal, told.append, dry_run=dry_run)
    return [outcome.done for outcome in told]


def thing(target: AwsTarget, name: str) -> tuple[Any, Any, list[str]]:
    """The type, the attributes and the groups of a thing."""
    told = target._iot.describe_thing(thingName=name)
    return told.get("thingTypeName"), told["attributes"], sorted(target._groups_of(name))


def names(target: AwsTarget) -> set[str]:
    return {record.name for record in target.records()}


def test_a_list_is_enrolled_found_again_and_taken_back_to_nothing(target: AwsTarget, tmp_path: Path) -> None:
    wishes = [whole(f"pump-{number}") for number in range(3)]
    assert enrolled(target, wishes, tmp_path / "run") == [TargetOutcome.CREATED] * 3
    assert thing(target, "pump-1") == ("pump", {"line": "3"}, ["north", "south"])
    assert enrolled(target, wishes, tmp_path / "run") == [TargetOutcome.UNCHANGED] * 3
    assert taken_back(target, tmp_path / "run", dry_run=True) == [TargetOutcome.WOULD_TAKE_BACK] * 3
    assert names(target) >= {"pump-0", "pump-1", "pump-2"}, "a rehearsal takes nothing back"
    assert taken_back(target, tmp_path / "run") == [TargetOutcome.TAKEN_BACK] * 3
    assert names(target).isdisjoint({"pump-0", "pump-1", "pump-2"})
    assert target._described(wishes[0].certificate.thumbprint.hex()) is None


def test_a_thing_that_was_there_is_put_back_as_it_was(target: AwsTarget, tmp_path: Path) -> None:
    before = replace(a_wish("valve"), attributes={"line": "1", "site": "Osaka"}, groups=("north",))
    target.enroll(before, update=False, dry_run=False)
    after = replace(before, attributes={"line": "2", "floor": "4"}, groups=("south",), policy="all")
    assert enrolled(target, [after], tmp_path / "run", update=True) == [TargetOutcome.UPDATED]
    assert thing(target, "valve") == (None, {"line": "2", "site": "Osaka", "floor": "4"}, ["north", "south"])
    assert taken_back(target, tmp_path / "run") == [TargetOutcome.TAKEN_BACK]
    assert thing(target, "valve") == (None, {"line": "1", "site": "Osaka"}, ["north"])


def test_a_second_certificate_of_a_thing_is_added_on_request_and_taken_off_again(
    target: AwsTarget, tmp_path: Path
) -> None:
    first, second = a_wish("renewed"), a_wish("renewed")
    target.enroll(first, update=False, dry_run=False)
    assert enrolled(target, [second], tmp_path / "run") == [TargetOutcome.REFUSED]
    assert enrolled(target, [second], tmp_path / "run", update=True) == [TargetOutcome.UPDATED]
    assert {target.get_progress(wish).standing for wish in (first, second)} == {DeviceStage.ASSIGNED}
    assert taken_back(target, tmp_path / "run") == [TargetOutcome.TAKEN_BACK]
    assert target.get_progress(second).standing is DeviceStage.OTHERWISE
    assert target.get_progress(first).standing is DeviceStage.ASSIGNED


def test_all_that_is_missing_is_told_at_once_with_how_it_is_made(target: AwsTarget) -> None:
    wish = replace(a_wish("lacking"), policy="no-policy", thing_type="no-type", groups=("no-group",))
    with pytest.raises(ReferenceMissingError) as refused:
        target.enroll(wish, update=False, dry_run=False)
    fix = refused.value.explain_fix()
    for command in ("create-policy --policy-name", "create-thing-type --thing-type-name", "create-thing-group"):
        assert f"`aws iot {command}" in fix
    assert "lacking" not in names(target)


def test_a_device_stands_as_its_thing_and_its_certificate_do(target: AwsTarget) -> None:
    wish = a_wish("standing")
    assert target.get_progress(wish).standing is DeviceStage.MISSING
    target._iot.create_thing(thingName="standing")
    bare = target.get_progress(wish)
    assert (bare.standing, bare.detail) == (DeviceStage.MISSING, "a thing without a certificate")
    target.enroll(wish, update=False, dry_run=False)
    assert target.get_progress(wish).standing is DeviceStage.ASSIGNED
    other = target.get_progress(a_wish("standing"))
    assert (other.standing, other.detail) == (DeviceStage.OTHERWISE, f"certificate {wish.certificate.thumbprint.hex()}")


def test_a_device_is_retired_by_its_certificate_and_let_in_again_by_an_update(target: AwsTarget) -> None:
    wish = a_wish("moving")
    assert target.retire(wish, dry_run=False).done is TargetOutcome.GONE
    target.enroll(wish, update=False, dry_run=False)
    assert target.retire(wish, dry_run=True).done is TargetOutcome.WOULD_RETIRE
    assert target.retire(wish, dry_run=False).done is TargetOutcome.RETIRED
    assert target.retire(wish, dry_run=False).done is TargetOutcome.UNCHANGED
    assert target.get_progress(wish).standing is DeviceStage.DISABLED
    with pytest.raises(DifferentRecordError):
        target.enroll(wish, update=False, dry_run=False)
    assert target.enroll(wish, update=True, dry_run=False).done is TargetOutcome.UPDATED
    target.reinstate(wish)
    assert target.get_progress(wish).standing is DeviceStage.ASSIGNED


def test_a_lost_device_has_its_certificates_revoked_those_known_elsewhere_too(target: AwsTarget) -> None:
    attached, unattached, unknown = a_wish("lost"), a_wish("lost"), a_wish("lost")
    target.enroll(attached, update=False, dry_run=False)
    target._iot.register_certificate_without_ca(certificatePem=unattached.certificate.pem(), status="ACTIVE")
    others = [unattached.certificate.thumbprint, unknown.certificate.thumbprint]
    both = {wish.certificate.thumbprint.hex() for wish in (attached, unattached)}
    for dry_run, became in (
        (True, RevocationOutcome.WOULD_REVOKE),
        (False, RevocationOutcome.REVOKED),
        (False, RevocationOutcome.WAS_REVOKED),
    ):
        rows = target.revoke_device("lost", others, dry_run=dry_run)
        assert {row.id for row in rows} == both, "of a certificate that the account does not have nothing is told"
        assert {row.became for row in rows} == {became}
    assert target.get_progress(attached).standing is DeviceStage.TAKEN_BACK


def test_a_removed_thing_takes_its_certificate_with_it(target: AwsTarget) -> None:
    wish = replace(a_wish("removed"), policy="all")
    target.enroll(wish, update=False, dry_run=False)
    assert target.remove("removed", is_group=False) == []
    assert "removed" not in names(target)
    assert target._described(wish.certificate.thumbprint.hex()) is None


def test_a_key_that_the_account_does_not_know_is_refused_as_such(server: RunningServer) -> None:
    profile = aws_profile("local", server.data)
    with pytest.raises(CredentialsRefusedError):
        AwsTarget(replace(profile, secret_access_key="wrong")).survey(1)


def test_one_account_is_one_place_whatever_profile_leads_there(server: RunningServer, target: AwsTarget) -> None:
    profile = aws_profile("local", server.data)
    assert target.place == AwsTarget(replace(profile, account=None)).place
    assert AwsTarget(replace(profile, account=None)).identity.endswith(
        f"account of {server.endpoints['aws']['data_endpoint']}"
    )
