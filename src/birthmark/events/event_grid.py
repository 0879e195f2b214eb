"""Event Grid's form of events (Azure Event Grid, "Event Grid event schema" and "IoT Hub as an Event Grid source").

Only events of devices and modules of hubs have an equivalent. The validation handshake proves that a receiver expects
the events: it returns the code that it is sent.
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from birthmark.events.model import CONNECTED, DISCONNECTED, LOST, OperationEvent
from birthmark.store import to_micros
from birthmark.untrusted_json_and_text import decode_json

CREATED, DELETED = "Microsoft.Devices.DeviceCreated", "Microsoft.Devices.DeviceDeleted"
CAME, WENT = "Microsoft.Devices.DeviceConnected", "Microsoft.Devices.DeviceDisconnected"
VALIDATION = "Microsoft.EventGrid.SubscriptionValidationEvent"
_SUBSCRIPTION = "/SUBSCRIPTIONS/00000000-0000-0000-0000-000000000000/RESOURCEGROUPS/BIRTHMARK"
_HUBS = f"{_SUBSCRIPTION}/PROVIDERS/MICROSOFT.DEVICES/IOTHUBS"
_VERSION = "1"
_PLACE, _NEVER = "hub/", "0001-01-01T00:00:00"
_EACH = 1 << 20
"""Factor between the time and the row number in a sequence number, which is compared as text."""
_TYPES: Mapping[str, str] = {
    "dps.register": CREATED,
    "iothub.device_put": CREATED,
    "iothub.device_delete": DELETED,
    CONNECTED: CAME,
    DISCONNECTED: WENT,
    LOST: WENT,
}
HubOf = Callable[[str], str]
"""Returns the name of the hub with this host name."""


def grid_event_of(happening: OperationEvent, hub_of: HubOf) -> Mapping[str, Any] | None:
    """Return the event in Event Grid's form; None if it has no equivalent there."""
    kind, detail = _TYPES.get(happening.action), happening.detail
    if kind is None or (kind == CREATED and not detail.get("created")):
        return None
    if kind in {CAME, WENT}:
        place = str(detail.get("place", ""))
        if not place.startswith(_PLACE):
            return None
        hub, name = place.removeprefix(_PLACE), happening.subject
    else:
        hub = str(detail.get("hub", ""))
        hub = hub_of(hub) if happening.action == "dps.register" else hub
        name = str(detail.get("device_id", happening.subject))
    device_id, _, module_id = name.partition("/")
    data = _connection(happening, hub, name) if kind in {CAME, WENT} else _lifecycle(happening, hub, device_id, kind)
    return {
        "id": f"{happening.chain}/{happening.seq}",
        "topic": f"{_HUBS}/{hub.upper()}",
        "subject": f"devices/{device_id}" + (f"/{module_id}" if module_id else ""),
        "eventType": kind,
        "eventTime": _time(happening.at),
        "data": data,
        "dataVersion": _VERSION,
        "metadataVersion": _VERSION,
    }


def _connection(happening: OperationEvent, hub: str, name: str) -> Mapping[str, Any]:
    sequence = to_micros(happening.at) * _EACH + happening.seq % _EACH
    told = {"deviceConnectionStateEventInfo": {"sequenceNumber": f"{sequence:064X}"}, "hubName": hub}
    device_id, _, module_id = name.partition("/")
    return {**told, "deviceId": device_id, **({"moduleId": module_id} if module_id else {})}


def _lifecycle(happening: OperationEvent, hub: str, device_id: str, kind: str) -> Mapping[str, Any]:
    """Return the data of a device that was created or deleted: its twin has what the event knows."""
    section: dict[str, Any] = {"$metadata": {"$lastUpdated": _time(happening.at)}, "$version": 1}
    is_enabled = kind == CREATED and happening.detail.get("status", "enabled") == "enabled"
    twin: dict[str, Any] = {
        "deviceId": device_id,
        "status": "enabled" if is_enabled else "disabled",
        "statusUpdateTime": _NEVER,
        "connectionState": "Disconnected",
        "lastActivityTime": _NEVER,
        "cloudToDeviceMessageCount": 0,
    }
    if kind == CREATED:
        twin |= {"version": 1, "properties": {"desired": section, "reported": section}}
    else:
        del twin["status"]  # the event does not know it
    return {"twin": twin, "hubName": hub, "deviceId": device_id}


def validation_event(event_id: str, code: str, topic: str, now: datetime) -> Mapping[str, Any]:
    """Return the event of the handshake."""
    return {
        "id": event_id,
        "topic": topic,
        "subject": "",
        "eventType": VALIDATION,
        "eventTime": _time(now),
        "data": {"validationCode": code},
        "dataVersion": "2",
        "metadataVersion": _VERSION,
    }


def is_validated(text: str, code: str) -> bool:
    """Return whether a receiver returned the code of the handshake."""
    try:
        answer = decode_json(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return False
    return isinstance(answer, dict) and answer.get("validationResponse") == code


def grid_headers(name: str, kind: str, tries: int) -> Mapping[str, str]:
    """Return the headers of a delivery; `kind` is `SubscriptionValidation` or `Notification`."""
    return {
        "content-type": "application/json; charset=utf-8",
        "aeg-event-type": kind,
        "aeg-subscription-name": name.upper(),
        "aeg-delivery-count": str(tries),
        "aeg-data-version": _VERSION,
        "aeg-metadata-version": _VERSION,
    }


def grid_body(events: list[Mapping[str, Any]]) -> bytes:
    """Return the body of a delivery."""
    return json.dumps(events, separators=(",", ":")).encode()


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06}0Z"
