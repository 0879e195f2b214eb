"""Hubs, identities and twins. Telemetry and messages to devices are the broker's streams and device queues."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, assert_never

import msgspec
from sqlalchemy import (
    ColumnElement,
    Index,
    Table,
    UniqueConstraint,
    bindparam,
    case,
    exists,
    func,
    literal_column,
    select,
    update,
)

from birthmark.documents import DocumentSection
from birthmark.iothub.model import (
    OPERATOR,
    AuthenticationType,
    Credential,
    Device,
    DeviceAuthentication,
    DeviceId,
    Hub,
    Identity,
    Module,
    Twin,
    TwinConfiguration,
    thumbprint_text,
)
from birthmark.iothub.wire.stored_routing_configuration import Routing, StoredRouting
from birthmark.pki.registered_ca_certificate import CaCertificate
from birthmark.store import from_micros, insert, metadata, partial_index, to_micros
from birthmark.store.compiled_statements import Engine, Statement, statement
from birthmark.store.database import Row
from birthmark.store.device_name_prefix_index import ordered_text
from birthmark.store.plain_and_encrypted_column_types import blob, number, text
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import (
    change,
    find,
    guard_exists,
    guard_unchanged,
    insert_into,
    is_in_list,
    page,
    remove,
)
from birthmark.untrusted_json_and_text import decode_json

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
    text("parent_scopes", optional=True),
)
_OFF = devices.c.enabled == literal_column("0")
_EDGE = devices.c.iot_edge == literal_column("1")
partial_index("hub_devices_off", devices.c.hub, devices.c.device_id, condition=_OFF)
partial_index("hub_devices_edge", devices.c.hub, devices.c.device_id, condition=_EDGE)

modules = Table(
    "hub_modules",
    metadata,
    *(text(name, key=True) for name in ("hub", "device_id", "module_id")),
    *(text(name) for name in ("generation_id", "etag", "auth_type", "managed_by")),
    *(text(f"{place}_thumbprint", optional=True) for place in ("primary", "secondary")),
    *(blob(f"{place}_key", optional=True, sealed=True) for place in ("primary", "secondary")),
    *(number(name) for name in ("created_at", "updated_at")),
)

AUTHORITIES = RowMapper(CaCertificate, certificate="der", is_verified="verified")
authorities = AUTHORITIES.table("hub_authorities", "name", more=[text("hub", key=True), text("subject_digest")])
Index("hub_authorities_subject", authorities.c.hub, authorities.c.subject_digest)
ADD_AUTHORITY = insert(authorities)
REPLACE_AUTHORITY = change(
    authorities, [c.name for c in authorities.columns if not c.primary_key], "hub", "name", "etag"
)
GET_AUTHORITY = find(authorities)
DELETE_AUTHORITY = remove(authorities)
DELETE_AUTHORITY_AS = remove(authorities, "hub", "name", "etag")
LIST_AUTHORITIES = find(authorities, "hub", order=authorities.c.name, limit=1000)
AUTHORITIES_NAMED = find(authorities, "hub", "subject_digest", limit=100)

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
"""Index states of a twin: latest changes not indexed; too many terms to index; never indexed."""
UNINDEXED = twins.c.unindexed > literal_column("0")
"""Required in each condition on the state: SQLite uses the partial index only for this exact term."""
partial_index(
    "hub_twins_unindexed",
    *(twins.c.unindexed, twins.c.hub, twins.c.device_id),
    condition=UNINDEXED,
)
GET_TWIN = find(twins)
TWINS_NAMED = find(twins, "hub", is_in_list(twins.c.device_id), of=("device_id", "body"))
_WRITTEN = ("version", "updated_at", "body")
_NEVER: ColumnElement[int] = literal_column(str(NEVER_INDEXED))
_MARKED = case((twins.c.unindexed == _NEVER, _NEVER), else_=literal_column(str(CHANGED)))
ADD_TWIN = insert(twins, without=("unindexed",))  # it is NEVER_INDEXED
_EMPTY_TWIN = {"version": 1, "updated_at": 0}


def _marking(engine: Engine) -> Any:
    made = insert_into(engine, twins).values(
        hub=bindparam("hub"), device_id=bindparam("device_id"), body=bindparam("body"), **_EMPTY_TWIN
    )
    return made.inline().on_conflict_do_update(index_elements=["hub", "device_id"], set_={"unindexed": _MARKED})


MARK_TWIN = Statement(_marking)
"""Mark a twin as changed without changing it; add an empty one with `body` if there is none."""


def _changing(*conditions: ColumnElement[bool]) -> Statement:
    """Return an update of a twin that is unchanged since it was read; it marks the twin for indexing."""
    as_read = (twins.c[name] == bindparam(f"key_{name}") for name in ("hub", "device_id", "version"))
    values: dict[str, Any] = {name: bindparam(name) for name in _WRITTEN}
    return statement(update(twins).where(*as_read, *conditions).values(values | {"unindexed": _MARKED}))


CHANGE_TWIN = _changing(
    exists().where(
        devices.c.hub == twins.c.hub,
        devices.c.device_id == twins.c.device_id,
        devices.c.generation_id == bindparam("key_generation_id"),
    )
)
DELETE_TWIN = remove(twins)
DELETE_TWIN_AS_READ = remove(twins, "hub", "device_id", "version")
_OF_MODULE = (
    modules.c.hub == bindparam("key_hub"),
    modules.c.device_id == bindparam("key_owner"),
    modules.c.module_id == bindparam("key_module"),
)
_THIS_MODULE = (*_OF_MODULE, modules.c.generation_id == bindparam("key_generation_id"))
DELETE_TWINS_OF_MODULES = remove(
    twins,
    "hub",
    twins.c.device_id.in_(
        select(modules.c.device_id + "/" + modules.c.module_id).where(
            modules.c.hub == bindparam("hub"), modules.c.device_id == bindparam("device_id")
        )
    ),
)
CHANGE_MODULE_TWIN = _changing(exists().where(*_THIS_MODULE))

CREDENTIALS = RowMapper(Credential)
credentials = CREDENTIALS.table("hub_credentials", "hub", "device_id")
GET_CREDENTIAL = find(credentials)
ADD_CREDENTIAL = insert(credentials)
CHANGE_CREDENTIAL = change(
    credentials, [c.name for c in credentials.columns if not c.primary_key], "hub", "device_id", "version"
)
DELETE_CREDENTIAL = remove(credentials)
DROP_CREDENTIAL = remove(credentials, "hub", "device_id", "version")


@dataclass(frozen=True, slots=True)
class _RoutingRow:
    """Routing of a hub: its document, and the secrets of its webhooks."""

    hub: str
    generation: str
    revision: int
    document: str
    secrets: str = field(repr=False)
    modified_at: datetime


ROUTINGS = RowMapper(_RoutingRow)
routings = ROUTINGS.table("hub_routing", "hub", sealed=("secrets",))
ADD_ROUTING = insert(routings, ignore_existing=True)
GET_ROUTING = find(routings)
ROUTINGS_PAGE = page(routings, "hub")
CHANGE_ROUTING = change(routings, ("document", "secrets", "revision", "modified_at"), "hub", "generation", "revision")
ROUTING_IS_THERE = guard_exists(routings, "hub", "generation")


@dataclass(frozen=True, slots=True)
class StoredConsumerGroup:
    """Consumer group of a hub; the name in lower case is unique."""

    hub: str
    lower_name: str
    name: str
    created_at: datetime


CONSUMER_GROUPS = RowMapper(StoredConsumerGroup)
consumer_groups = CONSUMER_GROUPS.table("hub_consumer_groups", "hub", "lower_name")
ADD_CONSUMER_GROUP = insert(consumer_groups, ignore_existing=True)
REMOVE_CONSUMER_GROUP = remove(consumer_groups)
CONSUMER_GROUPS_OF_HUB = find(consumer_groups, "hub", order=consumer_groups.c.lower_name, limit=100)

exclusive_readers = Table(
    "hub_exclusive_readers",
    metadata,
    *(text(name, key=True) for name in ("hub", "consumer_group")),
    number("partition", key=True),
    number("epoch"),
    text("holder"),
)
GET_READER = find(exclusive_readers)
ADD_READER = insert(exclusive_readers, ignore_existing=True)
CHANGE_READER = change(exclusive_readers, ("epoch", "holder"), "hub", "consumer_group", "partition", "epoch", "holder")
REMOVE_READER = remove(exclusive_readers, "hub", "consumer_group", "partition", "holder")
REMOVE_READERS_OF_GROUP = remove(exclusive_readers, "hub", "consumer_group")
FREE_READERS = remove(
    exclusive_readers,
    exclusive_readers.c.holder >= bindparam("first"),
    exclusive_readers.c.holder < bindparam("beyond"),
)


@dataclass(frozen=True, slots=True)
class FileUpload:
    """An open file upload of a device; a device has one per slot."""

    hub: str
    device_id: str
    slot: int
    correlation_id: str
    blob: str
    started_at: int
    expires_at: int


UPLOADS = RowMapper(FileUpload)
uploads = UPLOADS.table("hub_file_uploads", "hub", "device_id", "slot")
Index("hub_file_uploads_correlation", uploads.c.hub, uploads.c.correlation_id, unique=True)
Index("hub_file_uploads_expiry", uploads.c.expires_at)
ADD_UPLOAD = insert(uploads)
UPLOADS_OF_DEVICE = find(uploads, "hub", "device_id", order=uploads.c.slot)
GET_UPLOAD = find(uploads, "hub", "correlation_id")
UPLOAD_IS_OPEN = guard_exists(uploads, "hub", "correlation_id")
END_UPLOAD = remove(uploads, "hub", "correlation_id")
REMOVE_EXPIRED_UPLOADS = remove(uploads, uploads.c.expires_at <= bindparam("now"))


@dataclass(frozen=True, slots=True)
class RegistryJob:
    """An import or export of a hub's registry. `running_hub` is the hub until the job ends; a hub runs one."""

    hub: str
    job_id: str
    is_import: bool
    status: str
    running_hub: str | None
    host: str
    input_container: str
    input_blob: str
    input_etag: str
    output_container: str
    output_blob: str
    excludes_keys: bool
    done: int
    tried: int
    total: int
    failure: str
    actor: str
    started_at: int
    ended_at: int | None = None


REGISTRY_JOBS = RowMapper(RegistryJob)
registry_jobs = REGISTRY_JOBS.table("hub_registry_jobs", "hub", "job_id", more=[UniqueConstraint("running_hub")])
ADD_REGISTRY_JOB = insert(registry_jobs)
GET_REGISTRY_JOB = find(registry_jobs)
REGISTRY_JOBS_OF_HUB = find(registry_jobs, "hub", order=registry_jobs.c.started_at.desc(), limit=100)
RUNNING_REGISTRY_JOBS = find(registry_jobs, registry_jobs.c.running_hub.is_not(None), limit=100)
REGISTRY_JOB_RUNS = guard_unchanged(registry_jobs, "hub", "job_id", "running_hub")
STEP_REGISTRY_JOB = change(
    registry_jobs, ("status", "done", "tried", "total", "input_etag"), "hub", "job_id", "running_hub", "done"
)
END_REGISTRY_JOB = change(
    registry_jobs, ("status", "running_hub", "failure", "ended_at"), "hub", "job_id", "running_hub"
)
FORGET_REGISTRY_JOBS = remove(registry_jobs, registry_jobs.c.ended_at < bindparam("before"))


@dataclass(frozen=True, slots=True)
class RegistryJobError:
    """A line of an import that failed, with its JSON for the error log."""

    hub: str
    job_id: str
    line: int
    text: str


REGISTRY_JOB_ERRORS = RowMapper(RegistryJobError)
registry_job_errors = REGISTRY_JOB_ERRORS.table("hub_registry_job_errors", "hub", "job_id", "line")
ADD_REGISTRY_JOB_ERROR = insert(registry_job_errors, ignore_existing=True)
REGISTRY_JOB_ERRORS_PAGE = page(registry_job_errors, "line", "hub", "job_id")
_of_job = (registry_jobs.c.hub == registry_job_errors.c.hub, registry_jobs.c.job_id == registry_job_errors.c.job_id)
FORGET_REGISTRY_JOB_ERRORS = remove(
    registry_job_errors, exists().where(*_of_job, registry_jobs.c.ended_at < bindparam("before"))
)

HUBS = RowMapper(Hub)
hubs = HUBS.table("hubs", "name", more=[UniqueConstraint("host")], sealed=["policies"])
ADD_HUB = insert(hubs)
CHANGE_KEYS = change(hubs, ("policies",), "name", "policies")
CHANGE_TIER = change(hubs, ("tier",), "name", "host")
REMOVE_HUB = remove(hubs, "name", "policies")
HUB_IS_THERE = guard_exists(hubs)
SAME_HUB = guard_exists(hubs, "name", "policies")
LOCK_HUB = guard_unchanged(hubs)
"""Guard that locks a hub until the commit ends, for guards that count its rows."""
HAS_GROUP_ROOM = guard_unchanged(
    hubs,
    "name",
    select(func.count())
    .select_from(consumer_groups)
    .where(consumer_groups.c.hub == hubs.c.name)
    .correlate(hubs)
    .scalar_subquery()
    < bindparam("most"),
)
"""Guard that holds where a hub can have another consumer group."""
DELETE_HUB = tuple(
    remove(table, "hub")
    for table in (
        *(devices, modules, twins, authorities, credentials, routings, consumer_groups, exclusive_readers),
        *(uploads, registry_jobs, registry_job_errors),
    )
)
HUBS_PAGE = page(hubs, "name")

# The latest version of each device counts: a writer passes the etag that it read.
_STATE = ("etag", "enabled", "status_reason", "auth_type", "iot_edge", "updated_at", "maker", "parent_scopes")
_PROOFS = ("primary_thumbprint", "secondary_thumbprint", "primary_key", "secondary_key")
_AS_READ = ("hub", "device_id", "etag")
ADD_DEVICE = insert(devices)
GET_DEVICE = find(devices)
LIST_DEVICES = page(devices, "device_id", "hub")
NAMES_OF_DEVICES = page(devices, "device_id", "hub", of=("device_id",))
DEVICES_OFF = page(devices, "device_id", "hub", _OFF, of=("device_id",))
DEVICES_NAMED = find(devices, "hub", is_in_list(devices.c.device_id), of=("device_id", "enabled"))
DEVICES = "devices"
"""Counter of devices, by hub and state."""
DEVICE_IS_THERE = guard_unchanged(devices, "hub", "device_id")
HAS_ROOM = guard_unchanged(
    devices,
    "hub",
    "device_id",
    select(func.count())
    .select_from(modules)
    .where(modules.c.hub == devices.c.hub, modules.c.device_id == devices.c.device_id)
    .correlate(devices)
    .scalar_subquery()
    < bindparam("most"),
)
"""Guard that holds where a device can have another module."""
SAME_GENERATION = guard_unchanged(devices, "hub", "device_id", "generation_id")
REPLACE_DEVICE = change(devices, (*_STATE, *_PROOFS), *_AS_READ)
# Changes nothing; it guards a decision on the device as read.
SAME_DEVICE = guard_unchanged(devices, *_AS_READ)
DELETE_DEVICE = remove(devices, *(devices.c[name] == bindparam(f"key_{name}") for name in _AS_READ))


# A module is read with its device's enabled state.
_MODULE = select(modules, devices.c.enabled).where(
    devices.c.hub == modules.c.hub, devices.c.device_id == modules.c.device_id
)
_AT = (modules.c.hub == bindparam("hub"), modules.c.device_id == bindparam("device_id"))
GET_MODULE = statement(_MODULE.where(*_AT, modules.c.module_id == bindparam("module_id")))
MODULES_OF = statement(_MODULE.where(*_AT))
ADD_MODULE = insert(modules)
MODULE_IS_THERE = guard_unchanged(modules, *_OF_MODULE)
SAME_MODULE_GENERATION = guard_unchanged(modules, *_THIS_MODULE)
_MODULE_AS_READ = (*_OF_MODULE, modules.c.etag == bindparam("key_etag"))
STATE_OF_MODULE = ("etag", "auth_type", "managed_by", "updated_at", *_PROOFS)
REPLACE_MODULE = change(modules, STATE_OF_MODULE, *_MODULE_AS_READ)
TAKE_PROOFS = change(modules, ("etag", "auth_type", "updated_at", *_PROOFS), "hub", "device_id")
DELETE_MODULE = remove(modules, *_MODULE_AS_READ)
DELETE_MODULES_OF = (DELETE_TWINS_OF_MODULES, remove(modules, "hub", "device_id"))
"""Deletes a device's modules and their twins, before the device."""


_encode = msgspec.msgpack.Encoder().encode


class _Body(msgspec.Struct, array_like=True):
    """Stored form of a twin; earlier ones end without a model id, or without configurations."""

    tags: dict[str, Any]
    desired: DocumentSection
    reported: DocumentSection
    model_id: str = ""
    configurations: dict[str, TwinConfiguration] = {}


class _Tags(msgspec.Struct, array_like=True):
    """First field of a stored twin."""

    tags: dict[str, Any]


_decode, _decode_tags = msgspec.msgpack.Decoder(_Body).decode, msgspec.msgpack.Decoder(_Tags).decode


def twin_of(row: Row) -> Twin:
    """Return the twin of a row."""
    body = _decode(row["body"])
    return Twin(
        row["hub"],
        row["device_id"],
        *(body.tags, body.desired, body.reported, row["version"], body.model_id, body.configurations),
    )


def tags_of(row: Row) -> Mapping[str, Any]:
    """Return the tags of a twin's row."""
    found: Mapping[str, Any] = _decode_tags(row["body"]).tags
    return found


def twin_body(twin: Twin) -> bytes:
    """Return the column value of a twin."""
    return _encode(_Body(twin.tags, twin.desired, twin.reported, twin.model_id, twin.configurations))


def device_of(row: Row) -> Device:
    """Return the device of a row."""
    return Device(
        row["hub"],
        DeviceId(row["device_id"]),
        row["generation_id"],
        row["etag"],
        bool(row["enabled"]),
        row["status_reason"],
        _authentication_of(row),
        bool(row["iot_edge"]),
        from_micros(row["created_at"]),
        from_micros(row["updated_at"]),
        row["maker"],
        tuple(json.loads(row["parent_scopes"] or "[]")),
    )


def module_of(row: Row) -> Module:
    """Return the module of a row."""
    return Module(
        row["hub"],
        DeviceId(row["device_id"]),
        row["module_id"],
        row["generation_id"],
        row["etag"],
        bool(row["enabled"]),
        _authentication_of(row),
        row["managed_by"],
        from_micros(row["created_at"]),
        from_micros(row["updated_at"]),
    )


def module_key(module: Module) -> dict[str, Any]:
    """Return the statement parameters that identify a module."""
    return {"key_hub": module.hub, "key_owner": module.device_id, "key_module": module.module_id}


def twin_keys(identity: Identity) -> tuple[Statement, Statement, dict[str, Any]]:
    """Return the identity guard, the twin update, and the parameters of both."""
    key = {"key_hub": identity.hub, "key_device_id": identity.name, "key_generation_id": identity.generation_id}
    match identity:
        case Device():
            return SAME_GENERATION, CHANGE_TWIN, key
        case Module():
            return SAME_MODULE_GENERATION, CHANGE_MODULE_TWIN, key | module_key(identity)
        case _:
            assert_never(identity)


def subject_digest(name: bytes) -> str:
    """Return the lookup key of CA certificates with this subject, as DER."""
    return hashlib.sha256(name).hexdigest()


def authority_row(hub: str, authority: CaCertificate) -> dict[str, Any]:
    """Return the row of a CA certificate."""
    found_by = subject_digest(authority.certificate.subject_der)
    return {"hub": hub, "subject_digest": found_by} | AUTHORITIES.row(authority)


def place_of(hub: str) -> str:
    """Return the scope of a hub's devices."""
    return f"hub/{hub}"


def state_of(*, is_enabled: bool) -> str:
    """Return the counter state of a device: enabled or disabled."""
    return "enabled" if is_enabled else "disabled"


def device_row(device: Device) -> dict[str, Any]:
    """Return the row of a device."""
    return {
        **_identity_row(device),
        "enabled": int(device.is_enabled),
        "status_reason": device.status_reason,
        "iot_edge": int(device.is_iot_edge),
        "maker": device.maker,
        "parent_scopes": json.dumps(device.parent_scopes) if device.parent_scopes else None,
    }


def module_row(module: Module) -> dict[str, Any]:
    """Return the row of a module."""
    return {**_identity_row(module), "module_id": module.module_id, "managed_by": module.managed_by}


def _identity_row(identity: Identity) -> dict[str, Any]:
    authentication = identity.authentication
    return {
        "hub": identity.hub,
        "device_id": identity.device_id,
        "generation_id": identity.generation_id,
        "etag": identity.etag,
        "auth_type": authentication.type.value,
        "primary_thumbprint": thumbprint_text(authentication.primary_thumbprint),
        "secondary_thumbprint": thumbprint_text(authentication.secondary_thumbprint),
        "primary_key": authentication.primary_key,
        "secondary_key": authentication.secondary_key,
        "created_at": to_micros(identity.created_at),
        "updated_at": to_micros(identity.updated_at),
    }


def _authentication_of(row: Row) -> DeviceAuthentication:
    return DeviceAuthentication(
        AuthenticationType(row["auth_type"]),
        _bytes_of(row["primary_thumbprint"]),
        _bytes_of(row["secondary_thumbprint"]),
        row["primary_key"],
        row["secondary_key"],
    )


def _bytes_of(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def kept_of(row: Row) -> StoredRouting:
    """Return the routing of a row."""
    known = ROUTINGS.of(row)
    routing = decode_json(known.document, Routing)
    secrets = json.loads(known.secrets)
    return StoredRouting(known.hub, known.generation, known.revision, routing, secrets, known.modified_at)


def routing_row(routing: StoredRouting) -> dict[str, Any]:
    """Return the row of a routing."""
    document, secrets = msgspec.json.encode(routing.routing).decode(), json.dumps(routing.secrets)
    return ROUTINGS.row(
        _RoutingRow(routing.hub, routing.generation, routing.revision, document, secrets, routing.modified_at)
    )
