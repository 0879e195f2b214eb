"""Configuration of a swarm, and state of its devices: frozen values, and the counters of one device."""

from dataclasses import dataclass, field
from enum import StrEnum


class TargetKind(StrEnum):
    """Kind of target."""

    LOCAL = "local"  # Azure API of a Birthmark server, from its data directory
    LOCAL_AWS = "local-aws"
    AZURE = "azure"
    AWS = "aws"

    @property
    def is_local(self) -> bool:
        return self in (TargetKind.LOCAL, TargetKind.LOCAL_AWS)

    @property
    def is_aws(self) -> bool:
        return self in (TargetKind.AWS, TargetKind.LOCAL_AWS)


class RegistrationProtocol(StrEnum):
    """Registration protocol for DPS; `none` connects to the hub directly."""

    MQTT = "mqtt"
    HTTPS = "https"
    NONE = "none"


class SwarmTransport(StrEnum):
    """Protocol between the devices of a group and the hub."""

    MQTT = "mqtt"
    AMQP = "amqp"


class Origin(StrEnum):
    """Origin of certificates."""

    CA = "ca"
    EST = "est"
    FILES = "files"


class SwarmState(StrEnum):
    """State of a device."""

    WAITING = "waiting"  # for its ramp turn
    REGISTERING = "registering"
    ASSIGNED = "assigned"
    CONNECTED = "connected"
    SENDING = "sending"  # a message is unacknowledged
    RENEWING = "renewing"
    REFUSED = "refused"
    AWAY = "away"
    DONE = "done"


class Fault(StrEnum):
    """Kind of misbehavior."""

    OTHER_NAME = "other_name"
    OTHER_TOPIC = "other_topic"
    OVERSIZED = "oversized"
    GARBAGE = "garbage"
    HALF_OPEN = "half_open"
    EXPIRED = "expired"
    REVOKED = "revoked"
    CLOCK_SKEW = "clock_skew"
    NO_ACK = "no_ack"
    DUPLICATE = "duplicate"
    RENEW_OTHER = "renew_other"


class SwarmVerdict(StrEnum):
    """Result of a fault."""

    STOPPED = "stopped"  # rejected, or connection cut
    TOLERATED = "tolerated"
    UNTRIED = "untried"  # never reached


@dataclass(frozen=True, slots=True)
class DeviceGroup:
    """Devices with the same configuration."""

    name: str
    count: int
    device: str = ""
    """Name of a device, with `{n}` for its number."""
    ramp: float = 50.0
    """Number of devices that start per second."""
    start_s: float = 0.0
    interval_s: float = 10.0
    """Seconds between two messages; 0 sends none."""
    jitter: float = 0.1
    payload: str = '{"n": {n}}'
    size: int = 0
    """Bytes of a message, instead of `payload`."""
    topic: str = ""
    """AWS topic; `{name}` is the device."""
    transport: SwarmTransport = SwarmTransport.MQTT
    keep_alive_s: int = 240
    """Keep-alive of MQTT, idle timeout of AMQP."""
    stay_s: float = 0.0
    """Seconds until the device disconnects by itself; 0 for never."""
    away_s: float = 10.0
    cut_s: float = 0.0
    """Mean seconds between lost connections; 0 for never."""
    renew_s: float = 0.0
    renew_at: float = 0.0
    """Share of the certificate's lifetime at which the device renews."""
    job_s: float = 0.0
    """AWS: seconds that the device takes for a job; 0 runs no jobs."""
    jobs_fail: float = 0.0
    """Share of the jobs that fail."""
    storm_s: tuple[float, ...] = ()
    """Moments at which all connections of the group break at once, and all devices reconnect without delay."""
    misbehave: tuple[tuple[Fault, float], ...] = ()
    expect: tuple[tuple[Fault, SwarmVerdict], ...] = ()
    patience_s: float = 30.0
    """Seconds within which a target must disconnect a misbehaving device, and a lost device must be back."""
    skew_s: float = 20 * 365 * 86400.0

    @property
    def renews(self) -> bool:
        return bool(self.renew_s or self.renew_at)

    def name_of(self, number: int) -> str:
        """Return the name of the device with this number."""
        return (self.device or f"{self.name}-{{n}}").replace("{n}", str(number))


@dataclass(slots=True)
class DeviceMetrics:
    """Counters of one device."""

    name: str
    group: str
    fault: Fault | None = None
    state: SwarmState = SwarmState.WAITING
    registrations: int = 0
    connects: int = 0
    lost: int = 0
    sent: int = 0
    acknowledged: int = 0
    renewals: int = 0
    errors: int = 0
    last_error: str = ""
    since_s: float = 0.0
    """Time of the state change or connection loss, in seconds of the run."""
    is_planned: bool = False
    """Whether the device is disconnected by plan."""
    verdict: SwarmVerdict = SwarmVerdict.UNTRIED
    how: str = ""
    """Error code with which a fault was stopped."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Result of a device: whether it and the target behaved as expected."""

    held: bool
    why: str = field(default="")
