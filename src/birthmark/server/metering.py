"""Where the numbers of a running server come from: the rooms' own counts, read when somebody asks."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

from birthmark import metrics
from birthmark.background import FAILURES
from birthmark.broker.store import COUNT_LETTERS
from birthmark.ca.events import CertificateIssued, CertificateRevoked
from birthmark.console.standing import OwnEnd
from birthmark.iothub.service import IotHub
from birthmark.metrics import Distribution, Sample, Traffic
from birthmark.server.alerting import Alerting
from birthmark.server.rooms import Rooms
from birthmark.store.database import Heard
from birthmark.store.schema import COUNT_OUTBOX

LOOK_S = 0.5
_PROTOCOLS: Mapping[int, str] = {4: "3.1.1", 5: "5"}
_SPACES: Mapping[str, str] = {"hub": "azure_hub", "aws": "aws"}


class Metering:
    """A `Source` of everything in `rooms`. `certificate` is the server's, where it has TLS ports."""

    def __init__(self, rooms: Rooms, alerting: Alerting, certificate: OwnEnd | None = None) -> None:
        self._rooms, self._alerting, self._certificate = rooms, alerting, certificate
        self._issued: Counter[str] = Counter()
        self._revoked = 0
        self.handshakes: Counter[tuple[str, str]] = Counter()
        """Those of the ports, which count themselves."""
        self._lag = Distribution(metrics.SECONDS)
        rooms.database.on_events(self._hear)

    async def watch_the_loop(self) -> None:
        """Note how late the event loop is, until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LOOK_S
            await asyncio.sleep(LOOK_S)
            self._lag.observe(max(0.0, loop.time() - due))

    async def samples(self) -> Iterable[Sample]:
        return [*self._clouds(), *self._rest(), *self._judged(), *[one async for one in self._counted()]]

    def _hear(self, events: Sequence[Heard], is_sure: bool) -> None:  # as the store calls it
        for number, event in events if is_sure else ():
            if not number:
                continue  # another worker's, which counts it
            if isinstance(event, CertificateIssued):
                self._issued[event.profile] += 1
            elif isinstance(event, CertificateRevoked):
                self._revoked += 1

    def _clouds(self) -> Iterator[Sample]:
        rooms = self._rooms
        stored, full = Counter[str](), Counter[str]()
        for space in rooms.broker.spaces():
            cloud = _SPACES[space.name.partition("/")[0]]
            stored[cloud] += space.stored
            full[cloud] += space.dropped
        clouds: Mapping[str, Traffic] = {
            "azure_dps": rooms.dps_connections.traffic,
            "azure_hub": rooms.hub_connections.traffic,
            "aws": rooms.aws_connections.traffic,
        }
        for cloud, traffic in clouds.items():
            is_open, totals = traffic.is_open(), traffic.totals()
            for level, protocol in _PROTOCOLS.items():
                yield Sample(metrics.CONNECTIONS, (cloud, protocol), is_open.get(level, 0))
            yield Sample(metrics.SESSIONS, (cloud,), stored[cloud])
            for qos in "01":
                yield Sample(metrics.RECEIVED, (cloud, qos), totals[f"received_{qos}"])
                yield Sample(metrics.SENT, (cloud, qos), totals[f"sent_{qos}"])
            yield Sample(metrics.RECEIVED_BYTES, (cloud,), totals["received_bytes"])
            yield Sample(metrics.SENT_BYTES, (cloud,), totals["sent_bytes"])
            dropped = {"denied": traffic.denied, "slow": traffic.slow, "queue_full": full[cloud]}
            for reason, count in dropped.items():
                yield Sample(metrics.DROPPED, (cloud, reason), count)

    def _rest(self) -> Iterator[Sample]:
        rooms, commits = self._rooms, self._rooms.database.commits
        for metric, by_code in (
            (metrics.REFUSALS, rooms.ledger.counts),
            (metrics.FAILED_RENEWALS, rooms.ledger.failed_renewals),
        ):
            yield from (Sample(metric, (code,), count) for code, count in sorted(by_code.items()))
        yield Sample(metrics.REGISTRATIONS, (), rooms.registrations.count)
        for profile, count in sorted(self._issued.items()):
            yield Sample(metrics.ISSUED, (profile,), count)
        yield Sample(metrics.RENEWED, (), rooms.est.renewals)
        yield Sample(metrics.REVOKED, (), self._revoked)
        yield Sample(metrics.COMMITS, (), commits.seconds)
        yield Sample(metrics.COMMITTED, (), commits.sizes)
        yield Sample(metrics.WAITING, (), commits.waiting)
        yield Sample(metrics.LAG, (), self._lag)
        for exchange, count in sorted(self.handshakes.items()):
            yield Sample(metrics.HANDSHAKES, exchange, count)
        for work, count in sorted(FAILURES.items()):
            yield Sample(metrics.FAILED, (work,), count)
        hierarchy = rooms.authority.hierarchy
        ends = {"root": hierarchy.anchor} | {str(of): one.certificate for of, one in hierarchy.issuers.items()}
        if self._certificate is not None:
            ends["server"] = self._certificate.leaf
            yield Sample(metrics.CERTIFICATE_TAKEN, (), 0 if self._certificate.trouble else 1)
        for of, certificate in sorted(ends.items()):
            yield Sample(metrics.CERTIFICATE_ENDS, (of,), certificate.not_after.timestamp())
        yield from _of_streams(rooms.iothub)
        for by, count in sorted(rooms.iothub.twins.updates.items()):
            yield Sample(metrics.TWINS, (by,), count)
        yield Sample(metrics.SHADOWS, (), rooms.aws.shadows.updates)
        for outcome, count in sorted(rooms.hub_devices.calls.items()):
            yield Sample(metrics.METHODS, (outcome,), count)
        yield from self._rules()

    def _rules(self) -> Iterator[Sample]:
        rules = self._rooms.aws.rules
        yield Sample(metrics.RULE_LAG, (), rules.engine.lag_s)
        yield Sample(metrics.RULE_MISSED, (), rules.engine.missed)
        for rule, count in sorted(rules.engine.matched.items()):
            yield Sample(metrics.RULE_SEEN, (rule,), count)
        outcomes = {"sent": rules.engine.gone + rules.queue.carried}
        outcomes |= {"put_aside": rules.queue.aside, "dropped": rules.queue.dropped}
        for outcome, by_lane in outcomes.items():
            for lane, count in sorted(by_lane.items()):
                rule, _, action = lane.rpartition("/")
                yield Sample(metrics.RULE_SENT, (rule, action, outcome), count)

    def _judged(self) -> Iterator[Sample]:
        """Yield what each worker sees of its machine, and what is read for alerts by the worker that judges them."""
        if (own := self._alerting.own) is not None:
            yield Sample(metrics.DISK_FREE, (), own.disk_free)
            yield Sample(metrics.CLOCK_STEADY, (), int(own.is_clock_steady))
            if own.clock_off_us is not None:
                yield Sample(metrics.CLOCK_OFF, (), own.clock_off.total_seconds())
        if (last := self._alerting.last) is None:
            return
        yield Sample(metrics.UNRENEWED, (), last.unrenewed)
        for one in last.lists:
            yield Sample(metrics.LISTS_END, (one.name,), one.at.timestamp())
        yield Sample(metrics.OUTBOX_AGE, (), last.outbox.total_seconds())
        for one in last.failing:
            yield Sample(metrics.HOOKS_FAILING, (one.name,), (last.now - one.at).total_seconds())
        for rule, count in self._alerting.firing.items():
            yield Sample(metrics.ALERTS, (rule,), count)

    async def _counted(self) -> AsyncIterator[Sample]:
        """Yield what only the database knows."""
        for metric, statement in ((metrics.OUTBOX, COUNT_OUTBOX), (metrics.LETTERS, COUNT_LETTERS)):
            row = await self._rooms.database.one(statement)
            yield Sample(metric, (), row["total"] if row is not None else 0)
        for hub, lag_s in sorted((await self._rooms.iothub.routes.lags()).items()):
            yield Sample(metrics.ROUTES_LAG, (hub,), lag_s)


def _of_streams(iothub: IotHub) -> Iterator[Sample]:
    """Yield what hubs took, and what left them by routes."""
    for hub, stream in iothub.telemetry.streams().items():
        yield Sample(metrics.TELEMETRY, (hub,), stream.messages)
        yield Sample(metrics.STREAM_COMMITS, (hub,), stream.commits)
        yield Sample(metrics.KEPT_COMMITS, (hub,), stream.kept_commits)
        yield Sample(metrics.KEPT_BYTES, (hub,), stream.kept_bytes)
    for (hub, outcome), count in sorted(iothub.routes.outcomes().items()):
        yield Sample(metrics.ROUTED, (hub, outcome), count)
