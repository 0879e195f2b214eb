"""Hubs, identities and twins. Telemetry and messages to devices are the broker's streams and inboxes."""

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Index, Table, UniqueConstraint, bindparam, case, exists, literal_column, update

from birthmark.documents import Section
from birthmark.iothub.model import (
    OPERATOR,
    AuthenticationType,
    Device,
    DeviceAuthentication,
    DeviceId,
    Hub,
    Twin,
    thumbprint_text,
)
from birthmark.store import from_micros, insert, metadata, statement, to_micros
from birthmark.store.columns import blob, number, text
from birthmark.store.database import Row
from birthmark.store.keyed import among, change, find, page, present, remove, still
from birthmark.store.ordering import ordered_text
from birthmark.store.records import Records

devices = Table(
    "hub_devices",
    metadata,
    text("hub", key=True),
    ordered_text("device_id", key=True),
    text("generation_id"),
    text("etag"),
    number("enabled"),
    text("status_reason", optional=True),
    text("auth_type"),
    *(text(f"{place}_thumbprint", optional=True) for place in ("primary", "secondary")),
    *(blob(f"{place}_key", optional=True, sealed=True) for place in ("primary", "secondary")),
    *(number(name) for name in ("iot_edge", "created_at", "updated_at")),
    text("maker", server_default=OPERATOR),
)
_OFF = devices.c.enabled == literal_column("0")
_EDGE = devices.c.iot_edge == literal_column("1")
Index("hub_devices_off", devices.c.hub, devices.c.device_id, sqlite_where=_OFF, postgresql_where=_OFF)
Index("hub_devices_edge", devices.c.hub, devices.c.device_id, sqlite_where=_EDGE, postgresql_where=_EDGE)

twins = Table(
    "hub_twins",
    metadata,
    text("hub", key=True),
    ordered_text("device_id", key=True),
    number("version"),
    number("updated_at"),
    blob("body"),
    number("unindexed", server_default="3"),
)
CHANGED, BEYOND_INDEX, NEVER_INDEXED = 1, 2, 3
"""What is not indexed of a twin: its last changes; what is more of it than an index takes; anything, yet."""
UNINDEXED = twins.c.unindexed > literal_column("0")
"""Stands beside each condition on the state: SQLite takes the index for no other words."""
Index(
    "hub_twins_unindexed",
    *(twins.c.unindexed, twins.c.hub, twins.c.device_id),
    sqlite_where=UNINDEXED,
    postgresql_where=UNINDEXED,
)
GET_TWIN = find(twins)
ADD_TWIN = insert(twins)  # `unindexed` is NEVER_INDEXED
_NEVER: ColumnElement[int] = literal_column(str(NEVER_INDEXED))
CHANGE_TWIN = statement(
    update(twins)
    .where(
        *(twins.c[name] == bindparam(f"key_{name}") for name in ("hub", "device_id", "version")),
        exists().where(
            devices.c.hub == twins.c.hub,
            devices.c.device_id == twins.c.device_id,
            devices.c.generation_id == bindparam("key_generation_id"),
        ),
    )
    .values(
        {name: bindparam(name) for name in ("version", "updated_at", "body")}
        | {"unindexed": case((twins.c.unindexed == _NEVER, _NEVER), else_=literal_column(str(CHANGED)))}
    )
)
DELETE_TWIN = remove(twins)

HUBS = Records(Hub)
hubs = HUBS.table("hubs", "name", more=[UniqueConstraint("host")], sealed=["policies"])
ADD_HUB = insert(hubs)
CHANGE_KEYS = change(hubs, ("policies",), "name", "policies")
REMOVE_HUB = remove(hubs, "name", "policies")
HUB_IS_THERE = present(hubs)
SAME_HUB = present(hubs, "name", "policies")
DELETE_HUB = tuple(remove(table, "hub") for table in (devices, twins))
HUBS_PAGE = page(hubs, "name")

# Of each device the latest word counts: whoever writes names the etag that was read.
_STATE = ("etag", "enabled", "status_reason", "auth_type", "iot_edge", "updated_at", "maker")
_PROOFS = ("primary_thumbprint", "secondary_thumbprint", "primary_key", "secondary_key")
_AS_READ = ("hub", "device_id", "etag")
ADD_DEVICE = insert(devices)
GET_DEVICE = find(devices)
LIST_DEVICES = page(devices, "device_id", "hub")
NAMES_OF_DEVICES = page(devices, "device_id", "hub", of=("device_id",))
DEVICES_OFF = page(devices, "device_id", "hub", _OFF, of=("device_id",))
DEVICES_NAMED = find(devices, "hub", among(devices.c.device_id), of=("device_id", "enabled"))
DEVICES = "devices"
"""The figure of them, by hub and state."""
DEVICE_IS_THERE = still(devices, "hub", "device_id")
SAME_GENERATION = still(devices, "hub", "device_id", "generation_id")
REPLACE_DEVICE = change(devices, (*_STATE, *_PROOFS), *_AS_READ)
# Changes nothing: the condition of whoever decided on the device as it was read.
SAME_DEVICE = still(devices, *_AS_READ)
DELETE_DEVICE = remove(devices, *(devices.c[name] == bindparam(f"key_{name}") for name in _AS_READ))


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[dict[str, Any], Section, Section]).decode


def twin_of(row: Row) -> Twin:
    """Return the twin of a row."""
    tags, desired, reported = _decode(row["body"])
    return Twin(row["hub"], DeviceId(row["device_id"]), tags, desired, reported, row["version"])


def twin_body(twin: Twin) -> bytes:
    """Return the column that holds a twin."""
    return _encode((twin.tags, twin.desired, twin.reported))


def device_of(row: Row) -> Device:
    """Return the device of a row."""
    return Device(
        row["hub"],
        DeviceId(row["device_id"]),
        row["generation_id"],
        row["etag"],
        bool(row["enabled"]),
        row["status_reason"],
        DeviceAuthentication(
            AuthenticationType(row["auth_type"]),
            _bytes_of(row["primary_thumbprint"]),
            _bytes_of(row["secondary_thumbprint"]),
            row["primary_key"],
            row["secondary_key"],
        ),
        bool(row["iot_edge"]),
        from_micros(row["created_at"]),
        from_micros(row["updated_at"]),
        row["maker"],
    )


def place_of(hub: str) -> str:
    """Return the place at which a hub's devices are found."""
    return f"hub/{hub}"


def state_of(*, is_enabled: bool) -> str:
    """Return the state under which a device is counted."""
    return "enabled" if is_enabled else "disabled"


def device_row(device: Device) -> dict[str, Any]:
    """Return the row of a device."""
    authentication = device.authentication
    return {
        "hub": device.hub,
        "device_id": device.device_id,
        "generation_id": device.generation_id,
        "etag": device.etag,
        "enabled": int(device.is_enabled),
        "status_reason": device.status_reason,
        "auth_type": authentication.type.value,
        "primary_thumbprint": thumbprint_text(authentication.primary_thumbprint),
        "secondary_thumbprint": thumbprint_text(authentication.secondary_thumbprint),
        "primary_key": authentication.primary_key,
        "secondary_key": authentication.secondary_key,
        "iot_edge": int(device.is_iot_edge),
        "created_at": to_micros(device.created_at),
        "updated_at": to_micros(device.updated_at),
        "maker": device.maker,
    }


def _bytes_of(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)
