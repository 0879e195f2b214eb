"""What changes while a device connects, or is looked at again: its connection has the rights that there are."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from birthmark.awsiot.domain_events import CertificateChanged, GrantsChanged, PolicyChanged, ThingChanged
from birthmark.awsiot.model import CertificateId, CertificateStatus, ThingName
from birthmark.awsiot.mqtt import AwsConnections
from birthmark.awsiot.rules.policy_variables import ConnectionContext
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.device_authorization import ConnectionGrant
from birthmark.broker import Broker, SpaceRules
from birthmark.broker.model import BrokerMessage, Done
from birthmark.bus.local import LocalBus
from birthmark.errors import BirthmarkError
from birthmark.mqtt.packets import LEVEL_5, ConnAck, Connect, PubAck, Publish, WillMessage
from birthmark.mqtt.properties import PropertyId
from birthmark.mqtt.reason_codes import ReasonCode
from birthmark.net.mqtt_driver import MqttDriver
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.net.tls import TlsPeer
from birthmark.refusals import Ledger
from birthmark.supervised_tasks import FAILURES
from support.aws.account import ACCOUNT, ME, an_aws_account
from support.aws.device import document, statement
from support.azure.hub_world import Wire, lose, until
from support.fakes import FakeClock, SeededEntropy
from support.pki.pki_builders import a_device
from support.store.between import before_the_next_commit

pytestmark = pytest.mark.integration
DEVICE = a_device().certificate
PEER = TlsPeer(DEVICE, (), b"", "", "TLSv1.3")
CONNECT = document(statement("iot:Connect"))
PUBLISH = document(statement("iot:Publish", ACCOUNT.arn("topic", "t")))
EVERYTHING = document(statement("iot:Publish"))
NOTHING = document(statement("iot:Publish", ACCOUNT.arn("topic", "another")))


@dataclass
class World:
    """An account, its connections, and a device that may connect and no more."""

    aws: AwsIot
    clock: FakeClock
    connections: AwsConnections
    certificate_id: CertificateId
    broker: Broker
    bus: LocalBus
    refused: list[BirthmarkError] = field(default_factory=list)

    def start(self, will: WillMessage | None = None) -> "Device":
        """Return a device whose CONNECT is on its way."""
        device = Device(MqttDriver(self.connections.accept, lambda e, _a, _p: self.refused.append(e), self.clock, PEER))
        device.driver.start(device.wire, "192.0.2.1")
        device.say(Connect("device-1", level=LEVEL_5, properties=((PropertyId.SESSION_EXPIRY, 60),), will=will))
        return device

    async def connected(self, will: WillMessage | None = None) -> "Device":
        device = self.start(will)
        await until(lambda: bool(device.wire.got(ConnAck)))
        while await self.aws.things.database.events_after(self.bus._last, 1):  # what was changed before is heard of
            await asyncio.sleep(0.005)
        await some_turns()
        return device

    def while_it_connects(self, act: Callable[[], Awaitable[object]]) -> None:
        before_the_next_commit(self.aws.things.database, act)

    async def let_publish(self) -> None:
        await self.aws.policies.attach("publish", self.certificate_id, **ME)

    async def let_publish_no_more(self) -> None:
        """Keep the policy, and let it say something else."""
        await self.aws.policies.add_version("publish", NOTHING, as_default=True, **ME)

    async def detach(self, policy: str) -> None:
        await self.aws.policies.detach(policy, self.certificate_id, **ME)


@dataclass
class Device:
    driver: MqttDriver
    wire: Wire = field(default_factory=Wire)
    count: int = 0

    def say(self, *packets: Connect | Publish) -> None:
        for packet in packets:
            self.wire.client.send(packet)
        self.driver.data_received(self.wire.client.data_to_send())

    def publish(self) -> None:
        self.count += 1
        self.say(Publish("t", b"x", 1, packet_id=self.count))

    async def may_publish(self) -> bool:
        """Publish all that was not acknowledged yet and one more; say whether that was taken."""
        self.publish()
        await until(lambda: len(self.wire.got(PubAck)) == self.count)
        return self.wire.got(PubAck)[-1].code != ReasonCode.NOT_AUTHORIZED


@asynccontextmanager
async def a_world(database_url: str) -> AsyncIterator[World]:
    async with an_aws_account(database_url) as (aws, clock):
        database = aws.things.database
        known = await aws.certificates.register(DEVICE.pem(), CertificateStatus.ACTIVE, **ME)
        for name, text in (("connect", CONNECT), ("publish", PUBLISH)):
            await aws.policies.create(name, text, **ME)
        await aws.policies.attach("connect", known.id, **ME)
        broker, ledger = Broker(database, clock, "test"), Ledger(database, clock, SeededEntropy())
        rules = SpaceRules(hash_matches_parent=False)
        connections = AwsConnections(aws, ledger, clock, SeededEntropy(), broker=broker, rules=rules)
        bus = LocalBus(database)
        bus.on(ThingChanged, connections.access_changed)
        bus.on(PolicyChanged, connections.access_changed)
        bus.on(GrantsChanged, connections.access_changed)
        bus.on(CertificateChanged, connections.certificate_changed)
        bus.start()
        try:
            yield World(aws, clock, connections, known.id, broker, bus)
        finally:
            await bus.stop()
            await broker.wait_until_settled(1.0)
            await ledger.wait_until_written()


async def test_a_device_whose_policy_is_taken_away_while_it_connects_does_not_get_in(database_url: str) -> None:
    async with a_world(database_url) as world:
        world.while_it_connects(lambda: world.detach("connect"))
        device = world.start()
        await until(lambda: device.driver.is_over)
        assert [packet.code for packet in device.wire.got(ConnAck)] == [ReasonCode.NOT_AUTHORIZED]
        assert [error.code for error in world.refused] == ["awsiot.policy_denied"]


async def test_a_device_whose_right_is_taken_away_while_it_connects_does_not_have_it(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.let_publish()
        world.while_it_connects(lambda: world.detach("publish"))
        device = await world.connected()
        assert not await device.may_publish()


async def test_a_policy_that_came_while_the_device_connected_may_change_afterwards(database_url: str) -> None:
    async with a_world(database_url) as world:
        world.while_it_connects(world.let_publish)
        device = await world.connected()
        assert await device.may_publish()
        await world.let_publish_no_more()
        assert not await device.may_publish()


class Late:
    """Holds back, one by one, the answers to who looks at what a device may do."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read = 0
        self._may_come: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        real = world.connections.admit

        async def admit(visitor: ConnectionContext) -> ConnectionGrant:
            grant = await real(visitor)
            self.read += 1
            await self._may_come[self.read].wait()
            return grant

        monkeypatch.setattr(world.connections, "admit", admit)

    async def until_read(self, count: int) -> None:
        await until(lambda: self.read >= count)

    def answer(self, *numbers: int) -> None:
        for number in numbers:
            self._may_come[number].set()


async def test_a_policy_that_changes_while_it_is_looked_at_first_is_looked_at_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(database_url) as world:
        device = await world.connected()
        late = Late(world, monkeypatch)
        await world.let_publish()
        await late.until_read(1)
        await world.let_publish_no_more()  # of which the connection does not hear yet
        late.answer(1, 2)
        await late.until_read(2)
        assert not await device.may_publish()


async def test_what_changes_for_others_makes_nobody_look_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(database_url) as world:
        device = await world.connected()
        late = Late(world, monkeypatch)
        await world.aws.policies.attach("connect", world.certificate_id, **ME)
        await late.until_read(1)
        await world.aws.things.create(ThingName("another"), {}, None, None, **ME)
        late.answer(1)
        assert not await device.may_publish()
        assert late.read == 1


async def test_an_answer_that_is_late_gives_back_no_right(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_world(database_url) as world:
        device = await world.connected()
        late = Late(world, monkeypatch)
        await world.let_publish()
        await late.until_read(1)
        await world.detach("publish")
        late.answer(2)
        device.publish()  # which looks, too
        await some_turns()
        late.answer(1)
        await some_turns()
        assert not await device.may_publish()
        late.answer(3)
        assert [packet.code for packet in device.wire.got(PubAck)] == [ReasonCode.NOT_AUTHORIZED] * 2


@pytest.fixture
def is_safe() -> asyncio.Event:
    """What holds back whoever waits for a message to be safe."""
    return asyncio.Event()


def note_what_is_handed_on(world: World, monkeypatch: pytest.MonkeyPatch, is_safe: asyncio.Event) -> list[bytes]:
    messages, handed_on = world.connections.space.messages, list[bytes]()
    real = messages.publish

    async def safe(waiting: Awaitable[None] | None) -> None:
        await is_safe.wait()
        if waiting is not None:
            await waiting

    def publish(some: Sequence[BrokerMessage], done: Done) -> Awaitable[None]:
        handed_on.extend(message.payload for message in some if message.topic == "t")
        return safe(real(some, done))

    monkeypatch.setattr(messages, "publish", publish)
    return handed_on


async def test_a_right_that_goes_while_a_burst_waits_is_gone_for_the_rest_of_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch, is_safe: asyncio.Event
) -> None:
    async with a_world(database_url) as world:
        await world.let_publish()
        device = await world.connected()
        handed_on = note_what_is_handed_on(world, monkeypatch, is_safe)
        device.say(*(Publish(topic, topic.encode(), 1, packet_id=n) for n, topic in enumerate(("t", "denied", "t"), 1)))
        await until(lambda: bool(handed_on))
        late = Late(world, monkeypatch)
        await world.detach("publish")
        await late.until_read(1)
        is_safe.set()
        await some_turns()
        late.answer(1)
        await until(lambda: len(device.wire.got(PubAck)) == 3)
        assert [packet.code for packet in device.wire.got(PubAck)] == [0, *[ReasonCode.NOT_AUTHORIZED] * 2]
        assert handed_on == [b"t"]


async def test_a_right_that_goes_before_a_service_is_asked_is_gone_for_that(
    database_url: str, monkeypatch: pytest.MonkeyPatch, is_safe: asyncio.Event
) -> None:
    asked: list[str] = []

    async def ask(topic: str, *_: object) -> None:
        asked.append(topic)

    async with a_world(database_url) as world:
        await world.let_publish()
        await world.aws.policies.add_version("publish", EVERYTHING, as_default=True, **ME)
        device = await world.connected()
        note_what_is_handed_on(world, monkeypatch, is_safe)
        monkeypatch.setattr(world.connections.reserved, "ask", ask)
        topics = ("t", "$aws/things/device-1/shadow/update", "t")
        device.say(*(Publish(topic, b"{}", 1, packet_id=n) for n, topic in enumerate(topics, 1)))
        await world.let_publish_no_more()
        await some_turns()
        is_safe.set()
        await until(lambda: len(device.wire.got(PubAck)) == 3)
        assert [packet.code for packet in device.wire.got(PubAck)] == [0, *[ReasonCode.NOT_AUTHORIZED] * 2]
        assert asked == []


async def test_a_mistake_of_ours_while_rights_are_looked_at_ends_the_connection(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mistaken(_: ConnectionContext) -> ConnectionGrant:
        raise ZeroDivisionError

    async with a_world(database_url) as world:
        device = await world.connected()
        monkeypatch.setattr(world.connections, "admit", mistaken)
        before = FAILURES["the broker"]
        await world.let_publish()
        await until(lambda: device.driver.is_over)
        assert (world.refused, device.driver._reason) == ([], CloseReason.SERVER)
        assert FAILURES["the broker"] == before + 1


@pytest.mark.parametrize("is_revoked", [False, True])
async def test_a_will_that_waits_is_published_while_what_its_client_came_by_stands(
    database_url: str, *, is_revoked: bool
) -> None:
    async with a_world(database_url) as world:
        await world.let_publish()
        device = await world.connected(WillMessage("t", b"gone", 1, False, ((PropertyId.WILL_DELAY, 5),)))
        await lose(device.driver)
        await world.broker.wait_until_settled()
        if is_revoked:
            await world.aws.certificates.set_status(world.certificate_id, CertificateStatus.INACTIVE, **ME)
        world.clock.move(timedelta(seconds=6))
        with world.connections.space.messages.watch("t") as viewer:
            await world.broker.process_due_items()
            await world.broker.wait_until_settled()
            assert [message.payload for message in viewer._waiting] == ([] if is_revoked else [b"gone"])


async def some_turns() -> None:
    for _ in range(100):
        await asyncio.sleep(0)
