"""AWS IoT Core as a component of a server."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial

from birthmark import metric_catalog
from birthmark.awsiot.domain_events import (
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
from birthmark.awsiot.model import CertificateStatus
from birthmark.awsiot.mqtt import AwsConnections
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.store import registry
from birthmark.bus import Bus
from birthmark.devices.model import DeviceCounts, DevicePart, DeviceState
from birthmark.devices.ports import DeviceAccess, DeviceIdentity, DeviceRecords, DeviceScope, RevocationOrder
from birthmark.errors import BirthmarkError
from birthmark.metric_catalog import Sample
from birthmark.net.live_connection import LiveConnection
from birthmark.pki.names_and_registration_ids import fold
from birthmark.protocol_component import Component
from birthmark.store import Database
from birthmark.store.object_counters import SUMS
from birthmark.store.pagination import each_among

_MAX_PRINCIPALS, _MAX_THINGS = 100, 10
_STATES = frozenset({DeviceState.CONNECTED, DeviceState.AWAY, DeviceState.REFUSED, DeviceState.REVOKED})


@dataclass(frozen=True, slots=True)
class ThingRecords(DeviceRecords):
    """Device records of the account's things."""

    database: Database = field(repr=False)
    aws: AwsIot = field(repr=False)
    mqtt: AwsConnections = field(repr=False)

    async def spellings(self, name: str) -> Iterable[str]:
        return await self.aws.things.find_spellings(name)

    async def thumbprints(self, name: str) -> Iterable[bytes]:
        with contextlib.suppress(BirthmarkError):  # no such thing, or an invalid thing name
            page = await self.aws.attachments.principals(name, "", _MAX_PRINCIPALS)
            return [bytes.fromhex(certificate_id) for certificate_id, _ in page.items]
        return ()

    async def parts(self, device: DeviceIdentity) -> AsyncIterator[DevicePart]:
        for name in sorted(device.spellings):
            async for part in self._thing(name):
                yield part

    async def _thing(self, name: str) -> AsyncIterator[DevicePart]:
        with contextlib.suppress(BirthmarkError):  # invalid thing name
            if await self.aws.things.find(name) is None:
                return
            page = await self.aws.attachments.principals(name, "", _MAX_PRINCIPALS)
            yield DevicePart("aws", "thing", name, "on record", f"{len(page.items)} certificates")
            for certificate_id, _ in page.items:
                known = await self.aws.certificates.find(certificate_id)
                if known is not None:
                    yield DevicePart("aws", "certificate", known.id, known.status.value.lower(), "")

    async def access(self, order: RevocationOrder) -> AsyncIterator[DeviceAccess]:
        for thumbprint in sorted(order.certificates):
            known = await self.aws.certificates.find(thumbprint.hex())
            if known is None:
                continue
            things = (await self.aws.attachments.things(known.id, "", _MAX_THINGS)).items
            others = [name for name, _ in things if fold(name) != fold(order.device.name)]
            note = f"also attached to the thing{'s' * (len(others) > 1)} {', '.join(others)}" if others else ""
            revoke = partial(self.aws.certificates.set_status, known.id, CertificateStatus.REVOKED, actor=order.actor)
            is_revoked = known.status is CertificateStatus.REVOKED
            yield DeviceAccess("aws", "certificate", known.id, None if is_revoked else revoke, note=note)

    def connections(
        self, _names: AbstractSet[str], is_presented: Callable[[LiveConnection], bool]
    ) -> Iterator[tuple[str, LiveConnection]]:
        return (("aws", one.driver) for one in self.mqtt.live_connections() if is_presented(one.driver))

    def scopes(self) -> Iterable[DeviceScope]:
        place, space = registry.PLACE, self.mqtt.space
        return (
            DeviceScope(
                *(place, place, _STATES, self._page, self._find),
                tags=self._attributes,
                space=space,
                is_case_sensitive=True,
            ),
        )

    async def _page(self, after: str, limit: int) -> Sequence[str]:
        return [row["name"] for row in await self.database.all(registry.NAMES_OF_THINGS, after=after, limit=limit)]

    async def _find(self, names: Sequence[str]) -> Mapping[str, DeviceState | None]:
        return {row["name"]: None async for row in each_among(self.database, registry.THINGS_NAMED, names)}

    async def _attributes(self, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
        rows = each_among(self.database, registry.THINGS_WITH_NAMES, names)
        return {row["name"]: registry.THINGS.of(row).attributes async for row in rows}

    async def counts(self, connected: Mapping[str, int]) -> Sequence[DeviceCounts]:
        things = sum(int(row["value"]) for row in await self.database.all(SUMS, name=registry.FIGURE, from_since=0))
        return [DeviceCounts(registry.PLACE, things, connected.get(self.mqtt.space.name, 0))]


class AwsComponent(Component):
    """The AWS account as a component of a server."""

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
        yield Sample(metric_catalog.SHADOWS, (), self._aws.shadows.updates)
        yield from self._of_rules()

    def _of_rules(self) -> Iterator[Sample]:
        engine, queue = self._aws.rules.engine, self._aws.rules.queue
        yield Sample(metric_catalog.RULE_LAG, (), engine.lag_s)
        yield Sample(metric_catalog.RULE_MISSED, (), engine.missed)
        for rule, count in sorted(engine.matched.items()):
            yield Sample(metric_catalog.RULE_SEEN, (rule,), count)
        outcomes = {"sent": engine.gone + queue.carried, "put_aside": queue.aside, "dropped": queue.dropped}
        for outcome, by_lane in outcomes.items():
            for lane, count in sorted(by_lane.items()):
                rule, _, action = lane.rpartition("/")
                yield Sample(metric_catalog.RULE_SENT, (rule, action, outcome), count)

    async def stop(self) -> None:
        await self._aws.keys.stop()
        await self._aws.index.stop()
