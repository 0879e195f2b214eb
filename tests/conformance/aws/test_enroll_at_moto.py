"""The same enrollment at another's AWS: moto, which was written without a look at this program."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import requests

from birthmark.fleet.aws_target import AwsTarget
from birthmark.fleet.bulk_enrollment import enroll_all, undo_all
from birthmark.fleet.enrollment_rollback_journal import Journal, JournalOutcome
from birthmark.fleet.enrollment_target import EnrollmentRequest, TargetOutcome
from birthmark.fleet.errors import DifferentRecordError, ReferenceMissingError
from birthmark.fleet.required_permissions import AWS, FleetTask
from birthmark.fleet.target_profiles import AwsProfile
from support.aws.moto_pca import moto
from support.pki.pki_builders import a_device

POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}'
NAMES = ("pump-1", "pump-2", "pump-3")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with moto() as running:
        yield running


@pytest.fixture
def iot(url: str) -> Any:
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    client = boto3.client("iot", region_name="eu-central-1", endpoint_url=url, **keys)
    requests.post(f"{url}/moto-api/reset", timeout=10).raise_for_status()
    return client


@pytest.fixture
def target(url: str) -> AwsTarget:
    return AwsTarget(
        AwsProfile(
            endpoint_url=url,
            region="eu-central-1",
            is_local=True,
            access_key_id="testing",
            secret_access_key="testing",
            account="123456789012",
        )
    )


def wishes(**how: Any) -> list[EnrollmentRequest]:
    return [EnrollmentRequest(name, a_device(common_name=name).certificate, **how) for name in NAMES]


def enroll(
    target: AwsTarget, several: list[EnrollmentRequest], journal: Journal, *, update: bool = False
) -> set[TargetOutcome]:
    told: list[JournalOutcome] = []
    target.survey(len(several))
    enroll_all(target, several, journal, told.append, update=update, dry_run=False)
    assert len(told) == len(several)
    return {outcome.done for outcome in told}


def test_a_shipment_is_enrolled_found_and_taken_back(iot: Any, target: AwsTarget, tmp_path: Any) -> None:
    several = wishes()
    with Journal(tmp_path / "journal", target.identity) as journal:
        assert enroll(target, several, journal) == {TargetOutcome.CREATED}
        assert enroll(target, several, journal) == {TargetOutcome.UNCHANGED}
    for wish in several:
        (arn,) = iot.list_thing_principals(thingName=wish.device_id)["principals"]
        assert arn.endswith(wish.certificate.thumbprint.hex())
    told: list[JournalOutcome] = []
    with Journal(tmp_path / "journal", target.identity) as journal:
        undo_all(target, journal, told.append, dry_run=False)
    assert [outcome.done for outcome in told] == [TargetOutcome.TAKEN_BACK] * 3
    assert iot.list_things()["things"] == []
    assert iot.list_certificates()["certificates"] == []


def test_types_groups_attributes_and_a_policy_are_given_and_put_back(
    iot: Any, target: AwsTarget, tmp_path: Any
) -> None:
    iot.create_policy(policyName="device", policyDocument=POLICY)
    iot.create_thing_type(thingTypeName="pump")
    iot.create_thing_group(thingGroupName="line-3")
    plain = wishes()
    enroll(target, plain, Journal(None, ""))
    more = [
        EnrollmentRequest(
            wish.device_id,
            wish.certificate,
            policy="device",
            thing_type="pump",
            groups=("line-3",),
            attributes={"site": "osaka"},
        )
        for wish in plain
    ]
    with Journal(tmp_path / "journal", target.identity) as journal:
        assert enroll(target, more, journal) == {TargetOutcome.UPDATED}
        assert enroll(target, more, journal) == {TargetOutcome.UNCHANGED}
    thing = iot.describe_thing(thingName="pump-1")
    assert (thing["thingTypeName"], thing["attributes"]) == ("pump", {"site": "osaka"})
    assert len(iot.list_things_in_thing_group(thingGroupName="line-3")["things"]) == 3
    with Journal(tmp_path / "journal", target.identity) as journal:
        told: list[JournalOutcome] = []
        undo_all(target, journal, told.append, dry_run=False)
    assert {outcome.done for outcome in told} == {TargetOutcome.TAKEN_BACK}
    assert iot.list_things_in_thing_group(thingGroupName="line-3")["things"] == []
    # Attributes stay: moto counts no versions, and what nobody wrote is not put back.
    assert enroll(target, plain, Journal(None, "")) == {TargetOutcome.UNCHANGED}


def test_another_certificate_is_told_and_replaces_nothing_unasked(iot: Any, target: AwsTarget) -> None:
    before, after = wishes(), wishes()
    enroll(target, before, Journal(None, ""))
    with pytest.raises(DifferentRecordError):
        target.enroll(after[0], update=False, dry_run=False)
    assert target.enroll(after[0], update=True, dry_run=True).difference[0].what == "certificate"
    assert len(iot.list_thing_principals(thingName="pump-1")["principals"]) == 1


@pytest.mark.parametrize("how", [{"policy": "gone"}, {"thing_type": "gone"}, {"groups": ("gone",)}])
def test_what_is_to_be_there_and_is_not_makes_nothing(iot: Any, target: AwsTarget, how: dict[str, Any]) -> None:
    with pytest.raises(ReferenceMissingError):
        target.enroll(wishes(**how)[0], update=False, dry_run=False)
    assert all(thing["thingName"] != "pump-1" for thing in iot.list_things()["things"])


def asked_of(target: AwsTarget) -> set[str]:
    """Collect what the target asks of the service from now on, as IAM calls it."""
    asked: set[str] = set()
    target._iot.meta.events.register("before-call.iot", lambda model, **_: asked.add(model.name))
    return asked


def test_what_is_said_to_be_needed_is_what_is_asked(iot: Any, target: AwsTarget, tmp_path: Any) -> None:
    iot.create_policy(policyName="device", policyDocument=POLICY)
    iot.create_thing_type(thingTypeName="pump")
    iot.create_thing_group(thingGroupName="line-3")
    several = wishes(policy="device", thing_type="pump", groups=("line-3",), attributes={"site": "osaka"})
    asked = asked_of(target)
    with Journal(tmp_path / "journal", target.identity) as journal:
        for wish in several:
            target.enroll(wish, update=False, dry_run=True)
        assert asked <= set(AWS[FleetTask.DRY_RUN])
        enroll(target, several, journal)
        enroll(target, wishes(), journal, update=True)
        assert asked <= set(AWS[FleetTask.ENROLL])
        asked.clear()
        undo_all(target, journal, lambda _: None, dry_run=False)
        assert asked <= set(AWS[FleetTask.UNDO])
    asked.clear()
    enroll(target, several[:1], Journal(None, ""))
    asked.clear()
    list(target.records())
    assert asked == set(AWS[FleetTask.LIST])
    asked.clear()
    target.remove("pump-1", is_group=False)
    assert asked == set(AWS[FleetTask.REMOVE])
