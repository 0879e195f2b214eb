"""A thing at AWS IoT: its record, the request, and their differences (AWS IoT API reference)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from birthmark.fleet.device_onboarding_stages import DeviceProgress, DeviceStage
from birthmark.fleet.enrollment_target import Change, EnrollmentRequest

_DENIED = frozenset({"AccessDeniedException", "AccessDenied", "UnauthorizedException", "ForbiddenException"})
_ACTION = re.compile(r"not authorized to perform: ([A-Za-z0-9-]+:[A-Za-z0-9]+)")
ACTIVE = "ACTIVE"
NOTHING = "nothing"
"""Present value of a missing member: adding it completes a record without changing a value."""


@dataclass(frozen=True, slots=True)
class AwsRecord:
    """Relevant state of an existing thing."""

    principals: Sequence[str]
    """ARNs of the attached principals."""
    arn: str | None = None
    """ARN of the requested certificate, if attached."""
    status: str = ACTIVE
    """Status of the requested certificate, if attached."""
    policies: frozenset[str] = frozenset()
    """Policies of the requested certificate."""
    type_name: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    version: int = 1
    groups: frozenset[str] = frozenset()

    def difference(self, request: EnrollmentRequest) -> tuple[Change, ...]:
        """Return differences from the request; additional attributes, groups and policies are allowed."""
        found = []
        if self.arn is None:
            ids = ", ".join(arn.rpartition("/")[2] for arn in self.principals)
            found.append(Change("certificate", ids or NOTHING, request.certificate.thumbprint.hex()))
        found += status_change(self.status)
        if request.policy and request.policy not in self.policies:
            found.append(Change("policy", NOTHING, request.policy))
        if request.thing_type and request.thing_type != self.type_name:
            found.append(Change("thing type", self.type_name or NOTHING, request.thing_type))
        for name, value in request.attributes.items():
            if (present := self.attributes.get(name)) != value:
                found.append(Change(f"attribute {name}", present or NOTHING, value))
        found += [Change("group", NOTHING, name) for name in request.groups if name not in self.groups]
        return tuple(found)

    def changes_thing(self, request: EnrollmentRequest) -> bool:
        """Return whether the thing itself must be written, not only its attachments."""
        is_typed = not request.thing_type or request.thing_type == self.type_name
        return not (is_typed and request.attributes.items() <= self.attributes.items())


def status_change(status: str | None) -> tuple[Change, ...]:
    """Return the change that reactivates a certificate; reactivation is never automatic."""
    return () if status in {None, ACTIVE} else (Change("status of the certificate", str(status), ACTIVE),)


def completes(difference: Sequence[Change]) -> bool:
    """Return whether all differences only add missing values."""
    return all(change.present == NOTHING for change in difference)


def denied_action(code: str, reason: str) -> str | None:
    """Return the action that IAM denies, as `iot:CreateThing`; None for another refusal.

    IAM's message is `User: ARN is not authorized to perform: ACTION on resource: …`.
    """
    if code not in _DENIED:
        return None
    found = _ACTION.search(reason)
    return found[1] if found else "this"


def progress_of(name: str, values: Mapping[str, Any], since: datetime | None) -> DeviceProgress:
    """Return a device's progress by GetThingConnectivityData; activity before `since` is of an earlier record."""
    at, reason = values.get("timestamp"), str(values.get("disconnectReason", ""))
    if values.get("connected"):
        return DeviceProgress(name, DeviceStage.CONNECTED, "", at)
    is_seen = at is not None and (since is None or at >= since)
    return DeviceProgress(name, DeviceStage.AWAY if is_seen else DeviceStage.ASSIGNED, reason, at)


def thing_of(request: EnrollmentRequest, *, merge: bool = False) -> dict[str, Any]:
    """Return the thing's members in CreateThing, and with `merge` in UpdateThing."""
    asked: dict[str, Any] = {"thingName": request.device_id}
    if request.thing_type:
        asked["thingTypeName"] = request.thing_type
    if request.attributes:
        asked["attributePayload"] = {"attributes": dict(request.attributes)} | ({"merge": True} if merge else {})
    return asked


def build_rollback_entry(
    request: EnrollmentRequest, present: AwsRecord | None, policies: frozenset[str], *, status: str | None
) -> dict[str, Any]:
    """Return the journal's rollback entry of a device before it is written.

    `policies` and `status` are the current ones of its certificate, None if it has none.
    """
    way: dict[str, Any] = {
        "certificate": request.certificate.thumbprint.hex(),
        "is_new_thing": present is None,
        "is_attached": present is not None and present.arn is not None,
        "is_registered": status is not None,
        "status": status,
        "policy": policy_to_attach(request, policies),
    }
    if present is not None and present.changes_thing(request):
        kept = {"type_name": present.type_name, "attributes": dict(present.attributes)}
        added = [one for one in request.attributes if one not in present.attributes]
        way["before"] = kept | {"version": present.version, "added": added}
    if groups := [name for name in request.groups if present is None or name not in present.groups]:
        way["groups"] = groups
    return way


def policy_to_attach(request: EnrollmentRequest, policies: frozenset[str]) -> str | None:
    """Return the requested policy, None if the certificate has it, so that a rollback keeps it."""
    return None if request.policy in policies else request.policy


class PreviousThing(msgspec.Struct, frozen=True):
    """A thing before a run changed it."""

    version: int
    type_name: str | None = None
    attributes: dict[str, str] = {}
    added: tuple[str, ...] = ()
    """Names of attributes that the thing did not have before."""

    def asked(self, name: str) -> dict[str, Any]:
        """Return the UpdateThing that restores it; an empty value removes an attribute."""
        kind: dict[str, Any] = {"thingTypeName": self.type_name} if self.type_name else {"removeThingType": True}
        attributes = self.attributes | dict.fromkeys(self.added, "")
        return {"thingName": name, "attributePayload": {"attributes": attributes, "merge": True}} | kind


class AwsRollbackEntry(msgspec.Struct, frozen=True):
    """Rollback entry of a device in the journal."""

    certificate: str
    is_new_thing: bool
    is_attached: bool
    is_registered: bool
    policy: str | None = None
    since: datetime | None = None
    """Time of the service's clock just before the write; older journals lack it."""
    before: PreviousThing | None = None
    groups: tuple[str, ...] = ()
    """Groups that the run was to add it to."""
    status: str | None = None
    """Status of the certificate if it existed; older journals lack it."""


@dataclass(frozen=True, slots=True)
class CurrentThing:
    """State at a rollback. None if absent or not queried."""

    principals: Sequence[str] | None
    described: Mapping[str, Any] | None
    things: Sequence[str]
    """Things that have the certificate attached."""
    policies: frozenset[str]
    version: int | None
    groups: frozenset[str]


@dataclass(frozen=True, slots=True)
class Undo:
    """Steps that undo the changes to a device; `problem` is the reason why they are skipped."""

    detaches: bool = False
    policy: str | None = None
    ends_certificate: bool = False
    groups: tuple[str, ...] = ()
    status: str | None = None
    """Certificate status to restore."""
    puts_back: bool = False
    ends_thing: bool = False
    problem: str | None = None

    @property
    def is_nothing(self) -> bool:
        of_certificate = self.policy or self.ends_certificate or self.status
        return not (self.detaches or of_certificate or self.ends_thing or self._changes_thing)

    @property
    def _changes_thing(self) -> bool:
        return self.puts_back or bool(self.groups)


def may_be_ours(entry: AwsRollbackEntry, described: Mapping[str, Any] | None) -> bool:
    """Return whether the run may have registered the certificate; an older one belongs to others."""
    if described is None or entry.is_registered:
        return False
    return entry.since is None or described["creationDate"] >= entry.since


def undo_of(entry: AwsRollbackEntry, name: str, now: CurrentThing) -> Undo:
    """Return the remaining steps that undo the changes to a device."""
    others = [arn for arn in now.principals or () if not arn.endswith(entry.certificate)]
    if entry.is_new_thing and others:
        return Undo(problem=f"it has another certificate now, {others[0].rpartition('/')[2]}")
    is_ours = may_be_ours(entry, now.described)
    ends_certificate = is_ours and set(now.things) <= {name}
    if ends_certificate and (since := now.policies - {entry.policy}):
        return Undo(problem=f"its certificate has another policy now, {min(since)}")
    is_there, left = now.principals is not None, _version_left(entry)
    is_written = left is not None and now.version not in {None, None if entry.before is None else entry.before.version}
    if is_written and now.version != left:
        return Undo(problem=f"it was changed since, and is at version {now.version}")
    is_awake = now.described is not None and now.described.get("status") == ACTIVE
    return Undo(
        detaches=len(others) != len(now.principals or ()) and not entry.is_attached,
        policy=entry.policy if entry.policy in now.policies and (is_ours or entry.is_registered) else None,
        ends_certificate=ends_certificate,
        groups=() if entry.is_new_thing else tuple(group for group in entry.groups if group in now.groups),
        status=entry.status if is_awake and status_change(entry.status) else None,
        puts_back=is_written and entry.before is not None,
        ends_thing=entry.is_new_thing and is_there,
    )


def _version_left(entry: AwsRollbackEntry) -> int | None:
    """Return the thing's version after the run, None if the run did not write it."""
    if entry.is_new_thing:
        return 1
    return None if entry.before is None else entry.before.version + 1
