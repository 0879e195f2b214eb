"""Enrollment at Azure DPS by the vendor's service SDK: Azure's own or any endpoint with the same interface."""

import copy
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.request import getproxies

import msgspec

from birthmark.auth.connection_strings import parse_connection_string
from birthmark.clock import Clock, SystemClock
from birthmark.dps.model import TpmKeys, parse_group_id
from birthmark.errors import BirthmarkError
from birthmark.fleet.azure_hub import HubDevices, stand_of
from birthmark.fleet.azure_records import (
    IDENTITY,
    OnRecord,
    Twin,
    json_of,
    key_of,
    mark_of,
    on_record,
    registration_id,
    thumbprints,
    twin_of,
)
from birthmark.fleet.errors import (
    DifferentRecordError,
    NoSuchRecordError,
    NotTakenBackError,
    SdkMissingError,
    TargetUnreachableError,
    refusal,
    way_of,
)
from birthmark.fleet.following import Stand, Standing
from birthmark.fleet.profiles import AzureProfile
from birthmark.fleet.target import Done, Enrolled, EnrollmentRequest, Note, Record, WayBack, unnoted
from birthmark.pki.certificates import Certificate
from birthmark.pki.names import parse_registration_id

_PAGE = 100
_BULK = 10  # the service takes no more (Azure DPS quotas)
_SURVEY_AT_LEAST = 1000
_HOW = ", here the root of your own CA in the directory ca: `birthmark dps ca add {} ca/root.pem`"


_CLOCK = SystemClock()


class AzureTarget:
    """One provisioning service."""

    def __init__(self, profile: AzureProfile, clock: Clock = _CLOCK) -> None:
        try:
            import provisioningserviceclient as sdk
            from provisioningserviceclient import models
        except ImportError as error:
            raise SdkMissingError(package="azure-iothub-provisioningserviceclient") from error
        self._models: Any = models
        self._error: Any = sdk.client.ProvisioningServiceError
        parsed = parse_connection_string(profile.connection_string)
        self._host = parsed.host
        self._sdk: Any = sdk.ProvisioningServiceClient.create_from_connection_string(parsed.render())
        runtime = self._sdk._runtime_client  # noqa: SLF001 - the SDK has no public way
        runtime._serialize = _passing(runtime._serialize)  # noqa: SLF001 - as above
        config = runtime.config
        config.keep_alive = True  # else each call makes a connection of its own
        self._scope = profile.scope
        # By registration id on record, the marks of what it serves as: a million of them fit into memory.
        self._known: dict[str, bytes] | None = None
        hub = profile.hub_connection_string
        self._hub = None if hub is None else HubDevices(hub, profile.ca_file, clock)
        if profile.ca_file is not None:  # this root alone, whatever the environment says about trust
            config.connection.verify = str(profile.ca_file)
            # requests lets these override `verify`; this process talks to no one else over requests.
            for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
                os.environ.pop(name, None)
            # It looks for proxies and passwords in the environment and in files, for each request anew.
            config.proxies.use_env_settings = bool(getproxies())

    @property
    def description(self) -> str:
        return f"Azure DPS {self._host}" + (f" (scope {self._scope})" if self._scope else "")

    @property
    def identity(self) -> str:
        return self.description

    def survey(self, count: int) -> None:
        known: dict[str, bytes] = {}
        query = self._models.QuerySpecification(query="SELECT * FROM enrollments")
        for page in self._pages(self._sdk.create_individual_enrollment_query(query, _PAGE)):
            known |= {item.registration_id.lower(): on_record(item).marks() for item in page}
            if len(known) > _SURVEY_AT_LEAST + 4 * count:
                return
        self._known = known

    @property
    def most_at_once(self) -> int:
        return _BULK

    def enroll_new(self, wishes: Sequence[EnrollmentRequest], note: Note) -> Sequence[bool]:
        fresh: dict[str, int] = {}
        for place, wish in enumerate(wishes):
            # Whoever could not look asks for each: a refusal for every record that is there would fill the ledger.
            if self._known is not None and (key := key_of(wish)) not in self._known:
                fresh.setdefault(key, place)  # the first of a name
        if not fresh:
            return [False] * len(wishes)
        records = [json_of(wishes[place]) for place in fresh.values()]
        for place in fresh.values():
            note(wishes[place].device_id, _way_back(wishes[place], None))
        with self._translated():
            told = self._sdk.run_bulk_operation(_Ready({"mode": "create", "enrollments": records}))
        for error in told.errors or ():
            fresh.pop(error.registration_id.lower(), None)
        created = set(fresh.values())
        return [place in created for place in range(len(wishes))]

    def enroll(self, wish: EnrollmentRequest, note: Note = unnoted, *, update: bool, dry_run: bool) -> Enrolled:
        name, known = registration_id(wish), self._known
        is_there = known is not None and key_of(wish) in known
        if known is not None and is_there and mark_of(wish) in known[key_of(wish)]:
            return Enrolled(Done.UNCHANGED)
        # Who was not there when all were read is asked for all the same before something is written.
        asks = known is None or is_there or not dry_run
        present = self._found(self._sdk.get_individual_enrollment, name) if asks else None
        if present is None:
            if dry_run:
                return Enrolled(Done.WOULD_CREATE)
            note(wish.device_id, _way_back(wish, None))
            return Enrolled(self._put(self._record_of(wish), None))
        if not (difference := on_record(present).difference(wish)):
            return Enrolled(Done.UNCHANGED)
        if not update:
            raise DifferentRecordError(
                device=name,
                target=self.description,
                present=", ".join(f"{change.what} {change.present}" for change in difference),
                wanted=", ".join(f"{change.what} {change.wanted}" for change in difference),
            )
        if dry_run:
            return Enrolled(Done.WOULD_UPDATE, difference)
        note(wish.device_id, _way_back(wish, on_record(present)) | {"before": _kept(present)})
        return Enrolled(self._put(self._as_wished(present, wish), present), difference)

    def stand(self, wish: EnrollmentRequest) -> Stand:
        """Return where a device stands; whether it connected, only the hub knows that it was assigned to."""
        if (present := self._found(self._sdk.get_individual_enrollment, registration_id(wish))) is None:
            return Stand(wish.device_id, Standing.MISSING)
        now, state = on_record(present), present.registration_state
        other = [change for change in now.difference(wish) if change.what in IDENTITY]
        if now.is_disabled or other:
            said = ", ".join(f"{one.what} {one.present}" for one in other)
            return Stand(wish.device_id, Standing.OTHERWISE if other else Standing.DISABLED, said)
        if state is None or not state.assigned_hub:
            return Stand(wish.device_id, Standing.UNASSIGNED)
        return self._stand_at_hub(wish, state, present.last_updated_date_time_utc)

    def _stand_at_hub(self, wish: EnrollmentRequest, state: Any, since: datetime | None) -> Stand:
        """Return where a device stands that was assigned; seen it is where that was after its record was written."""
        at = f"{state.assigned_hub} as {state.device_id}"
        if self._hub is None or self._hub.host != str(state.assigned_hub).partition(":")[0]:
            return Stand(wish.device_id, Standing.ASSIGNED, f"{at}; no connection string of that hub is at hand")
        if (device := self._hub.get(str(state.device_id))) is None:
            return Stand(wish.device_id, Standing.ASSIGNED, f"{at}, which has no such device")
        return stand_of(wish.device_id, at, device, since)

    def retire(self, wish: EnrollmentRequest, *, dry_run: bool) -> Done:
        """Let a device register no more, nor connect to the hub that it was assigned to."""
        present = self._found(self._sdk.get_individual_enrollment, registration_id(wish))
        if present is None:
            return Done.GONE
        state = present.registration_state
        known = None if self._hub is None or state is None or not state.device_id else self._hub.get(state.device_id)
        is_disabled, is_cut = on_record(present).is_disabled, known is None or known.get("status") == "disabled"
        if is_disabled and is_cut:
            return Done.UNCHANGED
        if dry_run:
            return Done.WOULD_RETIRE
        if not is_disabled:
            record = self._as_wished(present, wish)
            record.provisioning_status = "disabled"
            self._put(record, present)
        if known is not None and not is_cut and self._hub is not None:
            self._hub.disable(known)
        return Done.RETIRED

    def take_back(self, device_id: str, way: WayBack, *, dry_run: bool) -> Done:
        known = way_of(way, _Way, device_id, self.description)
        name, before = known.registration_id, known.before
        if (present := self._found(self._sdk.get_individual_enrollment, name)) is None:
            return Done.GONE
        now = on_record(present)
        if known.thumbprint not in now.thumbprints:
            if before is not None and self._earlier(before) == now.thumbprints:
                return Done.GONE
            detail = "it has another certificate now"
            raise NotTakenBackError(device=name, target=self.description, detail=detail)
        if not known.is_as_left(now, device_id):
            detail = "it was disabled, or has other settings now"
            raise NotTakenBackError(device=name, target=self.description, detail=detail)
        if before is not None and not _has_certificate(before):
            detail = "the service did not tell the certificate that it had before"
            raise NotTakenBackError(device=device_id, target=self.description, detail=detail)
        if dry_run:
            return Done.WOULD_TAKE_BACK
        if before is not None:
            self._put(self._as_kept(before), present)
            return Done.TAKEN_BACK
        with self._translated(name):
            self._sdk.delete(present)  # by its etag: as it was just seen, or not at all
        return Done.TAKEN_BACK

    def _earlier(self, before: Mapping[str, Any]) -> tuple[str, ...]:
        return on_record(self._as_kept(before)).thumbprints

    def _as_kept(self, before: Mapping[str, Any]) -> Any:
        """Return a record of the journal as the SDK's model, whose twin it wants in a wrapper."""
        made = self._models.IndividualEnrollment.deserialize(before)
        if made.initial_twin is not None:
            twin = on_record(made).twin
            made.initial_twin = self._models.InitialTwin.create(tags=twin.tags, desired_properties=twin.desired)
        return made

    def _record_of(self, wish: EnrollmentRequest) -> Any:
        """Return the wish as the SDK's model."""
        made = self._models.IndividualEnrollment.create(registration_id=registration_id(wish), attestation=None)
        return self._as_wished(made, wish)

    def _as_wished(self, record: Any, wish: EnrollmentRequest) -> Any:
        """Change in a record what is wished otherwise; hubs, allocation and the like stay as somebody set them."""
        models = self._models
        record.attestation = models.AttestationMechanism.create_with_x509_client_certs(wish.certificate.pem())
        record.device_id = wish.device_id
        record.capabilities = models.DeviceCapabilities.create(iot_edge=wish.is_edge)
        record.provisioning_status = "enabled"
        if (twin := twin_of(wish)) is not None:
            record.initial_twin = models.InitialTwin.create(tags=twin.tags, desired_properties=twin.desired)
        return record

    def enroll_tpm(self, registration_id: str, keys: TpmKeys, *, is_edge: bool, update: bool, dry_run: bool) -> Done:
        """Put a device on record by its TPM. Raise `DifferentRecordError` as `enroll` does."""
        models = self._models
        parse_registration_id(registration_id)
        root = None if keys.storage_root is None else keys.storage_root.base64
        present = self._found(self._sdk.get_individual_enrollment, registration_id)
        if (
            present is not None
            and _has_tpm(present, keys.endorsement.base64, root)
            and on_record(present).is_edge == is_edge
        ):
            return Done.UNCHANGED
        if present is not None and not update:
            raise DifferentRecordError(
                device=registration_id,
                target=self.description,
                present=_told(on_record(present)),
                wanted=f"this TPM as {'IoT Edge ' if is_edge else ''}device {registration_id}",
            )
        if dry_run:
            return Done.WOULD_CREATE if present is None else Done.WOULD_UPDATE
        attestation = models.AttestationMechanism(
            type="tpm", tpm=models.TpmAttestation(endorsement_key=keys.endorsement.base64, storage_root_key=root)
        )
        capabilities = models.DeviceCapabilities.create(iot_edge=is_edge)
        made = models.IndividualEnrollment.create(
            registration_id=registration_id, attestation=attestation, device_capabilities=capabilities
        )
        return self._put(made, present)

    def enroll_group(
        self, group_id: str, *, ca_name: str | None, certificate: Certificate | None, is_edge: bool, dry_run: bool
    ) -> Done:
        """Make an enrollment group of a CA on record (`ca_name`) or of a certificate given here."""
        models = self._models
        parse_group_id(group_id)
        present = self._found(self._sdk.get_enrollment_group, group_id)
        if dry_run:
            return Done.WOULD_CREATE if present is None else Done.WOULD_UPDATE
        if certificate is None:
            attestation = models.AttestationMechanism.create_with_x509_ca_refs(ca_name)
        else:
            attestation = models.AttestationMechanism.create_with_x509_signing_certs(certificate.pem())
        made = models.EnrollmentGroup.create(group_id, attestation=attestation)
        if is_edge:
            # The interface has it; the SDK's model of a group is older.
            made._attribute_map = {  # noqa: SLF001 - there is no public way
                **made._attribute_map,  # noqa: SLF001 - as above
                "capabilities": {"key": "capabilities", "type": "DeviceCapabilities"},
            }
            made.capabilities = models.DeviceCapabilities.create(iot_edge=True)
        return self._put(made, present, "" if ca_name is None else _HOW.format(shlex.quote(ca_name)))

    def records(self) -> Iterator[Record]:
        query = self._models.QuerySpecification(query="SELECT * FROM enrollments")
        groups = self._models.QuerySpecification(query="SELECT * FROM enrollmentGroups")
        for page in self._pages(self._sdk.create_individual_enrollment_query(query, _PAGE)):
            for item in page:
                state = item.registration_state
                status = state.status if state else "unassigned"
                detail = f"{state.assigned_hub} as {state.device_id}" if state and state.assigned_hub else "-"
                told = status if item.provisioning_status == "enabled" else "disabled"
                yield Record(item.registration_id, "individual", told, next(iter(thumbprints(item)), None), detail)
        for page in self._pages(self._sdk.create_enrollment_group_query(groups, _PAGE)):
            for item in page:
                yield Record(item.enrollment_group_id, "group", item.provisioning_status, None, _group_detail(item))

    def remove(self, name: str, *, is_group: bool) -> None:
        with self._translated(name):
            if is_group:
                self._sdk.delete_enrollment_group_by_param(name)
            else:
                self._sdk.delete_individual_enrollment_by_param(name)

    def _put(self, made: Any, present: Any, how: str = "") -> Done:
        """Write a record in the place of the one that was seen there."""
        if present is not None:
            made.etag = present.etag
        with self._translated(how=how):
            self._sdk.create_or_update(made)
        return Done.CREATED if present is None else Done.UPDATED

    def _found(self, read: Callable[[str], Any], name: str) -> Any:
        """Return what is on record under a name, None where nothing is."""
        try:
            with self._translated(name):
                return read(name)
        except NoSuchRecordError:
            return None

    def _pages(self, query: Any) -> Iterator[Any]:
        while query.has_next:
            try:
                with self._translated():
                    page = query.next()
            except (StopIteration, KeyError):  # the SDK wants a header that the last page need not have
                return
            yield page

    @contextmanager
    def _translated(self, name: str = "", how: str = "") -> Iterator[None]:
        """Turn the SDK's errors into ours; `how` says how to make what may be missing."""
        try:
            yield
        except self._error as error:
            raise self._refused(error, name, how) from error
        except OSError as error:  # requests' errors are OSErrors
            raise TargetUnreachableError(target=self.description, reason=error) from error
        except Exception as error:
            if type(error).__module__.startswith("msrest"):
                reason = getattr(error, "inner_exception", None) or error
                raise TargetUnreachableError(target=self.description, reason=reason) from error
            raise

    def _refused(self, error: Any, name: str, how: str) -> BirthmarkError:
        response = getattr(getattr(error, "cause", None), "response", None)
        status = getattr(response, "status_code", 0)
        try:
            reason = response.json().get("message", str(error)) if response is not None else str(error)
        except ValueError:
            reason = str(error)
        is_missing, is_unknown = status == HTTPStatus.NOT_FOUND, status in {401, 403}
        return refusal(self.description, reason, is_missing=is_missing, is_unknown=is_unknown, name=name, how=how)


class _Way(msgspec.Struct, frozen=True):
    """What the journal keeps of a record."""

    registration_id: str
    thumbprint: str
    is_edge: bool | None = None  # an older journal does not say, as of the twin
    twin: str | None = None
    before: dict[str, Any] | None = None

    def is_as_left(self, now: OnRecord, device_id: str) -> bool:
        """Say whether a record is as the run left it."""
        is_same = now.thumbprints == (self.thumbprint,) and now.device_id.lower() == device_id.lower()
        is_same = is_same and self.is_edge in {None, now.is_edge} and self.twin in {None, str(now.twin)}
        return is_same and not now.is_disabled


@dataclass(frozen=True, slots=True)
class _Ready:
    """A bulk operation as the JSON that it is: the SDK reads, checks and writes each record of its models thrice."""

    content: Mapping[str, Any]
    enrollments: tuple[()] = ()


def _passing(serializer: Any) -> Any:
    """Return the SDK's serializer, which leaves what is `_Ready` as it is."""
    made, write = copy.copy(serializer), serializer.body
    made.body = lambda data, kind, **more: data.content if isinstance(data, _Ready) else write(data, kind, **more)
    return made


def _has_tpm(enrollment: Any, endorsement_key: str, storage_root_key: str | None) -> bool:
    """Say whether this TPM may register by the enrollment as it is."""
    tpm = enrollment.attestation.tpm if enrollment.attestation else None
    if tpm is None or enrollment.provisioning_status == "disabled":
        return False
    return tpm.endorsement_key == endorsement_key and storage_root_key in {None, tpm.storage_root_key}


def _way_back(wish: EnrollmentRequest, present: OnRecord | None) -> dict[str, Any]:
    thumbprint = wish.certificate.thumbprint.hex()
    twin = twin_of(wish) or (Twin({}, {}) if present is None else present.twin)
    found = {"registration_id": registration_id(wish), "thumbprint": thumbprint}
    return found | {"is_edge": wish.is_edge, "twin": str(twin)}


def _kept(record: Any) -> dict[str, Any]:
    """Return the SDK's model as JSON, which it cannot make of the wrapper that it puts a twin in."""
    made = copy.copy(record)
    made.initial_twin = getattr(record.initial_twin, "_internal", record.initial_twin)
    return dict(made.serialize())


def _has_certificate(before: Mapping[str, Any]) -> bool:
    pair = ((before.get("attestation") or {}).get("x509") or {}).get("clientCertificates") or {}
    return bool((pair.get("primary") or {}).get("certificate"))


def _told(present: OnRecord) -> str:
    said = ", ".join(present.thumbprints) or "another attestation"
    return f"{said} as {'IoT Edge ' if present.is_edge else ''}device {present.device_id}"


def _group_detail(group: Any) -> str:
    x509 = group.attestation.x509 if group.attestation else None
    if x509 and x509.ca_references:
        return f"CA {x509.ca_references.primary}"
    pair = x509.signing_certificates if x509 else None
    if pair and pair.primary and pair.primary.info:
        return f"CA {pair.primary.info.subject_name}"
    return str(group.attestation.type)
