"""Sources of a running server's metrics: the counters of its services, read on each scrape."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

from birthmark import metric_catalog
from birthmark.broker.store import COUNT_LETTERS
from birthmark.metric_catalog import Distribution, Sample, Traffic
from birthmark.operator_api.server_certificate_and_settings import ServerIdentity
from birthmark.server.alert_evaluator import AlertEvaluator
from birthmark.server.composition_root import ServerServices
from birthmark.store.core_tables import COUNT_OUTBOX
from birthmark.supervised_tasks import FAILURES

LOOK_S = 0.5
_PROTOCOLS: Mapping[int, str] = {4: "3.1.1", 5: "5"}


class MetricsSource:
    """A `Source` of all metrics of `rooms`. `certificate` is the server's, if it has TLS ports."""

    def __init__(
        self, rooms: ServerServices, alerting: AlertEvaluator, certificate: ServerIdentity | None = None
    ) -> None:
        self._rooms, self._alerting, self._certificate = rooms, alerting, certificate
        self.handshakes: Counter[tuple[str, str]] = Counter()
        """Handshakes of the ports, which keep their own counters."""
        self._lag = Distribution(metric_catalog.SECONDS)

    async def run_loop_lag_monitor(self) -> None:
        """Measure the lag of the event loop until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LOOK_S
            await asyncio.sleep(LOOK_S)
            self._lag.observe(max(0.0, loop.time() - due))

    async def samples(self) -> Iterable[Sample]:
        return [
            *self._components(),
            *self._rest(),
            *self._iter_machine_samples(),
            *[one async for one in self._iter_database_samples()],
        ]

    def _components(self) -> Iterator[Sample]:
        stored, full = Counter[str](), Counter[str]()
        cloud_of = {kind: one.cloud for one in self._rooms.components for kind in one.space_kinds}
        for space in self._rooms.broker.spaces():
            cloud = cloud_of[space.name.partition("/")[0]]
            stored[cloud] += space.stored
            full[cloud] += space.dropped
        for one in self._rooms.components:
            yield from one.samples()
            if one.mqtt is not None:
                yield from _of_connections(one.cloud, one.mqtt.traffic, stored[one.cloud], full[one.cloud])

    def _rest(self) -> Iterator[Sample]:
        rooms, commits = self._rooms, self._rooms.database.commits
        for metric, by_code in (
            (metric_catalog.REFUSALS, rooms.ledger.counts),
            (metric_catalog.FAILED_RENEWALS, rooms.ledger.failed_renewals),
        ):
            yield from (Sample(metric, (code,), count) for code, count in sorted(by_code.items()))
        yield Sample(metric_catalog.COMMITS, (), commits.seconds)
        yield Sample(metric_catalog.COMMITTED, (), commits.sizes)
        yield Sample(metric_catalog.WAITING, (), commits.waiting)
        yield Sample(metric_catalog.LAG, (), self._lag)
        for exchange, count in sorted(self.handshakes.items()):
            yield Sample(metric_catalog.HANDSHAKES, exchange, count)
        for work, count in sorted(FAILURES.items()):
            yield Sample(metric_catalog.FAILED, (work,), count)
        if self._certificate is not None:
            yield Sample(metric_catalog.CERTIFICATE_ENDS, ("server",), self._certificate.leaf.not_after.timestamp())
            yield Sample(metric_catalog.CERTIFICATE_TAKEN, (), 0 if self._certificate.certificate_error else 1)

    def _iter_machine_samples(self) -> Iterator[Sample]:
        """Yield the samples that each worker measures on its machine, and those that the alert evaluator reads."""
        if (own := self._alerting.own) is not None:
            yield Sample(metric_catalog.DISK_FREE, (), own.disk_free)
            yield Sample(metric_catalog.CLOCK_STEADY, (), int(own.is_clock_steady))
            if own.clock_off_us is not None:
                yield Sample(metric_catalog.CLOCK_OFF, (), own.clock_off.total_seconds())
        if (last := self._alerting.last) is None:
            return
        yield Sample(metric_catalog.UNRENEWED, (), last.unrenewed)
        for one in last.lists:
            yield Sample(metric_catalog.LISTS_END, (one.name,), one.at.timestamp())
        yield Sample(metric_catalog.OUTBOX_AGE, (), last.outbox.total_seconds())
        for one in last.failing:
            yield Sample(metric_catalog.HOOKS_FAILING, (one.name,), (last.now - one.at).total_seconds())
        for rule, count in self._alerting.firing.items():
            yield Sample(metric_catalog.ALERTS, (rule,), count)

    async def _iter_database_samples(self) -> AsyncIterator[Sample]:
        """Yield the metrics that require a database query."""
        for metric, statement in ((metric_catalog.OUTBOX, COUNT_OUTBOX), (metric_catalog.LETTERS, COUNT_LETTERS)):
            row = await self._rooms.database.one(statement)
            yield Sample(metric, (), row["total"] if row is not None else 0)
        for one in self._rooms.components:
            async for sample in one.stored_samples():
                yield sample


def _of_connections(cloud: str, traffic: Traffic, stored: int, full: int) -> Iterator[Sample]:
    """Yield the metrics of one cloud's MQTT connections; `stored` sessions, and messages of a `full` queue."""
    is_open, totals = traffic.is_open(), traffic.totals()
    for level, protocol in _PROTOCOLS.items():
        yield Sample(metric_catalog.CONNECTIONS, (cloud, protocol), is_open.get(level, 0))
    yield Sample(metric_catalog.SESSIONS, (cloud,), stored)
    for qos in "01":
        yield Sample(metric_catalog.RECEIVED, (cloud, qos), totals[f"received_{qos}"])
        yield Sample(metric_catalog.SENT, (cloud, qos), totals[f"sent_{qos}"])
    yield Sample(metric_catalog.RECEIVED_BYTES, (cloud,), totals["received_bytes"])
    yield Sample(metric_catalog.SENT_BYTES, (cloud,), totals["sent_bytes"])
    dropped = {"denied": traffic.denied, "slow": traffic.slow, "queue_full": full}
    for reason, count in dropped.items():
        yield Sample(metric_catalog.DROPPED, (cloud, reason), count)
