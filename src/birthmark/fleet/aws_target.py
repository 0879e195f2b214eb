"""Enrollment at AWS IoT Core by boto3: a thing, its certificate registered without a CA, policy and thing attached."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import msgspec

from birthmark import msgspec_types
from birthmark.clock import Clock
from birthmark.fleet.aws_account import CLOCK, SURVEY_AT_LEAST
from birthmark.fleet.aws_record_diff import (
    ACTIVE,
    AwsRecord,
    AwsRollbackEntry,
    CurrentThing,
    PreviousThing,
    Undo,
    completes,
    may_be_ours,
    policy_to_attach,
    stand_of,
    status_change,
    thing_of,
    undo_of,
    way_back,
)
from birthmark.fleet.aws_renewal import AwsRenewer
from birthmark.fleet.aws_revocation import REVOKED
from birthmark.fleet.errors import (
    DifferentRecordError,
    NoSuchRecordError,
    NotTakenBackError,
    ReferenceMissingError,
    TargetRefusedError,
    way_of,
)
from birthmark.fleet.profiles import AwsProfile
from birthmark.fleet.target import (
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
from birthmark.fleet.tracking import DeviceProgress, DeviceStage

_INDEX = (
    "who is connected is told where the account indexes it: `aws iot update-indexing-configuration "
    "--thing-indexing-configuration thingIndexingMode=REGISTRY,thingConnectivityIndexingMode=STATUS`"
)
_MAKE_TYPE = ": `aws iot create-thing-type --thing-type-name {}`"
_MAKE_GROUP = ": `aws iot create-thing-group --thing-group-name {}`"
_MAKE_POLICY = (
    ", such as a policy that lets a client connect under its thing's name: `aws iot create-policy --policy-name {} "
    '--policy-document \'{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"iot:Connect",'
    '"Resource":"arn:aws:iot:*:*:client/${{iot:Connection.Thing.ThingName}}"}}]}}\'`'
)
_WITHOUT = (
    "It had no certificate. Where an earlier removal was cut off, one may be left, inactive and without policies: "
    "`aws iot list-certificates`"
)


class AwsTarget(AwsRenewer):
    """One account in one region, as a target of enrollments."""

    def __init__(self, profile: AwsProfile, clock: Clock = CLOCK) -> None:
        super().__init__(profile, clock)
        self._known: set[str] | None = None
        self._asleep: dict[str, str] = {}
        """By id, the status of certificates that were read in bulk and are not active."""
        self._there: set[tuple[str, str]] = set()
        """Policies, types and groups that were looked up."""

    def survey(self, count: int) -> None:
        known: set[str] = set()
        with self._translated():
            for page in self._iot.get_paginator("list_things").paginate(PaginationConfig={"PageSize": 250}):
                known |= {thing["thingName"] for thing in page["things"]}
                if len(known) > SURVEY_AT_LEAST + 4 * count:
                    return
            self._asleep = self._not_active(SURVEY_AT_LEAST + 4 * count)
        self._known = known

    def _not_active(self, most: int | None) -> dict[str, str]:
        """Return by id the status of certificates that are not active, of so many."""
        asked = {"PageSize": 250} | ({} if most is None else {"MaxItems": most})
        pages = self._iot.get_paginator("list_certificates").paginate(PaginationConfig=asked)
        listed = ((one["certificateId"], one["status"]) for page in pages for one in page["certificates"])
        return {name: status for name, status in listed if status != ACTIVE}

    @property
    def most_at_once(self) -> int:
        return 1

    @property
    def writes_at_once(self) -> bool:
        return False

    def enroll_new(self, wishes: Sequence[EnrollmentRequest], note: Note) -> Sequence[bool]:
        del note
        return [False] * len(wishes)

    def enroll(
        self, wish: EnrollmentRequest, note: Note = unnoted, *, update: bool, dry_run: bool
    ) -> EnrollmentOutcome:
        # Who was not there when all were read is asked for all the same before something is written.
        is_new = dry_run and self._known is not None and wish.device_id not in self._known
        present = None if is_new else self._present(wish)
        difference = () if present is None else present.difference(wish)
        if present is not None and not difference:
            return EnrollmentOutcome(TargetOutcome.UNCHANGED)
        if present is None or present.arn is None:
            difference += status_change(self._asleep.get(wish.certificate.thumbprint.hex()))
        if not (update or completes(difference)):
            raise self._differs(wish, difference)
        self._check_references(wish)
        if dry_run:
            return EnrollmentOutcome(
                TargetOutcome.WOULD_CREATE if present is None else TargetOutcome.WOULD_UPDATE, difference
            )
        self._write(wish, present, note, update=update)
        return EnrollmentOutcome(TargetOutcome.CREATED if present is None else TargetOutcome.UPDATED, difference)

    def _present(self, wish: EnrollmentRequest) -> AwsRecord | None:
        """Return what is on record under the name, as far as the wish says anything of it."""
        name, certificate_id = wish.device_id, wish.certificate.thumbprint.hex()
        if (principals := self._principals(name)) is None:
            return None
        found: dict[str, Any] = {}
        if (arn := next((one for one in principals if one.endswith(certificate_id)), None)) is not None:
            described = self._described(certificate_id) or {}
            found = {"arn": arn, "status": described.get("status", "ACTIVE")}
            found["policies"] = self._policies_of(arn) if wish.policy else frozenset()
        with self._translated(name):
            if wish.thing_type or wish.attributes:
                thing = self._iot.describe_thing(thingName=name)
                found |= {"type_name": thing.get("thingTypeName"), "version": thing["version"]}
                found["attributes"] = thing.get("attributes", {})
            if wish.groups:
                found["groups"] = frozenset(self._groups_of(name))
        return AwsRecord(principals, **found)

    def _differs(self, wish: EnrollmentRequest, difference: Sequence[Change]) -> DifferentRecordError:
        return DifferentRecordError(
            device=wish.device_id,
            target=self.description,
            present=", ".join(f"{change.what} {change.present}" for change in difference),
            wanted=", ".join(f"{change.what} {change.wanted}" for change in difference),
        )

    def _found_there(self, wish: EnrollmentRequest) -> Mapping[str, Any]:
        """Return what is told of a certificate that is on record."""
        if (described := self._described(wish.certificate.thumbprint.hex())) is None:
            raise NoSuchRecordError(target=self.description, device=wish.device_id)
        return described

    def _check_awake(self, wish: EnrollmentRequest, status: str, *, update: bool) -> None:
        """Raise `DifferentRecordError` for a certificate that nobody asked to wake."""
        if (change := status_change(status)) and not update:
            raise self._differs(wish, change)

    def _write(self, wish: EnrollmentRequest, present: AwsRecord | None, note: Note, *, update: bool) -> None:
        """Make what is missing, and nothing that is there: what fails later takes back what was made, and no more.

        `note` is told before each.
        """
        certificate_id = wish.certificate.thumbprint.hex()
        known, status = (None, None) if present is None else (present.arn, present.status)
        if present is not None and known is None and self._is_listed(certificate_id):
            described = self._found_there(wish)
            known, status = str(described["certificateArn"]), str(described["status"])
            self._check_awake(wish, status, update=update)
        had = self._policies_of(known) if known and wish.policy else frozenset()
        way = way_back(wish, present, had, status=status if known else None) | {"since": self._time().isoformat()}
        note(wish.device_id, way)
        with self._translated(), ExitStack() as undo:
            if present is None:
                self._iot.create_thing(**thing_of(wish))
                if self._known is not None:
                    self._known.add(wish.device_id)
                undo.callback(self._iot.delete_thing, thingName=wish.device_id)
            arn = known or self._register(wish)
            if arn is None:
                described = self._found_there(wish)
                arn = str(described["certificateArn"])
                # The SDK repeats a registration whose answer is lost: what is there since this run began is its own.
                if not may_be_ours(msgspec.convert(way, msgspec_types.known(AwsRollbackEntry)), described):
                    status = str(described["status"])
                    had = self._policies_of(arn) if wish.policy else frozenset()
                    way |= {"is_registered": True, "status": status, "policy": policy_to_attach(wish, had)}
                    note(wish.device_id, way)
                    self._check_awake(wish, status, update=update)
            elif not known:
                undo.callback(self._iot.delete_certificate, certificateId=certificate_id)
                undo.callback(self._iot.update_certificate, certificateId=certificate_id, newStatus="INACTIVE")
            if status_change(status):
                self._iot.update_certificate(certificateId=certificate_id, newStatus=ACTIVE)
                undo.callback(self._iot.update_certificate, certificateId=certificate_id, newStatus=status)
            if "before" in way:
                self._write_thing(wish, way, note, undo)
            if policy := way["policy"]:
                self._iot.attach_policy(policyName=policy, target=arn)
                undo.callback(self._iot.detach_policy, policyName=policy, target=arn)
            self._join(wish.device_id, way.get("groups", ()), None if present is None else undo)
            self._iot.attach_thing_principal(thingName=wish.device_id, principal=arn)
            undo.pop_all()  # all of it is there; until now, what failed took back what was made

    def _write_thing(self, wish: EnrollmentRequest, way: WayBack, note: Note, undo: ExitStack) -> None:
        before = msgspec.convert(way["before"], msgspec_types.known(PreviousThing))

        def write_back() -> None:
            self._iot.update_thing(**before.asked(wish.device_id), expectedVersion=before.version + 1)
            # It is as it was, at another version: a way back would take that for somebody else's change.
            note(wish.device_id, {name: value for name, value in way.items() if name != "before"})

        try:
            self._iot.update_thing(**thing_of(wish, merge=True), expectedVersion=before.version)
        except self._iot.exceptions.VersionConflictException:
            # The SDK repeats a change whose answer is lost, and the thing is at the next version then.
            now = self._iot.describe_thing(thingName=wish.device_id)
            left = AwsRecord((), type_name=now.get("thingTypeName"), attributes=now.get("attributes", {}))
            if now["version"] != before.version + 1 or left.changes_thing(wish):
                raise
        undo.callback(write_back)

    def _join(self, thing: str, groups: Sequence[str], undo: ExitStack | None) -> None:
        """Add a thing to groups; one that is deleted leaves them by itself, and needs no `undo`."""
        for group in groups:
            self._iot.add_thing_to_thing_group(thingName=thing, thingGroupName=group)
            if undo is not None:
                undo.callback(self._iot.remove_thing_from_thing_group, thingName=thing, thingGroupName=group)

    def stand(self, wish: EnrollmentRequest) -> DeviceProgress:
        """Return where a device stands, by the client id that is its thing's name."""
        name, certificate_id = wish.device_id, wish.certificate.thumbprint.hex()
        if not (principals := self._principals(name)):  # a thing without a certificate is nobody yet
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
        return stand_of(name, seen, described.get("lastModifiedDate"))

    def retire(self, wish: EnrollmentRequest, *, dry_run: bool) -> RetirementOutcome:
        """Let a device connect no more: its certificate becomes inactive, unless others would go with it."""
        certificate_id = wish.certificate.thumbprint.hex()
        if (described := self._described(certificate_id)) is None:
            return RetirementOutcome(TargetOutcome.GONE)
        if described["status"] != ACTIVE:
            return RetirementOutcome(TargetOutcome.UNCHANGED)
        if others := self._shared(str(described["certificateArn"]), wish.device_id):
            return RetirementOutcome(TargetOutcome.LEFT, f"its certificate is {others}")
        if not dry_run:
            with self._translated(wish.device_id):
                self._iot.update_certificate(certificateId=certificate_id, newStatus="INACTIVE")
        return RetirementOutcome(TargetOutcome.WOULD_RETIRE if dry_run else TargetOutcome.RETIRED)

    def reinstate(self, wish: EnrollmentRequest) -> None:
        """Do nothing more: with its record the certificate became active again, which is all that `retire` ended."""

    def take_back(self, device_id: str, way: WayBack, *, dry_run: bool) -> TargetOutcome:
        known = way_of(way, AwsRollbackEntry, device_id, self.description)
        now = self._now(known, device_id)
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

    def _now(self, way: AwsRollbackEntry, thing: str) -> CurrentThing:
        """Return what is there of a device that is to be taken back."""
        principals, described = self._principals(thing), self._described(way.certificate)
        arn = "" if described is None else str(described["certificateArn"])
        is_ours = may_be_ours(way, described)
        asks = principals is not None and (way.is_new_thing or way.before is not None)
        return CurrentThing(
            principals,
            described,
            things=self._things_of(arn) if is_ours else (),
            policies=frozenset(self._policies_of(arn) if arn and (way.policy or is_ours) else ()),
            version=self._thing(thing)["version"] if asks else None,
            groups=frozenset(self._groups_of(thing) if way.groups and principals is not None else ()),
        )

    def records(self) -> Iterator[EnrollmentRecord]:
        with self._translated():
            asleep = self._not_active(None)
            for page in self._iot.get_paginator("list_things").paginate():
                for thing in page["things"]:
                    principals = self._principals(thing["thingName"]) or []
                    yield _record_of(thing["thingName"], [arn.rpartition("/")[2] for arn in principals], asleep)

    def remove(self, name: str, *, is_group: bool) -> Sequence[str]:
        """Take a thing off, with the certificates that are its own.

        A certificate is attached until nothing lets it in any more: who is cut off before finds it again by its thing.
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
                    if others := self._shared(arn, name):  # else who had it, too, was removed beside this one
                        notes.append(f"The certificate {certificate_id} stays as it is, for it is {others}.")
                        continue
                with suppress(self._iot.exceptions.ResourceNotFoundException):  # as above
                    self._end(name, arn)
            self._iot.delete_thing(thingName=name)
        return notes

    def _end(self, thing: str, arn: str) -> None:
        """Take a certificate out of use, then off its thing, without which it cannot be deleted, then away."""
        certificate_id = arn.rpartition("/")[2]
        self._iot.update_certificate(certificateId=certificate_id, newStatus="INACTIVE")
        for policy in self._all("list_attached_policies", "policies", target=arn):
            self._iot.detach_policy(policyName=policy["policyName"], target=arn)
        self._iot.detach_thing_principal(thingName=thing, principal=arn)
        self._iot.delete_certificate(certificateId=certificate_id)

    def _check_references(self, wish: EnrollmentRequest) -> None:
        """Raise `ReferenceMissingError` before anything is made for a device whose policy, type or group is missing."""
        asked = [(self._iot.get_policy, "policyName", wish.policy, _MAKE_POLICY)]
        asked += [(self._iot.describe_thing_type, "thingTypeName", wish.thing_type, _MAKE_TYPE)]
        asked += [(self._iot.describe_thing_group, "thingGroupName", group, _MAKE_GROUP) for group in wish.groups]
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
        if missing:  # all at once: who makes one after the other starts the run as often
            reason = "; ".join(error.facts["reason"].rstrip(".") for error in missing)
            how = "; then".join(error.facts["how"] for error in missing)
            raise ReferenceMissingError(target=self.description, reason=reason, how=how)

    def _register(self, wish: EnrollmentRequest) -> str | None:
        """Return the ARN of the certificate that is registered now, None where it was before."""
        try:
            answer = self._iot.register_certificate_without_ca(certificatePem=wish.certificate.pem(), status=ACTIVE)
        except self._iot.exceptions.ResourceAlreadyExistsException:
            return None
        return str(answer["certificateArn"])


def _record_of(thing: str, certificates: Sequence[str], asleep: Mapping[str, str]) -> EnrollmentRecord:
    """Return how a thing is listed: as attached, where a certificate of it lets it in."""
    over = [asleep[one] for one in certificates if one in asleep]
    awake = [one for one in certificates if one not in asleep]
    state = "attached" if awake else "without certificate"
    if over and not awake:
        state = f"certificate {over[0]}" if len(set(over)) == 1 else "no active certificate"
    detail = f"{len(certificates)} certificate" + ("" if len(certificates) == 1 else "s")
    detail += "".join(f", {over.count(one)} {one}" for one in dict.fromkeys(over))
    return EnrollmentRecord(thing, "thing", state, next(iter([*awake, *certificates]), None), detail)
