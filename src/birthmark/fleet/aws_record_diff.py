"""A thing at AWS IoT: as it is on record, as it is wished, and how the two differ (AWS IoT API reference)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from birthmark.fleet.target import Change, EnrollmentRequest
from birthmark.fleet.tracking import DeviceProgress, DeviceStage

_DENIED = frozenset({"AccessDeniedException", "AccessDenied", "UnauthorizedException", "ForbiddenException"})
_ACTION = re.compile(r"not authorized to perform: ([A-Za-z0-9-]+:[A-Za-z0-9]+)")
ACTIVE = "ACTIVE"
NOTHING = "nothing"
"""What is told where nothing is there: to add it completes a record, and changes nothing that somebody chose."""


@dataclass(frozen=True, slots=True)
class AwsRecord:
    """What decides on a thing that is there."""

    principals: Sequence[str]
    """ARNs."""
    arn: str | None = None
    """The wished certificate's, where it is attached."""
    status: str = ACTIVE
    """The wished certificate's, where it is attached."""
    policies: frozenset[str] = frozenset()
    """Of the wished certificate."""
    type_name: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    version: int = 1
    groups: frozenset[str] = frozenset()

    def difference(self, wish: EnrollmentRequest) -> tuple[Change, ...]:
        """Return what is otherwise than wished; attributes, groups and policies beyond the wish may be there."""
        found = []
        if self.arn is None:
            ids = ", ".join(arn.rpartition("/")[2] for arn in self.principals)
            found.append(Change("certificate", ids or NOTHING, wish.certificate.thumbprint.hex()))
        found += status_change(self.status)
        if wish.policy and wish.policy not in self.policies:
            found.append(Change("policy", NOTHING, wish.policy))
        if wish.thing_type and wish.thing_type != self.type_name:
            found.append(Change("thing type", self.type_name or NOTHING, wish.thing_type))
        for name, value in wish.attributes.items():
            if (present := self.attributes.get(name)) != value:
                found.append(Change(f"attribute {name}", present or NOTHING, value))
        found += [Change("group", NOTHING, name) for name in wish.groups if name not in self.groups]
        return tuple(found)

    def changes_thing(self, wish: EnrollmentRequest) -> bool:
        """Say whether the thing itself, not what hangs on it, is to be written."""
        is_typed = not wish.thing_type or wish.thing_type == self.type_name
        return not (is_typed and wish.attributes.items() <= self.attributes.items())


def status_change(status: str | None) -> tuple[Change, ...]:
    """Return what is to change of a certificate that was put to sleep; to wake it is nothing that goes by itself."""
    return () if status in {None, ACTIVE} else (Change("status of the certificate", str(status), ACTIVE),)


def completes(difference: Sequence[Change]) -> bool:
    """Say whether all of it only adds what is missing."""
    return all(change.present == NOTHING for change in difference)


def denied_action(code: str, reason: str) -> str | None:
    """Return the action that IAM does not allow, as `iot:CreateThing`; None for another refusal.

    IAM says `User: ARN is not authorized to perform: ACTION on resource: …`.
    """
    if code not in _DENIED:
        return None
    found = _ACTION.search(reason)
    return found[1] if found else "this"


def stand_of(name: str, seen: Mapping[str, Any], since: datetime | None) -> DeviceProgress:
    """Return where a device stands by GetThingConnectivityData; what was before `since` was another life of it."""
    at, reason = seen.get("timestamp"), str(seen.get("disconnectReason", ""))
    if seen.get("connected"):
        return DeviceProgress(name, DeviceStage.CONNECTED, "", at)
    is_seen = at is not None and (since is None or at >= since)
    return DeviceProgress(name, DeviceStage.AWAY if is_seen else DeviceStage.ASSIGNED, reason, at)


def thing_of(wish: EnrollmentRequest, *, merge: bool = False) -> dict[str, Any]:
    """Return the thing's own part of CreateThing, and with `merge` of UpdateThing."""
    asked: dict[str, Any] = {"thingName": wish.device_id}
    if wish.thing_type:
        asked["thingTypeName"] = wish.thing_type
    if wish.attributes:
        asked["attributePayload"] = {"attributes": dict(wish.attributes)} | ({"merge": True} if merge else {})
    return asked


def way_back(
    wish: EnrollmentRequest, present: AwsRecord | None, policies: frozenset[str], *, status: str | None
) -> dict[str, Any]:
    """Return what the journal keeps of a device before it is written.

    `policies` and `status` are those of its certificate now, None where it has none.
    """
    way: dict[str, Any] = {
        "certificate": wish.certificate.thumbprint.hex(),
        "is_new_thing": present is None,
        "is_attached": present is not None and present.arn is not None,
        "is_registered": status is not None,
        "status": status,
        "policy": policy_to_attach(wish, policies),
    }
    if present is not None and present.changes_thing(wish):
        kept = {"type_name": present.type_name, "attributes": dict(present.attributes)}
        added = [one for one in wish.attributes if one not in present.attributes]
        way["before"] = kept | {"version": present.version, "added": added}
    if groups := [name for name in wish.groups if present is None or name not in present.groups]:
        way["groups"] = groups
    return way


def policy_to_attach(wish: EnrollmentRequest, policies: frozenset[str]) -> str | None:
    """Return the wished policy, None where the certificate has it: what was there before, no way back takes off."""
    return None if wish.policy in policies else wish.policy


class PreviousThing(msgspec.Struct, frozen=True):
    """A thing as it was before a run changed it."""

    version: int
    type_name: str | None = None
    attributes: dict[str, str] = {}
    added: tuple[str, ...] = ()
    """Names of attributes that it did not have."""

    def asked(self, name: str) -> dict[str, Any]:
        """Return the UpdateThing that makes it so again; an empty value takes an attribute away."""
        kind: dict[str, Any] = {"thingTypeName": self.type_name} if self.type_name else {"removeThingType": True}
        attributes = self.attributes | dict.fromkeys(self.added, "")
        return {"thingName": name, "attributePayload": {"attributes": attributes, "merge": True}} | kind


class AwsRollbackEntry(msgspec.Struct, frozen=True):
    """What the journal keeps of a device."""

    certificate: str
    is_new_thing: bool
    is_attached: bool
    is_registered: bool
    policy: str | None = None
    since: datetime | None = None
    """When the service's clock had it, just before; an older journal does not say."""
    before: PreviousThing | None = None
    groups: tuple[str, ...] = ()
    """Those that the run was to add it to."""
    status: str | None = None
    """The certificate's, where there was one; an older journal does not say."""


@dataclass(frozen=True, slots=True)
class CurrentThing:
    """What is there when a device is taken back. None where it is not, or was not asked."""

    principals: Sequence[str] | None
    described: Mapping[str, Any] | None
    things: Sequence[str]
    """What the certificate is attached to."""
    policies: frozenset[str]
    version: int | None
    groups: frozenset[str]


@dataclass(frozen=True, slots=True)
class Undo:
    """What takes a device back; `problem` says why it is left."""

    detaches: bool = False
    policy: str | None = None
    ends_certificate: bool = False
    groups: tuple[str, ...] = ()
    status: str | None = None
    """What the certificate is to be again."""
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


def may_be_ours(way: AwsRollbackEntry, described: Mapping[str, Any] | None) -> bool:
    """Say whether the run may have registered the certificate: what was there before it is somebody else's."""
    if described is None or way.is_registered:
        return False
    return way.since is None or described["creationDate"] >= way.since


def undo_of(way: AwsRollbackEntry, name: str, now: CurrentThing) -> Undo:
    """Return what of a device's way is still to be taken back."""
    others = [arn for arn in now.principals or () if not arn.endswith(way.certificate)]
    if way.is_new_thing and others:
        return Undo(problem=f"it has another certificate now, {others[0].rpartition('/')[2]}")
    is_ours = may_be_ours(way, now.described)
    ends_certificate = is_ours and set(now.things) <= {name}
    if ends_certificate and (since := now.policies - {way.policy}):
        return Undo(problem=f"its certificate has another policy now, {min(since)}")
    is_there, left = now.principals is not None, _version_left(way)
    is_written = left is not None and now.version not in {None, None if way.before is None else way.before.version}
    if is_written and now.version != left:
        return Undo(problem=f"it was changed since, and is at version {now.version}")
    is_awake = now.described is not None and now.described.get("status") == ACTIVE
    return Undo(
        detaches=len(others) != len(now.principals or ()) and not way.is_attached,
        policy=way.policy if way.policy in now.policies and (is_ours or way.is_registered) else None,
        ends_certificate=ends_certificate,
        groups=() if way.is_new_thing else tuple(group for group in way.groups if group in now.groups),
        status=way.status if is_awake and status_change(way.status) else None,
        puts_back=is_written and way.before is not None,
        ends_thing=way.is_new_thing and is_there,
    )


def _version_left(way: AwsRollbackEntry) -> int | None:
    """Return the version that the run left the thing at, None where it did not write it."""
    if way.is_new_thing:
        return 1
    return None if way.before is None else way.before.version + 1
