"""Metrics of the server: one catalog, plain counters at their source, samples on request.

A metric is declared here once, with name, kind, help and labels. Each source keeps its own integers, `Traffic` and
`Distribution` among them; a `SampleSource` converts them to samples on request. So a message costs an addition and no
lookup. The server formats the samples.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SIZES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)


class MetricKind(StrEnum):
    """Kind of a metric: counter, gauge or histogram."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. A counter's name ends in `_total`; units are in the names, and are base units."""

    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...] = ()


class Distribution:
    """Histogram: for each bound, the number of values up to it and above the previous one."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Record a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class CountedConnection(Protocol):
    """A connection that counts: messages by QoS, and bytes."""

    level: int
    received_0: int
    received_1: int
    received_bytes: int
    sent_0: int
    sent_1: int
    sent_bytes: int


COUNTS = ("received_0", "received_1", "received_bytes", "sent_0", "sent_1", "sent_bytes")


class Traffic:
    """MQTT traffic counters of one cloud: of open connections, and of closed ones."""

    def __init__(self) -> None:
        self.denied = self.slow = 0
        self._open: set[CountedConnection] = set()
        self._before: Counter[str] = Counter()

    def count_denied(self) -> None:
        """Count a message that was not allowed."""
        self.denied += 1

    def count_slow(self) -> None:
        """Count a message for a slow client."""
        self.slow += 1

    def count_connection(self, connection: CountedConnection) -> None:
        """Count an accepted connection."""
        self._open.add(connection)

    def ended(self, connection: CountedConnection) -> None:
        """Remove a closed connection and keep its counts."""
        self._open.discard(connection)
        self._before.update({name: getattr(connection, name) for name in COUNTS})

    def is_open(self) -> Mapping[int, int]:
        """Return the number of open connections by protocol level."""
        return Counter(one.level for one in self._open)

    def totals(self) -> Mapping[str, int]:
        """Return the totals of all connections, by name."""
        total = Counter(self._before)
        for one in self._open:
            for name in COUNTS:
                total[name] += getattr(one, name)
        return total


@dataclass(frozen=True, slots=True)
class Sample:
    """A metric's value for a set of label values; for a histogram, its distribution."""

    metric: Metric
    labels: tuple[str, ...]
    value: float | Distribution


class SampleSource(Protocol):
    """Source of metric samples."""

    async def samples(self) -> Iterable[Sample]:
        """Return all current samples."""
        ...


_CLOUD = ("cloud",)
CONNECTIONS = Metric(
    "birthmark_connections",
    MetricKind.GAUGE,
    "Connected MQTT clients, by protocol version.",
    (*_CLOUD, "protocol"),
)
AMQP_CONNECTIONS = Metric("birthmark_amqp_connections", MetricKind.GAUGE, "Open AMQP connections.")
AMQP_DEVICES = Metric("birthmark_amqp_devices", MetricKind.GAUGE, "Devices and modules connected over AMQP.", ("hub",))
EVENT_READERS = Metric(
    "birthmark_event_readers", MetricKind.GAUGE, "Event Hubs readers of partitions, by hub.", ("hub",)
)
EVENTS_SENT = Metric(
    "birthmark_events_sent_total", MetricKind.COUNTER, "Events sent to Event Hubs readers, by hub.", ("hub",)
)
SESSIONS = Metric("birthmark_sessions", MetricKind.GAUGE, "Persistent MQTT sessions.", _CLOUD)
RECEIVED = Metric(
    "birthmark_messages_received_total", MetricKind.COUNTER, "MQTT messages from clients.", (*_CLOUD, "qos")
)
SENT = Metric("birthmark_messages_sent_total", MetricKind.COUNTER, "MQTT messages to clients.", (*_CLOUD, "qos"))
RECEIVED_BYTES = Metric("birthmark_received_bytes_total", MetricKind.COUNTER, "MQTT bytes from clients.", _CLOUD)
SENT_BYTES = Metric("birthmark_sent_bytes_total", MetricKind.COUNTER, "MQTT bytes to clients.", _CLOUD)
DROPPED = Metric(
    "birthmark_messages_dropped_total",
    MetricKind.COUNTER,
    "Messages not delivered to a client: denied by policy, slow client, or full queue.",
    (*_CLOUD, "reason"),
)
REFUSALS = Metric(
    "birthmark_refusals_total",
    MetricKind.COUNTER,
    "Rejected requests, by refusal code; `birthmark why` shows each.",
    ("code",),
)
REGISTRATIONS = Metric("birthmark_registrations_total", MetricKind.COUNTER, "Device registrations at DPS.")
ISSUED = Metric(
    "birthmark_certificates_issued_total", MetricKind.COUNTER, "Certificates issued, including renewals.", ("profile",)
)
RENEWED = Metric("birthmark_certificates_renewed_total", MetricKind.COUNTER, "Certificates renewed over EST.")
FAILED_RENEWALS = Metric(
    "birthmark_renewals_refused_total",
    MetricKind.COUNTER,
    "Unexpected EST refusals to renew a certificate of this server, by code.",
    ("code",),
)
REVOKED = Metric("birthmark_certificates_revoked_total", MetricKind.COUNTER, "Revoked certificates and keys.")
COMMITS = Metric("birthmark_commit_seconds", MetricKind.HISTOGRAM, "Duration of a database commit.")
COMMITTED = Metric("birthmark_commit_changes", MetricKind.HISTOGRAM, "Changes per database commit.")
WAITING = Metric("birthmark_writer_waiting", MetricKind.GAUGE, "Changes waiting for the database writer.")
LAG = Metric(
    "birthmark_event_loop_lag_seconds", MetricKind.HISTOGRAM, "Delay of the event loop, measured twice per second."
)
HANDSHAKES = Metric(
    "birthmark_tls_handshakes_total",
    MetricKind.COUNTER,
    "Completed TLS handshakes; `group` is OpenSSL's name of the key exchange.",
    ("version", "group"),
)
FAILED = Metric(
    "birthmark_background_failures_total",
    MetricKind.COUNTER,
    "Failures of background tasks, which continue; logged as `background.failed`.",
    ("work",),
)
CERTIFICATE_ENDS = Metric(
    "birthmark_certificate_expiry_timestamp_seconds",
    MetricKind.GAUGE,
    "Expiry of the certificates of the server and its CAs, in seconds since 1970.",
    ("of",),
)
CERTIFICATE_TAKEN = Metric(
    "birthmark_server_certificate_taken",
    MetricKind.GAUGE,
    "1 if the server uses the configured certificate, 0 if that certificate is unusable.",
)
OUTBOX = Metric("birthmark_outbox_events", MetricKind.GAUGE, "Committed events that are not yet published.")
TELEMETRY = Metric("birthmark_telemetry_messages_total", MetricKind.COUNTER, "Committed telemetry messages.", ("hub",))
STREAM_COMMITS = Metric("birthmark_telemetry_commits_total", MetricKind.COUNTER, "Telemetry commits.", ("hub",))
KEPT_COMMITS = Metric(
    "birthmark_telemetry_kept_commits",
    MetricKind.GAUGE,
    "Telemetry commits in retention.",
    ("hub",),
)
KEPT_BYTES = Metric("birthmark_telemetry_kept_bytes", MetricKind.GAUGE, "Telemetry bytes in retention.", ("hub",))
LETTERS = Metric(
    "birthmark_inbox_letters", MetricKind.GAUGE, "Cloud-to-device messages in the device queues of IoT Hub."
)
TWINS = Metric("birthmark_twin_updates_total", MetricKind.COUNTER, "Device twin updates, by origin.", ("by",))
ROUTED = Metric(
    "birthmark_routed_total",
    MetricKind.COUNTER,
    "Routed messages: delivered, dropped because of full queues, or dead-lettered; from the leading worker.",
    ("hub", "outcome"),
)
ROUTES_LAG = Metric(
    "birthmark_routes_lag_seconds",
    MetricKind.GAUGE,
    "Age of the oldest message that a hub's routes have not processed; same on all workers.",
    ("hub",),
)
SHADOWS = Metric("birthmark_shadow_updates_total", MetricKind.COUNTER, "Shadow updates, including deletions.")
RULE_SEEN = Metric(
    "birthmark_rule_matched_total", MetricKind.COUNTER, "Messages that a topic rule selected.", ("rule",)
)
RULE_SENT = Metric(
    "birthmark_rule_letters_total",
    MetricKind.COUNTER,
    "Messages sent by topic rules, by rule, action number, and outcome.",
    ("rule", "action", "outcome"),
)
RULE_LAG = Metric(
    "birthmark_rules_lag_seconds",
    MetricKind.GAUGE,
    "Age of the newest message that all topic rules have processed; 0 if up to date.",
)
RULE_MISSED = Metric(
    "birthmark_rules_missed_total",
    MetricKind.COUNTER,
    "Removals of messages by retention before topic rules processed them.",
)
METHODS = Metric("birthmark_method_calls_total", MetricKind.COUNTER, "Direct method calls, by outcome.", ("outcome",))

UNRENEWED = Metric(
    "birthmark_certificates_unrenewed",
    MetricKind.GAUGE,
    "Certificates close to expiry without a successor; from the worker that evaluates alerts.",
)
LISTS_END = Metric(
    "birthmark_crl_expiry_timestamp_seconds",
    MetricKind.GAUGE,
    "Expiry of the published CRL of each CA, in seconds since 1970.",
    ("of",),
)
DISK_FREE = Metric("birthmark_disk_free_ratio", MetricKind.GAUGE, "Free share of the disk with the data directory.")
CLOCK_STEADY = Metric(
    "birthmark_clock_steady", MetricKind.GAUGE, "0 for ten minutes after a clock change, otherwise 1."
)
CLOCK_OFF = Metric(
    "birthmark_clock_offset_seconds",
    MetricKind.GAUGE,
    "Minimum lead of the machine's clock over the database's clock; PostgreSQL only.",
)
OUTBOX_AGE = Metric("birthmark_outbox_age_seconds", MetricKind.GAUGE, "Age of the oldest unpublished event.")
HOOKS_FAILING = Metric(
    "birthmark_webhook_failing_seconds",
    MetricKind.GAUGE,
    "Time since deliveries to a receiver started to fail.",
    ("name",),
)
ALERTS = Metric("birthmark_alerts", MetricKind.GAUGE, "Active alerts, by rule.", ("rule",))

CATALOGUE = (
    *(CONNECTIONS, SESSIONS, RECEIVED, SENT, RECEIVED_BYTES, SENT_BYTES, DROPPED),
    *(REFUSALS, REGISTRATIONS, ISSUED, RENEWED, FAILED_RENEWALS, REVOKED),
    *(COMMITS, COMMITTED, WAITING, LAG, HANDSHAKES, FAILED, OUTBOX, CERTIFICATE_ENDS, CERTIFICATE_TAKEN),
    *(UNRENEWED, LISTS_END, DISK_FREE, CLOCK_STEADY, CLOCK_OFF, OUTBOX_AGE, HOOKS_FAILING, ALERTS),
    *(AMQP_CONNECTIONS, AMQP_DEVICES, EVENT_READERS, EVENTS_SENT),
    *(TELEMETRY, STREAM_COMMITS, KEPT_COMMITS, KEPT_BYTES, LETTERS, TWINS, ROUTED, ROUTES_LAG, SHADOWS, METHODS),
    *(RULE_SEEN, RULE_SENT, RULE_LAG, RULE_MISSED),
)
