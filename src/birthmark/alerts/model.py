"""Alerts, silences, and what is judged, as values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum


class AlertSeverity(StrEnum):
    """How soon somebody has to look."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class AlertRule:
    """What is judged: `holds` is how long it must be so before it is said, and how long not before it is over.

    `metric` and `expression` are what Prometheus judges alike (PromQL, with `{limit}`); `fix` is the next command.
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
    """What a rule found: of whom or what, in words, how many, and a few of them by name."""

    rule: str
    subject: str
    detail: str
    count: int = 1
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Alert:
    """What a rule has found since `seen_at`. It is raised once it has held, and over once it has not."""

    rule: str
    subject: str
    severity: AlertSeverity
    detail: str
    count: int
    examples: tuple[str, ...]
    seen_at: datetime
    raised_at: datetime | None = None
    missed_at: datetime | None = None
    """Since when it is not found any more."""
    is_told: bool = False
    is_hushed: bool = False
    """It was told, and somebody wants to hear nothing of it since."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Somebody wants to hear nothing of a rule, or of one subject of it, for a while. A subject may be a pattern."""

    rule: str
    subject: str
    until: datetime
    by: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class UpcomingExpiry:
    """Something that ends, or has: its name, when, and why."""

    name: str
    at: datetime
    why: str = ""


@dataclass(frozen=True, slots=True)
class MachineReading:
    """What a worker sees of its own machine, when it looked last, by the database's clock."""

    worker: str
    machine: str
    at: datetime
    disk_free_ppm: int
    """The part of the data directory's disk that is free, in millionths."""
    is_clock_steady: bool
    clock_off_us: int | None = None
    """How far the machine's clock is ahead of the database's, in microseconds at least; None where there is one."""
    server_ends: datetime | None = None
    """When the certificate ends that this worker shows."""

    @property
    def disk_free(self) -> float:
        return self.disk_free_ppm / 1e6

    @property
    def clock_off(self) -> timedelta:
        return timedelta(microseconds=self.clock_off_us or 0)


@dataclass(frozen=True, slots=True)
class ConnectionTakeovers:
    """Connections of one name that were ended by the next ones at a worker: each as its microsecond and address."""

    kind: str
    """Whose names: devices of hubs, or clients of the account."""
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
    """From when on something is an alert."""

    disk_free: float = 0.1
    """The part of the disk that is free at least."""
    clock_off: timedelta = timedelta(seconds=5)
    """How far a machine's clock may be from the database's."""
    unrenewed: timedelta = timedelta(days=7)
    """How long before its end a certificate is to be renewed; a fifth of its life, if that is less."""
    ca_ends: timedelta = timedelta(days=30)
    crl_ends: timedelta = timedelta(days=1)
    server_ends: timedelta = timedelta(days=7)
    refusals: int = 100
    """An hour's, at least; and `spike` times those of an hour before."""
    spike: float = 5.0
    renewals: int = 3
    """Renewals that were refused within the hour."""
    enrollments: int = 3
    """Other refusals of EST within the hour."""
    behind: timedelta = timedelta(minutes=15)
    """How long a receiver, or another worker, may be behind."""

    def in_words(self) -> Mapping[str, str]:
        """Return what an expression is filled in with; times in seconds."""
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
    """What the rules look at, of one moment."""

    now: datetime
    cas: Sequence[UpcomingExpiry] = ()
    lists: Sequence[UpcomingExpiry] = ()
    machines: Sequence[MachineReading] = ()
    """Of every worker that lives."""
    unrenewed: int = 0
    """Certificates near their end whose name has no later one; `unrenewed_names` are a few."""
    unrenewed_names: tuple[str, ...] = ()
    refusals: Mapping[str, int] = field(default_factory=dict)
    """Of the hour until now, by code."""
    failed_renewals: Mapping[str, int] = field(default_factory=dict)
    """Of these, those by which a certificate of ours was not renewed."""
    refusals_before: Mapping[str, float] = field(default_factory=dict)
    """Of an hour of the day before, on average."""
    contested: tuple[str, ...] = ()
    """Identities that two use."""
    outbox: timedelta = timedelta()
    """How old the oldest event is that was not handed on."""
    failing: Sequence[UpcomingExpiry] = ()
    """Receivers that take nothing, and since when."""
