"""Enrollment at Azure: what is made, what is left, what is refused, told by the SDK's own models and errors."""

import copy
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from provisioningserviceclient.client import ProvisioningServiceError

from birthmark.devices.model import RevocationOutcome, RevokedPart
from birthmark.errors import BirthmarkError
from birthmark.fleet.azure_enrollment_diff import json_of, kept, on_record
from birthmark.fleet.azure_sdk_model_extensions import enrollment_models
from birthmark.fleet.azure_target import AzureTarget
from birthmark.fleet.device_migration import NotAtSourceError
from birthmark.fleet.device_onboarding_stages import DeviceStage
from birthmark.fleet.enrollment_target import EnrollmentRecord, EnrollmentRequest, TargetOutcome, WayBack
from birthmark.fleet.errors import (
    CredentialsRefusedError,
    DifferentRecordError,
    NoSuchRecordError,
    NotTakenBackError,
    ReferenceMissingError,
    TargetRefusedError,
    TargetThrottledError,
    TargetUnreachableError,
)
from birthmark.fleet.target_profiles import AzureProfile
from birthmark.pki.certificates import parse_any
from support.fakes import NOON
from support.pki.pki_builders import a_ca, a_device

models = enrollment_models()

STRING = "HostName=dps.test;SharedAccessKeyName=owner;SharedAccessKey=a2V5"
DEVICE, OTHER = a_device(common_name="device-1").certificate, a_device(common_name="device-1").certificate
WISH = EnrollmentRequest("device-1", DEVICE)


def refusal(status: int, message: str = "no") -> ProvisioningServiceError:
    response = SimpleNamespace(status_code=status, json=lambda: {"message": message}, headers={"retry-after": "7"})
    return ProvisioningServiceError("refused", SimpleNamespace(response=response))


class Service:
    """The service behind Microsoft's client: records in dictionaries, and an error to raise."""

    def __init__(self) -> None:
        self.individuals: dict[str, Any] = {}
        self.groups: dict[str, Any] = {}
        self.error: Exception | None = None
        self.asked: list[str] = []
        self.states: dict[str, list[Any]] = {}
        self.notes: dict[str, Any] = {}
        self._runtime_client = SimpleNamespace(
            query_device_registration_states=self._states_of,
            get_individual_enrollment=self._told,
            get_individual_enrollment_attestation_mechanism=self._told_of_keys,
            create_or_update_individual_enrollment=self._write,
            get_enrollment_group=self._told_of_group,
            create_or_update_enrollment_group=self._write_group,
        )

    def get_individual_enrollment(self, name: str) -> Any:
        return self._get(self.individuals, name)

    def get_enrollment_group(self, name: str) -> Any:
        return self._get(self.groups, name)

    def get_registration_state(self, name: str) -> Any:
        raise refusal(404)

    def delete_individual_enrollment_by_param(self, name: str) -> None:
        del self.individuals[self._get(self.individuals, name).registration_id]

    def delete(self, seen: Any) -> None:
        assert self.individuals.pop(seen.registration_id.lower()).etag == seen.etag

    def delete_enrollment_group_by_param(self, name: str) -> None:
        del self.groups[self._get(self.groups, name).enrollment_group_id]

    def create_or_update(self, made: Any) -> None:
        if self.error is not None:
            raise self.error
        made.etag = '"1"'
        if hasattr(made, "enrollment_group_id"):
            self.groups[made.enrollment_group_id] = made
            return
        if made.attestation.x509 is not None:
            primary = made.attestation.x509.client_certificates.primary
            primary.info = info_of(primary.certificate)
        made.registration_state = None
        self.individuals[made.registration_id.lower()] = made

    def run_bulk_operation(self, asked: Any) -> Any:
        assert asked.content["mode"] == "create"
        if self.error is not None:
            raise self.error
        errors = []
        for record in asked.content["enrollments"]:
            if (name := record["registrationId"]).lower() in self.individuals:
                errors.append(SimpleNamespace(registration_id=name))
                continue
            self.create_or_update(models.IndividualEnrollment.deserialize(record))
        return SimpleNamespace(errors=errors)

    def create_individual_enrollment_query(self, _query: Any, _size: int) -> "Pages":
        return Pages([list(self.individuals.values())])

    def create_enrollment_group_query(self, _query: Any, _size: int) -> "Pages":
        return Pages([list(self.groups.values())])

    def _states_of(self, group: str, custom_headers: Mapping[str, str], raw: bool) -> Any:
        """A state a page."""
        assert raw
        states, place = self.states.get(group, []), int(custom_headers.get("x-ms-continuation", 0))
        more = {"x-ms-continuation": str(place + 1)} if place + 1 < len(states) else {}
        return SimpleNamespace(output=states[place : place + 1], response=SimpleNamespace(headers=more))

    def _told(self, name: str, *, raw: bool) -> Any:
        """An enrollment as JSON, whose keys are not told."""
        assert raw
        told = kept(self._get(self.individuals, name)) | {"optionalDeviceInformation": self.notes.get(name)}
        told["attestation"].pop("symmetricKey", None)
        return SimpleNamespace(response=SimpleNamespace(json=lambda: told))

    def _told_of_keys(self, name: str, *, raw: bool) -> Any:
        assert raw
        told = kept(self._get(self.individuals, name))["attestation"]
        return SimpleNamespace(response=SimpleNamespace(json=lambda: told))

    def _write(self, name: str, told: Any, etag: str) -> None:
        assert etag == self._get(self.individuals, name).etag
        self.create_or_update(models.IndividualEnrollment.deserialize(told.content))
        self.notes[name] = told.content.get("optionalDeviceInformation")

    def _told_of_group(self, name: str, *, raw: bool) -> Any:
        assert raw
        told = self._get(self.groups, name).serialize()
        pair = ((told["attestation"].get("x509") or {}).get("signingCertificates") or {}).values()
        for one in pair:
            one["info"] = {"sha256Thumbprint": parse_any(one.pop("certificate")).thumbprint.hex().upper()}
        return SimpleNamespace(response=SimpleNamespace(json=lambda: told))

    def _write_group(self, name: str, told: Any, etag: str) -> None:
        assert etag == self._get(self.groups, name).etag
        self.create_or_update(models.EnrollmentGroup.deserialize(told.content))

    def _get(self, records: Mapping[str, Any], name: str) -> Any:
        self.asked.append(name)
        if self.error is not None:
            raise self.error
        if name.lower() not in records:
            raise refusal(404)
        return records[name.lower()]


def info_of(certificate: str) -> Any:
    """What the service tells of a certificate."""
    names = dict.fromkeys(("subject_name", "issuer_name", "sha1_thumbprint", "serial_number"), "told")
    dates = dict.fromkeys(("not_before_utc", "not_after_utc"), NOON)
    return models.X509CertificateInfo(
        **names, **dates, version=3, sha256_thumbprint=parse_any(certificate).thumbprint.hex().upper()
    )


class Pages:
    """A query's pages, which ends as the SDK does when no continuation comes."""

    def __init__(self, pages: list[list[Any]]) -> None:
        self.has_next = True
        self._pages: Iterator[list[Any]] = iter(pages)

    def next(self) -> list[Any]:
        for page in self._pages:
            return page
        raise KeyError("x-ms-continuation")


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def target(service: Service) -> AzureTarget:
    made = AzureTarget(AzureProfile(STRING, scope="0ne"))
    made._sdk = service
    return made


def enroll(
    target: AzureTarget, wish: EnrollmentRequest = WISH, *, update: bool = False, dry_run: bool = False
) -> TargetOutcome:
    return target.enroll(wish, update=update, dry_run=dry_run).done


def test_it_says_where_it_writes_without_secrets(target: AzureTarget) -> None:
    assert target.description == target.identity == "Azure DPS dps.test (scope 0ne)"


def test_a_device_is_made_by_its_certificate_and_found_again(target: AzureTarget, service: Service) -> None:
    assert enroll(target) is TargetOutcome.CREATED
    made = service.individuals["device-1"]
    assert (made.registration_id, made.device_id, made.capabilities.iot_edge) == ("device-1", "device-1", False)
    assert enroll(target) is TargetOutcome.UNCHANGED


def test_the_registration_id_is_the_common_name_whatever_the_device_is_called(
    target: AzureTarget, service: Service
) -> None:
    assert enroll(target, EnrollmentRequest("pump", DEVICE, is_edge=True)) is TargetOutcome.CREATED
    made = service.individuals["device-1"]
    assert (made.device_id, made.capabilities.iot_edge) == ("pump", True)


@pytest.mark.parametrize("is_edge", [True, False])
@pytest.mark.parametrize("hub", [None, "hub.test"])
def test_what_goes_in_bulk_is_written_as_the_sdk_writes_it(
    target: AzureTarget, *, is_edge: bool, hub: str | None
) -> None:
    wish = EnrollmentRequest("at-its-hub", DEVICE, is_edge=is_edge, hub=hub)
    written = target._record_of(wish).serialize()
    assert json_of(wish) == written


def test_a_rehearsal_changes_nothing(target: AzureTarget, service: Service) -> None:
    assert enroll(target, dry_run=True) is TargetOutcome.WOULD_CREATE
    assert not service.individuals
    enroll(target)
    other = EnrollmentRequest("device-1", OTHER)
    assert enroll(target, other, update=True, dry_run=True) is TargetOutcome.WOULD_UPDATE
    assert enroll(target) is TargetOutcome.UNCHANGED


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (EnrollmentRequest("device-1", OTHER), OTHER.thumbprint.hex()),
        (EnrollmentRequest("device-1", DEVICE, is_edge=True), "IoT Edge yes"),
        (EnrollmentRequest("pump", DEVICE), "device id pump"),
    ],
    ids=["certificate", "edge", "name"],
)
def test_a_record_that_is_otherwise_is_left_unless_it_is_to_be_updated(
    target: AzureTarget, wish: EnrollmentRequest, said: str
) -> None:
    enroll(target)
    with pytest.raises(DifferentRecordError) as refused:
        enroll(target, wish)
    assert said in refused.value.facts["wanted"]
    assert enroll(target, wish, update=True) is TargetOutcome.UPDATED
    assert enroll(target, wish) is TargetOutcome.UNCHANGED


def test_a_disabled_record_is_not_as_wished(target: AzureTarget, service: Service) -> None:
    enroll(target)
    service.individuals["device-1"].provisioning_status = "disabled"
    with pytest.raises(DifferentRecordError) as refused:
        enroll(target)
    assert refused.value.facts["present"] == "status disabled"


def test_an_update_is_conditional_on_the_record_that_was_seen(
    target: AzureTarget, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    enroll(target)
    seen: list[str] = []
    monkeypatch.setattr(service, "create_or_update", lambda made: seen.append(made.etag))
    enroll(target, EnrollmentRequest("device-1", OTHER), update=True)
    assert seen == ['"1"']


@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "in bulk"])
def test_what_another_made_between_the_look_and_the_write_is_not_written_over(
    target: AzureTarget, service: Service, monkeypatch: pytest.MonkeyPatch, *, is_alone: bool
) -> None:
    theirs, noted = EnrollmentRequest("device-1", OTHER), list[WayBack]()
    write = service.run_bulk_operation
    target.survey(1)

    def late(asked: Any) -> Any:
        monkeypatch.setattr(service, "run_bulk_operation", write)
        enroll(target, theirs)
        return write(asked)

    monkeypatch.setattr(service, "run_bulk_operation", late)
    if not is_alone:
        assert target.enroll_new([WISH], lambda _device, way: noted.append(way)) == [False]
    with pytest.raises(DifferentRecordError):
        target.enroll(WISH, lambda _device, way: noted.append(way), update=False, dry_run=False)
    assert enroll(target, theirs) is TargetOutcome.UNCHANGED
    assert noted[-1] == {}


def test_an_update_whose_answer_was_lost_and_that_the_sdk_repeated_is_an_update(
    target: AzureTarget, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    enroll(target)
    write = service.create_or_update

    def lossy(made: Any) -> None:
        write(made)
        raise refusal(412)

    monkeypatch.setattr(service, "create_or_update", lossy)
    noted: list[WayBack] = []
    theirs = EnrollmentRequest("device-1", OTHER)
    done = target.enroll(theirs, lambda _device, way: noted.append(way), update=True, dry_run=False)
    assert (done.done, len(noted)) == (TargetOutcome.UPDATED, 1)


def test_an_update_that_the_service_refused_leaves_no_way_back(
    target: AzureTarget, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_made: Any) -> None:
        raise refusal(412)

    enroll(target)
    monkeypatch.setattr(service, "create_or_update", refuse)
    noted: list[WayBack] = []
    with pytest.raises(TargetRefusedError):
        target.enroll(
            EnrollmentRequest("device-1", OTHER), lambda _device, way: noted.append(way), update=True, dry_run=False
        )
    assert noted[-1] == {}


def test_the_sdk_repeats_no_write_that_is_not_the_same_twice() -> None:
    opened = AzureTarget(AzureProfile(STRING))
    policy = opened._sdk._runtime_client.config.retry_policy.policy
    assert {"GET", "PUT"} <= set(policy.allowed_methods)
    assert "POST" not in policy.allowed_methods


def test_after_a_survey_only_a_new_device_is_asked_for_and_before_it_is_written(
    target: AzureTarget, service: Service
) -> None:
    enroll(target)
    service.asked.clear()
    target.survey(10)
    new = EnrollmentRequest("b", a_device(common_name="b").certificate)
    assert (enroll(target), enroll(target, new, dry_run=True)) == (TargetOutcome.UNCHANGED, TargetOutcome.WOULD_CREATE)
    assert service.asked == []
    assert enroll(target, new) is TargetOutcome.CREATED
    assert service.asked == ["b"]


def test_far_more_records_than_devices_are_not_surveyed(
    target: AzureTarget, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    enroll(target)
    item = service.individuals["device-1"]
    many = [copy.copy(item) for _ in range(1005)]
    for number, one in enumerate(many):
        one.registration_id = f"d{number}"
    monkeypatch.setattr(service, "create_individual_enrollment_query", lambda *_: Pages([many]))
    target.survey(1)
    service.asked.clear()
    assert enroll(target) is TargetOutcome.UNCHANGED
    assert service.asked == [item.registration_id]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (refusal(401), CredentialsRefusedError),
        (refusal(403), CredentialsRefusedError),
        (refusal(429), TargetThrottledError),
        (refusal(400, "bad id"), TargetRefusedError),
        (refusal(404), ReferenceMissingError),
        (ConnectionError("no route"), TargetUnreachableError),
        (ProvisioningServiceError("without an answer"), TargetRefusedError),
    ],
)
def test_what_the_service_refuses_has_its_kind(
    target: AzureTarget, service: Service, error: Exception, kind: type[BirthmarkError]
) -> None:
    target.survey(1)
    service.error = error
    with pytest.raises(kind) as refused:
        enroll(target)
    assert refused.value.facts["target"] == target.description
    assert refused.value.facts["reason"]


def group(target: AzureTarget, name: str, **how: Any) -> TargetOutcome:
    return target.enroll_group(name, **{"is_edge": False, "update": False, "dry_run": False, **how}).done


def test_a_group_is_made_of_a_ca_on_record_or_of_a_certificate(target: AzureTarget, service: Service) -> None:
    ca = a_ca().certificate
    assert group(target, "by-name", ca_names=["my-ca"], dry_run=True) is TargetOutcome.WOULD_CREATE
    assert group(target, "by-name", ca_names=["my-ca"]) is TargetOutcome.CREATED
    assert group(target, "by-certificate", certificates=[ca], is_edge=True) is TargetOutcome.CREATED
    assert service.groups["by-name"].attestation.x509.ca_references.primary == "my-ca"
    made = service.groups["by-certificate"]
    assert made.attestation.x509.signing_certificates.primary.certificate == ca.pem()
    assert made.capabilities.iot_edge
    assert group(target, "by-certificate", certificates=[ca], is_edge=True) is TargetOutcome.UNCHANGED
    service.error = refusal(404)
    with pytest.raises(ReferenceMissingError) as refused:
        group(target, "third", ca_names=["gone"])
    assert "birthmark dps ca create gone" in refused.value.explain_fix()


@pytest.mark.parametrize(
    ("wish", "what"),
    [
        ({"ca_names": ["other"]}, "attestation CA my-ca"),
        ({"ca_names": ["my-ca", "next"]}, "attestation CA my-ca"),
        ({"certificates": [a_ca().certificate]}, "attestation CA my-ca"),
        ({"ca_names": ["my-ca"], "is_edge": True}, "IoT Edge no"),
        ({"ca_names": ["my-ca"], "hub": "hub.test"}, "hub any"),
        ({"ca_names": ["my-ca"], "issue": "device"}, "policy none"),
    ],
    ids=["another CA", "a second CA", "a certificate", "IoT Edge", "a hub", "a policy"],
)
def test_a_group_that_is_there_is_changed_by_an_update_alone(
    target: AzureTarget, service: Service, wish: dict[str, Any], what: str
) -> None:
    group(target, "g", ca_names=["my-ca"])
    assert group(target, "g", ca_names=["my-ca"]) is TargetOutcome.UNCHANGED
    before = service.groups["g"].serialize()
    for more in ({}, {"dry_run": True}):
        with pytest.raises(DifferentRecordError) as refused:
            group(target, "g", **wish, **more)
        assert what in refused.value.explain_cause()
    assert group(target, "g", **wish, update=True, dry_run=True) is TargetOutcome.WOULD_UPDATE
    assert service.groups["g"].serialize() == before
    assert group(target, "g", **wish, update=True) is TargetOutcome.UPDATED
    if "is_edge" not in wish:  # which the SDK's model of a group does not know
        assert group(target, "g", **wish) is TargetOutcome.UNCHANGED


def test_a_group_that_is_disabled_is_let_in_again_by_an_update_alone(target: AzureTarget, service: Service) -> None:
    group(target, "g", ca_names=["my-ca"])
    service.groups["g"].provisioning_status = "disabled"
    with pytest.raises(DifferentRecordError, match="The group g is enrolled with different settings"):
        group(target, "g", ca_names=["my-ca"])
    assert group(target, "g", ca_names=["my-ca"], update=True) is TargetOutcome.UPDATED
    assert service.groups["g"].provisioning_status == "enabled"


def test_a_group_that_is_updated_keeps_what_was_set_besides(target: AzureTarget, service: Service) -> None:
    group(target, "g", ca_names=["my-ca"])
    service.groups["g"].allocation_policy = "geoLatency"
    assert group(target, "g", ca_names=["other"], update=True) is TargetOutcome.UPDATED
    assert service.groups["g"].allocation_policy == "geoLatency"


def test_keys_do_not_take_the_place_of_a_ca_unasked(target: AzureTarget) -> None:
    group(target, "g", ca_names=["my-ca"])
    with pytest.raises(DifferentRecordError) as refused:
        target.enroll_key_group("g", is_edge=False, update=False, dry_run=False)
    assert "not with attestation symmetric keys" in refused.value.explain_cause()


def test_a_record_of_another_hub_is_not_as_wished_even_after_a_survey(target: AzureTarget) -> None:
    there = replace(WISH, hub="hub.test")
    assert enroll(target, replace(WISH, hub="other.test")) is TargetOutcome.CREATED
    target.survey(1)
    assert enroll(target) is TargetOutcome.UNCHANGED  # says nothing of hubs
    with pytest.raises(DifferentRecordError) as refused:
        enroll(target, there)
    assert "hub other.test" in refused.value.explain_cause()
    assert enroll(target, there, update=True) is TargetOutcome.UPDATED
    target.survey(1)
    assert enroll(target, replace(WISH, hub="HUB.test")) is TargetOutcome.UNCHANGED


@pytest.mark.parametrize(
    ("host", "known", "new", "said"),
    [
        ("factory.azure-devices-provisioning.net", 3, 2500, "2,500 devices need at least 3 min"),
        (
            "factory.azure-devices-provisioning.net",
            999_999,
            3,
            "With the 999,999 existing enrollments, this exceeds the limit by 2.",
        ),
        ("factory.azure-devices-provisioning.cn", None, 1, "1 devices need at least 1 min"),
        ("factory.azure-devices-provisioning.net", 3, 0, None),
        ("localhost", 3, 2500, None),
    ],
)
def test_what_azures_tier_allows_is_told_of_azures_own_services(
    host: str, known: int | None, new: int, said: str | None
) -> None:
    target = AzureTarget(AzureProfile(STRING.replace("dps.test", host)))
    target._known = None if known is None else {str(number): b"" for number in range(known)}
    told = target.allowance(new)
    assert told is None if said is None else said in str(told)


def test_the_records_are_listed_with_their_state(target: AzureTarget, service: Service) -> None:
    for name in ("fresh", "assigned", "disabled"):
        enroll(target, EnrollmentRequest(name, a_device(common_name=name).certificate))
    assigned = service.individuals["assigned"]
    assigned.registration_state = SimpleNamespace(status="assigned", assigned_hub="hub.test", device_id="pump")
    service.individuals["disabled"].provisioning_status = "disabled"
    target.enroll_group("g", ca_names=["my-ca"], is_edge=False, update=False, dry_run=False)
    fresh, known, disabled, group = target.records()
    assert (fresh.state, fresh.detail, fresh.kind) == ("unassigned", "-", "individual")
    assert (known.state, known.detail) == ("assigned", "hub.test as pump")
    assert disabled.state == "disabled"
    assert group == EnrollmentRecord("g", "group", "enabled", None, "CA my-ca")


def test_the_devices_of_a_group_are_listed_behind_it_from_every_page(target: AzureTarget, service: Service) -> None:
    target.enroll_group("g", ca_names=["my-ca"], is_edge=False, update=False, dry_run=False)
    told = {"status": "assigned", "assigned_hub": "hub.test"}
    service.states["g"] = [SimpleNamespace(registration_id=one, device_id=one, **told) for one in ("pump-1", "pump-2")]
    _, *members = target.records()
    assert members == [
        EnrollmentRecord(one, "of a group", "assigned", None, "g: hub.test") for one in ("pump-1", "pump-2")
    ]


@pytest.mark.parametrize(
    ("attestation", "said"),
    [
        (models.AttestationMechanism.create_with_x509_ca_refs("my-ca"), "CA my-ca"),
        (models.AttestationMechanism.create_with_x509_signing_certs("PEM"), "x509"),
        (models.AttestationMechanism(type="symmetricKey"), "symmetricKey"),
    ],
)
def test_a_groups_attestation_is_told(target: AzureTarget, service: Service, attestation: Any, said: str) -> None:
    service.groups["g"] = models.EnrollmentGroup.create("g", attestation=attestation)
    assert [record.detail for record in target.records()] == [said]


def test_a_record_is_removed_or_is_not_there(target: AzureTarget, service: Service) -> None:
    enroll(target)
    target.enroll_group("g", ca_names=["my-ca"], is_edge=False, update=False, dry_run=False)
    remove: list[Callable[[], object]] = [
        lambda: target.remove("device-1", is_group=False),
        lambda: target.remove("g", is_group=True),
    ]
    for one in remove:
        one()
    assert not service.individuals
    assert not service.groups
    for one in remove:
        with pytest.raises(NoSuchRecordError):
            one()


def enrolled(target: AzureTarget, wish: EnrollmentRequest = WISH, *, update: bool = False) -> WayBack:
    """Put it on record, and return the way back that was noted before."""
    noted: dict[str, WayBack] = {}
    target.enroll(wish, noted.__setitem__, update=update, dry_run=False)
    return noted[wish.device_id]


def test_what_was_created_is_taken_back(target: AzureTarget, service: Service) -> None:
    way = enrolled(target)
    assert target.undo_enrollment("device-1", way, dry_run=True) is TargetOutcome.WOULD_TAKE_BACK
    assert target.undo_enrollment("device-1", way, dry_run=False) is TargetOutcome.TAKEN_BACK
    assert service.individuals == {}
    assert target.undo_enrollment("device-1", way, dry_run=False) is TargetOutcome.GONE


def test_what_was_updated_is_put_back_as_it_was(target: AzureTarget, service: Service) -> None:
    enrolled(target)
    way = enrolled(target, EnrollmentRequest("device-1", OTHER), update=True)
    assert target.undo_enrollment("device-1", way, dry_run=False) is TargetOutcome.TAKEN_BACK
    assert service.individuals["device-1"].attestation.x509.client_certificates.primary.certificate == DEVICE.pem()
    assert target.undo_enrollment("device-1", way, dry_run=False) is TargetOutcome.GONE


def test_what_has_another_certificate_since_is_left(target: AzureTarget, service: Service) -> None:
    way = enrolled(target)
    enrolled(target, EnrollmentRequest("device-1", OTHER), update=True)
    with pytest.raises(NotTakenBackError, match="device-1"):
        target.undo_enrollment("device-1", way, dry_run=False)
    assert "device-1" in service.individuals


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda record: setattr(record, "provisioning_status", "disabled"), id="disabled"),
        pytest.param(lambda record: setattr(record, "device_id", "pump"), id="another device of its hub"),
        pytest.param(lambda record: setattr(record.capabilities, "iot_edge", True), id="made an edge device"),
    ],
)
def test_what_was_changed_since_is_left(target: AzureTarget, service: Service, change: Callable[[Any], None]) -> None:
    way = enrolled(target)
    change(service.individuals["device-1"])
    for dry_run in (True, False):
        with pytest.raises(NotTakenBackError, match="device-1"):
            target.undo_enrollment("device-1", way, dry_run=dry_run)
    assert "device-1" in service.individuals


def test_what_has_somebody_else_s_certificate_before_this_one_since_is_left(
    target: AzureTarget, service: Service
) -> None:
    way = enrolled(target)
    later = enrolled(target, EnrollmentRequest("device-1", OTHER), update=True)
    pair = service.individuals["device-1"].attestation.x509.client_certificates
    pair.secondary = models.IndividualEnrollment.deserialize(
        later["before"]
    ).attestation.x509.client_certificates.primary
    with pytest.raises(NotTakenBackError, match="device-1"):
        target.undo_enrollment("device-1", way, dry_run=False)
    assert "device-1" in service.individuals


def test_an_update_leaves_the_other_certificate_of_a_device(target: AzureTarget, service: Service) -> None:
    """A device that renews has two for a while."""
    enroll(target)
    mechanism = models.AttestationMechanism.create_with_x509_client_certs(OTHER.pem(), DEVICE.pem())
    pair = mechanism.x509.client_certificates
    pair.primary.info, pair.secondary.info = info_of(OTHER.pem()), info_of(DEVICE.pem())
    service.individuals["device-1"].attestation = mechanism
    way = enrolled(target, replace(WISH, tags={"site": "Osaka"}), update=True)
    both = (OTHER.thumbprint.hex(), DEVICE.thumbprint.hex())
    assert on_record(service.individuals["device-1"]).thumbprints == both
    assert target.undo_enrollment("device-1", way, dry_run=False) is TargetOutcome.TAKEN_BACK


def test_what_somebody_set_since_an_update_is_not_put_back(target: AzureTarget, service: Service) -> None:
    enrolled(target)
    way = enrolled(target, EnrollmentRequest("device-1", OTHER), update=True)
    record = service.individuals["device-1"]
    record.reprovision_policy = models.ReprovisionPolicy(update_hub_assignment=True, migrate_device_data=False)
    with pytest.raises(NotTakenBackError):
        target.undo_enrollment("device-1", way, dry_run=False)
    assert service.individuals["device-1"].reprovision_policy is not None


def test_a_record_whose_certificate_the_service_keeps_to_itself_cannot_be_put_back(target: AzureTarget) -> None:
    enrolled(target)
    way = dict(enrolled(target, EnrollmentRequest("device-1", OTHER), update=True))
    way["before"]["attestation"]["x509"]["clientCertificates"]["primary"].pop("certificate")
    with pytest.raises(NotTakenBackError) as refused:
        target.undo_enrollment("device-1", way, dry_run=False)
    assert "did not return the previous certificate" in refused.value.explain_cause()


def test_what_is_not_taken_back_is_named_by_its_registration_id(target: AzureTarget) -> None:
    registered_as_its_name = a_device(common_name="pump-1").certificate
    way = dict(enrolled(target, EnrollmentRequest("pump-2", registered_as_its_name)))
    with pytest.raises(NotTakenBackError) as refused:
        target.undo_enrollment("pump-2", way | {"thumbprint": "00", "before": {}}, dry_run=False)
    assert "`birthmark device rm pump-1`" in refused.value.explain_fix()


@pytest.mark.parametrize("way", [{}, {"registration_id": 7, "thumbprint": "00"}])
def test_a_way_back_that_no_run_wrote_is_refused(target: AzureTarget, way: dict[str, Any]) -> None:
    with pytest.raises(NotTakenBackError):
        target.undo_enrollment("gateway", way, dry_run=False)


class Hub:
    """The hub that is known with the service."""

    host = "hub.test"

    def __init__(self) -> None:
        self.cut: list[str] = []
        self.known = True

    def get(self, device_id: str) -> dict[str, Any] | None:
        return {"deviceId": device_id, "status": "enabled", "etag": "1"} if self.known else None

    def disable(self, device: Mapping[str, Any]) -> None:
        self.cut.append(device["deviceId"])


@pytest.fixture
def hub(target: AzureTarget) -> Hub:
    made = Hub()
    target._hub = cast(Any, made)
    return made


def assigned(service: Service, hub: str) -> Any:
    """The record of a device that registered."""
    record = service.individuals["device-1"]
    record.registration_state = SimpleNamespace(assigned_hub=hub, device_id="device-1", status="assigned")
    return record


def test_to_retire_a_device_changes_nothing_else_of_its_record(target: AzureTarget, service: Service, hub: Hub) -> None:
    enroll(target, replace(WISH, is_edge=True, tags={"site": "Osaka"}))
    assigned(service, "hub.test")
    assert target.retire(WISH, dry_run=False).done is TargetOutcome.RETIRED
    record = service.individuals["device-1"]
    assert (record.provisioning_status, record.capabilities.iot_edge) == ("disabled", True)
    assert on_record(record).twin.tags == {"site": "Osaka"}
    assert hub.cut == ["device-1"]


@pytest.mark.parametrize(
    ("noted", "at_hub", "standing"),
    [
        ("keyCompromise", "", DeviceStage.TAKEN_BACK),
        (None, "taken back: keyCompromise", DeviceStage.TAKEN_BACK),
        (None, "somebody's", DeviceStage.DISABLED),
    ],
)
def test_a_lost_device_is_told_from_one_that_was_retired(
    target: AzureTarget,
    service: Service,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    *,
    noted: str | None,
    at_hub: str,
    standing: DeviceStage,
) -> None:
    enroll(target)
    assigned(service, "hub.test").provisioning_status = "disabled"
    monkeypatch.setattr(target, "why_taken_back", lambda _name: noted)
    monkeypatch.setattr(hub, "get", lambda _name: {"status": "disabled", "statusReason": at_hub})
    assert target.get_progress(WISH).standing is standing


def test_a_device_at_a_hub_that_cannot_be_asked_is_left(target: AzureTarget, service: Service, hub: Hub) -> None:
    """A device of the same name at the hub that is at hand is another one."""
    enroll(target)
    assigned(service, "elsewhere.test")
    assert target.retire(WISH, dry_run=False).done is TargetOutcome.LEFT
    target._hub = None
    assert target.retire(WISH, dry_run=False).done is TargetOutcome.LEFT
    assert (hub.cut, service.individuals["device-1"].provisioning_status) == ([], "enabled")


def test_who_has_the_record_since_is_not_retired(target: AzureTarget, hub: Hub) -> None:
    enroll(target, EnrollmentRequest("device-1", OTHER))
    with pytest.raises(NotAtSourceError):
        target.retire(WISH, dry_run=False)
    assert hub.cut == []


def test_a_lost_device_of_which_no_hub_was_asked_is_not_said_to_be_unknown(target: AzureTarget) -> None:
    (row,) = target.revoke_device("pump", "keyCompromise", dry_run=False)
    assert (row.place, row.became) == ("IoT Hub", RevocationOutcome.LEFT)
    assert "no hub was checked for it" in row.note


def test_a_lost_device_that_no_place_knows_has_no_row(target: AzureTarget, hub: Hub) -> None:
    hub.known = False
    assert target.revoke_device("pump", "keyCompromise", dry_run=False) == []


def lose(
    target: AzureTarget, name: str = "device-1", *, dry_run: bool = False, block: bool = False
) -> dict[str, RevokedPart]:
    """Take a device back; return what became of each part of it."""
    rows = target.revoke_device(name, "keyCompromise", dry_run=dry_run, block=block, scope="azure:plant")
    return {row.what: row for row in rows}


def keys_of(service: Service, name: str = "device-1") -> Any:
    return service.individuals[name].attestation.symmetric_key


@pytest.fixture
def with_keys(service: Service) -> Service:
    """A service where device-1 registers by keys."""
    keys = models.SymmetricKeyAttestation(primary_key="a2V5", secondary_key="a2V5")
    attestation = models.AttestationMechanism(type="symmetricKey", symmetric_key=keys)
    made = models.IndividualEnrollment.create(registration_id="device-1", attestation=attestation)
    made.provisioning_status = "enabled"
    service.create_or_update(made)
    return service


@pytest.fixture
def keeping_certificates(target: AzureTarget, service: Service) -> Service:
    """A service with device-1 whose certificate it does not tell."""
    enroll(target)
    service.individuals["device-1"].attestation.x509.client_certificates.primary.certificate = None
    return service


def refuse(
    service: Service, monkeypatch: pytest.MonkeyPatch, status: int, *, whole: bool = False, new: Sequence[int] = ()
) -> None:
    """Have the service refuse another attestation for a record that is there, `whole`: to write it at all.

    The first that are put where nothing is on record it refuses as `new` says.
    """
    write, statuses = service.create_or_update, iter(new)

    def put(made: Any) -> None:
        before = service.individuals.get(made.registration_id)
        if before is None:
            if (answer := next(statuses, None)) is not None:
                raise refusal(answer)
        elif whole or kept(made)["attestation"] != kept(before)["attestation"]:
            raise refusal(status)
        write(made)

    monkeypatch.setattr(service, "create_or_update", put)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("birthmark.fleet.azure_revocation.time.sleep", lambda _seconds: None)


def test_the_keys_of_a_lost_device_are_exchanged(target: AzureTarget, with_keys: Service, hub: Hub) -> None:
    hub.known = False
    assert lose(target)["enrollment"].became is RevocationOutcome.REVOKED
    assert keys_of(with_keys).primary_key != "a2V5"
    assert with_keys.notes["device-1"] == {"takenBack": "keyCompromise"}


@pytest.mark.parametrize("status", [400, 409, 412])
def test_a_record_that_takes_no_other_keys_is_disabled_with_its_own(
    target: AzureTarget, with_keys: Service, hub: Hub, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    hub.known = False
    monkeypatch.delattr(Service, "delete")
    refuse(with_keys, monkeypatch, status)
    for _ in range(2):
        assert lose(target)["enrollment"].became is RevocationOutcome.REVOKED
        assert with_keys.individuals["device-1"].provisioning_status == "disabled"
        assert keys_of(with_keys).primary_key == "a2V5"


@pytest.mark.parametrize("new", [(), (429,), (500, 429, 503)])
def test_a_record_that_cannot_be_written_is_exchanged(
    target: AzureTarget,
    keeping_certificates: Service,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    new: Sequence[int],
) -> None:
    hub.known = False
    refuse(keeping_certificates, monkeypatch, 400, whole=True, new=new)
    monkeypatch.setattr(target, "mark", lambda *_: None)
    assert lose(target)["enrollment"].became is RevocationOutcome.REVOKED
    assert keeping_certificates.individuals["device-1"].provisioning_status == "disabled"
    assert keys_of(keeping_certificates) is not None


@pytest.mark.parametrize("status", [409, 412, 500])
def test_nothing_is_removed_for_another_refusal_than_that_of_the_record(
    target: AzureTarget, keeping_certificates: Service, hub: Hub, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    refuse(keeping_certificates, monkeypatch, status, whole=True)
    with pytest.raises(TargetRefusedError):
        lose(target)
    assert "device-1" in keeping_certificates.individuals


@pytest.mark.parametrize("error", [ConnectionError("cut off"), refusal(404)], ids=["cut off", "repeated"])
def test_what_was_removed_while_the_answer_was_lost_is_not_left_open(
    target: AzureTarget, keeping_certificates: Service, hub: Hub, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    hub.known = False
    refuse(keeping_certificates, monkeypatch, 400, whole=True)
    delete = keeping_certificates.delete

    def lossy(seen: Any) -> None:
        delete(seen)
        raise error

    monkeypatch.setattr(keeping_certificates, "delete", lossy)
    monkeypatch.setattr(target, "mark", lambda *_: None)
    assert lose(target)["enrollment"].became is RevocationOutcome.REVOKED
    assert keeping_certificates.individuals["device-1"].provisioning_status == "disabled"


def test_a_name_that_stays_open_is_told_with_the_command_that_shuts_it(
    target: AzureTarget, keeping_certificates: Service, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "disable_and_rotate_keys", lambda *_: None, raising=False)
    refuse(keeping_certificates, monkeypatch, 400, whole=True, new=[429] * 4)
    lost = lose(target)
    assert (lost["enrollment"].became, lost["device"].became) == (RevocationOutcome.FAILED, RevocationOutcome.REVOKED)
    assert "open to every group" in lost["enrollment"].note
    assert lost["enrollment"].command == "`birthmark device revoke device-1 --to azure:plant --block --yes`"
    assert keeping_certificates.individuals == {}
    monkeypatch.setattr(target, "mark", lambda *_: None)
    assert lose(target, block=True)["enrollment"].became is RevocationOutcome.REVOKED
    assert keeping_certificates.individuals["device-1"].provisioning_status == "disabled"


def test_a_name_of_which_nothing_is_on_record_is_shut_out_where_that_is_asked(
    target: AzureTarget, service: Service, hub: Hub
) -> None:
    hub.known = False
    assert lose(target) == {}
    assert lose(target, dry_run=True, block=True)["enrollment"].became is RevocationOutcome.WOULD_REVOKE
    assert service.individuals == {}
    assert lose(target, block=True)["enrollment"].became is RevocationOutcome.REVOKED
    assert service.individuals["device-1"].provisioning_status == "disabled"


def test_the_command_for_a_hub_that_is_not_at_hand_names_any_device(target: AzureTarget, service: Service) -> None:
    enroll(target)
    assigned(service, "a;b.test").registration_state.device_id = "it's$(id)"
    (typed,) = [row.command for row in lose(target).values() if row.what == "device"]
    words = shlex.split(typed.strip("`"))
    assert words[5:] == ["--hub-name", "a;b", "--device-id", "it's$(id)", "--set", "status=disabled"]
