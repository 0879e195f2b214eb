"""A hub's AMQP connection, frame by frame: claims, readers, requests, messages to devices, feedback."""

import asyncio
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from birthmark.amqp.message import (
    BATCH_FORMAT,
    AmqpMessage,
    DataBody,
    MessageHeader,
    MessageProperties,
    ValueBody,
    write_batch,
    write_message,
)
from birthmark.amqp.performatives import (
    ACCEPTED,
    RECEIVER,
    RELEASED,
    Attach,
    Close,
    Detach,
    Disposition,
    Flow,
    RejectedOutcome,
    Transfer,
)
from birthmark.amqp.values import Symbol, ULong
from birthmark.broker.rules.stream_partitions_and_positions import key_of, partition_of
from birthmark.iothub.amqp.c2d_links import MAX_UNSETTLED
from birthmark.iothub.amqp.claims import MAX_CLAIMS
from birthmark.iothub.amqp.connection import MAX_LINKS_WITHOUT_TOKEN, MAX_REFUSED_TOKENS
from birthmark.iothub.amqp.partition_reader_links import MAX_READERS
from birthmark.iothub.model import C2dMessage, TelemetryMessage, space_of
from birthmark.net.amqp_driver import AUTHENTICATION_S, NEXT_TOKEN_S
from support.azure.amqp_world import (
    BackEnd,
    connect,
    connections,
    event_hubs_token,
    from_filter,
    partition_address,
    token,
)
from support.azure.hub_world import World, a_world

pytestmark = pytest.mark.integration
DEVICE = "device-1"
PARTITION = partition_of(key_of(DEVICE))


async def send(world: World, *bodies: str) -> None:
    at = world.clock.micros()
    messages = [TelemetryMessage(DEVICE, at, body.encode(), {}, {}) for body in bodies]
    await world.iothub.telemetry.write(world.hub, key_of(DEVICE), messages, 10)


async def a_reader(world: World, *, credit: int = 100, **fields: Any) -> BackEnd:
    back_end = connect(world, connections(world))
    await back_end.claimed(event_hubs_token(world))
    back_end.attach(partition_address(world, PARTITION), receives=True, credit=credit, **fields)
    return back_end


def has_statuses(back_end: BackEnd, *statuses: int) -> bool:
    return back_end.statuses() == [*statuses]


def has_answers(back_end: BackEnd, count: int) -> bool:
    return len(back_end.statuses()) == count


def is_attached(back_end: BackEnd) -> bool:
    return len(back_end.got(Attach)) == 1


# ---- an unauthenticated client


def manage(back_end: BackEnd, security_token: str | None = None, *, times: int = 1) -> None:
    """Read the properties of the hub's entity."""
    asks = back_end.attach("$management", receives=False)
    back_end.attach("$management", receives=True, credit=100)
    asked = {"operation": "READ", "type": "com.microsoft:eventhub", "name": "main"}
    if security_token is not None:
        asked["security_token"] = security_token
    for _ in range(times):
        back_end.transfer(asks, AmqpMessage(None, MessageProperties(message_id="1"), asked))


async def test_who_does_not_authenticate_in_time_is_disconnected(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        back_end = connect(world, connections(world))
        back_end.begin()
        world.clock.move(timedelta(seconds=AUTHENTICATION_S + 1))
        assert back_end.deadline is not None
        back_end.deadline()
        assert back_end.is_over
        assert [error.code for error in back_end.refused] == ["amqp.protocol_error"]


async def test_who_presented_a_wrong_token_has_time_for_another_one(tmp_path: Path) -> None:
    """Azure's SDK for Node.js repeats it every 30 s, and failed where the server closed the connection meanwhile."""
    async with a_world(tmp_path) as world:
        back_end = connect(world, connections(world))
        back_end.begin()
        back_end.claim(token(world, key=b"x" * 32))
        await back_end.until(partial(has_statuses, back_end, 401))
        assert back_end.deadline is not None
        world.clock.move(timedelta(seconds=AUTHENTICATION_S + 1))
        back_end.deadline()
        assert not back_end.is_over
        world.clock.move(timedelta(seconds=NEXT_TOKEN_S))
        back_end.deadline()
        assert back_end.is_over
        assert "amqp.protocol_error" not in [error.code for error in back_end.refused]


@pytest.mark.parametrize(
    ("address", "receives"),
    [
        ("main/ConsumerGroups/$Default/Partitions/0", True),
        ("messages/events/$management", True),
        ("messages/devicebound", False),
        ("messages/servicebound/feedback", True),
        ("messages/servicebound/filenotifications", True),
    ],
)
async def test_without_a_token_no_link_is_attached(tmp_path: Path, address: str, receives: bool) -> None:
    async with a_world(tmp_path) as world:
        back_end = connect(world, connections(world))
        back_end.begin()
        back_end.attach(address, receives=receives)
        await back_end.until(lambda: back_end.conditions() == ["amqp:unauthorized-access"])
        assert [error.code for error in back_end.refused] == ["iothub.amqp_not_authorized"]


async def test_a_management_request_may_present_the_token(tmp_path: Path) -> None:
    """Azure's Event Hubs SDK for Java attaches to `$management` before it presents a token to `$cbs`."""
    async with a_world(tmp_path) as world:
        back_end = connect(world, connections(world))
        back_end.begin()
        manage(back_end, token(world))
        await back_end.until(lambda: back_end.statuses() == [200])


@pytest.mark.parametrize("wrong", [True, False])
async def test_a_management_request_without_a_valid_token_is_refused(tmp_path: Path, wrong: bool) -> None:
    async with a_world(tmp_path) as world:
        back_end = connect(world, connections(world))
        back_end.begin()
        manage(back_end, token(world, key=b"x" * 32) if wrong else None)
        await back_end.until(lambda: back_end.statuses() == [401])
        assert [error.code for error in back_end.refused] == [
            "sas.signature_mismatch" if wrong else "iothub.amqp_not_authorized"
        ]


async def test_refused_management_requests_without_end_close_the_connection(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        back_end = connect(world, connections(world))
        back_end.begin()
        manage(back_end, times=MAX_REFUSED_TOKENS)
        await back_end.until(lambda: back_end.is_over)


async def test_answers_that_nobody_takes_end_their_link_alone(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        back_end = connect(world, connections(world))
        back_end.begin()
        asks = back_end.attach("$cbs", receives=False)
        back_end.attach("$cbs", receives=True)
        for _ in range(60):
            back_end.transfer(asks, AmqpMessage(ValueBody("x"), application_properties={"operation": "none"}))
        await back_end.until(lambda: len(back_end.got(Detach)) == 1)
        assert not back_end.is_over


@pytest.mark.parametrize(
    ("text", "code", "status"),
    [
        ("eyJ0eXAi", "iothub.amqp_token_type", 401),
        ("SharedAccessSignature sr=x", "sas.malformed", 401),
        ("SharedAccessSignature sr=other.example&sig=AAAA&se=99999999999&skn=service", "iothub.unknown_hub", 401),
    ],
)
async def test_another_token_is_refused(tmp_path: Path, text: str, code: str, status: int) -> None:
    async with a_world(tmp_path) as world:
        back_end = connect(world, connections(world))
        back_end.begin()
        back_end.claim(text, "jwt")
        await back_end.until(lambda: back_end.statuses() == [status])
        assert [error.code for error in back_end.refused] == [code]


async def test_a_wrong_key_is_refused(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        for text in (token(world, policy="device", key=b"x" * 32), token(world, key=b"x" * 32)):
            back_end = connect(world, connections(world))
            back_end.begin()
            back_end.claim(text)
            await back_end.until(partial(has_statuses, back_end, 401))


async def test_a_connection_has_a_limited_number_of_tokens(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        back_end = connect(world, connections(world))
        back_end.begin()
        asks = back_end.attach("$cbs", receives=False)
        back_end.attach("$cbs", receives=True, credit=1000)
        for number in range(MAX_CLAIMS + 1):
            asked = {"operation": "put-token", "type": "x", "name": str(number)}
            back_end.transfer(asks, AmqpMessage(ValueBody(token(world)), application_properties=asked))
            await back_end.until(partial(has_answers, back_end, number + 1))
        assert back_end.statuses()[-1] == 401
        assert set(back_end.statuses()[:-1]) == {200}


# ---- readers


async def test_stored_and_new_events_arrive_settled_and_in_order(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await send(world, "1", "2")
        back_end = await a_reader(world)
        await back_end.until(lambda: back_end.bodies() == ["1", "2"])
        await send(world, "3")
        await back_end.until(lambda: back_end.bodies() == ["1", "2", "3"])
        assert all(one.settled for one in back_end.got(Transfer))
        numbers = [one.message_annotations[Symbol("x-opt-sequence-number")] for one in back_end.messages()]
        assert numbers == [0, 1, 2]


async def test_a_reader_gets_no_more_than_its_credit(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await send(world, *"12345")
        back_end = await a_reader(world, credit=2)
        await back_end.until(lambda: back_end.bodies() == ["1", "2"])
        await asyncio.sleep(0.1)
        assert back_end.bodies() == ["1", "2"]
        back_end.grant(2, 2, count=2)
        await back_end.until(lambda: back_end.bodies() == ["1", "2", "3", "4"])


async def test_a_drained_link_is_answered_at_once(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await send(world, "1")
        back_end = await a_reader(world, credit=1)
        await back_end.until(lambda: back_end.bodies() == ["1"])
        back_end.heard.clear()
        back_end.grant(2, 5, count=1, drain=True)
        await back_end.until(lambda: bool(back_end.got(Flow)))
        (flow,) = [one for one in back_end.got(Flow) if one.handle == 2]
        assert (flow.link_credit, flow.delivery_count) == (0, 6)


@pytest.mark.parametrize(
    ("text", "bodies"),
    [
        ("amqp.annotation.x-opt-offset > '@latest'", ["new"]),
        ("amqp.annotation.x-opt-sequence-number > '0'", ["2", "new"]),
        ("amqp.annotation.x-opt-enqueued-time > '0'", ["1", "2", "new"]),
    ],
)
async def test_a_reader_begins_where_its_filter_says(tmp_path: Path, text: str, bodies: list[str]) -> None:
    async with a_world(tmp_path) as world:
        await send(world, "1", "2")
        address = partition_address(world, PARTITION)
        back_end = await a_reader(world, source=from_filter(address, text))
        await back_end.until(lambda: len(back_end.got(Attach)) == 1)
        await send(world, "new")
        await back_end.until(lambda: back_end.bodies() == bodies)


@pytest.mark.parametrize(
    ("address", "fields", "code"),
    [
        ("main/ConsumerGroups/none/Partitions/0", {}, "iothub.unknown_consumer_group"),
        ("main/ConsumerGroups/$Default/Partitions/9", {}, "iothub.unknown_partition"),
        ("other/ConsumerGroups/$Default/Partitions/0", {}, "iothub.entity_not_of_hub"),
        (
            "main/ConsumerGroups/$Default/Partitions/0",
            {"properties": {"com.microsoft:epoch": "x"}},
            "iothub.event_reader_invalid",
        ),
        (
            "main/ConsumerGroups/$Default/Partitions/0",
            {"properties": {"com.microsoft:epoch": True}},
            "iothub.event_reader_invalid",
        ),
        ("devices/device-1/messages/devicebound", {}, "iothub.no_credentials"),
    ],
)
async def test_another_address_is_refused(
    tmp_path: Path, address: str, fields: dict[str, dict[str, Any]], code: str
) -> None:
    async with a_world(tmp_path) as world:
        back_end = connect(world, connections(world))
        await back_end.claimed(token(world))
        given: dict[str, Any] = {
            name: {Symbol(key): one for key, one in pairs.items()} for name, pairs in fields.items()
        }
        back_end.attach(address, receives=True, **given)
        await back_end.until(lambda: len(back_end.conditions()) == 1)
        assert [error.code for error in back_end.refused] == [code]
        (detach,) = back_end.got(Detach)
        assert detach.error is not None
        assert detach.error.info == {Symbol("com.microsoft:tracking-id"): "tracking-1"}


@pytest.mark.parametrize(
    "selector",
    [
        "site = 'north'",
        5,
        ["amqp.annotation.x-opt-offset > '1'"],
        "amqp.annotation.x-opt-offset > '9999999999999999999'",
        "amqp.annotation.x-opt-offset > '999999'",
        "amqp.annotation.x-opt-sequence-number > '1'",
    ],
)
async def test_an_invalid_filter_is_refused(tmp_path: Path, selector: Any) -> None:
    """Also a position after the end: Event Hubs refuses it, and a checkpoint of another server would wait forever."""
    async with a_world(tmp_path) as world:
        await send(world, "1")
        back_end = await a_reader(world, source=from_filter(partition_address(world, PARTITION), selector))
        await back_end.until(lambda: back_end.conditions() == ["com.microsoft:argument-error"])


async def test_a_partition_has_a_limited_number_of_readers(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        shared = connections(world)
        readers = [connect(world, shared) for _ in range(MAX_READERS + 1)]
        for reader in readers:
            await reader.claimed(token(world))
            reader.attach(partition_address(world, PARTITION), receives=True, credit=1)
        await readers[-1].until(lambda: readers[-1].conditions() == ["amqp:resource-limit-exceeded"])
        readers[0].driver.connection_lost(None)
        readers[-1].attach(partition_address(world, PARTITION), receives=True, credit=1)
        await send(world, "1")
        await readers[-1].until(lambda: readers[-1].bodies() == ["1"])


async def test_a_link_ends_with_its_token(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        back_end = connect(world, connections(world))
        await back_end.claimed(token(world, lasts=timedelta(minutes=1)))
        back_end.attach(partition_address(world, PARTITION), receives=True, credit=1)
        await back_end.until(lambda: len(back_end.got(Attach)) == 1)
        world.clock.move(timedelta(minutes=7))  # five more are for clocks that differ
        assert back_end.deadline is not None
        back_end.deadline()
        await back_end.until(lambda: back_end.conditions() == ["amqp:unauthorized-access"])


async def test_a_link_ends_with_its_key_and_with_its_hub(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        shared = connections(world)
        first, second = connect(world, shared), connect(world, shared)
        await first.claimed(token(world))
        await second.claimed(token(world, policy="iothubowner"))
        for reader in (first, second):
            reader.attach(partition_address(world, PARTITION), receives=True, credit=1)
            await reader.until(partial(is_attached, reader))
        await world.iothub.hubs.rotate("main", "service", "primary", actor="test")
        shared.recheck_soon(None)
        await first.until(lambda: first.conditions() == ["amqp:unauthorized-access"])
        assert second.conditions() == []
        await world.iothub.hubs.delete("main", actor="test")
        shared.recheck_soon(None)
        await second.until(lambda: len(second.conditions()) == 1)


async def test_a_reader_that_stops_costs_a_bounded_amount(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        for _ in range(20):
            await send(world, *["x" * 10_000] * 30)
        back_end = await a_reader(world, credit=1)
        await back_end.until(lambda: len(back_end.bodies()) == 1)
        back_end.driver.pause_writing()
        back_end.grant(2, 2000, count=1)
        await asyncio.sleep(0.3)
        assert len(back_end.bodies()) < 50
        back_end.driver.resume_writing()
        await back_end.until(lambda: len(back_end.bodies()) == 600)


# ---- exclusive readers, also of two workers


def exclusive(epoch: int) -> dict[str, Any]:
    return {"properties": {Symbol("com.microsoft:epoch"): epoch}}


async def test_a_higher_epoch_replaces_a_reader_of_another_worker(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        first, second = connect(world, connections(world, "a")), connect(world, connections(world, "b", seed=2))
        for reader, epoch in ((first, 1), (second, 2)):
            await reader.claimed(token(world))
            reader.attach(partition_address(world, PARTITION), receives=True, credit=5, **exclusive(epoch))
            await reader.until(partial(is_attached, reader))
        world.clock.move(timedelta(seconds=11))  # no event arrived: the reader looks by itself
        await send(world, "1")
        await first.until(lambda: first.conditions() == ["amqp:link:stolen"])
        await second.until(lambda: second.bodies() == ["1"])
        assert first.bodies() == []


async def test_the_exclusive_readers_of_a_dead_worker_end(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        dead = connect(world, connections(world, "a"))
        await dead.claimed(token(world))
        dead.attach(partition_address(world, PARTITION), receives=True, credit=5, **exclusive(7))
        await dead.until(lambda: len(dead.got(Attach)) == 1)
        await world.iothub.free_held("a")
        other = connect(world, connections(world, "b", seed=2))
        await other.claimed(token(world))
        other.attach(partition_address(world, PARTITION), receives=True, credit=5)
        await send(world, "1")
        await other.until(lambda: other.bodies() == ["1"])


# ---- messages to devices


async def queued(world: World) -> list[C2dMessage]:
    letters = await world.iothub.c2d.inboxes.letters(space_of("main"), DEVICE)
    return [world.iothub.c2d.mail_of(letter) for letter in letters]


async def a_service(world: World) -> tuple[BackEnd, int]:
    back_end = connect(world, connections(world))
    await back_end.claimed(token(world))
    return back_end, back_end.attach("/messages/devicebound", receives=False)


def to(device: str = DEVICE, **fields: object) -> MessageProperties:
    return MessageProperties(to=f"/devices/{device}/messages/devicebound", **fields)  # type: ignore[arg-type]


def outcomes(back_end: BackEnd) -> list[str]:
    found = [one for one in back_end.got(Disposition) if one.role is RECEIVER]
    told = []
    for one in found:
        state = one.state
        told.append(str(state.error.condition) if isinstance(state, RejectedOutcome) and state.error else "accepted")
    return told


async def test_a_message_is_accepted_after_it_is_stored(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        back_end, link = await a_service(world)
        properties = to(message_id=ULong(7), correlation_id="c", content_type=Symbol("text/plain"))
        message = AmqpMessage(DataBody((b"he", b"llo")), properties, {"site": "north", "n": 5, "on": True})
        back_end.transfer(link, message)
        await back_end.until(lambda: outcomes(back_end) == ["accepted"])
        (mail,) = await queued(world)
        assert mail.payload == b"hello"
        assert mail.properties == {"site": "north", "n": "5", "on": "true"}
        assert (mail.system["$.cid"], mail.system["$.ct"]) == ("c", "text/plain")


@pytest.mark.parametrize(
    ("message", "outcome", "code"),
    [
        (AmqpMessage(None, to("nobody")), "amqp:not-found", "iothub.unknown_device"),
        (AmqpMessage(None, MessageProperties(to="/x")), "com.microsoft:argument-error", "iothub.c2d_amqp_invalid"),
        (
            AmqpMessage(None, MessageProperties(to=f"/devices/{DEVICE}/modules/m/messages/devicebound")),
            "com.microsoft:argument-error",
            "iothub.c2d_amqp_invalid",
        ),
        (AmqpMessage(DataBody((b"x" * 70_000,)), to()), "com.microsoft:argument-error", "iothub.c2d_invalid"),
        (AmqpMessage(ValueBody([1]), to()), "com.microsoft:argument-error", "iothub.c2d_amqp_invalid"),
        (AmqpMessage(None, to(), {"a": [1]}), "com.microsoft:argument-error", "iothub.c2d_amqp_invalid"),
        (AmqpMessage(None, to(), {"$.to": "/devices/x"}), "com.microsoft:argument-error", "iothub.c2d_invalid"),
        (
            AmqpMessage(None, to(absolute_expiry_time=1)),
            "com.microsoft:argument-error",
            "iothub.c2d_invalid",
        ),
        (b"\x00\x53\x75\xa0\xff", "com.microsoft:argument-error", "iothub.c2d_amqp_invalid"),
    ],
)
async def test_an_invalid_message_is_rejected_and_the_next_one_accepted(
    tmp_path: Path, message: AmqpMessage | bytes, outcome: str, code: str
) -> None:
    async with a_world(tmp_path) as world:
        back_end, link = await a_service(world)
        back_end.transfer(link, message)
        back_end.transfer(link, AmqpMessage(DataBody((b"next",)), to()))
        await back_end.until(lambda: outcomes(back_end) == [outcome, "accepted"])
        assert [error.code for error in back_end.refused] == [code]
        assert [one.payload for one in await queued(world)] == [b"next"]


async def test_a_batch_for_devices_is_rejected(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        back_end, link = await a_service(world)
        batch = write_batch((write_message(AmqpMessage(None, to())),))
        back_end.send(Transfer(link, 0, b"t", BATCH_FORMAT, settled=False), batch)
        await back_end.until(lambda: outcomes(back_end) == ["com.microsoft:argument-error"])
        assert [error.code for error in back_end.refused] == ["iothub.c2d_amqp_invalid"]
        assert await queued(world) == []


async def test_a_time_to_live_is_an_expiry(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        back_end, link = await a_service(world)
        back_end.transfer(link, AmqpMessage(None, to(), header=MessageHeader(ttl=60_000)))
        await back_end.until(lambda: outcomes(back_end) == ["accepted"])
        (letter,) = await world.iothub.c2d.inboxes.letters(space_of("main"), DEVICE)
        assert letter.expires_at == letter.enqueued_at + 60_000_000


async def test_a_full_queue_rejects(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        back_end, link = await a_service(world)
        for _ in range(51):
            back_end.transfer(link, AmqpMessage(None, to()))
            if back_end.delivery_id % 20 == 0:
                await asyncio.sleep(0.1)
        await back_end.until(lambda: "amqp:resource-limit-exceeded" in outcomes(back_end))


# ---- feedback


async def feedback(world: World, count: int) -> None:
    """Purge messages whose sender wants to know."""
    for number in range(count):
        mail = C2dMessage(b"x", {}, {})
        await world.iothub.c2d.send(
            world.hub, DEVICE, mail, message_id=f"m{number}", feedback="full", expiry=None, actor="test"
        )
        await world.iothub.c2d.inboxes.purge(space_of("main"), DEVICE)


async def a_listener(world: World, credit: int = 100) -> BackEnd:
    back_end = connect(world, connections(world))
    await back_end.claimed(token(world))
    back_end.attach("/messages/serviceBound/feedback", receives=True, credit=credit)
    return back_end


def settle(back_end: BackEnd, delivery_id: int, state: object = ACCEPTED, *, settled: bool = True) -> None:
    back_end.send(Disposition(RECEIVER, delivery_id, delivery_id, settled, state))


async def left(world: World) -> list[tuple[str | None, int]]:
    letters = await world.iothub.c2d.feedback.letters(space_of("main"), "/feedback")
    return [(letter.lock, letter.deliveries) for letter in letters]


async def test_feedback_waits_for_its_outcome(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await feedback(world, 2)
        back_end = await a_listener(world)
        await back_end.until(lambda: len(back_end.bodies()) == 2)
        tags = [one.delivery_tag for one in back_end.got(Transfer)]
        assert all(tag is not None and len(tag) == 16 for tag in tags)
        ids = [one.delivery_id for one in back_end.got(Transfer)]
        settle(back_end, ids[0] or 0)
        settle(back_end, ids[1] or 0, settled=False)
        async with asyncio.timeout(5):
            while await left(world):
                await asyncio.sleep(0.01)
        confirmed = [one for one in back_end.got(Disposition) if one.role is not RECEIVER]
        assert [(one.first, one.settled) for one in confirmed] == [(ids[1], True)]


async def test_released_feedback_is_delivered_again_with_a_raised_count(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await feedback(world, 1)
        back_end = await a_listener(world, credit=2)
        await back_end.until(lambda: len(back_end.bodies()) == 1)
        settle(back_end, back_end.got(Transfer)[0].delivery_id or 0, RELEASED)
        await back_end.until(lambda: len(back_end.bodies()) == 2)
        assert [count for _, count in await left(world)] == [2]


async def test_unsettled_feedback_returns_when_the_line_ends(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await feedback(world, 3)
        back_end = await a_listener(world)
        await back_end.until(lambda: len(back_end.bodies()) == 3)
        back_end.driver.connection_lost(None)
        async with asyncio.timeout(5):
            while {lock for lock, _ in await left(world)} != {None}:
                await asyncio.sleep(0.01)


async def test_a_listener_has_a_limited_number_of_unsettled_messages(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await feedback(world, MAX_UNSETTLED + 1)
        back_end = await a_listener(world, credit=1000)
        await back_end.until(lambda: len(back_end.bodies()) == MAX_UNSETTLED)
        await asyncio.sleep(0.1)
        assert len(back_end.bodies()) == MAX_UNSETTLED
        settle(back_end, back_end.got(Transfer)[0].delivery_id or 0)
        await back_end.until(lambda: len(back_end.bodies()) == MAX_UNSETTLED + 1)


async def test_new_feedback_reaches_a_waiting_listener(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        back_end = await a_listener(world)
        await back_end.until(lambda: len(back_end.got(Attach)) == 1)
        await asyncio.sleep(0.1)
        await feedback(world, 1)
        await back_end.until(lambda: len(back_end.bodies()) == 1)


# ---- the connection


async def test_half_deliveries_are_bounded_for_all_links(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        back_end, _ = await a_service(world)
        links = [back_end.attach("/messages/devicebound", receives=False) for _ in range(200)]
        for number, link in enumerate(links):
            back_end.send(Transfer(link, number, b"t", 0, settled=False, more=True), b"x" * 60_000)
            assert back_end.driver.engine.buffered < 9_000_000
        await back_end.until(lambda: back_end.conditions()[:1] == ["amqp:resource-limit-exceeded"])
        assert not back_end.is_over
        assert len(back_end.conditions()) < 200


async def test_a_lost_connection_keeps_no_buffers(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        back_end, link = await a_service(world)
        back_end.send(Transfer(link, 0, b"t", 0, settled=False, more=True), b"x" * 60_000)
        assert back_end.driver.engine.buffered >= 60_000
        back_end.driver.connection_lost(None)
        assert back_end.driver.engine.buffered == 0
        assert not back_end.driver.engine.sessions


async def test_a_large_attach_is_refused(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        back_end, _ = await a_service(world)
        back_end.attach("$management", receives=True, properties={Symbol(f"p{n}"): "x" * 100 for n in range(100)})
        await back_end.until(lambda: back_end.is_over)


async def test_few_links_are_attached_without_a_token(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        back_end = connect(world, connections(world))
        back_end.begin()
        for _ in range(MAX_LINKS_WITHOUT_TOKEN + 1):
            back_end.attach("$cbs", receives=True)
        await back_end.until(lambda: back_end.conditions() == ["amqp:unauthorized-access"])


async def test_refused_tokens_without_end_close_the_connection(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        back_end = connect(world, connections(world))
        back_end.begin()
        asks = back_end.attach("$cbs", receives=False)
        back_end.attach("$cbs", receives=True, credit=100)
        for _ in range(MAX_REFUSED_TOKENS):
            asked = {"operation": "put-token", "type": "x", "name": "x"}
            back_end.transfer(asks, AmqpMessage(ValueBody("x"), application_properties=asked))
        await back_end.until(lambda: back_end.is_over)


async def test_links_of_one_resource_are_rechecked_by_one_verification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(tmp_path) as world:
        shared = connections(world)
        back_end = connect(world, shared)
        await back_end.claimed(token(world))
        for _ in range(20):
            back_end.attach("/messages/devicebound", receives=False)
        await back_end.until(lambda: len(back_end.got(Attach)) == 20)
        calls, authorize = [], world.iothub.hubs.authorize

        def counted(*given: Any, **more: Any) -> str:
            calls.append(given)
            return authorize(*given, **more)

        monkeypatch.setattr(world.iothub.hubs, "authorize", counted)
        (connection,) = shared.live
        connection.recheck()
        assert len(calls) == 1


async def test_revoked_credit_returns_feedback_to_its_queue(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        await feedback(world, 30)
        back_end = await a_listener(world, credit=1)
        for _ in range(10):
            back_end.grant(2, 5, count=len(back_end.bodies()))
            await asyncio.sleep(0)
            back_end.grant(2, 0, count=len(back_end.bodies()))
            await asyncio.sleep(0.01)
        back_end.grant(2, 100, count=len(back_end.bodies()))
        await back_end.until(lambda: len(back_end.bodies()) == 30)
        assert back_end.conditions() == []
        assert {count for _, count in await left(world)} == {1}


async def test_any_bytes_after_authentication_end_only_the_connection(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        back_end = await a_reader(world)
        back_end.driver.data_received(b"\x00\x00\x00\x09\x02\x00\x00\x00\xff")
        await back_end.until(lambda: back_end.is_over)
        assert len(back_end.got(Close)) == 1
        assert [error.code for error in back_end.refused] == ["amqp.protocol_error"]
