"""Hub connections on a real database: a device that sends faster than the disk writes, subscribes without end, or is
switched off at the wrong moment."""

import asyncio
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from birthmark.auth.sas import SKEW, parse_sas
from birthmark.broker import Broker
from birthmark.broker.database_stream import SqlStream
from birthmark.broker.rules.device_queue import QueuedMessage
from birthmark.broker.rules.stream_partitions_and_positions import BEGINNING, key_of
from birthmark.errors import UnavailableError
from birthmark.iothub import wire
from birthmark.iothub.connections import HubConnections, c2d_delivery
from birthmark.iothub.connections.device_connections import TokenConnections
from birthmark.iothub.connections.direct_methods import CallMethod, MethodReply
from birthmark.iothub.domain_events import DeviceChanged
from birthmark.iothub.model import AuthenticationType, C2dMessage, DeviceAuthentication, Hub, TelemetryMessage, space_of
from birthmark.iothub.mqtt.connection import MAX_SUBSCRIPTIONS
from birthmark.iothub.mqtt.telemetry_window import WINDOW
from birthmark.iothub.ports import Notify
from birthmark.iothub.service.hubs_and_authorization import UnknownHubError
from birthmark.mqtt import codec
from birthmark.mqtt.errors import LocalProtocolError, QueueFullError
from birthmark.mqtt.packets import (
    LEVEL_3_1_1,
    ConnAck,
    Packet,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    WillMessage,
)
from birthmark.net.mqtt_driver import MqttDriver
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.store import to_micros
from support.azure.hub_world import ON_RECORD, Wire, World, a_world, lose, until
from support.azure.sas_tokens import make_sas
from support.store.between import before_the_next_commit

pytestmark = pytest.mark.integration


async def test_a_device_that_sends_faster_than_the_disk_writes_is_not_read_any_more(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        link, client = await world.connected()
        lock = sqlite3.connect(world.file, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        topic = wire.telemetry_topic("device-1")
        sent = 5 * WINDOW
        for number in range(sent):
            link.data_received(codec.encode(Publish(topic, b"x" * 100, 1, packet_id=number + 1), LEVEL_3_1_1))
        await asyncio.sleep(0.05)
        assert client.is_paused
        stream = world.iothub.telemetry.stream(world.hub)
        assert isinstance(stream, SqlStream)
        assert sum(len(messages) for line in stream._waiting.values() for _, messages, _, _ in line) <= WINDOW
        lock.execute("ROLLBACK")
        lock.close()
        await until(lambda: len(client.got(PubAck)) == sent)
        assert not client.is_paused
        assert len(await stream.latest(10_000)) == sent


async def test_each_message_has_the_properties_of_its_own_topic(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        link, client = await world.connected()
        head, plain = wire.telemetry_topic("device-1"), {"mqtt-retain": "true"}
        topics = [
            ("a=1", False),
            ("a=1", False),
            ("", False),
            ("b=2", True),
            ("b=2", False),
            ("a=1", True),
            ("a=1", False),
        ]
        for number, (bag, retain) in enumerate(topics, 1):
            link.data_received(codec.encode(Publish(head + bag, b"x", 1, retain, packet_id=number), LEVEL_3_1_1))
            await until(lambda so_many=number: len(client.got(PubAck)) == so_many)  # type: ignore[misc]
        found = [one.properties for one in await world.iothub.telemetry.stream(world.hub).latest(10)]
        a, b = {"a": "1"}, {"b": "2"}
        assert found == [a, a, {}, b | plain, b, a | plain, a], "in the order in which they came"


async def test_telemetry_states_how_its_device_authenticated(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        link, _ = await world.connected()
        link.data_received(
            codec.encode(Publish("devices/device-1/messages/events/", b"x", 1, packet_id=1), LEVEL_3_1_1)
        )
        await world.iothub.telemetry.wait_until_written()
        (message,) = await world.iothub.telemetry.stream(world.hub).latest(10)
        known = await world.iothub.registry.identity(world.hub, "device-1")
        assert (message.auth_method, str(message.generation_id)) == ("x509", known.generation_id)


async def by_token(world: World, lasts: timedelta) -> tuple[MqttDriver, Wire]:
    """Return a connection that a token opened."""
    device = await world.iothub.registry.device(world.hub, "device-1")
    if device.authentication.type is not AuthenticationType.SAS:
        by_keys = DeviceAuthentication(AuthenticationType.SAS, primary_key=b"k" * 32, secondary_key=b"o" * 32)
        body = wire.DeviceBody("device-1")
        await world.iothub.registry.put(world.hub, "device-1", body, by_keys, device.etag, actor="test")
    ends = int((world.clock.now() + lasts).timestamp())
    link, client = world.start(token=make_sas("hub.example/devices/device-1", b"k" * 32, ends))
    await until(lambda: bool(client.got(ConnAck)))
    return link, client


async def test_a_connection_ends_with_its_token_and_what_clocks_may_differ(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        link, client = await by_token(world, timedelta(seconds=8))
        world.clock.move(timedelta(seconds=8) + SKEW)
        world.connections.close_expired()
        assert (link.is_over, world.refused) == (False, []), "a clock of a few minutes ago is no reason to go"
        world.clock.move(timedelta(seconds=1))
        world.connections.close_expired()
        assert (link.is_over, client.is_over) == (True, True)
        assert [error.code for error in world.refused] == ["sas.expired"]


async def test_a_device_that_renews_its_token_in_time_stays(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await by_token(world, timedelta(minutes=60))
        world.clock.move(timedelta(minutes=58))
        link, _ = await by_token(world, timedelta(minutes=60))
        world.clock.move(timedelta(minutes=30))
        world.connections.close_expired()
        assert (link.is_over, world.refused) == (False, [])


async def test_a_connection_by_certificate_outlives_every_token(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        link, _ = await world.connected()
        world.clock.move(timedelta(days=300))
        world.connections.close_expired()
        assert not link.is_over


async def test_what_went_is_not_remembered_until_its_token_ends(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        tokens, link = TokenConnections[Any](), (await by_token(world, timedelta(days=1000)))[0]
        connection = world.connections.live_connections()[0]
        token = parse_sas(make_sas("r", b"k", 2**33))
        tokens.add(token, connection)
        link.close()
        for _ in range(5000):
            tokens.add(token, connection)
        assert len(tokens) <= 1024


@pytest.mark.parametrize("topic", ["$iothub/credentials/#", "$iothub/streams/POST/#", "$iothub/#"])
async def test_a_subscription_that_would_bring_nothing_is_refused_by_itself(tmp_path: Path, topic: str) -> None:
    async with a_world(tmp_path) as world:
        link, client = await world.connected()
        client.client.send(Subscribe(1, ((topic, 1), ("$iothub/twin/res/#", 1))))
        link.data_received(client.client.data_to_send())
        await until(lambda: bool(client.got(SubAck)))
        assert client.got(SubAck)[0].codes == (0x80, 1)
        assert [error.code for error in world.refused] == ["iothub.topic_not_served"]
        assert not link.is_over


@pytest.mark.parametrize("client_id", ["device-2", "DEVICE-1", "device-1/module", "x"])
async def test_another_client_id_than_the_device_id_is_refused_by_its_code(tmp_path: Path, client_id: str) -> None:
    async with a_world(tmp_path) as world:
        _, client = world.start(client_id=client_id)
        await until(lambda: client.is_over)
        assert [packet.code for packet in client.got(ConnAck)] == [2]
        assert [error.code for error in world.refused] == ["iothub.client_id_mismatch"]
        assert world.connections.live_connections() == ()


async def test_subscriptions_of_a_device_are_bounded(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        link, client = await world.connected(clean=False)
        for number in range(MAX_SUBSCRIPTIONS + 10):
            client.client.send(Subscribe(number + 1, ((f"$iothub/twin/{number}", 1),)))
            link.data_received(client.client.data_to_send())
        await until(lambda: len(client.got(SubAck)) == MAX_SUBSCRIPTIONS + 10)
        codes = [packet.codes[0] for packet in client.got(SubAck)]
        assert codes == [1] * MAX_SUBSCRIPTIONS + [0x80] * 10
        assert len(world.connections.space("main").live["device-1"].subscriptions) == MAX_SUBSCRIPTIONS


async def test_a_device_switched_off_while_it_connects_does_not_get_in(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        old, subscriber = await world.connected(clean=False)
        subscriber.client.send(Subscribe(1, (("$iothub/twin/res/#", 1),)))
        old.data_received(subscriber.client.data_to_send())
        await until(lambda: bool(subscriber.got(SubAck)))
        old.connection_lost(None)
        lock = sqlite3.connect(world.file, isolation_level=None)
        link, client = world.start()
        await asyncio.sleep(0)  # it has proved itself, and waits for its old subscriptions to be dropped
        lock.execute("BEGIN IMMEDIATE")
        lock.execute("UPDATE hub_devices SET enabled = 0")
        lock.execute("COMMIT")
        lock.close()
        world.connections.recheck(DeviceChanged("main", "device-1"))
        await until(lambda: link.is_over)
        assert client.got(ConnAck) == [ConnAck(code=5)]
        assert [error.code for error in world.refused] == ["iothub.device_disabled"]


async def test_a_device_connects_while_identities_of_others_change_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(tmp_path) as world:
        real, looks = world.iothub.registry.authenticate, 0

        async def authenticate(*asked: Any, **more: Any) -> Any:
            nonlocal looks
            looks += 1
            await asyncio.sleep(0)
            found = await real(*asked, **more)
            world.connections.recheck(DeviceChanged("main", f"another-{looks}"))
            return found

        monkeypatch.setattr(world.iothub.registry, "authenticate", authenticate)
        link, _ = await world.connected()
        assert (link.is_over, looks) == (False, 2)


async def test_a_device_that_changes_while_it_is_looked_at_again_does_not_get_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(tmp_path) as world:
        real = world.iothub.registry.authenticate
        changing = iter(("another", "device-1"))

        async def authenticate(*asked: Any, **more: Any) -> Any:
            found = await real(*asked, **more)
            world.connections.recheck(DeviceChanged("main", next(changing)))
            return found

        monkeypatch.setattr(world.iothub.registry, "authenticate", authenticate)
        link, client = world.start()
        await until(lambda: link.is_over)
        await until(lambda: world.connections.live_connections() == ())
        assert client.got(ConnAck) == []


async def test_a_device_switched_off_while_it_is_connected_is_dropped(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        link, _ = await world.connected()
        world.connections.recheck(DeviceChanged("main", "device-1"))
        assert link.is_over


async def test_twin_requests_are_answered_in_their_order_and_telemetry_goes_on(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        link, client = await world.connected()
        client.client.publish("$iothub/twin/GET/?$rid=0", b" ", 1)
        client.client.publish("$iothub/twin/PATCH/properties/reported/?$rid=1", b'{"a":1}', 1)
        client.client.publish("$iothub/twin/PATCH/properties/reported/?$rid=2&$version=1", b"{}", 1)
        client.client.publish("$iothub/twin/PATCH/properties/reported/?$rid=3", b'{"a"', 1)
        client.client.publish("$iothub/twin/GET/?$rid=4", b" ", 1)
        link.data_received(client.client.data_to_send())
        await until(lambda: len(client.got(Publish)) == 5)
        assert [p.topic for p in client.got(Publish)] == [
            "$iothub/twin/res/200/?$rid=0",
            "$iothub/twin/res/204/?$rid=1&$version=2",
            "$iothub/twin/res/412/?$rid=2",
            "$iothub/twin/res/400/?$rid=3",
            "$iothub/twin/res/200/?$rid=4",
        ]
        assert client.got(Publish)[4].payload == b'{"desired":{"$version":1},"reported":{"a":1,"$version":2}}'
        client.client.publish("devices/device-1/messages/events/", b"x", 1)
        link.data_received(client.client.data_to_send())
        await until(lambda: len(client.got(PubAck)) == 6)
        assert not link.is_over
        assert [e.code for e in world.refused] == ["iothub.twin_version", "iothub.twin_invalid"]


async def test_a_device_may_not_answer_the_method_of_another(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await world.iothub.registry.put(world.hub, "thief", wire.DeviceBody("thief"), ON_RECORD, None, actor="test")
        link, client = await world.connected()
        client.client.send(Subscribe(1, (("$iothub/methods/POST/#", 1),)))
        link.data_received(client.client.data_to_send())
        await until(lambda: len(client.got(SubAck)) == 1)
        space, methods = world.connections.space("main"), world.connections.methods
        call = asyncio.create_task(methods.call(space, CallMethod("main", "device-1", "do", b"null", 5)))
        await until(lambda: bool(client.got(Publish)))
        rid = client.got(Publish)[0].topic.partition("$rid=")[2]
        methods.accept_response("main", "thief", wire.MethodAnswer(200, rid), b'"stolen"')
        client.client.publish(f"$iothub/methods/res/201/?$rid={rid}", b'"mine"')
        link.data_received(client.client.data_to_send())
        assert await call == MethodReply(201, b'"mine"')


async def test_a_device_that_asks_without_pause_gives_others_their_turn(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        link, wire_ = await world.connected()
        for _ in range(5000):
            wire_.client.publish("$iothub/twin/GET/?$rid=1", b"")
        turns = 0

        async def another() -> None:
            nonlocal turns
            while len(wire_.got(Publish)) < 5000:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(another())
        link.data_received(wire_.client.data_to_send())
        await task
        assert turns > 10


async def test_a_mistake_of_ours_ends_the_connection_and_is_not_called_the_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_packet(*_: object) -> None:
        raise LocalProtocolError("SUBACK needs a code for each filter")

    async with a_world(tmp_path) as world:
        link, client = await world.connected(clean=False)
        monkeypatch.setattr(world.connections.space("main").subscriptions, "subscribe", no_packet)
        client.client.send(Subscribe(1, (("$iothub/twin/res/#", 1),)))
        link.data_received(client.client.data_to_send())
        await until(lambda: link.is_over)
        assert (world.refused, link._reason) == ([], CloseReason.SERVER)


async def send_mail(world: World, count: int) -> None:
    for number in range(count):
        mail = C2dMessage(f"{number}".encode(), {}, {})
        await world.iothub.c2d.send(world.hub, "device-1", mail, message_id="", feedback="", expiry=None, actor="test")


async def test_who_unsubscribed_gets_no_more_messages_and_another_qos_counts_at_once(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        link, client = await world.connected()
        await send_mail(world, 2 * c2d_delivery.WINDOW)
        name = wire.devicebound("device-1")

        def say(packet: Packet) -> None:
            client.client.send(packet)
            link.data_received(client.client.data_to_send())

        say(Subscribe(1, ((name, 1),)))
        await until(lambda: len(client.got(Publish)) == c2d_delivery.WINDOW)
        say(Unsubscribe(2, (name,)))
        await until(lambda: bool(client.got(UnsubAck)))
        for packet in client.got(Publish):
            say(PubAck(packet.packet_id or 0))
        await until(lambda: not world.broker._tasks and link._task is None)
        assert len(client.got(Publish)) == c2d_delivery.WINDOW
        say(Subscribe(3, ((name, 0),)))
        await until(lambda: len(client.got(Publish)) == 2 * c2d_delivery.WINDOW)
        assert {packet.qos for packet in client.got(Publish)[c2d_delivery.WINDOW :]} == {0}


async def test_a_message_that_comes_while_somebody_looks_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(tmp_path) as world:
        link, client = await world.connected()
        inboxes = world.iothub.c2d.inboxes
        real = inboxes.take

        async def take_and_be_late(space: str, client_id: str, **how: Any) -> QueuedMessage | None:
            found = await real(space, client_id, **how)
            if found is None and not client.got(Publish):
                await send_mail(world, 1)
                await world.connections._notified(Notify("main", "device-1"))
                await asyncio.sleep(0.01)
            return found

        monkeypatch.setattr(inboxes, "take", take_and_be_late)
        client.client.send(Subscribe(1, ((wire.devicebound("device-1"), 1),)))
        link.data_received(client.client.data_to_send())
        await until(lambda: bool(client.got(Publish)))


async def test_a_message_that_comes_between_the_last_look_and_the_wait_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(tmp_path) as world:
        link, client = await world.connected()
        inboxes = world.iothub.c2d.inboxes
        real = inboxes.next_free

        async def next_free_and_be_late(space: str, client_id: str, since: int) -> int | None:
            at = await real(space, client_id, since)
            if not client.got(Publish):
                await send_mail(world, 1)
                await world.connections._notified(Notify("main", "device-1"))
                await asyncio.sleep(0)
            return at

        monkeypatch.setattr(inboxes, "next_free", next_free_and_be_late)
        client.client.send(Subscribe(1, ((wire.devicebound("device-1"), 1),)))
        link.data_received(client.client.data_to_send())
        await until(lambda: bool(client.got(Publish)))


async def test_a_twin_request_behind_a_full_window_of_telemetry_is_answered(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        link, client = await world.connected()
        topics = [*["devices/device-1/messages/events/"] * (WINDOW + 1), "$iothub/twin/GET/?$rid=7"]
        topics.append("devices/device-1/messages/events/")
        sent = [Publish(topic, b"x", 1, packet_id=number) for number, topic in enumerate(topics, 1)]
        link.data_received(b"".join(codec.encode(packet, LEVEL_3_1_1) for packet in sent))
        await until(lambda: len(client.got(PubAck)) == WINDOW + 3)
        assert [packet.topic for packet in client.got(Publish)] == ["$iothub/twin/res/200/?$rid=7"]


async def wanting_mail(world: World, *, clean: bool = True) -> tuple[MqttDriver, Wire]:
    link, client = await world.connected(clean=clean)
    client.client.send(Subscribe(1, ((wire.devicebound("device-1"), 1),)))
    link.data_received(client.client.data_to_send())
    await until(lambda: bool(client.got(SubAck)))
    return link, client


def bodies(client: Wire) -> list[bytes]:
    return [packet.payload for packet in client.got(Publish)]


async def test_who_takes_its_own_session_over_gets_what_it_had_not_acknowledged_at_once_and_in_order(
    tmp_path: Path,
) -> None:
    async with a_world(tmp_path) as world:
        await send_mail(world, c2d_delivery.WINDOW + 2)
        _, first = await wanting_mail(world, clean=False)
        await until(lambda: len(bodies(first)) == c2d_delivery.WINDOW)
        _, second = await world.connected(clean=False)  # whose session has the subscription
        await until(lambda: len(bodies(second)) == c2d_delivery.WINDOW)
        assert bodies(second) == bodies(first)


async def test_a_message_that_finds_no_room_on_the_connection_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise QueueFullError("no room")

    async with a_world(tmp_path) as world:
        _, client = await wanting_mail(world)
        await send_mail(world, 1)
        with monkeypatch.context() as patched:
            patched.setattr(MqttDriver, "publish", full)
            await world.connections.check_queues()
            await world.broker.wait_until_settled()
        (letter,) = await world.iothub.c2d.inboxes.letters(space_of("main"), "device-1")
        assert (letter.lock, letter.deliveries) == (None, 0)
        await world.connections.check_queues()
        await until(lambda: bodies(client) == [b"0"])


async def test_what_was_acknowledged_and_could_not_be_completed_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> QueuedMessage:
        raise UnavailableError

    async with a_world(tmp_path) as world:
        link, client = await wanting_mail(world, clean=False)
        await send_mail(world, 2)
        await world.connections.check_queues()
        await until(lambda: len(bodies(client)) == 2)
        with monkeypatch.context() as patched:
            patched.setattr(world.iothub.c2d.inboxes, "settle", away)
            for packet in client.got(Publish):
                client.client.send(PubAck(packet.packet_id or 0))
            link.data_received(client.client.data_to_send())
            await until(lambda: link.is_over)
        await world.broker.wait_until_settled()
        _, again = await world.connected(clean=False)
        await until(lambda: bodies(again) == [b"0", b"1"])


async def test_what_could_not_be_completed_after_its_connection_was_taken_over_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_asked, may_answer = asyncio.Event(), asyncio.Event()

    async def away_later(*_: object) -> QueuedMessage:
        is_asked.set()
        await may_answer.wait()
        raise UnavailableError

    async with a_world(tmp_path) as world:
        link, client = await wanting_mail(world, clean=False)
        await send_mail(world, 1)
        await world.connections.check_queues()
        await until(lambda: len(bodies(client)) == 1)
        with monkeypatch.context() as patched:
            patched.setattr(world.iothub.c2d.inboxes, "settle", away_later)
            (packet,) = client.got(Publish)
            client.client.send(PubAck(packet.packet_id or 0))
            link.data_received(client.client.data_to_send())
            await is_asked.wait()
            _, again = await world.connected(clean=False)
            await until(lambda: link.is_over)
            await asyncio.sleep(0.05)  # the first one gave back what it had
            may_answer.set()
            await asyncio.sleep(0.05)
        async with asyncio.timeout(20):  # when the other gives it back depends on the machine
            while bodies(again) != [b"0"]:
                await world.connections.check_queues()
                await asyncio.sleep(0.02)


async def test_a_lock_that_ends_right_after_the_last_look_is_not_overlooked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(tmp_path) as world:
        await send_mail(world, 1)
        inboxes = world.iothub.c2d.inboxes
        real, lock_s = inboxes.take, 60
        await real(space_of("main"), "device-1", lock_s)
        late_s = iter((lock_s,))

        async def take_and_be_late(*asked: Any, **more: Any) -> QueuedMessage | None:
            found = await real(*asked, **more)
            if found is None:
                world.clock.move(timedelta(seconds=next(late_s, 0)))
            return found

        monkeypatch.setattr(inboxes, "take", take_and_be_late)
        link, client = await world.connected()
        await subscribe(link, client, wire.devicebound("device-1"))
        await until(lambda: bodies(client) == [b"0"])


async def test_what_a_process_that_was_killed_had_taken_is_delivered_at_once_and_in_order(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await send_mail(world, 2)
        _, first = await wanting_mail(world, clean=False)
        await until(lambda: len(bodies(first)) == 2)
        await send_mail(world, 1)
        world.connections.notify_device("main", "device-1")
        await until(lambda: len(bodies(first)) == 3)
        after = HubConnections(world.iothub, Broker(world.database, world.clock, "after"), world.clock)
        await after.begin()
        world.connections = after
        _, second = await world.connected(clean=False)
        await until(lambda: len(bodies(second)) == 3)
        assert bodies(second) == [b"0", b"1", b"0"]


async def test_a_letter_whose_lock_ran_out_is_delivered_without_anybody_asking(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await send_mail(world, 1)
        assert await world.iothub.c2d.inboxes.take("hub/main", "device-1", 10) is not None  # over HTTPS, say
        _, client = await wanting_mail(world)
        await until(lambda: not world.broker._tasks)
        assert not bodies(client)
        world.clock.move(timedelta(seconds=10))
        await world.connections.check_queues()
        await until(lambda: bodies(client) == [b"0"])


async def test_a_device_that_waits_is_woken_when_a_lock_ends(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await send_mail(world, 1)
        assert await world.iothub.c2d.inboxes.take("hub/main", "device-1", 1) is not None
        _, client = await wanting_mail(world)
        await until(lambda: not world.broker._tasks)
        world.clock.move(timedelta(seconds=1))
        await until(lambda: bodies(client) == [b"0"])  # within the second that the lock had


async def test_what_is_not_acknowledged_is_sent_again_when_its_lock_ends_and_fills_no_window(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await send_mail(world, c2d_delivery.WINDOW)
        _, client = await wanting_mail(world)
        await until(lambda: len(bodies(client)) == c2d_delivery.WINDOW)
        world.clock.move(timedelta(seconds=60))
        await world.connections.check_queues()
        await until(lambda: len(bodies(client)) == 2 * c2d_delivery.WINDOW)
        assert bodies(client)[c2d_delivery.WINDOW :] == bodies(client)[: c2d_delivery.WINDOW]


async def test_telemetry_on_its_way_while_its_hub_is_deleted_is_not_the_next_hubs(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        link, client = await world.connected()
        lock = sqlite3.connect(world.file, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")  # nothing is written for a moment
        topic = wire.telemetry_topic("device-1")
        link.data_received(codec.encode(Publish(topic, b"before", 1, packet_id=1), LEVEL_3_1_1))
        deleting = asyncio.create_task(world.iothub.hubs.delete("main", actor="test"))
        await asyncio.sleep(0.02)
        link.data_received(codec.encode(Publish(topic, b"meanwhile", 1, packet_id=2), LEVEL_3_1_1))
        await asyncio.sleep(0.02)
        lock.execute("ROLLBACK")
        lock.close()
        await deleting
        hub = await world.iothub.hubs.create("main", "hub.example", actor="test")
        await world.iothub.telemetry.wait_until_written()
        assert await world.iothub.telemetry.stream(hub).latest(10) == []
        assert link.is_over
        assert 2 not in [packet.packet_id for packet in client.got(PubAck)]


async def keep(world: World, hub: Hub, body: bytes) -> None:
    message = TelemetryMessage("device-1", to_micros(world.clock.now()), body, {}, {})
    await world.iothub.telemetry.write(hub, key_of("device-1"), [message], len(body))


async def test_how_far_a_hub_was_trimmed_while_it_was_deleted_is_not_the_next_hubs(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        hubs, telemetry = world.iothub.hubs, world.iothub.telemetry
        for body in (b"1", b"2", b"3"):
            await keep(world, world.hub, body)
        await telemetry.trim()
        world.clock.move(timedelta(days=2))
        deleting: list[asyncio.Task[None]] = []

        async def somebody_deletes_it() -> None:
            deleting.append(asyncio.create_task(hubs.delete("main", actor="test")))
            for _ in range(10):
                await asyncio.sleep(0)

        before_the_next_commit(world.database, somebody_deletes_it)
        await telemetry.trim()
        await deleting[0]
        hub = await hubs.create("main", "hub.example", actor="test")
        await keep(world, hub, b"next")
        assert [message.body for message in (await telemetry.stream(hub).read(BEGINNING, 10)).items] == [b"next"]


async def test_nobody_notes_how_far_it_read_a_hub_that_is_being_deleted(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        telemetry, hub = world.iothub.telemetry, world.hub
        async with telemetry.drain(hub):
            with pytest.raises(UnknownHubError):
                await telemetry.stream(hub).set_position("group", BEGINNING)
        assert await telemetry.stream(hub).position("group") is None


async def test_no_hub_is_unknown_while_another_is_made(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        hubs = world.iothub.hubs
        making = asyncio.create_task(hubs.create("second", "second.example", actor="test"))
        while not making.done():
            assert hubs.find("hub.example") is not None
            await asyncio.sleep(0)


@pytest.mark.parametrize("is_known", [False, True])
async def test_a_subscription_on_its_way_while_its_device_is_deleted_brings_no_session_back(
    tmp_path: Path, is_known: bool
) -> None:
    async with a_world(tmp_path) as world:
        if is_known:
            link, client = await world.connected(clean=False)
            await subscribe(link, client, "$iothub/methods/POST/#")
            await lose(link)
        link, client = await world.connected(clean=False)
        while_it_commits_delete_the_device(world)
        client.client.send(Subscribe(1, (("$iothub/twin/res/#", 1),)))
        link.data_received(client.client.data_to_send())
        await until(lambda: link.is_over)
        assert [error.code for error in world.refused] == ["iothub.unknown_device"]
        await nothing_is_left(world)


async def test_a_connection_on_its_way_while_its_device_is_deleted_brings_no_session_back(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        while_it_commits_delete_the_device(world)
        will = WillMessage("devices/device-1/messages/events/", b"gone", 1)
        link, client = world.start(clean=False, will=will)
        await until(lambda: link.is_over)
        assert client.got(ConnAck) == [ConnAck(code=5)]
        assert [error.code for error in world.refused] == ["iothub.unknown_device"]
        await nothing_is_left(world)


async def subscribe(link: MqttDriver, client: Wire, name: str) -> None:
    client.client.send(Subscribe(1, ((name, 1),)))
    link.data_received(client.client.data_to_send())
    await until(lambda: bool(client.got(SubAck)))


def while_it_commits_delete_the_device(world: World) -> None:
    registry = world.iothub.registry
    before_the_next_commit(world.database, lambda: registry.remove(world.hub, "device-1", None, actor="test"))


async def nothing_is_left(world: World) -> None:
    await world.broker.wait_until_settled()
    space = world.connections.space("main")
    assert await space.record("device-1") is None
    assert await space.subscriptions.stored("device-1") == {}


async def test_sessions_of_a_hub_are_counted_in_as_they_are_counted_out(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        space = world.connections.space("main")
        for _ in range(2):
            link, client = await world.connected(clean=False)
            for number, name in enumerate(("$iothub/twin/res/#", "$iothub/methods/POST/#"), 1):
                client.client.send(Subscribe(number, ((name, 1),)))
                link.data_received(client.client.data_to_send())
            await until(lambda client=client: len(client.got(SubAck)) == 2)  # type: ignore[misc] # a default's type
            assert space.stored == 1
            await lose(link)
        await world.broker.wait_until_settled()
        await world.connected(clean=True)
        assert space.stored == 0


async def test_telemetry_outlives_a_clock_that_is_ahead_for_some_minutes(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        telemetry, hub = world.iothub.telemetry, world.hub
        for body in (b"1", b"2", b"3"):
            await keep(world, hub, body)
        for jump in (timedelta(days=365), timedelta(days=-365)):
            await telemetry.trim()
            world.clock.jump(jump)
            world.clock.move(timedelta(minutes=5))
        await telemetry.trim()
        assert [message.body for message in (await telemetry.stream(hub).read(BEGINNING, 10)).items] == [
            b"1",
            b"2",
            b"3",
        ]
