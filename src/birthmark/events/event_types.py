"""Catalog of event types: their members, and the audit rows that are their source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from birthmark.events.model import CONNECTED, DISCONNECTED, LOST, REFUSED, OperationEvent

SPEC = "1.0"
PREFIX = "birthmark."
CHANGED, RENEWED = f"{PREFIX}changed", f"{PREFIX}certificate.renewed"


@dataclass(frozen=True, slots=True)
class EventKind:
    """An event type: its actions in the audit log, and its description."""

    type: str
    actions: Sequence[str]
    tells: str


KINDS: Sequence[EventKind] = (
    EventKind(
        f"{PREFIX}enrollment.changed", ("dps.enrollment_put",), "A device, or a group, may register from now on."
    ),
    EventKind(f"{PREFIX}enrollment.removed", ("dps.enrollment_delete",), "It may no more."),
    EventKind(f"{PREFIX}device.registered", ("dps.register",), "A device registered, and was assigned a hub."),
    EventKind(
        f"{PREFIX}device.released", ("dps.registration_delete", "dps.release", "name.release"), "Its name is free."
    ),
    EventKind(
        f"{PREFIX}device.changed",
        ("iothub.device_put", "awsiot.thing_create", "awsiot.thing_update"),
        "A device at a hub, or a thing of the account, was created or updated.",
    ),
    EventKind(f"{PREFIX}device.connected", (CONNECTED,), "A device, or another client, is connected."),
    EventKind(f"{PREFIX}device.disconnected", (DISCONNECTED,), "The client disconnected normally."),
    EventKind(
        f"{PREFIX}device.lost",
        (LOST,),
        "The connection ended without a DISCONNECT packet; `reason` contains the cause.",
    ),
    EventKind(
        f"{PREFIX}device.refused",
        (REFUSED,),
        "A request was rejected; `birthmark why` prints the details for the `tracking_id`.",
    ),
    EventKind(
        f"{PREFIX}device.removed", ("iothub.device_delete", "awsiot.thing_delete"), "The device or thing was deleted."
    ),
    EventKind(f"{PREFIX}module.changed", ("iothub.module_put",), "A module of a device was created or updated."),
    EventKind(f"{PREFIX}module.removed", ("iothub.module_delete",), "A module of a device was deleted."),
    EventKind(
        f"{PREFIX}device.revoked",
        ("device.revoke", "iothub.device_take_back", "name.lose"),
        "A device was revoked; a device that is enrolled in several services has one event for each.",
    ),
    EventKind(f"{PREFIX}certificate.issued", ("certificate.issue",), "A certificate was issued that is not a renewal."),
    EventKind(RENEWED, (), "A certificate was issued in the place of one that is of the same name and profile."),
    EventKind(
        f"{PREFIX}device.came-back",
        ("certificate.comeback",),
        "A device with an expired certificate was issued a new one (late renewal).",
    ),
    EventKind(
        f"{PREFIX}certificate.revoked",
        ("certificate.revoke", "key.revoke"),
        "A certificate, or all of a key, counts no more.",
    ),
    EventKind(
        f"{PREFIX}ca.changed",
        (
            *("ca.rollover.start", "ca.rollover.next", "ca.rollover.back", "ca.root_noted"),
            *("dps.ca_add", "dps.ca_verify", "dps.ca_remove", "awsiot.ca_add", "awsiot.ca_update", "awsiot.ca_delete"),
            *("iothub.ca_add", "iothub.ca_verify", "iothub.ca_remove"),
            *("est.bootstrap.add", "est.bootstrap.remove", "est.authority.add", "est.authority.remove"),
        ),
        "Another CA is trusted, or one no more, or the root is exchanged.",
    ),
    EventKind(
        f"{PREFIX}alert.raised", ("alert.raised",), "A condition requires attention; `fix` contains the next command."
    ),
    EventKind(f"{PREFIX}alert.over", ("alert.over",), "The condition no longer exists."),
    EventKind(CHANGED, (), "All other events of the audit log: services, keys, users, approvals."),
)
_BY_ACTION = {action: kind.type for kind in KINDS for action in kind.actions}


def type_of(action: str, detail: Mapping[str, Any]) -> str:
    """Return the event type of an audit row."""
    return RENEWED if "renews" in detail else _BY_ACTION.get(action, CHANGED)


def event_of(happening: OperationEvent, source: str) -> Mapping[str, Any]:
    """Return the event (CloudEvents 1.0, JSON format). `source` identifies the server."""
    return {
        "specversion": SPEC,
        "id": f"{happening.chain}/{happening.seq}",
        "source": source,
        "type": type_of(happening.action, happening.detail),
        "subject": happening.subject,
        "time": happening.at.isoformat(),
        "datacontenttype": "application/json",
        "data": {"action": happening.action, "actor": happening.actor, **happening.detail},
    }
