"""Enrollment at Azure DPS by the vendor's service SDK: Azure's own or any endpoint with the same interface."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from birthmark.fleet.azure_client import RawBulkOperation
from birthmark.fleet.azure_hub import is_taken_back, stand_of
from birthmark.fleet.azure_models import UnreadableRecord
from birthmark.fleet.azure_record_diff import (
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
from birthmark.fleet.azure_revocation import AzureRevoker
from birthmark.fleet.errors import NotTakenBackError, TargetRefusedError, different, way_of
from birthmark.fleet.migration import NotAtSourceError
from birthmark.fleet.target import (
    EnrollmentOutcome,
    EnrollmentRecord,
    EnrollmentRequest,
    Note,
    RetirementOutcome,
    TargetOutcome,
    WayBack,
    unnoted,
)
from birthmark.fleet.tracking import DeviceProgress, DeviceStage

_PAGE = 100
_BULK = 10  # the service takes no more (Azure DPS quotas)
_SURVEY_AT_LEAST = 1000
_AZURE = ".azure-devices-provisioning."
# Of its one tier (S1), unless Microsoft raised it on request (Azure DPS quotas).
_MOST_RECORDS, _REGISTERED_A_MINUTE = 1_000_000, 1000
_OTHERS = ("allocationPolicy", "iotHubs", "customAllocationDefinition", "reprovisionPolicy")


class AzureTarget(AzureRevoker):
    """One provisioning service as a target of enrollments."""

    # By registration id on record, the marks of what it serves as: a million of them fit into memory.
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
        """Say what Azure's tier allows of so many new devices; None where nothing is new, or no tier counts.

        One counts at Azure, and at a server of ours where the service has it, `is_tiered`.
        """
        if not (is_tiered or _AZURE in self._host) or not new:
            return None
        minutes = -(-new // _REGISTERED_A_MINUTE)
        said = (
            f"Azure's tier S1 holds {_MOST_RECORDS:,} individual enrollments, and {_REGISTERED_A_MINUTE:,} devices "
            f"register in a minute: {new:,} take {minutes:,} min at least. Microsoft raises both on request."
        )
        if self._known is not None and (over := len(self._known) + new - _MOST_RECORDS) > 0:
            said += f" With the {len(self._known):,} on record, {over:,} are too many."
        return said

    @property
    def most_at_once(self) -> int:
        return _BULK

    @property
    def writes_at_once(self) -> bool:
        return True

    def enroll_new(self, wishes: Sequence[EnrollmentRequest], note: Note) -> Sequence[bool]:
        fresh: dict[str, int] = {}
        for place, wish in enumerate(wishes):
            # Whoever could not look asks for each: a refusal for every record that is there would fill the ledger.
            if self._known is not None and (key := key_of(wish)) not in self._known:
                fresh.setdefault(key, place)  # the first of a name
        if not fresh:
            return [False] * len(wishes)
        refused = self._create([wishes[place] for place in fresh.values()], note)
        created = {place for key, place in fresh.items() if key not in refused}
        return [place in created for place in range(len(wishes))]

    def _create(self, wishes: Sequence[EnrollmentRequest], note: Note) -> frozenset[str]:
        """Write what nobody has, and over nothing; return the registration ids, in small letters, that were refused."""
        for wish in wishes:
            note(wish.device_id, _way_back(wish, None))
        records = [json_of(wish) for wish in wishes]
        with self._translated():
            told = self._sdk.run_bulk_operation(RawBulkOperation({"mode": "create", "enrollments": records}))
        refused = frozenset(error.registration_id.lower() for error in told.errors or ())
        for wish in wishes:
            if key_of(wish) in refused:
                note(wish.device_id, {})
        return refused

    def enroll(
        self, wish: EnrollmentRequest, note: Note = unnoted, *, update: bool, dry_run: bool
    ) -> EnrollmentOutcome:
        known = self._known
        is_there = known is not None and key_of(wish) in known
        if known is not None and is_there and mark_of(wish) in known[key_of(wish)]:
            return EnrollmentOutcome(TargetOutcome.UNCHANGED)
        # Who was not there when all were read is asked for all the same before something is written.
        present = self._seen(wish) if known is None or is_there or not dry_run else None
        if present is None:
            if dry_run:
                return EnrollmentOutcome(TargetOutcome.WOULD_CREATE)
            if (present := self._create_or_see(wish, note)) is None:
                return EnrollmentOutcome(TargetOutcome.CREATED)
        if not (difference := on_record(present).difference(wish)):
            return EnrollmentOutcome(TargetOutcome.UNCHANGED)
        if not update:
            raise different(registration_id(wish), self.description, difference)
        if dry_run:
            return EnrollmentOutcome(TargetOutcome.WOULD_UPDATE, difference)
        self._update(wish, present, note)
        return EnrollmentOutcome(TargetOutcome.UPDATED, difference)

    def _seen(self, wish: EnrollmentRequest) -> Any:
        return self._found(self._sdk.get_individual_enrollment, registration_id(wish))

    def _create_or_see(self, wish: EnrollmentRequest, note: Note) -> Any:
        """Return None where the record was created, else what another made meanwhile."""
        if not self._create([wish], note):
            return None
        if (present := self._seen(wish)) is None:  # alone it is refused in the service's own words
            note(wish.device_id, _way_back(wish, None))
            self._put(self._record_of(wish), None)
        return present

    def _update(self, wish: EnrollmentRequest, present: Any, note: Note) -> None:
        before, way = kept(present), _way_back(wish, on_record(present))
        if _keeps_certificates(on_record(present), before, wish):
            way |= {"thumbprints": on_record(present).thumbprints}
        note(wish.device_id, way | {"before": before})
        try:
            self._put(self._as_wished(present, wish), present)
        except TargetRefusedError:
            # The SDK repeats a write whose answer is lost, and then the record is no more the one that was seen.
            now = self._seen(wish)
            if now is None or on_record(now).difference(wish):
                note(wish.device_id, {})
                raise

    def stand(self, wish: EnrollmentRequest) -> DeviceProgress:
        """Return where a device stands; whether it connected, only the hub knows that it was assigned to."""
        if (present := self._found(self._sdk.get_individual_enrollment, registration_id(wish))) is None:
            return DeviceProgress(wish.device_id, DeviceStage.MISSING)
        now, state = on_record(present), present.registration_state
        if now.is_disabled and (why := self._taken_back(present)) is not None:
            return DeviceProgress(wish.device_id, DeviceStage.TAKEN_BACK, why)
        other = [change for change in now.difference(wish) if change.what in IDENTITY]
        if now.is_disabled or other:
            said = ", ".join(f"{one.what} {one.present}" for one in other)
            return DeviceProgress(wish.device_id, DeviceStage.OTHERWISE if other else DeviceStage.DISABLED, said)
        if state is None or not state.assigned_hub:
            return DeviceProgress(wish.device_id, DeviceStage.UNASSIGNED)
        return self._stand_at_hub(wish, state, present.last_updated_date_time_utc)

    def _taken_back(self, present: Any) -> str | None:
        """Return why a device was taken back, as its enrollment or its hub tells."""
        if (why := self.why_taken_back(str(present.registration_id))) is not None:
            return f"as {why}"
        device = self._at_hub(present)
        return str(device["statusReason"]) if device is not None and is_taken_back(device) else None

    def _stand_at_hub(self, wish: EnrollmentRequest, state: Any, since: datetime | None) -> DeviceProgress:
        """Return where a device stands that was assigned; seen it is where that was after its record was written."""
        at = _assigned_to(state, wish.device_id)
        if self._hub is None or not self._is_at_hand(state):
            return DeviceProgress(
                wish.device_id, DeviceStage.ASSIGNED, f"{at}; no connection string of that hub is at hand"
            )
        if (device := self._hub.get(str(state.device_id))) is None:
            return DeviceProgress(wish.device_id, DeviceStage.ASSIGNED, f"{at}, which has no such device")
        return stand_of(wish.device_id, at, device, since)

    def retire(self, wish: EnrollmentRequest, *, dry_run: bool) -> RetirementOutcome:
        """Let a device register no more, nor connect to the hub that it was assigned to; nothing else changes."""
        present = self._found(self._sdk.get_individual_enrollment, registration_id(wish))
        if present is None:
            return RetirementOutcome(TargetOutcome.GONE)
        now, state = on_record(present), present.registration_state
        if wish.certificate.thumbprint.hex() not in now.thumbprints:
            raise NotAtSourceError(device=wish.device_id, source=self.description, standing=DeviceStage.OTHERWISE.value)
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
            self._put(self._disabled(present, wish), present)
        if known is not None and not is_cut and self._hub is not None:
            self._hub.disable(known)
        return RetirementOutcome(TargetOutcome.RETIRED)

    def _disabled(self, present: Any, wish: EnrollmentRequest) -> Any:
        before = kept(present)
        record = self._as_kept(before)
        if not _has_certificate(before):  # which the service then wants told again
            models = self._models
            record.attestation = models.AttestationMechanism.create_with_x509_client_certs(wish.certificate.pem())
        record.provisioning_status = "disabled"
        return record

    def _is_at_hand(self, state: Any) -> bool:
        """Say whether the hub that a device was assigned to is the one that can be asked."""
        return self._hub is not None and self._hub.host == str(state.assigned_hub).partition(":")[0]

    def reinstate(self, wish: EnrollmentRequest) -> None:
        """Let a device connect again to the hub that it was assigned to; its enrollment alone does not."""
        present = self._found(self._sdk.get_individual_enrollment, registration_id(wish))
        known = None if present is None else self._at_hub(present)
        if self._hub is not None and known is not None and known.get("status") == "disabled":
            self._hub.enable(known)

    def _at_hub(self, present: Any) -> dict[str, Any] | None:
        """Return the hub's own record of a device that was assigned, None where it has or tells none."""
        state = present.registration_state
        if state is None or not state.device_id or self._hub is None or not self._is_at_hand(state):
            return None
        return self._hub.get(str(state.device_id))

    def take_back(self, device_id: str, way: WayBack, *, dry_run: bool) -> TargetOutcome:
        known = way_of(way, _AzureRollbackEntry, device_id, self.description)
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
            detail = "the service did not tell the certificate that it had before"
            raise NotTakenBackError(device=name, target=self.description, detail=detail)
        if dry_run:
            return TargetOutcome.WOULD_TAKE_BACK
        if before is not None:
            self._put(self._as_kept(before), present)
            return TargetOutcome.TAKEN_BACK
        with self._translated(name):
            self._sdk.delete(present)  # by its etag: as it was just seen, or not at all
        return TargetOutcome.TAKEN_BACK

    def _earlier(self, before: Mapping[str, Any]) -> tuple[str, ...]:
        return on_record(self._as_kept(before)).thumbprints

    def _record_of(self, wish: EnrollmentRequest) -> Any:
        """Return the wish as the SDK's model."""
        made = self._models.IndividualEnrollment.create(registration_id=registration_id(wish), attestation=None)
        return self._as_wished(made, wish)

    def _as_wished(self, record: Any, wish: EnrollmentRequest) -> Any:
        """Change in a record what is wished otherwise; hubs, allocation and the like stay as somebody set them."""
        models = self._models
        if not (record.attestation and _keeps_certificates(on_record(record), kept(record), wish)):
            record.attestation = models.AttestationMechanism.create_with_x509_client_certs(wish.certificate.pem())
        record.device_id = wish.device_id
        record.capabilities = models.DeviceCapabilities.create(iot_edge=wish.is_edge)
        record.provisioning_status = "enabled"
        if (twin := twin_of(wish)) is not None:
            record.twin = twin_json(twin)
        for name, text in policy_names(wish.issue).items():
            setattr(record, name, text)
        if wish.hub is not None:
            record.iot_hub_host_name, record.iot_hubs, record.allocation_policy = None, [wish.hub], "static"
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
        """Yield the devices that registered by a group."""
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
    """What the journal keeps of a record."""

    registration_id: str
    thumbprint: str
    is_edge: bool | None = None  # an older journal does not say, as of the twin
    twin: str | None = None
    before: dict[str, Any] | None = None
    hub: str | None = None
    thumbprints: tuple[str, ...] = ()
    """What the run left it with, where that is more than its own certificate."""

    def is_as_left(self, now: AzureRecord, device_id: str) -> bool:
        """Say whether a record is as the run left it."""
        is_same = (
            now.thumbprints == (self.thumbprints or (self.thumbprint,)) and now.device_id.lower() == device_id.lower()
        )
        is_same = is_same and self.is_edge in {None, now.is_edge} and self.twin in {None, str(now.twin)}
        return is_same and not now.is_disabled


def _way_back(wish: EnrollmentRequest, present: AzureRecord | None) -> dict[str, Any]:
    thumbprint = wish.certificate.thumbprint.hex()
    twin = twin_of(wish) or (InitialTwin({}, {}) if present is None else present.twin)
    found = {"registration_id": registration_id(wish), "thumbprint": thumbprint}
    hub = {} if wish.hub is None else {"hub": wish.hub}
    return found | {"is_edge": wish.is_edge, "twin": str(twin)} | hub


def _keeps_certificates(now: AzureRecord, record: Mapping[str, Any], wish: EnrollmentRequest) -> bool:
    """Say whether a record has the wished certificate and can be written with all that it has."""
    pair = ((record.get("attestation") or {}).get("x509") or {}).get("clientCertificates") or {}
    is_told = all(one.get("certificate") for one in pair.values() if one)
    return is_told and wish.certificate.thumbprint.hex() in now.thumbprints


def _settings(record: Mapping[str, Any]) -> list[Any]:
    """Return what no run changes: what is otherwise since, somebody set."""
    return [record.get(name) for name in _OTHERS]


def _has_certificate(before: Mapping[str, Any]) -> bool:
    pair = ((before.get("attestation") or {}).get("x509") or {}).get("clientCertificates") or {}
    return bool((pair.get("primary") or {}).get("certificate"))


def _assigned_to(state: Any, name: str) -> str:
    """Return the hub of an assignment, with the device's id there where it is another than its name here."""
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
