"""Devices of a hub over AMQP, frame by frame: many on one connection, each with its own token, links and limits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from birthmark.amqp.framer import encode_frame
from birthmark.amqp.limits import AmqpLimits
from birthmark.amqp.message import AmqpMessage, DataBody, MessageProperties, write_batch, write_message
from birthmark.amqp.performatives import (
    ACCEPTED,
    RECEIVER,
    RELEASED,
    SENDER,
    Attach,
    Detach,
    Disposition,
    RejectedOutcome,
    Source,
    Target,
    encode_performative,
)
from birthmark.amqp.values import Int, Symbol, ULong
from birthmark.auth.sas import SKEW, hmac_sha256, render_sas
from birthmark.broker.database_stream import MAX_BURST
from birthmark.broker.model import BrokerMessage
from birthmark.broker.rules.device_queue import QueueOutcome
from birthmark.broker.worker_leases import WorkerLostError
from birthmark.iothub import wire
from birthmark.iothub.amqp import HubAmqpConnections, connection_devices
from birthmark.iothub.amqp.connection import MAX_REFUSED_TOKENS
from birthmark.iothub.amqp.device import MAX_LINKS
from birthmark.iothub.connections.c2d_delivery import WINDOW
from birthmark.iothub.connections.direct_methods import CallMethod
from birthmark.iothub.domain_events import DeviceChanged, HubsChanged
from birthmark.iothub.model import C2dMessage, space_of
from birthmark.iothub.rules.tier_throttles_and_quotas import ThrottleClass, edition_of
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.net.tls import TlsPeer
from support.azure.amqp_devices import KEY, SAS, Gateway, a_device, device_token
from support.azure.amqp_world import connect_as, connections, token
from support.azure.hub_world import DEVICE, World, a_world

pytestmark = pytest.mark.integration
OF_DEVICE_1 = TlsPeer(DEVICE, (), b"", "hub.example", "TLSv1.3")


@asynccontextmanager
async def a_gateway(directory: Path, *names: str) -> AsyncIterator[tuple[World, HubAmqpConnections, Gateway]]:
    """Yield a hub, its connections, and one connection that has presented the tokens of these devices."""
    async with a_world(directory) as world:
        for name in names:
            await a_device(world, name)
        shared = connections(world)
        gateway = await opened(world, shared, *names)
        yield world, shared, gateway


async def opened(world: World, shared: HubAmqpConnections, *names: str) -> Gateway:
    gateway = connect_as(Gateway, world, shared)
    await gateway.opened()
    for name in names:
        assert await gateway.present(name) == 200
    return gateway


async def bodies(world: World, device: str) -> list[str]:
    await world.iothub.telemetry.wait_until_written()
    return [one.body.decode() for one in await world.iothub.telemetry.stream(world.hub).latest(100, device)]


async def send_mail(world: World, device: str, *texts: str, feedback: str = "") -> None:
    for text in texts:
        mail = C2dMessage(text.encode(), {}, {})
        await world.iothub.c2d.send(
            world.hub, device, mail, message_id=text, feedback=feedback, expiry=None, actor="test"
        )
        await world.connections.notify_anywhere("main", device)
        world.connections.notify_device("main", device)


def texts(gateway: Gateway, handle: int) -> list[str]:
    found = [message.body for _, message in gateway.deliveries(handle)]
    return [body.payload.decode() for body in found if isinstance(body, DataBody)]


# ---- telemetry


async def test_devices_of_one_connection_send_each_by_its_own_link(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a", "b") as (world, _, gateway):
        for name in ("a", "b"):
            handle = await gateway.link(name, "messages/events")
            assert await gateway.settled(gateway.send_body(handle, f"of {name}".encode())) == "accepted"
        assert (await bodies(world, "a"), await bodies(world, "b")) == (["of a"], ["of b"])


async def test_a_link_of_another_device_is_refused(tmp_path: Path) -> None:
    """The address alone names the device: neither a token of another nor a link property helps."""
    async with a_gateway(tmp_path, "a") as (world, _, gateway):
        await a_device(world, "victim")
        for feature in ("messages/events", "twin", "methods/devicebound"):
            await gateway.link("victim", feature)
        await gateway.link("victim", "messages/devicebound", receives=True, credit=10)
        assert gateway.conditions() == ["amqp:unauthorized-access"] * 4
        assert {error.code for error in gateway.refused} == {"iothub.no_credentials"}
        assert not gateway.is_over


async def test_a_token_of_another_device_or_key_is_refused(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a") as (world, _, gateway):
        await a_device(world, "victim")
        assert await gateway.present("victim", device_token(world, "victim", key=b"x" * 32)) == 401
        assert await gateway.present("victim", device_token(world, "a")) == 200, "it is a's own"
        assert await gateway.present("nobody", device_token(world, "nobody")) == 401
        await gateway.link("victim", "messages/events")
        assert gateway.conditions() == ["amqp:unauthorized-access"]


async def test_a_batch_is_settled_as_one_delivery(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a") as (world, _, gateway):
        handle = await gateway.link("a", "messages/events")
        parts = [
            write_message(AmqpMessage(DataBody((str(n).encode(),)), application_properties={"n": str(n)}))
            for n in range(20)
        ]
        gateway.transfer_batch(handle, write_batch(tuple(parts)))
        assert await gateway.settled(gateway.delivery_id - 1) == "accepted"
        assert await bodies(world, "a") == list(map(str, range(20)))


async def test_a_batch_has_as_many_messages_as_a_commit_takes(tmp_path: Path) -> None:
    count = AmqpLimits().max_batch_messages
    assert count <= MAX_BURST
    async with a_gateway(tmp_path, "a") as (world, _, gateway):
        handle = await gateway.link("a", "messages/events")
        part = write_message(AmqpMessage(DataBody((b"x",))))
        gateway.transfer_batch(handle, write_batch((part,) * count))
        gateway.transfer_batch(handle, write_batch((part,) * (count + 1)))
        assert await gateway.settled(gateway.delivery_id - 2) == "accepted"
        assert await gateway.settled(gateway.delivery_id - 1) == "com.microsoft:argument-error"
        await world.iothub.telemetry.wait_until_written()
        assert world.iothub.telemetry.streams()["main"].messages == count


async def test_what_a_message_carries_is_kept(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a") as (world, _, gateway):
        handle = await gateway.link("a", "messages/events")
        properties = MessageProperties(
            message_id=UUID(int=7),
            user_id=b"user",
            correlation_id=ULong(9),
            content_type="text/plain",
            content_encoding="utf-8",
            absolute_expiry_time=1_800_000_000_000,
            creation_time=1_700_000_000_000,
        )
        own = {"site": "north", "n": 5, "ok": True, "iothub-message-schema": "s1", "$.sub": "kept"}
        delivery = gateway.send_body(
            handle,
            b"x",
            properties=properties,
            application_properties=own,
            message_annotations={Symbol("iothub-interface-id"): "urn:x", Symbol("dt-subject"): "lamp"},
        )
        assert await gateway.settled(delivery) == "accepted"
        await world.iothub.telemetry.wait_until_written()
        (message,) = await world.iothub.telemetry.stream(world.hub).latest(1, "a")
        assert message.properties == {"site": "north", "n": "5", "ok": "true", "$.sub": "kept"}
        assert message.system == {
            "message-id": str(UUID(int=7)),
            "user-id": "user",
            "correlation-id": "9",
            "content-type": "text/plain",
            "content-encoding": "utf-8",
            "absolute-expiry-time": "2027-01-15T08:00:00.0000000Z",
            "iothub-creation-time-utc": "2023-11-14T22:13:20.0000000Z",
            "iothub-interface-id": "urn:x",
            "dt-subject": "lamp",
            "iothub-message-schema": "s1",
        }
        assert (message.auth_method, message.generation_id != 0) == ("sas", True)


@pytest.mark.parametrize(
    ("payload", "message_format", "code"),
    [
        (b"\x00\x53\x75", 0, "iothub.telemetry_amqp_invalid"),
        (b"garbage", 0, "iothub.telemetry_amqp_invalid"),
        (write_message(AmqpMessage(DataBody((b"x",)))), 5, "iothub.telemetry_amqp_invalid"),
        (write_batch((b"garbage",)), 0x80013700, "iothub.telemetry_amqp_invalid"),
        (b"", 0x80013700, "iothub.telemetry_amqp_invalid"),
        (
            write_message(AmqpMessage(DataBody((b"x",)), application_properties={str(n): "v" for n in range(65)})),
            0,
            "iothub.telemetry_amqp_invalid",
        ),
        (
            write_message(AmqpMessage(DataBody((b"x",)), application_properties={"m": {"a": 1}})),
            0,
            "iothub.telemetry_amqp_invalid",
        ),
    ],
)
async def test_a_message_of_another_form_is_rejected_alone(
    tmp_path: Path, payload: bytes, message_format: int, code: str
) -> None:
    async with a_gateway(tmp_path, "a") as (world, _, gateway):
        handle = await gateway.link("a", "messages/events")
        gateway.transfer_batch(handle, payload, message_format)
        assert await gateway.settled(gateway.delivery_id - 1) == "com.microsoft:argument-error"
        assert [error.code for error in gateway.refused] == [code]
        assert await gateway.settled(gateway.send_body(handle, b"next")) == "accepted"
        assert await bodies(world, "a") == ["next"]


async def test_a_message_that_is_too_large_ends_its_link_alone(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a", "b") as (world, _, gateway):
        handle, other = await gateway.link("a", "messages/events"), await gateway.link("b", "messages/events")
        gateway.send_body(handle, b"x" * (256 * 1024 + 1))
        await gateway.until(lambda: gateway.conditions() == ["amqp:link:message-size-exceeded"])
        assert [error.code for error in gateway.refused] == ["iothub.message_too_large"]
        assert await gateway.settled(gateway.send_body(other, b"fits")) == "accepted"
        assert await bodies(world, "a") == []


async def test_a_hub_that_cannot_store_rejects_so_that_the_device_sends_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_gateway(tmp_path, "a") as (world, _, gateway):
        handle = await gateway.link("a", "messages/events")
        stream = world.iothub.telemetry.stream(world.hub)

        def fail(_key: int, _items: object, _size: int, done: object) -> None:
            assert callable(done)
            asyncio.get_running_loop().call_soon(done, OSError("away"))

        with monkeypatch.context() as patched:
            patched.setattr(type(stream), "append", lambda _self, *given: fail(*given))
            assert await gateway.settled(gateway.send_body(handle, b"1")) == "com.microsoft:timeout"
        assert await gateway.settled(gateway.send_body(handle, b"2")) == "accepted"


async def test_a_throttled_device_does_not_hold_back_another_on_its_connection(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "busy", "calm") as (world, _, gateway):
        busy, calm = await gateway.link("busy", "messages/events"), await gateway.link("calm", "messages/events")
        edition = edition_of("F1")
        await world.iothub.hubs.set_tier("main", edition, actor="test")
        world.iothub.throttles.take(world.hub, ThrottleClass.TELEMETRY, 95)
        sent = [gateway.send_body(busy, b"x") for _ in range(90)]
        later = gateway.send_body(calm, b"calm")
        await asyncio.sleep(0.3)
        assert sum(gateway.outcome_of(one) == "accepted" for one in sent) < len(sent)
        for _ in range(100):
            world.clock.move(timedelta(seconds=0.1))
            await asyncio.sleep(0.01)
            if gateway.outcome_of(later):
                break
        assert gateway.outcome_of(later) == "accepted"
        assert gateway.outcome_of(sent[-1]) is None, "others waited for it"


# ---- messages to devices


async def test_a_message_has_its_lock_as_the_tag_and_ends_with_its_outcome(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a") as (world, _, gateway):
        handle = await gateway.link("a", "messages/devicebound", receives=True, credit=10)
        await send_mail(world, "a", "one", feedback="full")
        await gateway.until(lambda: texts(gateway, handle) == ["one"])
        ((transfer, message),) = gateway.deliveries(handle)
        annotations = message.message_annotations
        assert transfer.delivery_tag == UUID(annotations[Symbol("x-opt-lock-token")]).bytes
        assert transfer.settled is False
        assert (annotations[Symbol("iothub-deliverycount")], message.properties.to) == (
            1,
            "/devices/a/messages/deviceBound",
        )
        assert message.application_properties == {"iothub-ack": "full"}
        gateway.send(Disposition(RECEIVER, transfer.delivery_id or 0, settled=True, state=ACCEPTED))
        await gateway.until_async(lambda: world.iothub.c2d.count("main", "a"), 0)


async def test_a_released_message_comes_again_and_a_rejected_one_does_not(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a") as (world, _, gateway):
        handle = await gateway.link("a", "messages/devicebound", receives=True, credit=10)
        await send_mail(world, "a", "one")
        await gateway.until(lambda: len(gateway.deliveries(handle)) == 1)
        gateway.send(
            Disposition(RECEIVER, gateway.deliveries(handle)[0][0].delivery_id or 0, settled=True, state=RELEASED)
        )
        await gateway.until(lambda: len(gateway.deliveries(handle)) == 2)
        again, message = gateway.deliveries(handle)[1]
        assert message.message_annotations[Symbol("iothub-deliverycount")] == 2
        gateway.send(Disposition(RECEIVER, again.delivery_id or 0, settled=True, state=RejectedOutcome()))
        await gateway.until_async(lambda: world.iothub.c2d.count("main", "a"), 0)


async def test_an_outcome_after_the_lock_is_answered_by_its_loss(tmp_path: Path) -> None:
    """.NET waits for the hub's own settlement, and learns of the lost lock by it."""
    async with a_gateway(tmp_path, "a") as (world, _, gateway):
        handle = await gateway.link("a", "messages/devicebound", receives=True, credit=10)
        await send_mail(world, "a", "one")
        await gateway.until(lambda: len(gateway.deliveries(handle)) == 1)
        (letter,) = await world.iothub.c2d.inboxes.letters(space_of("main"), "a")
        await world.iothub.c2d.inboxes.settle(space_of("main"), "a", letter.lock or "", QueueOutcome.COMPLETED)
        delivery_id = gateway.deliveries(handle)[0][0].delivery_id or 0
        gateway.send(Disposition(RECEIVER, delivery_id, settled=False, state=ACCEPTED))
        assert await gateway.settled(delivery_id) == "com.microsoft:message-lock-lost"


async def test_messages_without_an_outcome_wait_for_the_next_link(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a") as (world, _, gateway):
        handle = await gateway.link("a", "messages/devicebound", receives=True, credit=100)
        await send_mail(world, "a", *map(str, range(WINDOW + 5)))
        await gateway.until(lambda: len(gateway.deliveries(handle)) == WINDOW)
        gateway.send(Detach(handle, closed=True))
        handle = await gateway.link("a", "messages/devicebound", receives=True, credit=3)
        await gateway.until(lambda: len(gateway.deliveries(handle)) == 3)
        await asyncio.sleep(0.05)
        assert texts(gateway, handle) == ["0", "1", "2"]
        gateway.grant(handle, 100, 3)
        await gateway.until(lambda: len(gateway.deliveries(handle)) == WINDOW)


# ---- twins and methods


async def test_a_twin_is_read_reported_and_told_of(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a") as (world, _, gateway):
        requests = await gateway.link("a", "twin", channel_correlation_id="twin:1")
        answers = await gateway.link("a", "twin", receives=True, credit=100, channel_correlation_id="twin:1")

        def ask(operation: str, resource: str = "", body: bytes = b"", **more: object) -> None:
            annotations: dict[Symbol, object] = {Symbol("operation"): operation, Symbol("resource"): resource or None}
            annotations |= {Symbol(name): value for name, value in more.items()}
            gateway.transfer(
                requests,
                AmqpMessage(
                    DataBody((body,)), MessageProperties(correlation_id=UUID(int=5)), message_annotations=annotations
                ),
            )

        def answer(number: int) -> tuple[object, object, bytes]:
            _, message = gateway.deliveries(answers)[number]
            body = message.body
            assert isinstance(body, DataBody)
            known = message.message_annotations
            return known.get(Symbol("status")), known.get(Symbol("version")), body.payload

        ask("GET")
        await gateway.until(lambda: len(gateway.deliveries(answers)) == 1)
        status, _, body = answer(0)
        assert (status, type(status)) == (200, Int)
        assert msgspec.json.decode(body) == {"desired": {"$version": 1}, "reported": {"$version": 1}}
        assert gateway.deliveries(answers)[0][1].properties.correlation_id == UUID(int=5)
        ask("PATCH", "/properties/reported", b'{"on": true}')
        await gateway.until(lambda: len(gateway.deliveries(answers)) == 2)
        assert answer(1) == (204, 2, b"")
        ask("PATCH", "/properties/reported", b'{"on": ')
        await gateway.until(lambda: len(gateway.deliveries(answers)) == 3)
        assert answer(2)[0] == 400
        ask("PATCH", "/properties/reported", b"{}", version=1)
        await gateway.until(lambda: len(gateway.deliveries(answers)) == 4)
        assert answer(3)[0] == 412
        ask("PUT", "/notifications/twin/properties/desired")
        await gateway.until(lambda: len(gateway.deliveries(answers)) == 5)
        world.connections.space("main").live["a"].deliver(a_patch(7), 0, 0)
        await gateway.until(lambda: len(gateway.deliveries(answers)) == 6)
        assert answer(5) == (None, 7, b'{"interval":5}')
        ask("DELETE", "/notifications/twin/properties/desired")
        await gateway.until(lambda: len(gateway.deliveries(answers)) == 7)
        world.connections.space("main").live["a"].deliver(a_patch(8), 0, 0)
        ask("MERGE")
        await gateway.until(lambda: len(gateway.deliveries(answers)) == 8)
        assert answer(7)[0] == 400
        assert [error.code for error in gateway.refused] == [
            "iothub.twin_invalid",
            "iothub.twin_version",
            "iothub.device_amqp_request_invalid",
        ]


def a_patch(version: int) -> BrokerMessage:
    return BrokerMessage(wire.desired_topic(version), b'{"interval":5}', 1)


async def test_a_method_is_called_and_answered_by_its_own_device_alone(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a", "b") as (world, _, gateway):
        calls = await gateway.link("a", "methods/devicebound", receives=True, credit=10, channel_correlation_id="m:1")
        responses = await gateway.link("a", "methods/devicebound", channel_correlation_id="m:1")
        others = await gateway.link("b", "methods/devicebound", channel_correlation_id="m:2")
        request = CallMethod("main", "a", "reboot", b'{"in":3}', 5)
        calling = asyncio.ensure_future(world.connections.methods.call(world.connections.space("main"), request))
        await gateway.until(lambda: len(gateway.deliveries(calls)) == 1)
        _, message = gateway.deliveries(calls)[0]
        assert message.application_properties == {"IoThub-methodname": "reboot"}
        assert message.body == DataBody((b'{"in":3}',))
        correlation = message.properties.correlation_id
        assert isinstance(correlation, UUID)

        def respond(handle: int, status: int) -> None:
            gateway.transfer(
                handle,
                AmqpMessage(
                    DataBody((b'"done"',)),
                    MessageProperties(correlation_id=correlation),
                    {"IoThub-status": Int(status)},
                ),
            )

        respond(others, 500)
        await asyncio.sleep(0.05)
        assert not calling.done(), "another device answered"
        respond(responses, 200)
        answer = await calling
        assert (answer.status, answer.payload) == (200, b'"done"')
        assert msgspec.msgpack.encode(answer), "another worker may have called"


# ---- the session of a device


async def test_a_second_connection_of_a_device_takes_its_links_and_no_others(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a", "b") as (world, shared, gateway):
        await gateway.link("a", "messages/events")
        other = await gateway.link("b", "messages/events")
        second = await opened(world, shared, "a")
        await gateway.until(lambda: gateway.conditions() == ["amqp:link:stolen"])
        handle = await second.link("a", "messages/events")
        assert await second.settled(second.send_body(handle, b"second")) == "accepted"
        assert await gateway.settled(gateway.send_body(other, b"stays")) == "accepted"
        assert sorted(world.connections.space("main").live) == ["a", "b"]


async def test_mqtt_takes_the_place_of_amqp_and_amqp_of_mqtt(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        driver, _ = await world.connected()
        gateway = connect_as(Gateway, world, connections(world), OF_DEVICE_1)
        gateway.begin()
        handle = await gateway.link("device-1", "messages/events")
        assert driver.is_over
        assert await gateway.settled(gateway.send_body(handle, b"by amqp")) == "accepted"
        await world.connected()
        await gateway.until(lambda: gateway.conditions() == ["amqp:link:stolen"])


async def test_presence_begins_with_the_token_and_ends_with_the_last_link(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a") as (world, _, gateway):
        live = world.connections.space("main").live
        assert "a" in live
        first, second = await gateway.link("a", "messages/events"), await gateway.link("a", "twin")
        gateway.send(Detach(first, closed=True))
        assert "a" in live
        gateway.send(Detach(second, closed=True))
        assert "a" not in live
        await gateway.link("a", "messages/events")
        assert "a" in live, "its token is still valid"
        gateway.driver.connection_lost(None)
        assert "a" not in live


async def test_a_token_that_ends_takes_its_own_links_alone(tmp_path: Path) -> None:
    async with a_gateway(tmp_path) as (world, _, gateway):
        for name in ("short", "long"):
            await a_device(world, name)
        assert await gateway.present("short", device_token(world, "short", lasts=timedelta(minutes=1))) == 200
        assert await gateway.present("long") == 200
        short, long = await gateway.link("short", "messages/events"), await gateway.link("long", "messages/events")
        world.clock.jump(timedelta(minutes=2) + SKEW)
        world.clock.move(timedelta(seconds=11))
        assert gateway.deadline is not None
        gateway.deadline()
        await gateway.until(lambda: gateway.conditions() == ["amqp:unauthorized-access"])
        assert [one.handle for one in gateway.got(Detach)] == [short]
        assert await gateway.settled(gateway.send_body(long, b"stays")) == "accepted"
        assert [error.code for error in gateway.refused] == ["sas.expired"]


async def test_a_renewed_token_keeps_the_links(tmp_path: Path) -> None:
    async with a_gateway(tmp_path) as (world, _, gateway):
        await a_device(world, "a")
        assert await gateway.present("a", device_token(world, "a", lasts=timedelta(minutes=1))) == 200
        handle = await gateway.link("a", "messages/events")
        world.clock.jump(timedelta(minutes=2))
        assert await gateway.present("a") == 200
        world.clock.jump(timedelta(minutes=10))
        world.clock.move(timedelta(seconds=11))
        assert gateway.deadline is not None
        gateway.deadline()
        assert await gateway.settled(gateway.send_body(handle, b"still")) == "accepted"


async def test_a_device_that_is_disabled_loses_its_links_and_modules(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a", "b") as (world, _, gateway):
        await gateway.link("a", "messages/events")
        other = await gateway.link("b", "messages/events")
        await world.iothub.registry.set_enabled(world.hub, "a", is_enabled=False, actor="test")
        world.connections.recheck(DeviceChanged("main", "a", is_off=True))
        await gateway.until(lambda: gateway.conditions() == ["amqp:link:detach-forced"])
        await gateway.link("a", "messages/events")
        assert gateway.conditions()[-1] == "amqp:unauthorized-access"
        assert gateway.refused[-1].code == "iothub.device_disabled"
        assert await gateway.settled(gateway.send_body(other, b"stays")) == "accepted"


async def test_a_device_is_seen_and_closed_as_over_mqtt(tmp_path: Path) -> None:
    """By which revocations find a connection, and the operator ends it."""
    async with a_world(tmp_path) as world:
        gateway = connect_as(Gateway, world, connections(world), OF_DEVICE_1)
        gateway.begin()
        await gateway.link("device-1", "messages/events")
        (live,) = world.connections.live_connections()
        assert (live.device_id, live.driver.address, live.driver.is_over) == ("device-1", "192.0.2.7", False)
        assert live.driver.peer.leaf == DEVICE
        live.driver.close(CloseReason.ADMINISTRATIVE)
        await gateway.until(lambda: gateway.conditions() == ["amqp:link:detach-forced"])
        assert live.driver.is_over
        assert world.connections.live_connections() == ()


async def test_a_policy_connects_any_device_with_keys(tmp_path: Path) -> None:
    async with a_gateway(tmp_path) as (world, _, gateway):
        await a_device(world, "a")
        assert await gateway.present("hub", token(world, policy="device")) == 200
        handle = await gateway.link("a", "messages/events")
        assert await gateway.settled(gateway.send_body(handle, b"x")) == "accepted"
        await gateway.link("device-1", "messages/events")
        assert gateway.refused[-1].code == "iothub.no_credentials", "it has a certificate"


async def test_a_device_cannot_use_the_hubs_service_side(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a") as (_, __, gateway):
        gateway.attach("messages/devicebound", receives=False)
        gateway.attach("messages/servicebound/feedback", receives=True, credit=1)
        gateway.attach("main/ConsumerGroups/$Default/Partitions/0", receives=True, credit=1)
        await gateway.until(lambda: len(gateway.conditions()) == 3)
        assert set(gateway.conditions()) == {"amqp:unauthorized-access"}


async def test_a_device_has_a_limited_number_of_links(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a") as (_, __, gateway):
        for _ in range(MAX_LINKS):
            await gateway.link("a", "messages/events")
        assert gateway.conditions() == []
        await gateway.link("a", "messages/events")
        assert gateway.conditions() == ["amqp:resource-limit-exceeded"]


async def test_a_stranger_may_not_try_for_long(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        gateway = connect_as(Gateway, world, connections(world))
        gateway.begin()
        for number in range(MAX_REFUSED_TOKENS):
            await gateway.link(f"guess-{number}", "messages/events")
        await gateway.until(lambda: gateway.is_over)


async def test_tokens_are_not_refused_while_the_hub_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that is told 401 would look for another key, and the others of its connection with it."""

    async def unavailable(*_: object, **__: object) -> None:
        raise WorkerLostError(worker="w1")

    async with a_world(tmp_path) as world:
        await a_device(world, "a")
        gateway = connect_as(Gateway, world, connections(world))
        await gateway.opened()
        with monkeypatch.context() as patch:
            patch.setattr(world.iothub.registry, "authenticate", unavailable)
            statuses = {await gateway.present("a") for _ in range(MAX_REFUSED_TOKENS + 1)}
        assert statuses == {503}
        assert await gateway.present("a") == 200


@pytest.mark.parametrize(("name", "is_right"), [("leaf", True), ("other", False)])
async def test_a_gateway_connects_the_devices_below_it(tmp_path: Path, name: str, *, is_right: bool) -> None:
    """IoT Edge presents its own token, and a chain for each device without one."""
    async with a_world(tmp_path) as world:
        edge = await a_device(world, "edge", is_edge=True)
        await a_device(world, "leaf", parent=edge)
        await a_device(world, "other")
        hub_module = await world.iothub.registry.modules.module(world.hub, "edge", "$edgeHub")
        key = hub_module.authentication.primary_key or KEY
        gateway = connect_as(Gateway, world, connections(world))
        await gateway.opened()
        assert await gateway.present("edge/$edgeHub", device_token(world, "edge/$edgeHub", key=key)) == 200
        handle = await gateway.link(name, "messages/events", auth_chain=f"{name};edge")
        if not is_right:
            assert gateway.refused[-1].code == "iothub.device_chain_invalid"
            return
        assert await gateway.settled(gateway.send_body(handle, b"from below")) == "accepted"
        assert await bodies(world, "leaf") == ["from below"]
        await world.iothub.registry.set_enabled(world.hub, "edge", is_enabled=False, actor="test")
        world.connections.recheck(DeviceChanged("main", "edge", is_off=True))
        await gateway.until(lambda: "leaf" not in world.connections.space("main").live)


# ---- what a review found


@asynccontextmanager
async def a_slow_start(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncio.Event]:
    """Hold new sessions back after they are live, until the event is set."""
    goes_on = asyncio.Event()

    async def wait(*_: object, **__: object) -> None:
        await goes_on.wait()

    with monkeypatch.context() as patched:
        patched.setattr(type(world.iothub.routes), "write_connection_event", wait)
        yield goes_on


@pytest.mark.parametrize("feature", ["messages/events", "methods/devicebound", "twin"])
async def test_a_device_that_ends_while_its_link_is_attached_has_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feature: str
) -> None:
    async with a_world(tmp_path) as world:
        gateway = connect_as(Gateway, world, connections(world), OF_DEVICE_1)
        gateway.begin()
        async with a_slow_start(world, monkeypatch) as goes_on:
            handle = gateway.attach(gateway.address("device-1", feature), receives=False)
            await gateway.until(lambda: "device-1" in world.connections.space("main").live)
            world.connections.recheck(DeviceChanged("main", "device-1", is_off=True))
            goes_on.set()
            await gateway.until(lambda: gateway.conditions() == ["amqp:link:detach-forced"])
        assert [one.handle for one in gateway.got(Detach)] == [handle]
        gateway.send_body(handle, b"too late")
        assert await bodies(world, "device-1") == []


async def below_a_gateway(world: World, chain: str, *names: str) -> Gateway:
    """Create gateways, the lowest device first in the chain, and connect that device by the highest."""
    parent = None
    for name in reversed(chain.split(";")[1:]):
        parent = await a_device(world, name, is_edge=True, parent=parent)
    await a_device(world, chain.partition(";")[0], parent=parent)
    top = chain.rpartition(";")[2]
    hub_module = await world.iothub.registry.modules.module(world.hub, top, "$edgeHub")
    gateway = connect_as(Gateway, world, connections(world))
    await gateway.opened()
    key = hub_module.authentication.primary_key or KEY
    assert await gateway.present(f"{top}/$edgeHub", device_token(world, f"{top}/$edgeHub", key=key)) == 200
    for name in names:
        await gateway.link(name, "messages/events", auth_chain=chain)
    return gateway


@pytest.mark.parametrize("changed", ["leaf", "middle", "top"])
async def test_a_change_anywhere_in_a_chain_ends_what_it_connects(tmp_path: Path, changed: str) -> None:
    async with a_world(tmp_path) as world:
        gateway = await below_a_gateway(world, "leaf;middle;top", "leaf")
        assert "leaf" in world.connections.space("main").live
        await world.iothub.registry.set_enabled(world.hub, changed, is_enabled=False, actor="test")
        world.connections.recheck(DeviceChanged("main", changed, is_off=True))
        assert "leaf" not in world.connections.space("main").live
        await gateway.link("leaf", "messages/events", auth_chain="leaf;middle;top")
        assert gateway.refused[-1].code in {"iothub.device_chain_invalid", "iothub.unknown_module"}


async def test_a_device_does_not_outlive_a_gateway_that_ends_while_it_connects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(tmp_path) as world:
        gateway = await below_a_gateway(world, "leaf;top")
        async with a_slow_start(world, monkeypatch) as goes_on:
            properties = {Symbol("com.microsoft:auth-chain"): "leaf;top"}
            gateway.attach(gateway.address("leaf", "messages/events"), receives=False, properties=properties)
            await gateway.until(lambda: "leaf" in world.connections.space("main").live)
            world.connections.recheck(DeviceChanged("main", "top/$edgeHub", is_off=False))
            goes_on.set()
            await gateway.until(lambda: "leaf" not in world.connections.space("main").live)
        assert "amqp:link:detach-forced" in gateway.conditions()


@pytest.mark.parametrize("correlation", [ULong(5), b"short", "no uuid", None])
async def test_a_response_to_no_call_leaves_the_connection(tmp_path: Path, correlation: object) -> None:
    async with a_gateway(tmp_path, "a") as (_, __, gateway):
        handle = await gateway.link("a", "methods/devicebound")
        properties = MessageProperties(correlation_id=correlation)
        gateway.transfer(handle, AmqpMessage(DataBody((b"{}",)), properties, {"IoThub-status": Int(200)}))
        await gateway.until(lambda: bool(gateway.refused))
        assert [error.code for error in gateway.refused] == ["iothub.device_amqp_request_invalid"]
        assert not gateway.is_over


async def test_a_second_link_for_messages_is_refused(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a") as (world, _, gateway):
        first = await gateway.link("a", "messages/devicebound", receives=True, credit=5)
        await gateway.link("a", "messages/devicebound", receives=True, credit=5)
        assert gateway.conditions() == ["amqp:resource-locked"]
        gateway.send(Detach(first, closed=True))
        assert "a" not in world.connections.space("main").live


async def test_a_renewed_token_of_a_policy_renews_its_devices(tmp_path: Path) -> None:
    async with a_gateway(tmp_path) as (world, _, gateway):
        await a_device(world, "a")
        assert await gateway.present("hub", token(world, "device", lasts=timedelta(minutes=1))) == 200
        handle = await gateway.link("a", "messages/events")
        assert await gateway.present("hub", token(world, "device", lasts=timedelta(days=1))) == 200
        world.clock.jump(timedelta(minutes=20))
        world.clock.move(timedelta(seconds=11))
        assert gateway.deadline is not None
        gateway.deadline()
        assert await gateway.settled(gateway.send_body(handle, b"still")) == "accepted"


async def test_a_session_by_a_policys_token_ends_with_the_policys_key(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a") as (world, _, gateway):
        of_policy = render_sas(
            f"{world.hub.host}/devices/a",
            hmac_sha256(world.hub.policies["device"][0]),
            world.clock.now() + timedelta(hours=1),
            "device",
        )
        assert await gateway.present("a", of_policy) == 200
        world.connections.recheck_policies(HubsChanged("main"))
        assert "a" not in world.connections.space("main").live


async def test_a_token_of_another_hub_renews_nothing(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a") as (world, _, gateway):
        other = await world.iothub.hubs.create("evil", "evil.example", actor="test")
        await world.iothub.registry.put(other, "a", wire.DeviceBody("a"), SAS, None, actor="test")
        text = render_sas("evil.example/devices/a", hmac_sha256(KEY), world.clock.now() + timedelta(days=365))
        assert await gateway.present("a", text) == 401
        assert gateway.refused[-1].code == "sas.wrong_resource"


async def test_a_call_without_credit_is_sent_when_it_comes_or_never(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a") as (world, _, gateway):
        handle = await gateway.link("a", "methods/devicebound", receives=True, channel_correlation_id="m:1")
        await gateway.link("a", "methods/devicebound", channel_correlation_id="m:2")  # a channel without a receiver
        methods, space = world.connections.methods, world.connections.space("main")
        calls = [
            asyncio.ensure_future(methods.call(space, CallMethod("main", "a", name, b"{}", 5)))
            for name in ("given up", "waits")
        ]
        await asyncio.sleep(0.05)
        calls[0].cancel()
        await asyncio.sleep(0.05)
        gateway.grant(handle, 10)
        await gateway.until(lambda: len(gateway.deliveries(handle)) == 1)
        ((_, message),) = gateway.deliveries(handle)
        assert message.application_properties == {"IoThub-methodname": "waits"}
        calls[1].cancel()
        gateway.send(Detach(handle, closed=True))
        await gateway.until(lambda: wire.METHODS not in space.live["a"].subscriptions)


async def test_a_connection_has_a_limited_number_of_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_devices, "MAX_DEVICES", 2)
    async with a_gateway(tmp_path, "a", "b") as (world, _, gateway):
        await a_device(world, "c")
        assert await gateway.present("c") == 401
        assert gateway.refused[-1].code == "iothub.too_many_device_tokens"
        assert sorted(world.connections.space("main").live) == ["a", "b"]
        assert await gateway.present("a") == 200, "it is renewed"
        handle = await gateway.link("a", "messages/events")
        gateway.send(Detach(handle, closed=True))
        world.clock.jump(timedelta(hours=2))
        assert await gateway.present("c") == 200, "in the place of one that has expired"


async def test_calls_go_on_when_their_link_is_attached_anew(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a") as (world, _, gateway):
        first = await gateway.link("a", "methods/devicebound", receives=True, credit=5)
        gateway.send(Detach(first, closed=True))
        handle = await gateway.link("a", "methods/devicebound", receives=True, credit=5)
        await asyncio.sleep(0.05)
        request = CallMethod("main", "a", "ping", b"{}", 5)
        calling = asyncio.ensure_future(world.connections.methods.call(world.connections.space("main"), request))
        await gateway.received(handle)
        calling.cancel()


async def test_throttled_telemetry_of_a_device_has_a_bound(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a") as (world, _, gateway):
        handle = await gateway.link("a", "messages/events")
        await world.iothub.hubs.set_tier("main", edition_of("F1"), actor="test")
        world.iothub.throttles.take(world.hub, ThrottleClass.TELEMETRY, 100)
        sent = [gateway.send_body(handle, b"x" * 200_000) for _ in range(10)]
        outcomes = [await gateway.settled(one) for one in sent[5:]]
        assert set(outcomes) == {"com.microsoft:device-container-throttled"}
        assert gateway.refused == []


async def test_refusals_of_a_known_connection_have_a_rate(tmp_path: Path) -> None:
    async with a_gateway(tmp_path, "a") as (world, _, gateway):
        for _ in range(MAX_REFUSED_TOKENS + 5):
            assert await gateway.present("victim", device_token(world, "victim", key=b"x" * 32)) == 401
        assert not gateway.is_over
        gateway.driver.engine.allowance.spend(3500)
        for _ in range(600):
            if gateway.is_over:
                break
            await gateway.present("victim", device_token(world, "victim", key=b"x" * 32))
        assert gateway.is_over


@asynccontextmanager
async def a_slow_reload(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Announce that the keys of policies may have changed; they are in memory at the end of the block."""
    goes_on, load = asyncio.Event(), world.iothub.hubs.load

    async def wait() -> None:
        await goes_on.wait()
        await load()

    with monkeypatch.context() as patched:
        patched.setattr(world.iothub.hubs, "load", wait)
        world.connections.recheck_policies(HubsChanged("main"))
        yield
        goes_on.set()
        await asyncio.sleep(0)


async def test_a_session_that_begins_with_an_outdated_policy_key_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key in memory is the old one from the event until the reload ends."""
    async with a_gateway(tmp_path) as (world, _, gateway):
        await a_device(world, "a")
        async with a_slow_reload(world, monkeypatch):
            assert await gateway.present("hub", token(world, "device")) == 200
            await gateway.link("a", "messages/events")
            assert "a" in world.connections.space("main").live
        await gateway.until(lambda: "a" not in world.connections.space("main").live)


async def test_a_session_renewed_with_an_outdated_policy_key_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_gateway(tmp_path, "a", "b") as (world, _, gateway):
        of_policy = render_sas(
            f"{world.hub.host}/devices/a",
            hmac_sha256(world.hub.policies["device"][0]),
            world.clock.now() + timedelta(hours=1),
            "device",
        )
        world.clock.move(timedelta(seconds=1))
        async with a_slow_reload(world, monkeypatch):
            assert await gateway.present("a", of_policy) == 200
            assert "a" in world.connections.space("main").live
        await gateway.until(lambda: "a" not in world.connections.space("main").live)
        assert "b" in world.connections.space("main").live


@pytest.mark.parametrize(("policy", "path", "status"), [("device", "twins", 401), ("iothubowner", "main", 200)])
async def test_a_token_of_a_policy_for_another_part_of_the_hub_connects_no_device(
    tmp_path: Path, policy: str, path: str, status: int
) -> None:
    async with a_gateway(tmp_path) as (world, _, gateway):
        await a_device(world, "a")
        sign, until = hmac_sha256(world.hub.policies[policy][0]), world.clock.now() + timedelta(hours=1)
        narrow = render_sas(f"{world.hub.host}/{path}", sign, until, policy)
        assert await gateway.present("hub", narrow) == status
        await gateway.link("a", "messages/events")
        assert gateway.conditions() == ["amqp:unauthorized-access"]


async def test_a_device_uses_its_own_token_rather_than_a_policys(tmp_path: Path) -> None:
    async with a_gateway(tmp_path) as (world, _, gateway):
        await a_device(world, "a")
        assert await gateway.present("hub", token(world, "device")) == 200
        assert await gateway.present("a") == 200
        gateway.send(Detach(await gateway.link("a", "messages/events"), closed=True))
        await gateway.link("a", "messages/events")
        world.connections.recheck_policies(HubsChanged("main"))
        assert "a" in world.connections.space("main").live


async def test_an_outage_does_not_count_as_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_gateway(tmp_path, "a") as (world, _, gateway):
        with monkeypatch.context() as patched:

            async def fail(*_: object, **__: object) -> None:
                raise WorkerLostError(worker="w1")

            patched.setattr(world.iothub.registry, "authenticate", fail)
            gateway.driver.engine.allowance.spend(3000)
            for _ in range(100):
                assert await gateway.present("a") >= 500
        assert not gateway.is_over
        assert await gateway.present("a") == 200


async def test_links_that_arrive_in_one_read_are_all_answered(tmp_path: Path) -> None:
    """Frames above the limit of held bytes wait as they were received, and are read as decisions are made."""
    names = [f"d{number}" for number in range(30)]
    async with a_gateway(tmp_path, *names) as (_, __, gateway):
        handles = range(gateway.handles, gateway.handles + len(names))
        padding = {Symbol("com.microsoft:client-version"): "x" * 2000}
        frames = [
            encode_frame(
                0,
                encode_performative(
                    Attach(
                        name,
                        handle,
                        SENDER,
                        source=Source("me"),
                        target=Target(gateway.address(name, "messages/events")),
                        initial_delivery_count=0,
                        properties=padding,
                    )
                ),
            )
            for name, handle in zip(names, handles, strict=True)
        ]
        gateway.driver.data_received(b"".join(frames))
        await gateway.until(lambda: all(gateway.is_decided(handle) for handle in handles))
        assert not gateway.conditions()


async def test_a_link_in_a_wrong_direction_leaves_no_session(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        gateway = connect_as(Gateway, world, connections(world), OF_DEVICE_1)
        gateway.begin()
        await gateway.link("device-1", "messages/devicebound")
        assert gateway.conditions() == ["amqp:not-found"]
        assert not world.connections.space("main").live


async def test_edgehub_attaches_the_links_of_its_devices_under_the_same_names(tmp_path: Path) -> None:
    """The pattern of IoT Edge's edgeHub and the SDK for .NET, by their sources; neither is run here.

    Addresses are URLs, tokens have the type of .NET, link names repeat, and messages to a device are settled twice.
    """
    async with a_world(tmp_path) as world:
        edge = await a_device(world, "edge", is_edge=True)
        hub_module = await world.iothub.registry.modules.module(world.hub, "edge", "$edgeHub")
        names = ["edge/$edgeHub", "child-1", "child-2"]
        for name in names[1:]:
            await a_device(world, name, parent=edge)
        gateway = connect_as(Gateway, world, connections(world))
        await gateway.opened()
        keys = {names[0]: hub_module.authentication.primary_key or KEY}
        for name in names:
            path = wire.own_topics(name).rstrip("/").replace("$", "%24")
            text = render_sas(
                f"{world.hub.host}/{path}", hmac_sha256(keys.get(name, KEY)), world.clock.now() + timedelta(hours=1)
            )
            audience = f"amqps://{world.hub.host}:5671/{path}"
            assert await gateway.present(audience, text, kind="azure-devices.net:sastoken") == 200

        def attach(suffix: str, name: str, feature: str, *, receives: bool = False, **fields: Any) -> int:
            address = f"amqps://{world.hub.host}:5671{gateway.address(name, feature)}"
            properties = {
                Symbol("com.microsoft:client-version"): "2.7.3",
                Symbol("com.microsoft:channel-correlation-id"): f"{feature}:{name}",
            }
            return gateway.attach(address, receives=receives, credit=50, name=suffix, properties=properties, **fields)

        for name in names:
            telemetry = attach("TelemetrySenderLink", name, "messages/events")
            twin = attach("TwinSenderLink", name, "twin", snd_settle_mode=1)
            answers = attach("TwinReceiverLink", name, "twin", receives=True, snd_settle_mode=1)
            attach("MethodsSenderLink", name, "methods/devicebound", snd_settle_mode=1)
            calls = attach("MethodsReceiverLink", name, "methods/devicebound", receives=True, snd_settle_mode=1)
            mail = attach("C2DReceiverLink", name, "messages/devicebound", receives=True, rcv_settle_mode=1)
            await gateway.decided(mail)
            assert gateway.conditions() == []
            assert await gateway.settled(gateway.send_body(telemetry, name.encode())) == "accepted"
            get = AmqpMessage(
                None, MessageProperties(correlation_id=UUID(int=1)), message_annotations={Symbol("operation"): "GET"}
            )
            gateway.transfer(twin, get)
            await gateway.received(answers)
            request = CallMethod("main", name, "ping", b"null", 5)
            calling = asyncio.ensure_future(world.connections.methods.call(world.connections.space("main"), request))
            await gateway.received(calls)
            calling.cancel()
        await send_mail(world, "child-1", "open")
        handle = next(
            one.handle
            for one in gateway.got(Attach)
            if one.source is not None and "child-1/messages/dev" in str(one.source.address)
        )
        await gateway.until(lambda: len(gateway.deliveries(handle)) == 1)
        delivery_id = gateway.deliveries(handle)[0][0].delivery_id or 0
        gateway.send(Disposition(RECEIVER, delivery_id, settled=False, state=ACCEPTED))
        assert await gateway.settled(delivery_id) == "accepted"
        assert sorted(world.connections.space("main").live) == ["child-1", "child-2", "edge/$edgeHub"]
