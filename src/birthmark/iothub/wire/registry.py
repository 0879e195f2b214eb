"""JSON bodies of the registry: devices, modules, bulk operations."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from birthmark.iothub.model import (
    SCOPE,
    AuthenticationType,
    Device,
    DeviceAuthentication,
    Identity,
    Module,
    thumbprint_text,
)
from birthmark.iothub.wire.times_and_body_validation import NEVER, BodyInvalidError, TwinProperties, check_members
from birthmark.unknown_field_detection import says_something
from birthmark.untrusted_json_and_text import read_json

_HEX = frozenset("0123456789ABCDEF")
_THUMBPRINT_DIGITS = {40, 64}
_MIN_KEY_BYTES, _MAX_KEY_BYTES = 16, 64
_MAX_PARENTS, _MAX_SCOPE = 1, 256
MAX_BULK = 100
"""Maximum items of a bulk operation ("IoT Hub quotas and throttling")."""
IMPORT_MODES = frozenset(
    {
        *("create", "update", "updateIfMatchETag", "createOrUpdate", "createOrUpdateIfMatchETag"),
        *("delete", "deleteIfMatchETag", "updateTwin", "updateTwinIfMatchETag"),
    }
)
_MODE_OF = {mode.lower(): mode for mode in IMPORT_MODES}
"""Import modes, case-insensitive: Node's SDK sends `Update` and `DeleteIfMatchETag`."""


def device_json(
    device: Device, *, is_connected: bool, last_activity: str = NEVER, with_keys: bool = True
) -> dict[str, Any]:
    """Return the registry's Device object."""
    known = identity_json(device, is_connected=is_connected, last_activity=last_activity, with_keys=with_keys)
    return known | {
        "status": "enabled" if device.is_enabled else "disabled",
        "statusReason": device.status_reason,
        "statusUpdatedTime": NEVER,
        "capabilities": {"iotEdge": device.is_iot_edge},
        "deviceScope": device.scope,
        "parentScopes": list(device.parent_scopes),
    }


def module_json(
    module: Module, *, is_connected: bool, last_activity: str = NEVER, with_keys: bool = True
) -> dict[str, Any]:
    """Return the registry's Module object."""
    known = identity_json(module, is_connected=is_connected, last_activity=last_activity, with_keys=with_keys)
    return known | {"moduleId": module.module_id, "managedBy": module.managed_by}


def identity_json(identity: Identity, *, is_connected: bool, last_activity: str, with_keys: bool) -> dict[str, Any]:
    """Return the fields that devices and modules share."""
    authentication = identity.authentication
    if not with_keys:
        authentication = replace(authentication, primary_key=None, secondary_key=None)
    return {
        "deviceId": identity.device_id,
        "generationId": identity.generation_id,
        "etag": identity.etag,
        "connectionState": "Connected" if is_connected else "Disconnected",
        "connectionStateUpdatedTime": last_activity,
        "lastActivityTime": last_activity,
        "cloudToDeviceMessageCount": 0,
        "authentication": {
            "symmetricKey": {
                "primaryKey": _b64(authentication.primary_key),
                "secondaryKey": _b64(authentication.secondary_key),
            },
            "x509Thumbprint": {
                "primaryThumbprint": thumbprint_text(authentication.primary_thumbprint),
                "secondaryThumbprint": thumbprint_text(authentication.secondary_thumbprint),
            },
            "type": authentication.type.value,
        },
    }


class _SymmetricKey(msgspec.Struct, rename="camel"):
    primary_key: str | None = None
    secondary_key: str | None = None


class _Thumbprints(msgspec.Struct, rename="camel"):
    primary_thumbprint: str | None = None
    secondary_thumbprint: str | None = None


class _Authentication(msgspec.Struct, rename="camel"):
    type: str | None = None
    symmetric_key: _SymmetricKey | None = None
    x509_thumbprint: _Thumbprints | None = None


class DeviceCapabilities(msgspec.Struct, rename="camel"):
    """Capabilities of a device."""

    iot_edge: bool = False


class BulkItem(msgspec.Struct, rename="camel"):
    """One device or module of a bulk operation (REST reference, "Bulk Registry - Update Registry")."""

    id: str
    import_mode: str = "create"
    module_id: str | None = None
    etag: str | None = msgspec.field(default=None, name="eTag")
    etag_of_device: str | None = msgspec.field(default=None, name="etag")
    """The same field under the name that Node's SDK sends, which returns devices as it read them."""
    twin_etag: str | None = msgspec.field(default=None, name="twinETag")
    status: str = "enabled"
    status_reason: str | None = None
    authentication: _Authentication | None = None
    capabilities: DeviceCapabilities | None = None
    device_scope: str | None = None
    parent_scopes: list[str] | None = None
    tags: dict[str, Any] | None = None
    properties: TwinProperties | None = None
    managed_by: str | None = None
    """Manager of a module."""

    @property
    def makes_device(self) -> bool:
        """Return whether the operation may create a device."""
        return self.import_mode.startswith("create") and self.module_id is None

    @property
    def twin(self) -> dict[str, Any]:
        """Return the item's twin update."""
        desired = None if self.properties is None else self.properties.desired
        wanted: dict[str, Any] = {} if desired is None else {"properties": {"desired": desired}}
        return wanted if self.tags is None else wanted | {"tags": self.tags}

    def proof(self) -> DeviceAuthentication:
        """Return the requested authentication. Raise `BodyInvalidError`."""
        return _authentication_of(self.authentication)

    def body(self) -> "DeviceBody":
        """Return the requested device. Raise `BodyInvalidError`."""
        state = (self.id, self.status, self.status_reason, self.authentication, self.capabilities)
        return check_device_body(DeviceBody(*state, self.device_scope, self.parent_scopes))


def parse_bulk(body: bytes) -> Sequence[BulkItem]:
    """Return the items of a bulk operation, each device and module at most once. Raise `BodyInvalidError`."""
    items = read_json(body, list[BulkItem], BodyInvalidError)
    check_members(body, list[BulkItem], _TOLD_OF_DEVICE)
    if not 0 < len(items) <= MAX_BULK:
        raise BodyInvalidError(detail=f"the request has {len(items)} devices; 1 to {MAX_BULK} are allowed")
    for item in items:
        normalize_bulk_item(item)
        if item.properties is not None and says_something(item.properties.reported):
            raise BodyInvalidError(detail="only the device sets properties.reported, leave it out")
    return items


def normalize_bulk_item(item: BulkItem) -> None:
    """Set an item's mode and etag to their usual form. Raise `BodyInvalidError`."""
    if (mode := _MODE_OF.get(item.import_mode.lower())) is None:
        raise BodyInvalidError(detail=f"importMode must be one of {', '.join(sorted(IMPORT_MODES))}")
    if item.managed_by and item.module_id is None:
        raise BodyInvalidError(detail="managedBy is a member of modules")
    item.import_mode = mode
    item.etag = item.etag or item.etag_of_device


class DeviceBody(msgspec.Struct, rename="camel"):
    """A Device in a client's PUT request."""

    device_id: str | None = None
    status: str = "enabled"
    status_reason: str | None = None
    authentication: _Authentication | None = None
    capabilities: DeviceCapabilities | None = None
    device_scope: str | None = None
    parent_scopes: list[str] | None = None

    @property
    def parents(self) -> tuple[str, ...]:
        """Return the scopes of parent gateways; for a leaf device, `device_scope` is its only parent's."""
        is_edge = bool(self.capabilities and self.capabilities.iot_edge)
        of_scope = (self.device_scope,) if self.device_scope and not is_edge else ()
        return tuple(self.parent_scopes or of_scope)


class ModuleBody(msgspec.Struct, rename="camel"):
    """A Module in a client's PUT request."""

    module_id: str | None = None
    device_id: str | None = None
    managed_by: str | None = None
    authentication: _Authentication | None = None


_TOLD_OF_DEVICE = frozenset(
    {
        *("generationId", "etag", "connectionState", "connectionStateUpdatedTime", "statusUpdatedTime"),
        *("lastActivityTime", "cloudToDeviceMessageCount"),
    }
)
"""Read-only members that the registry returns, and that clients send back."""


def parse_device_body(body: bytes) -> tuple[DeviceBody, DeviceAuthentication]:
    """Return the body and its authentication (omitted keys are None). Raise `BodyInvalidError`."""
    parsed = read_json(body, DeviceBody, BodyInvalidError)
    check_members(body, DeviceBody, _TOLD_OF_DEVICE)
    return check_device_body(parsed), _authentication_of(parsed.authentication)


def check_device_body(body: DeviceBody) -> DeviceBody:
    """Return a body with valid status and scopes. Raise `BodyInvalidError`."""
    body.status = body.status.lower()
    if body.status not in {"enabled", "disabled"}:
        raise BodyInvalidError(detail="status must be enabled or disabled")
    parents = body.parents
    if len(parents) > _MAX_PARENTS or any(not one.startswith(SCOPE) or len(one) > _MAX_SCOPE for one in parents):
        raise BodyInvalidError(detail=f"a device can have at most one parent, whose scope must start with {SCOPE}")
    if (
        body.device_scope
        and body.parent_scopes
        and body.parents != (body.device_scope,)
        and not (body.capabilities and body.capabilities.iot_edge)
    ):
        raise BodyInvalidError(detail="deviceScope and parentScopes name different gateways")
    return body


def parse_module_body(body: bytes) -> tuple[ModuleBody, DeviceAuthentication]:
    """Return a module and its authentication, as `parse_device_body` does. Raise `BodyInvalidError`."""
    parsed = read_json(body, ModuleBody, BodyInvalidError)
    check_members(body, ModuleBody, _TOLD_OF_DEVICE)
    return parsed, _authentication_of(parsed.authentication)


def _authentication_of(authentication: _Authentication | None) -> DeviceAuthentication:
    wanted = authentication or _Authentication()
    beside: dict[str, tuple[_SymmetricKey | _Thumbprints | None, ...]] = {
        "selfSigned": (wanted.symmetric_key,),
        "certificateAuthority": (wanted.symmetric_key, wanted.x509_thumbprint),
    }
    for one in beside.get(wanted.type or "", (wanted.x509_thumbprint,)):
        if one is not None and one != type(one)():
            detail = f"authentication of type {wanted.type or 'sas'} with {type(one).__name__.lstrip('_')}"
            raise BodyInvalidError(detail=f"{detail}: a device has one kind")
    if wanted.type == "selfSigned":
        prints = wanted.x509_thumbprint or _Thumbprints()
        return DeviceAuthentication(
            AuthenticationType.SELF_SIGNED,
            _thumbprint(prints.primary_thumbprint),
            _thumbprint(prints.secondary_thumbprint),
        )
    if wanted.type == "certificateAuthority":
        return DeviceAuthentication(AuthenticationType.AUTHORITY)
    if wanted.type not in {None, "sas"}:
        raise BodyInvalidError(detail=f"authentication.type {wanted.type!r} is not supported")
    keys = wanted.symmetric_key or _SymmetricKey()
    return DeviceAuthentication(
        AuthenticationType.SAS, primary_key=_key(keys.primary_key), secondary_key=_key(keys.secondary_key)
    )


def _thumbprint(text: str | None) -> bytes | None:
    if not text:
        return None
    clean = text.replace(":", "").upper()
    if len(clean) not in _THUMBPRINT_DIGITS or not _HEX.issuperset(clean):
        raise BodyInvalidError(detail="a thumbprint has 40 (SHA-1) or 64 (SHA-256) hex digits")
    return bytes.fromhex(clean)


def _key(text: str | None) -> bytes | None:
    if not text:
        return None
    try:
        key = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise BodyInvalidError(detail="a symmetric key must be base64") from error
    if not _MIN_KEY_BYTES <= len(key) <= _MAX_KEY_BYTES:
        raise BodyInvalidError(detail="a symmetric key has 16 to 64 bytes")
    return key


def _b64(key: bytes | None) -> str | None:
    return None if key is None else base64.b64encode(key).decode()
