"""Non-telemetry events of twins, devices and connections, as routable messages.

As in "IoT Hub message routing", "Non-telemetry events": the subject is in message properties, with JSON in the body.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from birthmark.broker.rules.stream_partitions_and_positions import key_of
from birthmark.iothub.model import Identity, Module, TelemetryMessage, Twin, parse_name
from birthmark.iothub.rules.routes.route_matcher import SOURCE
from birthmark.iothub.wire.d2c_property_bags import MODULE
from birthmark.iothub.wire.stored_routing_configuration import RouteSource
from birthmark.iothub.wire.times_and_body_validation import operation_time, to_json
from birthmark.iothub.wire.twins import section_json, twin_change
from birthmark.store.plain_and_encrypted_column_types import to_micros


def twin_changed(before: Twin, after: Twin, now: datetime, *, replaces: bool) -> TelemetryMessage:
    """Return the event of a twin change: the difference, or the complete twin if it was replaced."""
    body = twin_change(before, after, replaces=replaces)
    operation = "replaceTwin" if replaces else "updateTwin"
    return _said(RouteSource.TWINS, (after.hub, after.device_id), "twinChangeNotification", operation, (body, now))


def lifecycle(identity: Identity, twin: Twin, now: datetime, *, is_made: bool) -> TelemetryMessage:
    """Return the event of a device or module that was created or deleted."""
    what = "Module" if isinstance(identity, Module) else "Device"
    operation = f"{'create' if is_made else 'delete'}{what}Identity"
    body: dict[str, Any] = {"deviceId": identity.device_id}
    if isinstance(identity, Module):
        body["moduleId"] = identity.module_id
    sections = {"desired": section_json(twin.desired), "reported": section_json(twin.reported)}
    body |= {"etag": twin.etag, "version": twin.version, "properties": sections}
    if twin.tags:
        body["tags"] = twin.tags
    schema = f"{what.lower()}LifecycleNotification"
    return _said(RouteSource.LIFECYCLE, (identity.hub, identity.name), schema, operation, (body, now))


def connection(hub: str, name: str, sequence: int, now: datetime, *, is_connected: bool) -> TelemetryMessage:
    """Return the event of a device or module that connected or disconnected. `sequence` grows with each."""
    what = "module" if "/" in name else "device"
    operation = f"{what}{'Connected' if is_connected else 'Disconnected'}"
    body = {"sequenceNumber": f"{sequence:064X}"}
    schema = f"{what}ConnectionStateNotification"
    return _said(RouteSource.CONNECTIONS, (hub, name), schema, operation, (body, now))


def key(message: TelemetryMessage) -> int:
    """Return the ordering key of a message."""
    return key_of(message.device_id)


def _said(
    source: RouteSource, about: tuple[str, str], schema: str, operation: str, told: tuple[Mapping[str, Any], datetime]
) -> TelemetryMessage:
    (hub, name), (body, now) = about, told
    device_id, module_id = parse_name(name)
    system: dict[str, str | None] = {
        "content-type": "application/json",
        "content-encoding": "utf-8",
        SOURCE: source.value[:1].lower() + source.value[1:],
    }
    properties: dict[str, str | None] = {
        "hubName": hub,
        "deviceId": device_id,
        "operationTimestamp": operation_time(now),
        "iothub-message-schema": schema,
        "opType": operation,
    }
    if module_id is not None:
        system[MODULE] = properties["moduleId"] = module_id
    return TelemetryMessage(device_id, to_micros(now), to_json(body), system, properties)
