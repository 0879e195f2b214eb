"""Enrollment at Azure DPS by the vendor's service SDK: Azure's own or any endpoint with the same API."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from birthmark.fleet.azure_dps_client import RawBulkOperation
from birthmark.fleet.azure_enrollment_diff import (
    IDENTITY,
    AzureRecord,
    InitialTwin,
    assigned_to,
    json_of,
    kept,
    key_of,
    mark_of,
    on_record,
    policy_names,
    registration_id,
    thumbprints,
    twin_json,
    twin_of,
)
from birthmark.fleet.azure_hub_devices import is_revoked_at_hub, progress_of
from birthmark.fleet.azure_revocation import AzureRevoker
from birthmark.fleet.azure_sdk_model_extensions import UnreadableRecord
from birthmark.fleet.device_migration import NotAtSourceError
from birthmark.fleet.device_onboarding_stages import DeviceProgress, DeviceStage
from birthmark.fleet.enrollment_target import (
    EnrollmentOutcome,
    EnrollmentRecord,
    EnrollmentRequest,
    Note,
    RetirementOutcome,
    TargetOutcome,
    WayBack,
    unnoted,
)
from birthmark.fleet.errors import NotTakenBackError, TargetRefusedError, different, parse_rollback_entry

_PAGE = 100
_BULK = 10  # service limit (Azure DPS quotas)
_SURVEY_AT_LEAST = 1000
_AZURE = ".azure-devices-provisioning."
# Limits of its one tier (S1), unless Microsoft raised them on request (Azure DPS quotas).
_MOST_RECORDS, _REGISTERED_A_MINUTE = 1_000_000, 1000
_OTHERS = ("allocationPolicy", "iotHubs", "customAllocationDefinition", "reprovisionPolicy")


class AzureTarget(AzureRevoker):
    """A provisioning service as an enrollment target."""

    # Fingerprints of known records by registration id; a million of them fit into memory.
    _known: dict[str, bytes] | None = None

    def survey(self, count: int) -> None:
        known: dict[str, bytes] = {}
        query = self._models.QuerySpecification(query="SELECT * FROM enrollments")
        for page in self._pages(self._sdk.create_individual_enrollment_query(query, _PAGE)):
            for item in page:
                if isinstance(item, UnreadableRecord):
                    known[item.name.lower()] = b""
                else:
                    known[item.registration_id.lower()] = on_record(item).marks()
            if len(known) > _SURVEY_AT_LEAST + 4 * count:
                return
        self._known = known

    def allowance(self, new: int, *, is_tiered: bool = False) -> str | None:
        """Return a text about the tier's limits for `new` devices; None without new devices or a tier.

        A tier applies at Azure, and at a Birthmark server if the service has one, `is_tiered`.
        """
        if not (is_tiered or _AZURE in self._host) or not new:
            return None
        minutes = -(-new // _REGISTERED_A_MINUTE)
        said = (
            f"Azure's tier S1 allows {_MOST_RECORDS:,} individual enrollments and {_REGISTERED_A_MINUTE:,} "
            f"registrations per minute: {new:,} devices need at least {minutes:,} min. Microsoft raises both on "
            "request."
        )
        if self._known is not None and (over := len(self._known) + new - _MOST_RECORDS) > 0:
            said += f" With the {len(self._known):,} existing enrollments, this exceeds the limit by {over:,}."
        return said

    @property
    def max_batch_size(self) -> int:
        return _BULK

    @property
    def is_atomic(self) -> bool:
        return True

    def enroll_new(self, requests: Sequence[EnrollmentRequest], note: Note) -> Sequence[bool]:
        fresh: dict[str, int] = {}
        for place, wish in enumerate(requests):
            # Without a first scan each is requested: one refusal per existing record would fill the ledger.
            if self._known is not None and (key := key_of(wish)) not in self._known:
                fresh.setdefault(key, place)  # the first per name
        if not fresh:
            return [False] * len(requests)
        refused = self._create([requests[place] for place in fresh.values()], note)
        created = {place for key, place in fresh.items() if key not in refused}
        return [place in created for place in range(len(requests))]

    def _create(self, requests: Sequence[EnrollmentRequest], note: Note) -> frozenset[str]:
        """Create records without overwriting any; return the rejected registration IDs in lower case."""
        for wish in requests:
            note(wish.device_id, _way_back(wish, None))
        records = [json_of(wish) for wish in requests]
        with self._translated():
            told = self._sdk.run_bulk_operation(RawBulkOperation({"mode": "create", "enrollments": records}))
        refused = frozenset(error.registration_id.lower() for error in told.errors or ())
        for wish in requests:
            if key_of(wish) in refused:
                note(wish.device_id, {})
        return refused

    def enroll(
        self, request: EnrollmentRequest, note: Note = unnoted, *, update: bool, dry_run: bool
    ) -> EnrollmentOutcome:
        known = self._known
        is_there = known is not None and key_of(request) in known
        if known is not None and is_there and mark_of(request) in known[key_of(request)]:
            return EnrollmentOutcome(TargetOutcome.UNCHANGED)
        # A device that was missing in the first scan is checked again before a write.
        present = self._seen(request) if known is None or is_there or not dry_run else None
        if present is None:
            if dry_run:
                return EnrollmentOutcome(TargetOutcome.WOULD_CREATE)
            if (present := self._create_or_see(request, note)) is None:
                return EnrollmentOutcome(TargetOutcome.CREATED)
        if not (difference := on_record(present).difference(request)):
            return EnrollmentOutcome(TargetOutcome.UNCHANGED)
        if not update:
            raise different(registration_id(request), self.description, difference)
        if dry_run:
            return EnrollmentOutcome(TargetOutcome.WOULD_UPDATE, difference)
        self._update(request, present, note)
        return EnrollmentOutcome(TargetOutcome.UPDATED, difference)

    def _seen(self, request: EnrollmentRequest) -> Any:
        return self._found(self._sdk.get_individual_enrollment, registration_id(request))

    def _create_or_see(self, request: EnrollmentRequest, note: Note) -> Any:
        """Create the record and return None; otherwise return the record that another client created."""
        if not self._create([request], note):
            return None
        if (present := self._seen(request)) is None:  # singly, the service gives its own reason
            note(request.device_id, _way_back(request, None))
            self._put(self._record_of(request), None)
        return present

    def _update(self, request: EnrollmentRequest, present: Any, note: Note) -> None:
        before, way = kept(present), _way_back(request, on_record(present))
        if _keeps_certificates(on_record(present), before, request):
            way |= {"thumbprints": on_record(present).thumbprints}
        note(request.device_id, way | {"before": before})
        try:
            self._put(self._as_wished(present, request), present)
        except TargetRefusedError:
            # The SDK retries a write with a lost reply, and then the record differs from the one read.
            now = self._seen(request)
            if now is None or on_record(now).difference(request):
                note(request.device_id, {})
                raise

    def get_progress(self, request: EnrollmentRequest) -> DeviceProgress:
        """Return a device's progress; only its assigned hub knows whether it has connected."""
        if (present := self._found(self._sdk.get_individual_enrollment, registration_id(request))) is None:
            return DeviceProgress(request.device_id, DeviceStage.MISSING)
        now, state = on_record(present), present.registration_state
        if now.is_disabled and (why := self._taken_back(present)) is not None:
            return DeviceProgress(request.device_id, DeviceStage.TAKEN_BACK, why)
        other = [change for change in now.difference(request) if change.what in IDENTITY]
        if now.is_disabled or other:
            said = ", ".join(f"{one.what} {one.present}" for one in other)
            return DeviceProgress(request.device_id, DeviceStage.OTHERWISE if other else DeviceStage.DISABLED, said)
        if state is None or not state.assigned_hub:
            return DeviceProgress(request.device_id, DeviceStage.UNASSIGNED)
        return self._stand_at_hub(request, state, present.last_updated_date_time_utc)

    def _taken_back(self, present: Any) -> str | None:
        """Return why a device was revoked, from its enrollment or its hub."""
        if (why := self.why_taken_back(str(present.registration_id))) is not None:
            return f"as {why}"
        device = self._at_hub(present)
        return str(device["statusReason"]) if device is not None and is_revoked_at_hub(device) else None

    def _stand_at_hub(self, request: EnrollmentRequest, state: Any, since: datetime | None) -> DeviceProgress:
        """Return the progress of an assigned device; activity counts if later than the creation of its record."""
        at = _assigned_to(state, request.device_id)
        if self._hub is None or not self._is_at_hand(state):
            return DeviceProgress(
                request.device_id, DeviceStage.ASSIGNED, f"{at}; no connection string of that hub is at hand"
            )
        if (device := self._hub.get(str(state.device_id))) is None:
            return DeviceProgress(request.device_id, DeviceStage.ASSIGNED, f"{at}, which has no such device")
        return progress_of(request.device_id, at, device, since)

    def retire(self, request: EnrollmentRequest, *, dry_run: bool) -> RetirementOutcome:
        """Disable a device's enrollment and its device at the assigned hub, without other changes."""
        present = self._found(self._sdk.get_individual_enrollment, registration_id(request))
        if present is None:
            return RetirementOutcome(TargetOutcome.GONE)
        now, state = on_record(present), present.registration_state
        if request.certificate.thumbprint.hex() not in now.thumbprints:
            raise NotAtSourceError(
                device=request.device_id, source=self.description, standing=DeviceStage.OTHERWISE.value
            )
        assigned = str(state.device_id) if state is not None and state.assigned_hub else None
        if assigned is not None and not self._is_at_hand(state):
            return RetirementOutcome(TargetOutcome.LEFT)
        known = None if assigned is None or self._hub is None else self._hub.get(assigned)
        is_cut = known is None or known.get("status") == "disabled"
        if now.is_disabled and is_cut:
            return RetirementOutcome(TargetOutcome.UNCHANGED)
        if dry_run:
            return RetirementOutcome(TargetOutcome.WOULD_RETIRE)
        if not now.is_disabled:
            self._put(self._disabled(present, request), present)
        if known is not None and not is_cut and self._hub is not None:
            self._hub.disable(known)
        return RetirementOutcome(TargetOutcome.RETIRED)

    def _disabled(self, present: Any, request: EnrollmentRequest) -> Any:
        before = kept(present)
        record = self._as_kept(before)
        if not _has_certificate(before):  # the service then requires it again
            models = self._models
            record.attestation = models.AttestationMechanism.create_with_x509_client_certs(request.certificate.pem())
        record.provisioning_status = "disabled"
        return record

    def _is_at_hand(self, state: Any) -> bool:
        """Return whether the assigned hub of a device is the hub of the profile."""
        return self._hub is not None and self._hub.host == str(state.assigned_hub).partition(":")[0]

    def reinstate(self, request: EnrollmentRequest) -> None:
        """Enable the device at its assigned hub, because its enrollment alone does not."""
        present = self._found(self._sdk.get_individual_enrollment, registration_id(request))
        known = None if present is None else self._at_hub(present)
        if self._hub is not None and known is not None and known.get("status") == "disabled":
            self._hub.enable(known)

    def _at_hub(self, present: Any) -> dict[str, Any] | None:
        """Return the hub's own record of an assigned device, None if unavailable."""
        state = present.registration_state
        if state is None or not state.device_id or self._hub is None or not self._is_at_hand(state):
            return None
        return self._hub.get(str(state.device_id))

    def undo_enrollment(self, device_id: str, way: WayBack, *, dry_run: bool) -> TargetOutcome:
        known = parse_rollback_entry(way, _AzureRollbackEntry, device_id, self.description)
        name, before = known.registration_id, known.before
        if (present := self._found(self._sdk.get_individual_enrollment, name)) is None:
            return TargetOutcome.GONE
        now = on_record(present)
        if known.thumbprint not in now.thumbprints:
            if before is not None and self._earlier(before) == now.thumbprints:
                return TargetOutcome.GONE
            detail = "it has another certificate now"
            raise NotTakenBackError(device=name, target=self.description, detail=detail)
        is_settled = before is None or _settings(kept(present)) == _settings(before | assigned_to(known.hub))
        if not (is_settled and known.is_as_left(now, device_id)):
            detail = "it was disabled, or has other settings now"
            raise NotTakenBackError(device=name, target=self.description, detail=detail)
        if before is not None and not _has_certificate(before):
            detail = "the service did not return the previous certificate"
            raise NotTakenBackError(device=name, target=self.description, detail=detail)
        if dry_run:
            return TargetOutcome.WOULD_TAKE_BACK
        if before is not None:
            self._put(self._as_kept(before), present)
            return TargetOutcome.TAKEN_BACK
        with self._translated(name):
            self._sdk.delete(present)  # by its etag: as just read, or not at all
        return TargetOutcome.TAKEN_BACK

    def _earlier(self, before: Mapping[str, Any]) -> tuple[str, ...]:
        return on_record(self._as_kept(before)).thumbprints

    def _record_of(self, request: EnrollmentRequest) -> Any:
        """Return the request as the SDK's model."""
        made = self._models.IndividualEnrollment.create(registration_id=registration_id(request), attestation=None)
        return self._as_wished(made, request)

    def _as_wished(self, record: Any, request: EnrollmentRequest) -> Any:
        """Apply the request to a record; hubs, allocation and similar settings remain."""
        models = self._models
        if not (record.attestation and _keeps_certificates(on_record(record), kept(record), request)):
            record.attestation = models.AttestationMechanism.create_with_x509_client_certs(request.certificate.pem())
        record.device_id = request.device_id
        record.capabilities = models.DeviceCapabilities.create(iot_edge=request.is_edge)
        record.provisioning_status = "enabled"
        if (twin := twin_of(request)) is not None:
            record.twin = twin_json(twin)
        for name, text in policy_names(request.issue).items():
            setattr(record, name, text)
        if request.hub is not None:
            record.iot_hub_host_name, record.iot_hubs, record.allocation_policy = None, [request.hub], "static"
        return record

    def records(self) -> Iterator[EnrollmentRecord]:
        query = self._models.QuerySpecification(query="SELECT * FROM enrollments")
        groups = self._models.QuerySpecification(query="SELECT * FROM enrollmentGroups")
        for page in self._pages(self._sdk.create_individual_enrollment_query(query, _PAGE)):
            for item in page:
                if isinstance(item, UnreadableRecord):
                    yield _unreadable(item, "individual")
                    continue
                state = item.registration_state
                status = state.status if state else "unassigned"
                detail = _assigned_to(state, item.registration_id) if state and state.assigned_hub else "-"
                told = status if item.provisioning_status == "enabled" else "disabled"
                yield EnrollmentRecord(
                    item.registration_id, "individual", told, next(iter(thumbprints(item)), None), detail
                )
        for page in self._pages(self._sdk.create_enrollment_group_query(groups, _PAGE)):
            for item in page:
                if isinstance(item, UnreadableRecord):
                    yield _unreadable(item, "group")
                    continue
                yield EnrollmentRecord(
                    item.enrollment_group_id, "group", item.provisioning_status, None, _group_detail(item)
                )
                yield from self._members(item.enrollment_group_id)

    def _members(self, group: str) -> Iterator[EnrollmentRecord]:
        """Yield the devices that registered through a group."""
        for state in self._states_of(group):
            detail = f"{group}: {_assigned_to(state, state.registration_id)}" if state.assigned_hub else group
            yield EnrollmentRecord(state.registration_id, "of a group", state.status, None, detail)

    def remove(self, name: str, *, is_group: bool) -> Sequence[str]:
        with self._translated(name):
            if is_group:
                self._sdk.delete_enrollment_group_by_param(name)
            else:
                self._sdk.delete_individual_enrollment_by_param(name)
        return []


class _AzureRollbackEntry(msgspec.Struct, frozen=True):
    """Rollback entry of a record in the journal."""

    registration_id: str
    thumbprint: str
    is_edge: bool | None = None  # unknown in older journals, like the twin
    twin: str | None = None
    before: dict[str, Any] | None = None
    hub: str | None = None
    thumbprints: tuple[str, ...] = ()
    """Thumbprints after the run, if more than its own certificate."""

    def is_as_left(self, now: AzureRecord, device_id: str) -> bool:
        """Return whether a record is unchanged since the run."""
        is_same = (
            now.thumbprints == (self.thumbprints or (self.thumbprint,)) and now.device_id.lower() == device_id.lower()
        )
        is_same = is_same and self.is_edge in {None, now.is_edge} and self.twin in {None, str(now.twin)}
        return is_same and not now.is_disabled


def _way_back(request: EnrollmentRequest, present: AzureRecord | None) -> dict[str, Any]:
    thumbprint = request.certificate.thumbprint.hex()
    twin = twin_of(request) or (InitialTwin({}, {}) if present is None else present.twin)
    found = {"registration_id": registration_id(request), "thumbprint": thumbprint}
    hub = {} if request.hub is None else {"hub": request.hub}
    return found | {"is_edge": request.is_edge, "twin": str(twin)} | hub


def _keeps_certificates(now: AzureRecord, record: Mapping[str, Any], request: EnrollmentRequest) -> bool:
    """Return whether a record has the requested certificate and can be rewritten completely."""
    pair = ((record.get("attestation") or {}).get("x509") or {}).get("clientCertificates") or {}
    is_told = all(one.get("certificate") for one in pair.values() if one)
    return is_told and request.certificate.thumbprint.hex() in now.thumbprints


def _settings(record: Mapping[str, Any]) -> list[Any]:
    """Return the members that enrollment runs never change; other clients made any difference in them."""
    return [record.get(name) for name in _OTHERS]


def _has_certificate(before: Mapping[str, Any]) -> bool:
    pair = ((before.get("attestation") or {}).get("x509") or {}).get("clientCertificates") or {}
    return bool((pair.get("primary") or {}).get("certificate"))


def _assigned_to(state: Any, name: str) -> str:
    """Return the assigned hub, with the device ID if it differs from the name here."""
    return str(state.assigned_hub) if state.device_id == name else f"{state.assigned_hub} as {state.device_id}"


def _unreadable(item: UnreadableRecord, kind: str) -> EnrollmentRecord:
    return EnrollmentRecord(item.name, kind, "unreadable", None, item.reason)


def _group_detail(group: Any) -> str:
    x509 = group.attestation.x509 if group.attestation else None
    if x509 and x509.ca_references:
        return f"CA {x509.ca_references.primary}"
    pair = x509.signing_certificates if x509 else None
    if pair and pair.primary and pair.primary.info:
        return f"CA {pair.primary.info.subject_name}"
    return str(group.attestation.type)
