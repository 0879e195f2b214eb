"""Models of hubs, device identities and telemetry."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, StrEnum
from typing import Any, NamedTuple, NewType, TypeAlias

import msgspec

from birthmark.documents import DocumentSection
from birthmark.errors import InvalidRequestError

DeviceId = NewType("DeviceId", str)
OPERATOR = "operator"
_DEVICE_ID = re.compile(r"[A-Za-z0-9\-.+%_#*?!(),:=@$']{1,128}")


SCOPE = "ms-azure-iot-edge://"
MAX_MODULES = 50
"""Maximum modules per device ("IoT Hub quotas and throttling")."""


class DeviceIdInvalidError(InvalidRequestError):
    """The device ID is not valid."""

    code = "iothub.device_id_invalid"
    message = "{device_id!r} is not a valid device or module ID"
    cause = "A device or module ID consists of 1 to 128 characters: letters, digits and - . % _ * ? ! ( ) , : = @ $ '."
    fix = "Choose another device ID. List existing IDs: `birthmark hub device ls`"
    device_id: str


def parse_device_id(text: str) -> DeviceId:
    """Return the device id, case-sensitive. Raise `DeviceIdInvalidError`."""
    if _DEVICE_ID.fullmatch(text) is None:
        raise DeviceIdInvalidError(device_id=text[:128])
    return DeviceId(text)


def is_device_id(text: str) -> bool:
    """Return whether a text is a valid device or module id."""
    return _DEVICE_ID.fullmatch(text) is not None


def parse_new_id(text: str) -> DeviceId:
    """Return the id of a new device or module. Raise `DeviceIdInvalidError`.

    MQTT topics allow no `+` and no `#` in the id; such a device of an earlier version still works over HTTPS.
    """
    if not {"+", "#"}.isdisjoint(text):
        raise DeviceIdInvalidError(device_id=text[:128])
    return parse_device_id(text)


def name_of(device_id: str, module_id: str | None) -> str:
    """Return the unique name of an identity, wherever devices and modules share a namespace.

    A module's name is `DEVICE/MODULE`, like its client id: no device id has a slash.
    """
    return device_id if module_id is None else f"{device_id}/{module_id}"


def parse_name(text: str) -> tuple[DeviceId, str | None]:
    """Return device and module of an identity's name. Raise `DeviceIdInvalidError`."""
    device, slash, module = text.partition("/")
    return parse_device_id(device), parse_device_id(module) if slash else None


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub: its short name, the host name that devices use in CONNECT, and its policies' keys."""

    name: str
    host: str
    policies: dict[str, tuple[bytes, bytes]] = field(repr=False)
    tier: str | None = None
    """Tier whose limits apply, as `rules.tier_throttles_and_quotas` stores it; None: no limits."""

    def is_rekeyed_as(self, other: "Hub") -> bool:
        """Return whether another hub of this name is this one with rotated keys; a re-created hub shares no key."""
        return any(set(pair) & set(other.policies.get(policy, ())) for policy, pair in self.policies.items())


def space_of(hub: str) -> str:
    """Return the name of the broker namespace for a hub's devices."""
    return f"hub/{hub}"


class AuthenticationType(StrEnum):
    """Authentication type of a device, in the registry's wire format."""

    SAS = "sas"
    SELF_SIGNED = "selfSigned"
    AUTHORITY = "certificateAuthority"


def thumbprint_text(thumbprint: bytes | None) -> str | None:
    """Return a SHA-1 or SHA-256 thumbprint in the registry's format: uppercase hex."""
    return None if thumbprint is None else thumbprint.hex().upper()


@dataclass(frozen=True, slots=True)
class DeviceAuthentication:
    """A device's credentials. Thumbprints are raw, 20 bytes (SHA-1) or 32 (SHA-256); keys are raw as well."""

    type: AuthenticationType
    primary_thumbprint: bytes | None = None
    secondary_thumbprint: bytes | None = None
    primary_key: bytes | None = field(default=None, repr=False)
    secondary_key: bytes | None = field(default=None, repr=False)

    @property
    def thumbprints(self) -> tuple[str, ...]:
        """Return the distinct thumbprints in hexadecimal."""
        both = (self.primary_thumbprint, self.secondary_thumbprint)
        return tuple(dict.fromkeys(one.hex() for one in both if one is not None))

    @property
    def credentials(self) -> frozenset[bytes]:
        """Return all thumbprints and keys."""
        every = (self.primary_thumbprint, self.secondary_thumbprint, self.primary_key, self.secondary_key)
        return frozenset(one for one in every if one is not None)

    @property
    def told(self) -> dict[str, list[str]]:
        """Return the audit details of the authentication."""
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
    """Creator: an operator, or the registration `dps:{scope}/{registration id}`."""
    parent_scopes: tuple[str, ...] = ()
    """Scopes of the gateways that may act for the device."""

    @property
    def name(self) -> str:
        return self.device_id

    @property
    def scope(self) -> str | None:
        """Return a gateway's own device scope, which its children reference; for other devices, the parent's.

        (IoT Edge, "Establish gateway hierarchy")
        """
        if self.is_iot_edge:
            return f"{SCOPE}{self.device_id}-{self.generation_id}"
        return self.parent_scopes[0] if self.parent_scopes else None


@dataclass(frozen=True, slots=True)
class Credential:
    """A device's pending certificate request, and the last certificate issued by its hub or at registration.

    The record exists until the device connects with it; `version` changes with each write.
    """

    hub: str
    device_id: DeviceId
    generation_id: str
    version: str
    request_id: str | None = None
    """Id of the request in progress."""
    session: str | None = None
    """Session of the connection that made the request."""
    expires_at: int | None = None
    """Expiry time in microseconds."""
    thumbprint: bytes | None = None
    key_digest: bytes | None = None
    """SHA-256 of the public key of the certificate."""
    issued_at: int | None = None
    chain: tuple[str, ...] | None = None
    """Certificate chain in base64 of DER, leaf first and root last."""


@dataclass(frozen=True, slots=True)
class Module:
    """A module identity of a device; it can connect only while its device can."""

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


class SenderAuthentication(NamedTuple):
    """How the sender of telemetry authenticated; see `TelemetryMessage`."""

    method: str = ""
    generation_id: int = 0


def authentication_of(identity: Identity, *, is_of_policy: bool) -> SenderAuthentication:
    """Return how a device or module authenticated; `is_of_policy` means by a token of a hub policy."""
    own = "sas" if identity.authentication.type is AuthenticationType.SAS else "x509"
    return SenderAuthentication("hub" if is_of_policy else own, int(identity.generation_id))


class TwinConfiguration(msgspec.Struct, frozen=True, array_like=True):
    """A configuration that targets a twin, and the desired properties that it set.

    `paths` are relative to `properties.desired`, by module; an empty module ID is the twin itself.
    """

    is_applied: bool
    paths: dict[str, list[str]] = {}

    @property
    def status(self) -> str:
        """Return the status in twins and queries."""
        return "Applied" if self.is_applied else "Targeted"


class Twin(msgspec.Struct, frozen=True):
    """A device twin: tags, which the device never receives, desired and reported properties. A new one is empty.

    A module twin stores the module's name as `device_id`.
    """

    hub: str
    device_id: str
    tags: dict[str, Any] = {}
    desired: DocumentSection = DocumentSection()
    reported: DocumentSection = DocumentSection()
    version: int = 1
    model_id: str = ""
    """Model id (IoT Plug and Play) that the device last announced at CONNECT."""
    configurations: dict[str, TwinConfiguration] = {}
    """Configurations that target the twin, by ID."""

    @property
    def etag(self) -> str:
        """The etag of this version, eight bytes in base64."""
        return base64.b64encode(self.version.to_bytes(8, "big")).decode()


class ConfigurationKind(Enum):
    """Kind of a configuration, by the content that it has."""

    DEVICE = "device"
    MODULE = "module"
    DEPLOYMENT = "deployment"
    """Edge deployment: content for the modules of an IoT Edge device."""


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """Phased rollout: the shares of devices in percent, and the condition that stops it.

    A device belongs to a share by its name, so that each phase includes the devices of the previous one.
    """

    percents: tuple[int, ...]
    interval_s: int
    stop_condition: str = ""
    """Condition on the twins of devices with the configuration; empty for none."""
    stop_percent: int = 0
    """Share of those devices that may match it, in percent."""


@dataclass(frozen=True, slots=True)
class RolloutState:
    """Progress of a phased rollout."""

    phase: int
    entered_at: datetime
    stopped: str = ""
    """Reason for which it stopped; empty if it did not."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """An automatic device management configuration, or an edge deployment.

    `content` has values by path relative to `properties.desired` ("" is all of it), by module; an empty module ID is
    the targeted twin itself.
    """

    hub: str
    id: str
    etag: str
    kind: ConfigurationKind
    priority: int
    target_condition: str
    content: Mapping[str, Mapping[str, Any]]
    created_at: datetime
    updated_at: datetime
    labels: Mapping[str, str] | None = None
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Queries of custom metrics, by name."""
    schema_version: str | None = None
    results: Mapping[str, int] = field(default_factory=dict)
    """Latest results of custom metrics, and of the system metrics that need a scan, by name."""
    plan: RolloutPlan | None = None
    rollout: RolloutState | None = None


class C2dMessage(msgspec.Struct, frozen=True, array_like=True):
    """Content of a cloud-to-device message: system properties by property bag name, and application properties.

    `generation` is that of the target device; empty where an earlier version stored the message.
    """

    payload: bytes
    system: dict[str, str]
    properties: dict[str, str]
    generation: str = ""


class TelemetryMessage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A device-to-cloud message. `system` has the wire's own names (message-id, content-type …).

    `auth_method` is "sas", "x509", or "hub" for a token of a hub policy. The generation ID is a number, which takes
    half the space of its digits. Messages of 0.3.0 have neither of both; those of development versions have digits.
    """

    device_id: str
    enqueued_micros: int
    body: bytes
    system: dict[str, str | None]
    properties: dict[str, str | None]
    auth_method: str = ""
    generation_id: int | str = 0

    @property
    def publisher(self) -> str:
        """Return the publisher whose share of rule execution time the message uses."""
        return self.device_id


class HubJobType(StrEnum):
    """What a scheduled job does to each of its devices."""

    METHOD = "scheduleDeviceMethod"
    TWIN = "scheduleUpdateTwin"


class HubJobStatus(StrEnum):
    """Stored status of a scheduled job; a scheduled one whose time has come is shown as queued."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


QUEUED = "queued"


class HubJobDeviceStatus(StrEnum):
    """Status of a device in a scheduled job."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True)
class HubJob:
    """A scheduled job. `reached` is the last device that its condition was evaluated for."""

    hub: str
    job_id: str
    type: HubJobType
    condition: str
    content: str
    """Method call or twin update as JSON."""
    actor: str
    status: HubJobStatus
    created_at: datetime
    starts_at: datetime
    max_s: int
    """Time window from the start in seconds."""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    reason: str | None = None
    """Why it failed."""
    reached: str = ""
    is_selected: bool = False
    """Whether its condition was evaluated for all devices."""
    is_open: bool = True
    """Whether it waits for its start or for a device."""
    total: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    canceled: int = 0
    revision: int = 0

    @property
    def pending(self) -> int:
        return self.total - self.running - self.succeeded - self.failed - self.canceled


@dataclass(frozen=True, slots=True)
class HubJobDevice:
    """A device or module in a scheduled job. `holder` is the worker that calls its method."""

    hub: str
    job_id: str
    name: str
    device_id: str
    type: HubJobType
    status: HubJobDeviceStatus
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    holder: str | None = None
    outcome: str | None = None
    """Response to the method as JSON."""
    error_code: str | None = None
    error: str | None = None
