"""Enrollment at AWS IoT Core with boto3: a thing, its certificate registered without a CA, and attachments."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import msgspec

from birthmark import msgspec_type_preparation
from birthmark.clock_and_entropy import Clock
from birthmark.fleet.aws_diff_and_rollback import (
    ACTIVE,
    AwsRecord,
    AwsRollbackEntry,
    CurrentThing,
    PreviousThing,
    Undo,
    build_rollback_entry,
    completes,
    may_be_ours,
    policy_to_attach,
    progress_of,
    status_change,
    thing_of,
    undo_of,
)
from birthmark.fleet.aws_iot_client import CLOCK, SURVEY_AT_LEAST
from birthmark.fleet.aws_renewal import AwsRenewer
from birthmark.fleet.aws_revocation import REVOKED
from birthmark.fleet.device_onboarding_stages import DeviceProgress, DeviceStage
from birthmark.fleet.enrollment_target import (
    Change,
    EnrollmentOutcome,
    EnrollmentRecord,
    EnrollmentRequest,
    Note,
    RetirementOutcome,
    TargetOutcome,
    WayBack,
    unnoted,
)
from birthmark.fleet.errors import (
    DifferentRecordError,
    NoSuchRecordError,
    NotTakenBackError,
    ReferenceMissingError,
    TargetRefusedError,
    parse_rollback_entry,
)
from birthmark.fleet.target_profiles import AwsProfile

_INDEX = (
    "connection states require fleet indexing: `aws iot update-indexing-configuration "
    "--thing-indexing-configuration thingIndexingMode=REGISTRY,thingConnectivityIndexingMode=STATUS`"
)
_MAKE_TYPE = ": `aws iot create-thing-type --thing-type-name {}`"
_MAKE_GROUP = ": `aws iot create-thing-group --thing-group-name {}`"
_MAKE_POLICY = (
    ", such as a policy that allows a client to connect with its thing's name: `aws iot create-policy "
    "--policy-name {} --policy-document "
    '\'{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"iot:Connect","Resource":"arn:aws:iot:*:*:client/${{iot:Connection.Thing.ThingName}}"}}]}}\'`'
)
_WITHOUT = (
    "It had no certificate. An interrupted removal may have left one, inactive and without policies: `aws iot "
    "list-certificates`"
)


class AwsTarget(AwsRenewer):
    """An account in one region as an enrollment target."""

    def __init__(self, profile: AwsProfile, clock: Clock = CLOCK) -> None:
        super().__init__(profile, clock)
        self._known: set[str] | None = None
        self._asleep: dict[str, str] = {}
        """Status of certificates that were read in bulk and are not active, by ID."""
        self._there: set[tuple[str, str]] = set()
        """Policies, types and groups that were already looked up."""

    def survey(self, count: int) -> None:
        known: set[str] = set()
        with self._translated():
            for page in self._iot.get_paginator("list_things").paginate(PaginationConfig={"PageSize": 250}):
                known |= {thing["thingName"] for thing in page["things"]}
                if len(known) > SURVEY_AT_LEAST + 4 * count:
                    return
            self._asleep = self._not_active(SURVEY_AT_LEAST + 4 * count)
        self._known = known

    def _not_active(self, limit: int | None) -> dict[str, str]:
        """Return the status of up to `most` inactive certificates, by ID."""
        asked = {"PageSize": 250} | ({} if limit is None else {"MaxItems": limit})
        pages = self._iot.get_paginator("list_certificates").paginate(PaginationConfig=asked)
        listed = ((one["certificateId"], one["status"]) for page in pages for one in page["certificates"])
        return {name: status for name, status in listed if status != ACTIVE}

    @property
    def max_batch_size(self) -> int:
        return 1

    @property
    def is_atomic(self) -> bool:
        return False

    def enroll_new(self, requests: Sequence[EnrollmentRequest], note: Note) -> Sequence[bool]:
        del note
        return [False] * len(requests)

    def enroll(
        self, request: EnrollmentRequest, note: Note = unnoted, *, update: bool, dry_run: bool
    ) -> EnrollmentOutcome:
        # A device that was missing in the first scan is checked again before a write.
        is_new = dry_run and self._known is not None and request.device_id not in self._known
        present = None if is_new else self._present(request)
        difference = () if present is None else present.difference(request)
        if present is not None and not difference:
            return EnrollmentOutcome(TargetOutcome.UNCHANGED)
        if present is None or present.arn is None:
            difference += status_change(self._asleep.get(request.certificate.thumbprint.hex()))
        if not (update or completes(difference)):
            raise self._differs(request, difference)
        self._check_references(request)
        if dry_run:
            return EnrollmentOutcome(
                TargetOutcome.WOULD_CREATE if present is None else TargetOutcome.WOULD_UPDATE, difference
            )
        self._write(request, present, note, update=update)
        return EnrollmentOutcome(TargetOutcome.CREATED if present is None else TargetOutcome.UPDATED, difference)

    def _present(self, request: EnrollmentRequest) -> AwsRecord | None:
        """Return the existing record under the name, limited to members in the request."""
        name, certificate_id = request.device_id, request.certificate.thumbprint.hex()
        if (principals := self._principals(name)) is None:
            return None
        found: dict[str, Any] = {}
        if (arn := next((one for one in principals if one.endswith(certificate_id)), None)) is not None:
            described = self._described(certificate_id) or {}
            found = {"arn": arn, "status": described.get("status", "ACTIVE")}
            found["policies"] = self._policies_of(arn) if request.policy else frozenset()
        with self._translated(name):
            if request.thing_type or request.attributes:
                thing = self._iot.describe_thing(thingName=name)
                found |= {"type_name": thing.get("thingTypeName"), "version": thing["version"]}
                found["attributes"] = thing.get("attributes", {})
            if request.groups:
                found["groups"] = frozenset(self._groups_of(name))
        return AwsRecord(principals, **found)

    def _differs(self, request: EnrollmentRequest, difference: Sequence[Change]) -> DifferentRecordError:
        return DifferentRecordError(
            device=request.device_id,
            target=self.description,
            present=", ".join(f"{change.what} {change.present}" for change in difference),
            wanted=", ".join(f"{change.what} {change.wanted}" for change in difference),
        )

    def _found_there(self, request: EnrollmentRequest) -> Mapping[str, Any]:
        """Return the description of a registered certificate."""
        if (described := self._described(request.certificate.thumbprint.hex())) is None:
            raise NoSuchRecordError(target=self.description, device=request.device_id)
        return described

    def _check_awake(self, request: EnrollmentRequest, status: str, *, update: bool) -> None:
        """Raise `DifferentRecordError` for an inactive certificate whose reactivation was not requested."""
        if (change := status_change(status)) and not update:
            raise self._differs(request, change)

    def _write(self, request: EnrollmentRequest, present: AwsRecord | None, note: Note, *, update: bool) -> None:
        """Create missing objects and keep existing ones; on an error, remove only what was created.

        `note` is called before each write.
        """
        certificate_id = request.certificate.thumbprint.hex()
        known, status = (None, None) if present is None else (present.arn, present.status)
        if present is not None and known is None and self._is_listed(certificate_id):
            described = self._found_there(request)
            known, status = str(described["certificateArn"]), str(described["status"])
            self._check_awake(request, status, update=update)
        had = self._policies_of(known) if known and request.policy else frozenset()
        way = build_rollback_entry(request, present, had, status=status if known else None) | {
            "since": self._time().isoformat()
        }
        note(request.device_id, way)
        with self._translated(), ExitStack() as undo:
            if present is None:
                self._iot.create_thing(**thing_of(request))
                if self._known is not None:
                    self._known.add(request.device_id)
                undo.callback(self._iot.delete_thing, thingName=request.device_id)
            arn = known or self._register(request)
            if arn is None:
                described = self._found_there(request)
                arn = str(described["certificateArn"])
                # The SDK retries a registration with a lost reply: an object created since the start of this run is its
                # own.
                if not may_be_ours(
                    msgspec.convert(way, msgspec_type_preparation.prepare_type(AwsRollbackEntry)), described
                ):
                    status = str(described["status"])
                    had = self._policies_of(arn) if request.policy else frozenset()
                    way |= {"is_registered": True, "status": status, "policy": policy_to_attach(request, had)}
                    note(request.device_id, way)
                    self._check_awake(request, status, update=update)
            elif not known:
                undo.callback(self._iot.delete_certificate, certificateId=certificate_id)
                undo.callback(self._iot.update_certificate, certificateId=certificate_id, newStatus="INACTIVE")
            if status_change(status):
                self._iot.update_certificate(certificateId=certificate_id, newStatus=ACTIVE)
                undo.callback(self._iot.update_certificate, certificateId=certificate_id, newStatus=status)
            if "before" in way:
                self._write_thing(request, way, note, undo)
            if policy := way["policy"]:
                self._iot.attach_policy(policyName=policy, target=arn)
                undo.callback(self._iot.detach_policy, policyName=policy, target=arn)
            self._join(request.device_id, way.get("groups", ()), None if present is None else undo)
            self._iot.attach_thing_principal(thingName=request.device_id, principal=arn)
            undo.pop_all()  # complete; until now, a failure removed all created objects

    def _write_thing(self, request: EnrollmentRequest, way: WayBack, note: Note, undo: ExitStack) -> None:
        before = msgspec.convert(way["before"], msgspec_type_preparation.prepare_type(PreviousThing))

        def write_back() -> None:
            self._iot.update_thing(**before.asked(request.device_id), expectedVersion=before.version + 1)
            # The content is restored, but with another version: an undo would take that for a foreign change.
            note(request.device_id, {name: value for name, value in way.items() if name != "before"})

        try:
            self._iot.update_thing(**thing_of(request, merge=True), expectedVersion=before.version)
        except self._iot.exceptions.VersionConflictException:
            # The SDK retries a change with a lost reply, and the thing then has the next version.
            now = self._iot.describe_thing(thingName=request.device_id)
            left = AwsRecord((), type_name=now.get("thingTypeName"), attributes=now.get("attributes", {}))
            if now["version"] != before.version + 1 or left.changes_thing(request):
                raise
        undo.callback(write_back)

    def _join(self, thing: str, groups: Sequence[str], undo: ExitStack | None) -> None:
        """Add a thing to groups; a deleted thing leaves them automatically, and needs no `undo`."""
        for group in groups:
            self._iot.add_thing_to_thing_group(thingName=thing, thingGroupName=group)
            if undo is not None:
                undo.callback(self._iot.remove_thing_from_thing_group, thingName=thing, thingGroupName=group)

    def get_progress(self, request: EnrollmentRequest) -> DeviceProgress:
        """Return a device's progress, by the client ID that equals its thing name."""
        name, certificate_id = request.device_id, request.certificate.thumbprint.hex()
        if not (principals := self._principals(name)):  # a thing without a certificate: no identity
            return DeviceProgress(
                name, DeviceStage.MISSING, "" if principals is None else "a thing without a certificate"
            )
        if not any(arn.endswith(certificate_id) for arn in principals):
            ids = ", ".join(arn.rpartition("/")[2] for arn in principals)
            return DeviceProgress(name, DeviceStage.OTHERWISE, f"certificate {ids}")
        described = self._described(certificate_id) or {}
        if (status := described.get("status")) != ACTIVE:
            standing = DeviceStage.TAKEN_BACK if status == REVOKED else DeviceStage.DISABLED
            return DeviceProgress(name, standing, f"its certificate is {status}")
        try:
            with self._translated(name):
                seen = self._iot.get_thing_connectivity_data(thingName=name)
        except TargetRefusedError as error:
            return DeviceProgress(name, DeviceStage.ASSIGNED, f"{error.facts['reason']}; {_INDEX}")
        return progress_of(name, seen, described.get("lastModifiedDate"))

    def retire(self, request: EnrollmentRequest, *, dry_run: bool) -> RetirementOutcome:
        """Block a device: deactivate its certificate, unless other things share it."""
        certificate_id = request.certificate.thumbprint.hex()
        if (described := self._described(certificate_id)) is None:
            return RetirementOutcome(TargetOutcome.GONE)
        if described["status"] != ACTIVE:
            return RetirementOutcome(TargetOutcome.UNCHANGED)
        if others := self._shared(str(described["certificateArn"]), request.device_id):
            return RetirementOutcome(TargetOutcome.LEFT, f"its certificate is {others}")
        if not dry_run:
            with self._translated(request.device_id):
                self._iot.update_certificate(certificateId=certificate_id, newStatus="INACTIVE")
        return RetirementOutcome(TargetOutcome.WOULD_RETIRE if dry_run else TargetOutcome.RETIRED)

    def reinstate(self, request: EnrollmentRequest) -> None:
        """Do nothing: enabling the record has already reactivated the certificate that `retire` deactivated."""

    def undo_enrollment(self, device_id: str, way: WayBack, *, dry_run: bool) -> TargetOutcome:
        known = parse_rollback_entry(way, AwsRollbackEntry, device_id, self.description)
        now = self._current_thing(known, device_id)
        undo = undo_of(known, device_id, now)
        if undo.problem is not None:
            raise NotTakenBackError(device=device_id, target=self.description, detail=undo.problem)
        if undo.is_nothing:
            return TargetOutcome.GONE
        if dry_run:
            return TargetOutcome.WOULD_TAKE_BACK
        arn = None if now.described is None else now.described["certificateArn"]
        with self._translated(device_id):
            if undo.puts_back and known.before is not None:
                self._iot.update_thing(**known.before.asked(device_id), expectedVersion=now.version)
            for group in undo.groups:
                self._iot.remove_thing_from_thing_group(thingName=device_id, thingGroupName=group)
            if undo.detaches:
                self._iot.detach_thing_principal(thingName=device_id, principal=arn)
            if undo.policy:
                self._iot.detach_policy(policyName=undo.policy, target=arn)
            self._take_back_certificate(known.certificate, undo)
            if undo.ends_thing:
                self._iot.delete_thing(thingName=device_id, expectedVersion=now.version)
        return TargetOutcome.TAKEN_BACK

    def _take_back_certificate(self, certificate_id: str, undo: Undo) -> None:
        if undo.status or undo.ends_certificate:
            self._iot.update_certificate(certificateId=certificate_id, newStatus=undo.status or "INACTIVE")
        if undo.ends_certificate:
            self._iot.delete_certificate(certificateId=certificate_id)

    def _current_thing(self, entry: AwsRollbackEntry, thing: str) -> CurrentThing:
        """Return the current state of a device for a rollback."""
        principals, described = self._principals(thing), self._described(entry.certificate)
        arn = "" if described is None else str(described["certificateArn"])
        is_ours = may_be_ours(entry, described)
        asks = principals is not None and (entry.is_new_thing or entry.before is not None)
        return CurrentThing(
            principals,
            described,
            things=self._things_of(arn) if is_ours else (),
            policies=frozenset(self._policies_of(arn) if arn and (entry.policy or is_ours) else ()),
            version=self._thing(thing)["version"] if asks else None,
            groups=frozenset(self._groups_of(thing) if entry.groups and principals is not None else ()),
        )

    def records(self) -> Iterator[EnrollmentRecord]:
        with self._translated():
            asleep = self._not_active(None)
            for page in self._iot.get_paginator("list_things").paginate():
                for thing in page["things"]:
                    principals = self._principals(thing["thingName"]) or []
                    yield _record_of(thing["thingName"], [arn.rpartition("/")[2] for arn in principals], asleep)

    def remove(self, name: str, *, is_group: bool) -> Sequence[str]:
        """Remove a thing, with the certificates that only it uses.

        A certificate stays attached until it grants no access, so that a rerun after an interruption finds it by its
        thing.
        """
        del is_group
        principals = self._principals(name)
        if principals is None:
            raise NoSuchRecordError(target=self.description, device=name)
        notes = [] if principals else [_WITHOUT]
        with self._translated(name):
            for arn in principals:
                certificate_id = arn.rpartition("/")[2]
                if self._shared(arn, name):
                    self._iot.detach_thing_principal(thingName=name, principal=arn)
                    if others := self._shared(arn, name):  # otherwise the other holder was removed, too
                        notes.append(f"The certificate {certificate_id} is unchanged, because it is {others}.")
                        continue
                with suppress(self._iot.exceptions.ResourceNotFoundException):  # as above
                    self._end(name, arn)
            self._iot.delete_thing(thingName=name)
        return notes

    def _end(self, thing: str, arn: str) -> None:
        """Deactivate a certificate, detach it, which deletion requires, and delete it."""
        certificate_id = arn.rpartition("/")[2]
        self._iot.update_certificate(certificateId=certificate_id, newStatus="INACTIVE")
        for policy in self._all("list_attached_policies", "policies", target=arn):
            self._iot.detach_policy(policyName=policy["policyName"], target=arn)
        self._iot.detach_thing_principal(thingName=thing, principal=arn)
        self._iot.delete_certificate(certificateId=certificate_id)

    def _check_references(self, request: EnrollmentRequest) -> None:
        """Raise `ReferenceMissingError` before any write for a device whose policy, type or group is missing."""
        asked = [(self._iot.get_policy, "policyName", request.policy, _MAKE_POLICY)]
        asked += [(self._iot.describe_thing_type, "thingTypeName", request.thing_type, _MAKE_TYPE)]
        asked += [(self._iot.describe_thing_group, "thingGroupName", group, _MAKE_GROUP) for group in request.groups]
        missing: list[ReferenceMissingError] = []
        for ask, argument, name, how in asked:
            if name is None or (argument, name) in self._there:
                continue
            try:
                with self._translated(how=how.format(shlex.quote(name))):
                    ask(**{argument: name})
            except ReferenceMissingError as error:
                missing.append(error)
            else:
                self._there.add((argument, name))
        if missing:  # all at once: separate reports cost one run each
            reason = "; ".join(error.facts["reason"].rstrip(".") for error in missing)
            how = "; then".join(error.facts["how"] for error in missing)
            raise ReferenceMissingError(target=self.description, reason=reason, how=how)

    def _register(self, request: EnrollmentRequest) -> str | None:
        """Return the ARN of a newly registered certificate, None if it was registered before."""
        try:
            answer = self._iot.register_certificate_without_ca(certificatePem=request.certificate.pem(), status=ACTIVE)
        except self._iot.exceptions.ResourceAlreadyExistsException:
            return None
        return str(answer["certificateArn"])


def _record_of(thing: str, certificates: Sequence[str], asleep: Mapping[str, str]) -> EnrollmentRecord:
    """Return the list entry of a thing: attached if it has an active certificate."""
    over = [asleep[one] for one in certificates if one in asleep]
    awake = [one for one in certificates if one not in asleep]
    state = "attached" if awake else "without certificate"
    if over and not awake:
        state = f"certificate {over[0]}" if len(set(over)) == 1 else "no active certificate"
    detail = f"{len(certificates)} certificate" + ("" if len(certificates) == 1 else "s")
    detail += "".join(f", {over.count(one)} {one}" for one in dict.fromkeys(over))
    return EnrollmentRecord(thing, "thing", state, next(iter([*awake, *certificates]), None), detail)
