"""Alerts, silences, and readings as values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum


class AlertSeverity(StrEnum):
    """Severity of an alert."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class AlertRule:
    """Alert rule. `holds` is how long a condition must persist to raise the alert, and be absent to resolve it.

    `metric` and `expression` are the Prometheus equivalent (PromQL, with `{limit}`); `fix` is the next command.
    """

    name: str
    severity: AlertSeverity
    says: str
    fix: str
    expression: str
    metric: str
    holds: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class AlertFinding:
    """Finding of a rule: subject, description, count, and some examples."""

    rule: str
    subject: str
    detail: str
    count: int = 1
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Alert:
    """Alert found since `seen_at`; raised and resolved after the rule's hold time."""

    rule: str
    subject: str
    severity: AlertSeverity
    detail: str
    count: int
    examples: tuple[str, ...]
    seen_at: datetime
    raised_at: datetime | None = None
    missed_at: datetime | None = None
    """Time since when the condition is absent."""
    is_told: bool = False
    is_hushed: bool = False
    """Whether a silence covers it since its notification."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Silence of a rule or of one subject of it, for a limited time; the subject may be a pattern."""

    rule: str
    subject: str
    until: datetime
    by: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class UpcomingExpiry:
    """An upcoming or past expiry: name, time, and reason."""

    name: str
    at: datetime
    why: str = ""


@dataclass(frozen=True, slots=True)
class MachineReading:
    """A worker's last reading of its own machine, in the database's time."""

    worker: str
    machine: str
    at: datetime
    disk_free_ppm: int
    """Free share of the data directory's disk, in parts per million."""
    is_clock_steady: bool
    clock_off_us: int | None = None
    """Minimum offset of the machine's clock ahead of the database's, in microseconds; None if they share one."""
    server_ends: datetime | None = None
    """Expiry of this worker's server certificate."""

    @property
    def disk_free(self) -> float:
        return self.disk_free_ppm / 1e6

    @property
    def clock_off(self) -> timedelta:
        return timedelta(microseconds=self.clock_off_us or 0)


@dataclass(frozen=True, slots=True)
class ConnectionTakeovers:
    """Connections of one name at a worker that a later connection ended: time in microseconds and address each."""

    kind: str
    """Kind of name: devices of hubs, or clients of the account."""
    name: str
    worker: str
    at: datetime
    ends: tuple[str, ...]

    def each(self) -> Iterator[tuple[int, str]]:
        for one in self.ends:
            at, _, address = one.partition(" ")
            yield int(at), address


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Alert thresholds."""

    disk_free: float = 0.1
    """Minimum free share of the disk."""
    clock_off: timedelta = timedelta(seconds=5)
    """Maximum offset of a machine's clock from the database's."""
    unrenewed: timedelta = timedelta(days=7)
    """Time before expiry by which a certificate must be renewed; a fifth of its lifetime, if that is less."""
    ca_ends: timedelta = timedelta(days=30)
    crl_ends: timedelta = timedelta(days=1)
    server_ends: timedelta = timedelta(days=7)
    refusals: int = 100
    """Minimum number of refusals per hour; they must also exceed `spike` times the earlier hourly rate."""
    spike: float = 5.0
    renewals: int = 3
    """Minimum number of refused renewals per hour."""
    enrollments: int = 3
    """Minimum number of other EST refusals per hour."""
    behind: timedelta = timedelta(minutes=15)
    """Maximum delay of a receiver or another worker."""

    def format_values(self) -> Mapping[str, str]:
        """Return the values for the expressions; times in seconds."""
        times = {
            "ca_ends_s": self.ca_ends,
            "crl_ends_s": self.crl_ends,
            "server_ends_s": self.server_ends,
            "behind_s": self.behind,
            "clock_off_s": self.clock_off,
        }
        plain = ("disk_free", "refusals", "spike", "renewals", "enrollments")
        return {
            **{name: f"{getattr(self, name):g}" for name in plain},
            **{name: f"{time.total_seconds():g}" for name, time in times.items()},
        }


@dataclass(frozen=True, slots=True)
class Readings:
    """Input of the rules at one point in time."""

    now: datetime
    cas: Sequence[UpcomingExpiry] = ()
    lists: Sequence[UpcomingExpiry] = ()
    machines: Sequence[MachineReading] = ()
    """Readings of all live workers."""
    unrenewed: int = 0
    """Number of certificates near expiry without a successor; `unrenewed_names` are some examples."""
    unrenewed_names: tuple[str, ...] = ()
    refusals: Mapping[str, int] = field(default_factory=dict)
    """Refusals of the last hour by code."""
    failed_renewals: Mapping[str, int] = field(default_factory=dict)
    """Those of the refusals that blocked a renewal of an issued certificate."""
    refusals_before: Mapping[str, float] = field(default_factory=dict)
    """Average hourly refusals of the previous day, by code."""
    contested: tuple[str, ...] = ()
    """Identities that two clients use."""
    outbox: timedelta = timedelta()
    """Age of the oldest undelivered event."""
    failing: Sequence[UpcomingExpiry] = ()
    """Receivers that fail, with the start of each failure."""
