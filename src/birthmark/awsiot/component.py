"""AWS IoT Core as a component of a server."""

from collections.abc import Iterable, Iterator

from birthmark import metrics
from birthmark.awsiot.devices import ThingRecords
from birthmark.awsiot.events import (
    AccessKeyRemoved,
    AuthorizerChanged,
    CertificateChanged,
    GrantsChanged,
    PolicyChanged,
    RoleAliasRemoved,
    SettingsChanged,
    ThingChanged,
    ThingGroupChanged,
)
from birthmark.bus import Bus
from birthmark.component import Component
from birthmark.metrics import Sample


class AwsComponent(Component):
    """The account."""

    service = "aws"
    cloud = "aws"
    space_kinds = frozenset({"aws"})

    def __init__(self, devices: ThingRecords) -> None:
        self.devices, self.mqtt = devices, devices.mqtt
        self._aws, self._connections = devices.aws, devices.mqtt

    def subscribe(self, bus: Bus) -> None:
        connections = self._connections
        bus.on(ThingChanged, connections.access_changed)
        bus.on(PolicyChanged, connections.access_changed)
        bus.on(GrantsChanged, connections.access_changed)
        bus.on(ThingGroupChanged, connections.access_changed)
        bus.on(ThingChanged, self._aws.rollout.registry_changed)
        bus.on(SettingsChanged, connections.settings_changed)
        bus.on(AccessKeyRemoved, connections.key_removed)
        bus.on(RoleAliasRemoved, connections.role_alias_removed)
        bus.on(AuthorizerChanged, connections.authorizer_changed)
        bus.on(CertificateChanged, connections.certificate_changed)

    def samples(self) -> Iterable[Sample]:
        yield Sample(metrics.SHADOWS, (), self._aws.shadows.updates)
        yield from self._of_rules()

    def _of_rules(self) -> Iterator[Sample]:
        engine, queue = self._aws.rules.engine, self._aws.rules.queue
        yield Sample(metrics.RULE_LAG, (), engine.lag_s)
        yield Sample(metrics.RULE_MISSED, (), engine.missed)
        for rule, count in sorted(engine.matched.items()):
            yield Sample(metrics.RULE_SEEN, (rule,), count)
        outcomes = {"sent": engine.gone + queue.carried, "put_aside": queue.aside, "dropped": queue.dropped}
        for outcome, by_lane in outcomes.items():
            for lane, count in sorted(by_lane.items()):
                rule, _, action = lane.rpartition("/")
                yield Sample(metrics.RULE_SENT, (rule, action, outcome), count)

    async def stop(self) -> None:
        await self._aws.keys.stop()
        await self._aws.index.stop()
