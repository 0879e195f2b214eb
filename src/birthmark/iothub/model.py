"""Hubs, device identities and telemetry as values."""

import base64
import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType, TypeAlias

import msgspec

from birthmark.documents import DocumentSection
from birthmark.errors import InvalidRequestError

DeviceId = NewType("DeviceId", str)
OPERATOR = "operator"
_DEVICE_ID = re.compile(r"[A-Za-z0-9\-.+%_#*?!(),:=@$']{1,128}")


SCOPE = "ms-azure-iot-edge://"
MAX_MODULES = 50
"""Of one device ("IoT Hub quotas and throttling")."""


class DeviceIdInvalidError(InvalidRequestError):
    """The device ID is not valid."""

    code = "iothub.device_id_invalid"
    cause = "A device or module ID has 1 to 128 letters, digits and - . % _ * ? ! ( ) , : = @ $ '."
    fix = "Choose another device ID. List existing IDs: `birthmark hub device ls`"
    device_id: str


def parse_device_id(text: str) -> DeviceId:
    """Return the id; letter case counts. Raise `DeviceIdInvalidError`."""
    if _DEVICE_ID.fullmatch(text) is None:
        raise DeviceIdInvalidError(device_id=text[:128])
    return DeviceId(text)


def parse_new_id(text: str) -> DeviceId:
    """Return the id of a device or module that is created. Raise `DeviceIdInvalidError`.

    MQTT allows no `+` and no `#` in the topics of such a device; one of an earlier version still works over HTTPS.
    """
    if not {"+", "#"}.isdisjoint(text):
        raise DeviceIdInvalidError(device_id=text[:128])
    return parse_device_id(text)


def name_of(device_id: str, module_id: str | None) -> str:
    """Return what an identity is called wherever devices and modules are told apart by name alone.

    A module is called `DEVICE/MODULE`, as its client id is: no device id has a slash.
    """
    return device_id if module_id is None else f"{device_id}/{module_id}"


def parse_name(text: str) -> tuple[DeviceId, str | None]:
    """Return device and module of an identity's name. Raise `DeviceIdInvalidError`."""
    device, slash, module = text.partition("/")
    return parse_device_id(device), parse_device_id(module) if slash else None


@dataclass(frozen=True, slots=True)
class Hub:
    """One hub: its short name, the host its devices name in CONNECT, and its policies' keys."""

    name: str
    host: str
    policies: dict[str, tuple[bytes, bytes]] = field(repr=False)
    tier: str | None = None
    """Whose limits count, as `rules.tiers` keeps it; None: no limits."""

    def became(self, other: "Hub") -> bool:
        """Say whether another of this name is this one, some keys of which were rotated; one made anew has none."""
        return any(set(pair) & set(other.policies.get(policy, ())) for policy, pair in self.policies.items())


def space_of(hub: str) -> str:
    """Return the name of the broker's space for a hub's devices."""
    return f"hub/{hub}"


class AuthenticationType(StrEnum):
    """How a device proves itself, in the registry's own words."""

    SAS = "sas"
    SELF_SIGNED = "selfSigned"
    AUTHORITY = "certificateAuthority"


def thumbprint_text(thumbprint: bytes | None) -> str | None:
    """Return a SHA-1 or SHA-256 thumbprint as the registry writes it: upper-case hex."""
    return None if thumbprint is None else thumbprint.hex().upper()


@dataclass(frozen=True, slots=True)
class DeviceAuthentication:
    """Thumbprints are raw, 20 bytes (SHA-1) or 32 (SHA-256); keys too."""

    type: AuthenticationType
    primary_thumbprint: bytes | None = None
    secondary_thumbprint: bytes | None = None
    primary_key: bytes | None = field(default=None, repr=False)
    secondary_key: bytes | None = field(default=None, repr=False)

    @property
    def thumbprints(self) -> tuple[str, ...]:
        """Those there are, in hexadecimal, each once."""
        both = (self.primary_thumbprint, self.secondary_thumbprint)
        return tuple(dict.fromkeys(one.hex() for one in both if one is not None))

    @property
    def credentials(self) -> frozenset[bytes]:
        """Thumbprints and keys, whichever there are."""
        every = (self.primary_thumbprint, self.secondary_thumbprint, self.primary_key, self.secondary_key)
        return frozenset(one for one in every if one is not None)

    @property
    def told(self) -> dict[str, list[str]]:
        """What the audit trail says of how it is proved."""
        return {"thumbprints": list(self.thumbprints)} if self.thumbprints else {}


@dataclass(frozen=True, slots=True)
class Device:
    """A device identity of a hub's registry."""

    hub: str
    device_id: DeviceId
    generation_id: str
    etag: str
    is_enabled: bool
    status_reason: str | None
    authentication: DeviceAuthentication
    is_iot_edge: bool
    created_at: datetime
    updated_at: datetime
    maker: str = OPERATOR
    """Who put it on record: an operator, or the registration `dps:{scope}/{registration id}`."""
    parent_scopes: tuple[str, ...] = ()
    """The scopes of the gateways that may speak for it."""

    @property
    def name(self) -> str:
        return self.device_id

    @property
    def scope(self) -> str | None:
        """A gateway's own scope, by which those behind it name it; of another device its parent's.

        (IoT Edge, "Establish gateway hierarchy")
        """
        if self.is_iot_edge:
            return f"{SCOPE}{self.device_id}-{self.generation_id}"
        return self.parent_scopes[0] if self.parent_scopes else None


@dataclass(frozen=True, slots=True)
class Credential:
    """What a device asked its hub to issue, and what it was issued last, by its hub or as it registered.

    It is on record until the device connects by it; `version` is another with each write.
    """

    hub: str
    device_id: DeviceId
    generation_id: str
    version: str
    request_id: str | None = None
    """Of the request that is under way."""
    session: str | None = None
    """Of the connection that made it."""
    expires_at: int | None = None
    """When it counts no more, in microseconds."""
    thumbprint: bytes | None = None
    key_digest: bytes | None = None
    """SHA-256 of the public key of the certificate."""
    issued_at: int | None = None
    chain: tuple[str, ...] | None = None
    """It and those above it, in base64 of DER, the root last."""


@dataclass(frozen=True, slots=True)
class Module:
    """A part of a device with an identity of its own; it may connect as long as its device may."""

    hub: str
    device_id: DeviceId
    module_id: str
    generation_id: str
    etag: str
    is_enabled: bool
    authentication: DeviceAuthentication
    managed_by: str
    created_at: datetime
    updated_at: datetime

    @property
    def name(self) -> str:
        return name_of(self.device_id, self.module_id)


Identity: TypeAlias = Device | Module


class Twin(msgspec.Struct, frozen=True):
    """A device's twin: tags that it never sees, what is desired of it, what it reports. A fresh one is empty.

    A module has one, too: `device_id` is its name then.
    """

    hub: str
    device_id: str
    tags: dict[str, Any] = {}
    desired: DocumentSection = DocumentSection()
    reported: DocumentSection = DocumentSection()
    version: int = 1
    model_id: str = ""
    """Which model (IoT Plug and Play) it has, as it said when it connected last and said any."""

    @property
    def etag(self) -> str:
        """The etag of this version, eight bytes in base64."""
        return base64.b64encode(self.version.to_bytes(8, "big")).decode()


class C2dMessage(msgspec.Struct, frozen=True, array_like=True):
    """What a letter to a device holds: system properties by their names in a property bag, and the application's.

    `generation` is that of the device it is for; empty where an earlier version kept the letter.
    """

    payload: bytes
    system: dict[str, str]
    properties: dict[str, str]
    generation: str = ""


class TelemetryMessage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One device-to-cloud message. `system` has the wire's own names (message-id, content-type …)."""

    device_id: str
    enqueued_micros: int
    body: bytes
    system: dict[str, str | None]
    properties: dict[str, str | None]

    @property
    def publisher(self) -> str:
        """Whose share of the rules' time it uses."""
        return self.device_id
