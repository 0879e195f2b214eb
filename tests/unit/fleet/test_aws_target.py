"""Enrollment at AWS: what is made, what is taken back, what is refused, with Amazon's own client and its stubs."""

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from botocore import xform_name
from botocore.awsrequest import AWSResponse
from botocore.exceptions import EndpointConnectionError
from botocore.stub import Stubber

from birthmark.devices.model import RevocationOutcome
from birthmark.errors import BirthmarkError
from birthmark.fleet.aws_renewal import CarriedOverAttachments, NotConnectedByItError, NoThingError
from birthmark.fleet.aws_target import AwsTarget
from birthmark.fleet.device_onboarding_stages import DeviceProgress, DeviceStage
from birthmark.fleet.enrollment_target import EnrollmentRecord, EnrollmentRequest, TargetOutcome, WayBack
from birthmark.fleet.errors import (
    CredentialsRefusedError,
    DifferentRecordError,
    NoSuchRecordError,
    NotAllowedError,
    NotTakenBackError,
    ProfileError,
    ReferenceMissingError,
    TargetRefusedError,
    TargetThrottledError,
    TargetUnreachableError,
)
from birthmark.fleet.target_profiles import AwsProfile
from support.fakes import NOON, FakeClock
from support.pki.pki_builders import a_device

CERTIFICATE = a_device(common_name="gateway").certificate
ID = CERTIFICATE.thumbprint.hex()
PREFIX = "arn:aws:iot:us-east-1:123456789012:cert/"
ARN, OTHER_ARN = PREFIX + ID, PREFIX + "0" * 64
WISH = EnrollmentRequest("gateway", CERTIFICATE)
WITH_POLICY = EnrollmentRequest("gateway", CERTIFICATE, policy="p")
Told = tuple[str, dict[str, Any], dict[str, Any]]
PROFILE = AwsProfile(
    endpoint_url="https://aws.test",
    region="us-east-1",
    is_local=True,
    access_key_id="AKIA",
    secret_access_key="hidden",
    account="123456789012",
)


@pytest.fixture
def target() -> AwsTarget:
    """At an hour after the time from which what is there before is."""
    return AwsTarget(PROFILE, FakeClock(NOON + timedelta(hours=1)))


@pytest.fixture
def aws(target: AwsTarget) -> Iterator[Stubber]:
    """What the service is asked and answers, in order; anything else fails."""
    with Stubber(target._iot) as stub:
        yield stub
        stub.assert_no_pending_responses()


def answers(aws: Stubber, *told: Told) -> None:
    for operation, answer, asked in told:
        aws.add_response(operation, answer, asked)


def missing(aws: Stubber, operation: str = "list_thing_principals") -> None:
    aws.add_client_error(operation, "ResourceNotFoundException", "not there", 404)


def principals(aws: Stubber, *arns: str) -> None:
    answers(aws, ("list_thing_principals", {"principals": list(arns)}, {"thingName": "gateway"}))


def made(aws: Stubber) -> None:
    """Expect a thing and a certificate that is registered now."""
    register = {"certificatePem": CERTIFICATE.pem(), "status": "ACTIVE"}
    answers(
        aws,
        ("create_thing", {}, {"thingName": "gateway"}),
        ("register_certificate_without_ca", {"certificateArn": ARN, "certificateId": ID}, register),
    )


def described(status: str, **more: Any) -> Told:
    """What is told of the certificate."""
    told = {"certificateArn": ARN, "certificateId": ID, "creationDate": NOON, "status": status} | more
    return ("describe_certificate", {"certificateDescription": told}, {"certificateId": ID})


DESCRIBED = described("ACTIVE")
ATTACH: Told = ("attach_thing_principal", {}, {"thingName": "gateway", "principal": ARN})


def test_it_says_where_it_writes_without_secrets(target: AwsTarget) -> None:
    assert target.description == target.identity == "AWS IoT https://aws.test (us-east-1, account 123456789012)"


def test_an_unknown_account_is_told_by_its_data_endpoint(aws: Stubber, target: AwsTarget) -> None:
    target._profile = AwsProfile(region="us-east-1")
    answers(aws, ("describe_endpoint", {"endpointAddress": "a1.iot"}, {"endpointType": "iot:Data-ATS"}))
    assert target.identity.endswith("account of a1.iot")


def test_the_vendors_cloud_is_meant_whatever_endpoint_the_shell_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_IOT", "https://elsewhere.test")
    assert "amazonaws.com" in AwsTarget(AwsProfile(region="us-east-1")).description


def test_opening_a_target_changes_nothing_that_another_looks_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_IOT", "https://elsewhere.test")
    monkeypatch.setenv("AWS_PROFILE", "of-another-account")
    before = {name: value for name, value in os.environ.items() if name != "BOTO_DISABLE_CRT"}
    AwsTarget(PROFILE)
    monkeypatch.delenv("AWS_PROFILE")
    AwsTarget(AwsProfile(region="us-east-1"))
    del before["AWS_PROFILE"]
    assert {name: value for name, value in os.environ.items() if name != "BOTO_DISABLE_CRT"} == before


def test_a_thing_is_made_with_its_certificate_and_policy(aws: Stubber, target: AwsTarget) -> None:
    missing(aws)
    answers(aws, ("get_policy", {}, {"policyName": "p"}))
    made(aws)
    answers(aws, ("attach_policy", {}, {"policyName": "p", "target": ARN}), ATTACH)
    assert target.enroll(WITH_POLICY, update=False, dry_run=False).done is TargetOutcome.CREATED


def test_a_thing_with_its_certificate_and_policy_is_left(aws: Stubber, target: AwsTarget) -> None:
    principals(aws, OTHER_ARN, ARN)
    answers(aws, DESCRIBED, ("list_attached_policies", {"policies": [{"policyName": "p"}]}, {"target": ARN}))
    assert target.enroll(WITH_POLICY, update=False, dry_run=False).done is TargetOutcome.UNCHANGED


def test_a_policy_that_is_not_attached_yet_is_attached(aws: Stubber, target: AwsTarget) -> None:
    principals(aws, ARN)
    answers(
        aws,
        DESCRIBED,
        attached(),
        ("get_policy", {}, {"policyName": "p"}),
        attached(),
        ("attach_policy", {}, {"policyName": "p", "target": ARN}),
        ATTACH,
    )
    assert target.enroll(WITH_POLICY, update=False, dry_run=False).done is TargetOutcome.UPDATED


def test_another_certificate_is_left_unless_it_is_to_be_updated(aws: Stubber, target: AwsTarget) -> None:
    principals(aws, OTHER_ARN)
    with pytest.raises(DifferentRecordError) as refused:
        target.enroll(WISH, update=False, dry_run=False)
    told = refused.value.facts["present"], refused.value.facts["wanted"]
    assert told == ("certificate " + "0" * 64, f"certificate {ID}")
    principals(aws, OTHER_ARN)
    listed = {"certificates": [{"certificateId": ID, "certificateArn": ARN}]}
    answers(aws, ("list_certificates", listed, {"pageSize": 250}), DESCRIBED, ATTACH)
    assert target.enroll(WISH, update=True, dry_run=False).done is TargetOutcome.UPDATED


def test_a_rehearsal_changes_nothing(aws: Stubber, target: AwsTarget) -> None:
    missing(aws)
    assert target.enroll(WISH, update=False, dry_run=True).done is TargetOutcome.WOULD_CREATE
    principals(aws, OTHER_ARN)
    assert target.enroll(WISH, update=True, dry_run=True).done is TargetOutcome.WOULD_UPDATE


def test_a_policy_that_is_not_there_is_told_before_anything_is_made(aws: Stubber, target: AwsTarget) -> None:
    missing(aws)
    missing(aws, "get_policy")
    with pytest.raises(ReferenceMissingError) as refused:
        target.enroll(WITH_POLICY, update=False, dry_run=False)
    assert "aws iot create-policy --policy-name p " in refused.value.explain_fix()


def test_what_was_made_is_taken_back_when_a_later_step_fails(aws: Stubber, target: AwsTarget) -> None:
    missing(aws)
    made(aws)
    aws.add_client_error("attach_thing_principal", "LimitExceededException", "too many")
    answers(
        aws,
        ("update_certificate", {}, {"certificateId": ID, "newStatus": "INACTIVE"}),
        ("delete_certificate", {}, {"certificateId": ID}),
        ("delete_thing", {}, {"thingName": "gateway"}),
    )
    with pytest.raises(TargetRefusedError) as refused:
        target.enroll(WISH, update=False, dry_run=False)
    assert refused.value.facts["reason"] == "LimitExceededException: too many"


def registered_before(aws: Stubber) -> None:
    """Expect a thing that is made, for a certificate that was there."""
    missing(aws)
    answers(aws, ("create_thing", {}, {"thingName": "gateway"}))
    fields = {"resourceArn": ARN, "resourceId": ID}
    exists = "ResourceAlreadyExistsException"
    aws.add_client_error("register_certificate_without_ca", exists, "there", 409, modeled_fields=fields)


@pytest.mark.parametrize("status", ["INACTIVE", "REVOKED"])
def test_a_certificate_that_was_put_to_sleep_is_not_woken_unasked(aws: Stubber, target: AwsTarget, status: str) -> None:
    registered_before(aws)
    answers(aws, described(status), ("delete_thing", {}, {"thingName": "gateway"}))
    with pytest.raises(DifferentRecordError) as refused:
        target.enroll(WISH, update=False, dry_run=False)
    assert refused.value.facts["present"] == f"status of the certificate {status}"


def test_a_certificate_that_is_woken_as_asked_is_noted_as_it_was(aws: Stubber, target: AwsTarget) -> None:
    registered_before(aws)
    answers(
        aws, described("INACTIVE"), ("update_certificate", {}, {"certificateId": ID, "newStatus": "ACTIVE"}), ATTACH
    )
    noted: list[WayBack] = []
    target.enroll(WISH, lambda _device, way: noted.append(way), update=True, dry_run=False)
    assert (noted[-1]["is_registered"], noted[-1]["status"]) == (True, "INACTIVE")


def test_a_certificate_whose_registration_the_sdk_repeated_is_the_runs_own(aws: Stubber, target: AwsTarget) -> None:
    registered_before(aws)
    answers(aws, described("ACTIVE", creationDate=NOON + timedelta(hours=1)), ATTACH)
    noted: list[WayBack] = []
    target.enroll(WISH, lambda _device, way: noted.append(way), update=False, dry_run=False)
    assert [way["is_registered"] for way in noted] == [False]


def test_a_certificate_that_is_refused_for_its_sleep_is_noted_with_the_policy_that_it_has(
    aws: Stubber, target: AwsTarget
) -> None:
    missing(aws)
    answers(aws, ("get_policy", {}, {"policyName": "p"}), ("create_thing", {}, {"thingName": "gateway"}))
    aws.add_client_error("register_certificate_without_ca", "ResourceAlreadyExistsException", "there", 409)
    answers(aws, described("INACTIVE"), attached("p"), ("delete_thing", {}, {"thingName": "gateway"}))
    noted: list[WayBack] = []
    with pytest.raises(DifferentRecordError):
        target.enroll(WITH_POLICY, lambda _device, way: noted.append(way), update=False, dry_run=False)
    assert (noted[-1]["is_registered"], noted[-1]["policy"]) == (True, None)


@pytest.mark.parametrize(("version", "line", "is_ours"), [(5, "2", True), (5, "3", False), (6, "2", False)])
def test_a_change_of_a_thing_that_the_sdk_repeated_is_known_by_its_version(
    aws: Stubber, target: AwsTarget, version: int, line: str, *, is_ours: bool
) -> None:
    wish = EnrollmentRequest("gateway", CERTIFICATE, attributes={"line": "2"})
    principals(aws, ARN)
    answers(aws, DESCRIBED)
    answers(aws, ("describe_thing", {"version": 4, "attributes": {"line": "1"}}, {"thingName": "gateway"}))
    aws.add_client_error("update_thing", "VersionConflictException", "it is another version", 409)
    answers(aws, ("describe_thing", {"version": version, "attributes": {"line": line}}, {"thingName": "gateway"}))
    if is_ours:
        answers(aws, ATTACH)
        assert target.enroll(wish, update=True, dry_run=False).done is TargetOutcome.UPDATED
        return
    with pytest.raises(TargetRefusedError):
        target.enroll(wish, update=True, dry_run=False)


def test_what_sleeps_is_known_by_the_survey_and_a_rehearsal_says_so(aws: Stubber, target: AwsTarget) -> None:
    answers(aws, ("list_things", {"things": []}, {"maxResults": 250}))
    asleep = {"certificates": [{"certificateId": ID, "certificateArn": ARN, "status": "REVOKED"}]}
    answers(aws, ("list_certificates", asleep, {"pageSize": 250}))
    target.survey(1)
    with pytest.raises(DifferentRecordError):
        target.enroll(WISH, update=False, dry_run=True)
    assert [change.present for change in target.enroll(WISH, update=True, dry_run=True).difference] == ["REVOKED"]


def test_what_the_sdk_does_not_ask_for_is_one_device_s_refusal(target: AwsTarget) -> None:
    with pytest.raises(TargetRefusedError):
        target.enroll(EnrollmentRequest("", CERTIFICATE), update=False, dry_run=False)


@pytest.mark.parametrize(
    ("status", "standing"), [("INACTIVE", DeviceStage.DISABLED), ("REVOKED", DeviceStage.TAKEN_BACK)]
)
def test_a_certificate_that_was_revoked_is_told_from_one_that_is_asleep(
    aws: Stubber, target: AwsTarget, status: str, standing: DeviceStage
) -> None:
    principals(aws, ARN)
    answers(aws, described(status))
    assert target.get_progress(WISH) == DeviceProgress("gateway", standing, f"its certificate is {status}")


def test_who_was_connected_before_its_certificate_was_woken_was_not_seen(aws: Stubber, target: AwsTarget) -> None:
    principals(aws, ARN)
    answers(aws, described("ACTIVE", lastModifiedDate=NOON))
    answers(
        aws,
        (
            "get_thing_connectivity_data",
            {"connected": False, "timestamp": NOON - timedelta(hours=1)},
            {"thingName": "gateway"},
        ),
    )
    assert target.get_progress(WISH).standing is DeviceStage.ASSIGNED


def test_a_certificate_that_is_registered_already_is_used_and_never_taken_back(aws: Stubber, target: AwsTarget) -> None:
    registered_before(aws)
    answers(aws, described("ACTIVE"))
    aws.add_client_error("attach_thing_principal", "ThrottlingException", "slowly")
    answers(aws, ("delete_thing", {}, {"thingName": "gateway"}))
    with pytest.raises(TargetThrottledError):
        target.enroll(WISH, update=False, dry_run=False)


WITH_GROUP = EnrollmentRequest("gateway", CERTIFICATE, policy="p", groups=("g",))


def in_groups(aws: Stubber, *names: str) -> None:
    """Expect the question for what there is of a device that wishes for groups, and for what is referred to."""
    groups = {"thingGroups": [{"groupName": name} for name in names]}
    answers(aws, ("list_thing_groups_for_thing", groups, {"thingName": "gateway"}))
    answers(aws, ("get_policy", {}, {"policyName": "p"}), ("describe_thing_group", {}, {"thingGroupName": "g"}))


def test_a_policy_that_was_there_before_stays_when_a_later_step_fails(aws: Stubber, target: AwsTarget) -> None:
    principals(aws, ARN)
    answers(aws, DESCRIBED, attached("p"))
    in_groups(aws)
    answers(aws, attached("p"))
    aws.add_client_error("add_thing_to_thing_group", "ThrottlingException", "slowly")
    noted: list[WayBack] = []
    with pytest.raises(TargetThrottledError):
        target.enroll(WITH_GROUP, lambda _device, way: noted.append(way), update=False, dry_run=False)
    assert [way["policy"] for way in noted] == [None]


def test_a_policy_of_a_certificate_that_was_registered_before_stays(aws: Stubber, target: AwsTarget) -> None:
    missing(aws)
    answers(aws, ("get_policy", {}, {"policyName": "p"}))
    answers(aws, ("create_thing", {}, {"thingName": "gateway"}))
    fields = {"resourceArn": ARN, "resourceId": ID}
    exists = "ResourceAlreadyExistsException"
    aws.add_client_error("register_certificate_without_ca", exists, "there", 409, modeled_fields=fields)
    answers(aws, described("ACTIVE"), attached("p"))
    aws.add_client_error("attach_thing_principal", "ThrottlingException", "slowly")
    answers(aws, ("delete_thing", {}, {"thingName": "gateway"}))
    noted: list[WayBack] = []
    with pytest.raises(TargetThrottledError):
        target.enroll(WITH_POLICY, lambda _device, way: noted.append(way), update=False, dry_run=False)
    assert noted[-1]["policy"] is None


def test_groups_and_attributes_that_a_run_wrote_are_taken_back_when_a_later_step_fails(
    aws: Stubber, target: AwsTarget
) -> None:
    wish = EnrollmentRequest("gateway", CERTIFICATE, policy="p", attributes={"line": "2"}, groups=("g",))
    principals(aws, ARN)
    answers(aws, DESCRIBED, attached("p"))
    answers(aws, ("describe_thing", {"version": 4, "attributes": {"line": "1"}}, {"thingName": "gateway"}))
    in_groups(aws, "other")
    answers(aws, attached("p"))
    member = {"thingName": "gateway", "thingGroupName": "g"}
    wished, before = {"line": "2"}, {"line": "1"}
    answers(
        aws,
        (
            "update_thing",
            {},
            {
                "thingName": "gateway",
                "attributePayload": {"attributes": wished, "merge": True},
                "expectedVersion": 4,
            },
        ),
        ("add_thing_to_thing_group", {}, member),
    )
    aws.add_client_error("attach_thing_principal", "LimitExceededException", "too many")
    answers(
        aws,
        ("remove_thing_from_thing_group", {}, member),
        (
            "update_thing",
            {},
            {
                "thingName": "gateway",
                "attributePayload": {"attributes": before, "merge": True},
                "removeThingType": True,
                "expectedVersion": 5,
            },
        ),
    )
    noted: list[WayBack] = []
    with pytest.raises(TargetRefusedError):
        target.enroll(wish, lambda _device, way: noted.append(way), update=True, dry_run=False)
    assert ["before" in way for way in noted] == [True, False], "as it was written again, its version is another"


def test_far_more_things_than_devices_are_not_surveyed(aws: Stubber, target: AwsTarget) -> None:
    many = {"things": [{"thingName": f"thing-{number}"} for number in range(1005)]}
    answers(aws, ("list_things", many, {"maxResults": 250}))
    target.survey(1)
    principals(aws, ARN)
    answers(aws, DESCRIBED)
    assert target.enroll(WISH, update=False, dry_run=True).done is TargetOutcome.UNCHANGED, (
        "the device is asked for instead"
    )


def test_where_the_account_does_not_index_connections_it_is_said_how_it_does(aws: Stubber, target: AwsTarget) -> None:
    principals(aws, ARN)
    answers(aws, DESCRIBED)
    aws.add_client_error("get_thing_connectivity_data", "IndexNotReadyException", "no index")
    stand = target.get_progress(WISH)
    assert stand.standing is DeviceStage.ASSIGNED
    assert "no index; connection states require fleet indexing: `aws iot update-indexing-" in stand.detail


def test_a_certificate_that_is_removed_between_two_looks_is_not_on_record(aws: Stubber, target: AwsTarget) -> None:
    registered_before(aws)
    missing(aws, "describe_certificate")
    answers(aws, ("delete_thing", {}, {"thingName": "gateway"}))
    with pytest.raises(NoSuchRecordError):
        target.enroll(WISH, update=False, dry_run=False)


def test_a_list_goes_to_an_account_device_by_device(target: AwsTarget) -> None:
    noted: list[WayBack] = []
    assert (target.max_batch_size, target.is_atomic) == (1, False)
    assert target.enroll_new([WISH], lambda _device, way: noted.append(way)) == [False]
    assert noted == [], "nothing was written"


def test_after_a_survey_a_rehearsal_does_not_ask_for_a_new_thing(aws: Stubber, target: AwsTarget) -> None:
    answers(aws, ("list_things", {"things": [{"thingName": "other"}]}, {"maxResults": 250}))
    answers(aws, ("list_certificates", {"certificates": []}, {"pageSize": 250}))
    target.survey(1)
    assert target.enroll(WISH, update=False, dry_run=True).done is TargetOutcome.WOULD_CREATE


def test_what_another_enrolled_since_the_survey_is_seen_before_anything_is_written(
    aws: Stubber, target: AwsTarget
) -> None:
    answers(aws, ("list_things", {"things": []}, {"maxResults": 250}))
    answers(aws, ("list_certificates", {"certificates": []}, {"pageSize": 250}))
    target.survey(1)
    principals(aws, OTHER_ARN)
    with pytest.raises(DifferentRecordError):
        target.enroll(WISH, update=False, dry_run=False)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("UnrecognizedClientException", CredentialsRefusedError),
        ("InvalidSignatureException", CredentialsRefusedError),
        ("MissingAuthenticationTokenException", CredentialsRefusedError),
        ("InvalidRequestException", TargetRefusedError),
        ("ThrottlingException", TargetThrottledError),
        ("AccessDeniedException", NotAllowedError),
        ("ResourceNotFoundException", ReferenceMissingError),
    ],
)
def test_what_the_service_refuses_has_its_kind(
    aws: Stubber, target: AwsTarget, code: str, kind: type[BirthmarkError]
) -> None:
    missing(aws)
    aws.add_client_error("create_thing", code, "because")
    with pytest.raises(kind) as refused:
        target.enroll(WISH, update=False, dry_run=False)
    assert "because" in refused.value.facts["reason"]
    assert refused.value.facts["target"] == target.description


def test_a_service_that_does_not_answer_is_unreachable(target: AwsTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url="https://aws.test")

    monkeypatch.setattr(target._iot, "list_thing_principals", fail)
    with pytest.raises(TargetUnreachableError):
        target.enroll(WISH, update=False, dry_run=False)


def test_a_thing_without_a_certificate_that_lets_it_in_is_not_listed_as_attached(
    aws: Stubber, target: AwsTarget
) -> None:
    asleep = [(ID, "REVOKED"), (OTHER_ARN.rpartition("/")[2], "INACTIVE")]
    listed = [{"certificateId": name, "status": status} for name, status in asleep]
    answers(aws, ("list_certificates", {"certificates": listed}, {"pageSize": 250}))
    answers(aws, ("list_things", {"things": [{"thingName": "gateway"}, {"thingName": "lost"}]}, {}))
    principals(aws, ARN, OTHER_ARN)
    answers(aws, ("list_thing_principals", {"principals": [ARN]}, {"thingName": "lost"}))
    assert list(target.records()) == [
        EnrollmentRecord("gateway", "thing", "no active certificate", ID, "2 certificates, 1 REVOKED, 1 INACTIVE"),
        EnrollmentRecord("lost", "thing", "certificate REVOKED", ID, "1 certificate, 1 REVOKED"),
    ]


def test_things_are_listed_with_their_certificates(aws: Stubber, target: AwsTarget) -> None:
    answers(aws, ("list_certificates", {"certificates": []}, {"pageSize": 250}))
    answers(aws, ("list_things", {"things": [{"thingName": "gateway"}, {"thingName": "bare"}]}, {}))
    principals(aws, ARN, OTHER_ARN)
    answers(aws, ("list_thing_principals", {"principals": []}, {"thingName": "bare"}))
    assert list(target.records()) == [
        EnrollmentRecord("gateway", "thing", "attached", ID, "2 certificates"),
        EnrollmentRecord("bare", "thing", "without certificate", None, "0 certificates"),
    ]


def test_a_thing_is_removed_with_its_certificates(aws: Stubber, target: AwsTarget) -> None:
    principals(aws, ARN)
    answers(
        aws,
        ALONE,
        ("update_certificate", {}, {"certificateId": ID, "newStatus": "INACTIVE"}),
        ("list_attached_policies", {"policies": [{"policyName": "p"}]}, {"target": ARN}),
        ("detach_policy", {}, {"policyName": "p", "target": ARN}),
        ("detach_thing_principal", {}, {"thingName": "gateway", "principal": ARN}),
        ("delete_certificate", {}, {"certificateId": ID}),
        ("delete_thing", {}, {"thingName": "gateway"}),
    )
    assert target.remove("gateway", is_group=False) == []


@pytest.mark.parametrize("lets_in", ["update_certificate", "list_attached_policies", "detach_policy"])
def test_a_removal_that_is_cut_leaves_a_certificate_where_the_next_finds_it(
    target: AwsTarget, monkeypatch: pytest.MonkeyPatch, lets_in: str
) -> None:
    asked: list[str] = []

    def answer(_of: object, operation: str, _asked: dict[str, Any]) -> dict[str, Any]:
        asked.append(xform_name(operation))
        if asked[-1] == lets_in:
            raise KeyboardInterrupt
        return {"principals": [ARN], "policies": [{"policyName": "p"}], "things": ["gateway"]}

    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", answer)
    with pytest.raises(KeyboardInterrupt):
        target.remove("gateway", is_group=False)
    assert "detach_thing_principal" not in asked


def test_a_certificate_of_other_things_is_left_to_them_and_they_are_named(aws: Stubber, target: AwsTarget) -> None:
    principals(aws, ARN)
    answers(aws, SHARED, DETACHED, STILL_SHARED, ("delete_thing", {}, {"thingName": "gateway"}))
    assert target.remove("gateway", is_group=False) == [
        f"The certificate {ID} is unchanged, because it is also used by the things pump-1, pump-2."
    ]


def test_a_certificate_whose_other_things_are_removed_meanwhile_goes_with_the_last(
    aws: Stubber, target: AwsTarget
) -> None:
    principals(aws, ARN)
    answers(
        aws,
        SHARED,
        DETACHED,
        ("list_principal_things", {"things": []}, {"principal": ARN}),
        ("update_certificate", {}, {"certificateId": ID, "newStatus": "INACTIVE"}),
        ("list_attached_policies", {"policies": []}, {"target": ARN}),
        DETACHED,
        ("delete_certificate", {}, {"certificateId": ID}),
        ("delete_thing", {}, {"thingName": "gateway"}),
    )
    assert target.remove("gateway", is_group=False) == []


@pytest.mark.parametrize("dry_run", [True, False])
def test_who_shares_a_certificate_with_another_thing_is_not_retired(
    aws: Stubber, target: AwsTarget, *, dry_run: bool
) -> None:
    answers(aws, DESCRIBED, SHARED)
    retired = target.retire(WISH, dry_run=dry_run)
    assert retired == (TargetOutcome.LEFT, "its certificate is also used by the things pump-1, pump-2")


@pytest.mark.parametrize(("dry_run", "done"), [(True, TargetOutcome.WOULD_RETIRE), (False, TargetOutcome.RETIRED)])
def test_who_has_a_certificate_alone_is_retired_by_it(
    aws: Stubber, target: AwsTarget, *, dry_run: bool, done: TargetOutcome
) -> None:
    answers(aws, DESCRIBED, ALONE)
    if not dry_run:
        answers(aws, ("update_certificate", {}, {"certificateId": ID, "newStatus": "INACTIVE"}))
    assert target.retire(WISH, dry_run=dry_run).done is done


def test_of_a_removed_thing_without_certificate_it_is_said_where_one_may_be_left(
    aws: Stubber, target: AwsTarget
) -> None:
    principals(aws)
    answers(aws, ("delete_thing", {}, {"thingName": "gateway"}))
    (said,) = target.remove("gateway", is_group=False)
    assert "inactive and without policies: `aws iot list-certificates`" in said


def test_a_thing_that_is_not_there_cannot_be_removed(aws: Stubber, target: AwsTarget) -> None:
    missing(aws)
    with pytest.raises(NoSuchRecordError):
        target.remove("gateway", is_group=False)


WAY = {"certificate": ID, "is_new_thing": True, "is_attached": False, "is_registered": False, "policy": "p"}
AS_MADE: Told = ("describe_thing", {"version": 1}, {"thingName": "gateway"})
ENDED: Told = ("delete_thing", {}, {"thingName": "gateway", "expectedVersion": 1})
ALONE: Told = ("list_principal_things", {"things": ["gateway"]}, {"principal": ARN})
SHARED: Told = ("list_principal_things", {"things": ["gateway", "pump-1", "pump-2"]}, {"principal": ARN})
STILL_SHARED: Told = ("list_principal_things", {"things": ["pump-1", "pump-2"]}, {"principal": ARN})
DETACHED: Told = ("detach_thing_principal", {}, {"thingName": "gateway", "principal": ARN})


def attached(*policies: str) -> Told:
    """What is told of the policies of the certificate."""
    return ("list_attached_policies", {"policies": [{"policyName": name} for name in policies]}, {"target": ARN})


def test_what_was_made_for_a_device_is_taken_back(aws: Stubber, target: AwsTarget) -> None:
    principals(aws, ARN)
    answers(
        aws,
        DESCRIBED,
        ALONE,
        attached("p"),
        AS_MADE,
        DETACHED,
        ("detach_policy", {}, {"policyName": "p", "target": ARN}),
        ("update_certificate", {}, {"certificateId": ID, "newStatus": "INACTIVE"}),
        ("delete_certificate", {}, {"certificateId": ID}),
        ENDED,
    )
    assert target.undo_enrollment("gateway", WAY, dry_run=False) is TargetOutcome.TAKEN_BACK


def test_a_certificate_that_a_run_woke_sleeps_again(aws: Stubber, target: AwsTarget) -> None:
    missing(aws)
    answers(aws, DESCRIBED, attached(), ("update_certificate", {}, {"certificateId": ID, "newStatus": "INACTIVE"}))
    way = WAY | {"is_registered": True, "status": "INACTIVE"}
    assert target.undo_enrollment("gateway", way, dry_run=False) is TargetOutcome.TAKEN_BACK
    missing(aws)
    answers(aws, described("INACTIVE"), attached())
    assert target.undo_enrollment("gateway", way, dry_run=False) is TargetOutcome.GONE


def test_a_certificate_that_was_there_before_the_run_is_left_whatever_the_journal_knows(
    aws: Stubber, target: AwsTarget
) -> None:
    """A run that is killed between its question and its note does not know that another had registered it."""
    principals(aws, ARN)
    answers(aws, DESCRIBED, attached("p"), AS_MADE, DETACHED, ENDED)
    way = WAY | {"since": (NOON + timedelta(seconds=1)).isoformat()}
    assert target.undo_enrollment("gateway", way, dry_run=False) is TargetOutcome.TAKEN_BACK


def test_a_thing_that_was_changed_since_is_left(aws: Stubber, target: AwsTarget) -> None:
    principals(aws, ARN)
    answers(aws, DESCRIBED, ALONE, attached("p"), ("describe_thing", {"version": 2}, {"thingName": "gateway"}))
    with pytest.raises(NotTakenBackError) as refused:
        target.undo_enrollment("gateway", WAY, dry_run=False)
    assert "version 2" in refused.value.explain_cause()


@pytest.mark.parametrize("way", [{}, {"certificate": 1}, WAY | {"since": "yesterday"}])
def test_a_way_back_that_no_run_wrote_is_refused(target: AwsTarget, way: WayBack) -> None:
    with pytest.raises(NotTakenBackError):
        target.undo_enrollment("gateway", way, dry_run=False)


def test_the_services_clock_counts_and_not_this_machines(aws: Stubber) -> None:
    target = AwsTarget(PROFILE, FakeClock(NOON))
    target._hear(AWSResponse("https://aws.test", 200, {"date": "Mon, 01 Jun 2026 13:00:00 GMT"}, None))
    assert target._time() == NOON + timedelta(minutes=60) - timedelta(seconds=2)


def test_a_certificate_that_has_another_policy_since_is_left_as_it_is(aws: Stubber, target: AwsTarget) -> None:
    for dry_run in (True, False):
        principals(aws, ARN)
        answers(aws, DESCRIBED, ALONE, attached("p", "theirs"), AS_MADE)
        with pytest.raises(NotTakenBackError, match="gateway") as refused:
            target.undo_enrollment("gateway", WAY, dry_run=dry_run)
        assert "theirs" in refused.value.explain_cause()


def test_a_policy_that_was_added_to_an_enrolled_device_is_taken_back(aws: Stubber, target: AwsTarget) -> None:
    way = WAY | {"is_new_thing": False, "is_attached": True, "is_registered": True}
    for policies in (["p", "theirs"], ["theirs"]):
        principals(aws, ARN)
        answers(aws, DESCRIBED, attached(*policies))
        if "p" in policies:
            answers(aws, ("detach_policy", {}, {"policyName": "p", "target": ARN}))
        done = TargetOutcome.TAKEN_BACK if "p" in policies else TargetOutcome.GONE
        assert target.undo_enrollment("gateway", way, dry_run=False) is done


def test_what_was_there_before_stays_when_a_device_is_taken_back(aws: Stubber, target: AwsTarget) -> None:
    principals(aws, ARN, OTHER_ARN)
    answers(aws, DESCRIBED, DETACHED)
    way = WAY | {"is_new_thing": False, "is_registered": True, "policy": None}
    assert target.undo_enrollment("gateway", way, dry_run=False) is TargetOutcome.TAKEN_BACK


def test_a_thing_that_has_another_certificate_since_is_left(aws: Stubber, target: AwsTarget) -> None:
    principals(aws, ARN, OTHER_ARN)
    answers(aws, DESCRIBED, ALONE, attached("p"), AS_MADE)
    with pytest.raises(NotTakenBackError, match="gateway"):
        target.undo_enrollment("gateway", WAY, dry_run=False)


def test_what_is_gone_is_said_to_be(aws: Stubber, target: AwsTarget) -> None:
    missing(aws)
    missing(aws, "describe_certificate")
    assert target.undo_enrollment("gateway", WAY, dry_run=False) is TargetOutcome.GONE


def test_the_way_back_is_noted_before_anything_is_written(aws: Stubber, target: AwsTarget) -> None:
    missing(aws)
    aws.add_client_error("create_thing", "ThrottlingException", "slowly")
    noted: list[WayBack] = []
    with pytest.raises(TargetThrottledError):
        target.enroll(WISH, lambda _device, way: noted.append(way), update=False, dry_run=False)
    assert noted == [WAY | {"status": None, "policy": None, "since": noted[0]["since"]}]


@pytest.mark.parametrize(
    ("profile", "mends"),
    [
        (AwsProfile(sdk_profile="nobodys", region="eu-central-1", name="factory"), "`aws configure list-profiles`"),
        (AwsProfile(name="factory"), "`export AWS_DEFAULT_REGION=eu-central-1`"),
        (AwsProfile(region="eu-central-1", endpoint_url="nowhere", name="factory"), "--profile local`"),
    ],
)
def test_a_profile_that_the_sdk_cannot_use_is_named(
    profile: AwsProfile, mends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_aws_settings(monkeypatch)
    with pytest.raises(ProfileError) as refused:
        AwsTarget(profile)
    assert "profile factory" in refused.value.explain_cause()
    assert mends in refused.value.explain_fix()


def test_who_has_no_credentials_is_not_sent_to_look_at_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    no_aws_settings(monkeypatch)
    with pytest.raises(CredentialsRefusedError, match="credentials"):
        list(AwsTarget(AwsProfile(region="eu-central-1")).records())


def test_a_local_server_s_keys_count_whatever_profile_the_shell_names(monkeypatch: pytest.MonkeyPatch) -> None:
    no_aws_settings(monkeypatch)
    monkeypatch.setenv("AWS_PROFILE", "of-another-account")
    assert AwsTarget(PROFILE)._iot._request_signer._credentials.access_key == "AKIA"
    assert os.environ["AWS_PROFILE"] == "of-another-account", "which the other end of a move may need"


def no_aws_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("said", [b"[]", b"5", b"null", b'{"things": 5, "principals": 5}', b"nothing like it"])
def test_an_answer_of_another_kind_is_no_answer(target: AwsTarget, status: int, said: bytes) -> None:
    def answer(**_: object) -> AWSResponse:
        found = AWSResponse("https://aws.test", status, {"content-type": "application/json"}, None)
        found._content = said
        return found

    target._iot.meta.events.register("before-send.iot", answer)
    asks: list[Callable[[], object]] = [
        lambda: target.survey(1),
        lambda: list(target.records()),
        lambda: target.get_progress(WISH),
        lambda: target.enroll(WISH, update=False, dry_run=False),
    ]
    for ask in asks:
        with pytest.raises((TargetUnreachableError, TargetRefusedError)):
            ask()


def test_certificates_of_a_lost_device_are_taken_from_every_page(aws: Stubber, target: AwsTarget) -> None:
    first = {"principals": [OTHER_ARN], "nextToken": "on"}
    answers(
        aws,
        ("list_thing_principals", first, {"thingName": "gateway"}),
        ("list_thing_principals", {"principals": [ARN]}, {"thingName": "gateway", "nextToken": "on"}),
        (
            "describe_certificate",
            {"certificateDescription": {"certificateArn": OTHER_ARN, "status": "REVOKED"}},
            {"certificateId": "0" * 64},
        ),
        ("list_principal_things", {"things": ["gateway"], "nextToken": "on"}, {"principal": OTHER_ARN}),
        ("list_principal_things", {"things": ["pump"]}, {"principal": OTHER_ARN, "nextToken": "on"}),
        described("ACTIVE"),
        ("list_principal_things", {"things": ["gateway"]}, {"principal": ARN}),
        ("update_certificate", {}, {"certificateId": ID, "newStatus": "REVOKED"}),
    )
    lost = target.revoke_device("gateway", (), dry_run=False)
    assert [(row.became, row.note) for row in lost] == [
        (RevocationOutcome.WAS_REVOKED, "also used by the thing pump"),
        (RevocationOutcome.REVOKED, ""),
    ]


def test_a_certificate_that_cannot_be_taken_leaves_no_other(aws: Stubber, target: AwsTarget) -> None:
    principals(aws, OTHER_ARN, ARN)
    aws.add_client_error("describe_certificate", "InternalFailureException", "not now", 500)
    answers(
        aws,
        described("ACTIVE"),
        ("list_principal_things", {"things": ["gateway"]}, {"principal": ARN}),
        ("update_certificate", {}, {"certificateId": ID, "newStatus": "REVOKED"}),
    )
    lost = target.revoke_device("gateway", (), dry_run=False)
    assert [(row.id, row.became) for row in lost] == [
        ("0" * 64, RevocationOutcome.FAILED),
        (ID, RevocationOutcome.REVOKED),
    ]


def test_a_renewal_of_a_thing_that_is_not_there_says_so(target: AwsTarget, aws: Stubber) -> None:
    missing(aws)
    with pytest.raises(NoThingError, match="The thing does not exist") as raised:
        target.carry("gateway", WITH_POLICY.certificate, None, dry_run=True, command="again")
    assert "no thing gateway" in raised.value.explain_cause()


def test_a_renewal_typed_again_when_it_is_over_says_that_the_old_one_is_inactive(
    target: AwsTarget, aws: Stubber
) -> None:
    carried = CarriedOverAttachments("0" * 64, ID, (), ())
    described = {"certificateDescription": {"status": "INACTIVE", "creationDate": NOON}}
    answers(
        aws,
        ("describe_certificate", described, {"certificateId": ID}),
        ("get_thing_connectivity_data", {"connected": False}, {"thingName": "gateway"}),
        ("describe_certificate", described, {"certificateId": "0" * 64}),
    )
    with pytest.raises(NotConnectedByItError) as raised:
        target.retire_old("gateway", carried, timedelta(seconds=1), command="again", sleep=lambda _: None)
    assert "is INACTIVE at" in raised.value.explain_cause()


def test_a_renewed_certificate_of_several_things_stays_active_for_the_others(target: AwsTarget, aws: Stubber) -> None:
    carried = CarriedOverAttachments("0" * 64, ID, (), ("gateway", "neighbor"))
    answers(
        aws,
        ("describe_certificate", {"certificateDescription": {"creationDate": NOON}}, {"certificateId": ID}),
        ("get_thing_connectivity_data", {"connected": True, "timestamp": NOON}, {"thingName": "gateway"}),
    )
    assert not target.retire_old("gateway", carried, timedelta(seconds=1), command="again", sleep=lambda _: None)
