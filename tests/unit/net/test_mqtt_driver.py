"""The pump renders a room's words for the level of the client, and tells the room how it ended."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import count
from typing import cast

import pytest

from birthmark.errors import BirthmarkError, ForbiddenError, InvalidRequestError, ThrottledError, UnavailableError
from birthmark.mqtt import codec
from birthmark.mqtt.encoded_message import EncodedMessage
from birthmark.mqtt.engine import DISCARDED
from birthmark.mqtt.packet_framer import Framer
from birthmark.mqtt.packets import (
    LEVEL_3_1_1,
    LEVEL_5,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    PubAck,
    Publish,
    SubAck,
    Subscribe,
    Unsubscribe,
)
from birthmark.mqtt.properties import Properties, PropertyId
from birthmark.mqtt.reason_codes import ReasonCode
from birthmark.net import fair_scheduler, mqtt_driver
from birthmark.net.fair_scheduler import SLICE_S, TURN_S
from birthmark.net.mqtt_driver import MqttDriver, _TickFlush
from birthmark.net.mqtt_service_interface import (
    Admission,
    CloseReason,
    MqttProtocolError,
    MqttRefusedError,
    reason_of,
    require_3_1_1,
)
from birthmark.net.send_buffer_quota import SMALL_BYTES
from support.fakes import FakeClock

P = PropertyId
GRANTED = {
    P.RECEIVE_MAXIMUM: 100,
    P.MAXIMUM_QOS: 1,
    P.RETAIN_AVAILABLE: 1,
    P.MAXIMUM_PACKET_SIZE: 270_336,
    P.TOPIC_ALIAS_MAXIMUM: 8,
    P.WILDCARD_SUBSCRIPTION_AVAILABLE: 1,
    P.SUBSCRIPTION_IDS_AVAILABLE: 0,
    P.SHARED_SUBSCRIPTION_AVAILABLE: 1,
    P.SERVER_KEEP_ALIVE: 60,
}


async def test_what_very_many_are_to_be_sent_is_written_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks, written = count(step=SLICE_S), []
    monkeypatch.setattr(mqtt_driver, "now", lambda: next(ticks))

    class Receiver:
        address = ""

        def flush_alone(self) -> None:
            written.append(self)

    turn, receivers = _TickFlush.running(), [Receiver() for _ in range(100)]
    for one in receivers:
        turn.add(cast("MqttDriver", one))
    while len(written) < 100:
        before = len(written)
        await asyncio.sleep(0)
        assert 0 < len(written) - before <= TURN_S / SLICE_S + 1
    assert written == receivers


async def test_much_that_is_to_be_sent_waits_for_no_turn_as_nobody_counts_it_there() -> None:
    world = World()
    driver = await world.connected()
    world.said.clear()
    parcel = EncodedMessage("t", b"x" * 40_000)
    for number in range(1, 11):
        driver.deliver(parcel)
        assert number * 40_000 - len(world.said) < SMALL_BYTES
    await settled()
    assert [type(one) for one in world.answers()] == [Publish] * 10


async def test_a_connection_that_cannot_be_written_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    world, other = World(), World()
    drivers = [await world.connected(), await other.connected()]
    monkeypatch.setattr(world, "write", lambda _: 1 / 0)
    for one in drivers:
        one.deliver(EncodedMessage("t", b"x" * 100_000))
    await settled()
    assert (world.is_closed, other.is_closed) == (True, False)
    assert isinstance(other.answers()[-1], Publish)


@pytest.mark.parametrize("keep", [0, 3600])
async def test_a_connection_that_is_over_holds_no_message(keep: int) -> None:
    """Nobody collects what refers to each other for a long time."""
    world, parcel = World(), EncodedMessage("t", b"x" * 100_000)
    before = sys.getrefcount(parcel)
    driver = await world.connected(((P.RECEIVE_MAXIMUM, 1), (P.SESSION_EXPIRY, keep)))
    for _ in range(3):
        driver.deliver(parcel, qos=1)
    await settled()
    driver.close(CloseReason.ADMINISTRATIVE)
    await settled()
    world.said.clear()
    assert (sys.getrefcount(parcel), driver.is_over) == (before, True)


class OddError(InvalidRequestError):
    """Something only this room knows."""


@dataclass
class World:
    """A room, its client, and the wire between: `said` is what the server said and the client has not looked at."""

    clock: FakeClock = field(default_factory=FakeClock)
    refusal: Exception | None = None
    grants: dict[str, object] = field(default_factory=dict)
    level: int = LEVEL_5
    reported: list[BirthmarkError] = field(default_factory=list)
    heard: list[Packet] = field(default_factory=list)
    ends: list[tuple[CloseReason, int | None]] = field(default_factory=list)
    said: bytearray = field(default_factory=bytearray)
    is_closed: bool = False
    on_published: Callable[[Sequence[Publish]], Awaitable[None] | None] = lambda _: None
    act: Callable[[], None] = lambda: None

    # The room.

    async def accept(self, _driver: MqttDriver, packet: Connect) -> Admission:
        if self.refusal is not None:
            raise self.refusal
        grants = {"keep_alive_s": packet.keep_alive_s} | self.grants
        return Admission(connection=self, **grants)  # type: ignore[arg-type]  # a test says what it grants by name

    def opened(self) -> None: ...

    def published(self, packets: Sequence[Publish]) -> Awaitable[None] | None:
        self.heard += packets
        return self.on_published(packets)

    def subscribed(self, packet: Subscribe) -> Awaitable[None] | None:
        self.heard.append(packet)
        return None

    def unsubscribed(self, packet: Unsubscribe) -> Awaitable[None] | None:
        self.heard.append(packet)
        return None

    def acknowledged(self, packet_ids: Sequence[int]) -> Awaitable[None] | None:
        self.heard += [PubAck(packet_id) for packet_id in packet_ids]
        return None

    def closed(self, reason: CloseReason, session_expiry_s: int | None) -> None:
        self.ends.append((reason, session_expiry_s))

    # The transport.

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.said += data

    def close(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_deadline(self, after_s: float | None, act: Callable[[], None] | None = None) -> None:
        del after_s
        self.act = act or self.act

    def mark_authenticated(self, owner: str) -> None: ...

    def record_incomplete(self, size: int) -> None: ...

    # The client.

    def start(self) -> MqttDriver:
        driver = MqttDriver(self.accept, lambda error, *_: self.reported.append(error), self.clock)
        driver.start(self, "192.0.2.1")
        return driver

    async def connected(self, properties: Properties = (), **more: object) -> MqttDriver:
        driver = self.start()
        connect = Connect("c", level=self.level, properties=properties, **more)  # type: ignore[arg-type]  # a test says by name
        await self.say(driver, connect)
        return driver

    async def say(self, driver: MqttDriver, *packets: Packet) -> None:
        driver.data_received(b"".join(codec.encode(packet, self.level) for packet in packets))
        await settled()

    def answers(self) -> list[Packet]:
        framer, packets = Framer(1 << 20), []
        framer.receive_data(bytes(self.said))
        self.said.clear()
        while (frame := framer.next_frame()) is not None:
            packets.append(codec.decode(*frame, self.level))
        return packets


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def _no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing take a slice's time where the machine stands still for a moment."""
    monkeypatch.setattr(fair_scheduler, "now", lambda: 0.0)


@pytest.fixture
async def five() -> AsyncIterator[World]:
    yield World()


@pytest.fixture
async def three() -> AsyncIterator[World]:
    yield World(level=LEVEL_3_1_1)


async def waits(gate: asyncio.Event) -> None:
    await gate.wait()


async def test_connack_tells_mqtt_5_what_is_granted_and_3_1_1_nothing(five: World, three: World) -> None:
    await five.connected()
    (connack,) = five.answers()
    assert isinstance(connack, ConnAck)
    assert (connack.code, dict(connack.properties)) == (0, GRANTED)
    await three.connected()
    assert bytes(three.said) == b"\x20\x02\0\0"


async def test_what_differs_from_what_was_asked_is_told(five: World) -> None:
    five.grants = {
        "session_expiry_s": 9,
        "assigned_client_id": "given",
        "maximum_packet_bytes": 1000,
        "keep_alive_s": 7,
    }
    driver = await five.connected()
    (connack,) = five.answers()
    assert isinstance(connack, ConnAck)
    told = {P.SESSION_EXPIRY: 9, P.ASSIGNED_CLIENT_ID: "given", P.MAXIMUM_PACKET_SIZE: 1000, P.SERVER_KEEP_ALIVE: 7}
    assert dict(connack.properties) == GRANTED | told
    assert (driver.client_id, driver.level) == ("given", LEVEL_5)


@pytest.mark.parametrize(
    ("code", "return_code"),
    [(0x84, 1), (0x85, 2), (0x88, 3), (0x97, 3), (0x86, 4), (0x87, 5), (0x8C, 5), (0x99, None)],
)
async def test_a_refusal_knows_no_level(code: int, return_code: int | None, five: World, three: World) -> None:
    for world in (five, three):
        world.refusal = MqttRefusedError(code, ForbiddenError())
        driver = await world.connected()
        assert (driver.is_over, world.is_closed, len(world.reported), world.ends) == (True, True, 1, [])
    assert five.answers() == [ConnAck(code=code)]
    assert three.answers() == ([] if return_code is None else [ConnAck(code=return_code)])


async def test_a_silent_refusal_is_silent_in_3_1_1_alone(five: World, three: World) -> None:
    for world in (five, three):
        world.refusal = MqttRefusedError(0x87, ForbiddenError(), is_silent_in_3=True)
        await world.connected()
    assert (five.answers(), three.answers()) == ([ConnAck(code=0x87)], [])


async def test_a_room_of_3_1_1_says_so_to_mqtt_5(five: World) -> None:
    with pytest.raises(MqttRefusedError) as refused:
        require_3_1_1(Connect("c", level=LEVEL_5))
    require_3_1_1(Connect("c"))
    five.refusal = refused.value
    await five.connected()
    assert five.answers() == [ConnAck(code=0x84)]
    assert [error.code for error in five.reported] == ["mqtt.version_unsupported"]


@pytest.mark.parametrize(
    ("error", "code"), [(UnavailableError(), 0x88), (ForbiddenError(), 0x87), (InvalidRequestError(), 0x83)]
)
async def test_an_error_before_connack_is_told_in_connack(error: BirthmarkError, code: int, five: World) -> None:
    five.refusal = error
    await five.connected()
    assert (five.answers(), five.reported) == ([ConnAck(code=code)], [error])


async def test_what_closes_before_connack_is_told_as_unavailability(five: World) -> None:
    driver = five.start()
    driver.data_received(codec.encode(Connect("c", level=LEVEL_5)))
    driver.close(CloseReason.STOPPING)
    assert five.answers() == [ConnAck(code=0x88)]
    await settled()
    assert five.ends == [(CloseReason.STOPPING, None)]


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (CloseReason.TAKEN_OVER, 0x8E),
        (CloseReason.STOPPING, 0x8B),
        (CloseReason.ADMINISTRATIVE, 0x98),
        (CloseReason.SERVER, 0x80),
        (CloseReason.KEEP_ALIVE, 0x8D),
    ],
)
async def test_mqtt_5_hears_why_it_is_closed(reason: CloseReason, code: int, five: World, three: World) -> None:
    for world in (five, three):
        driver = await world.connected()
        world.said.clear()
        driver.close(reason)
        driver.close(CloseReason.SERVER)
        assert (world.is_closed, world.ends) == (True, [(reason, None)])
    assert (five.answers(), three.answers()) == ([Disconnect(code)], [])


async def test_a_room_decides_the_code_of_its_errors(five: World) -> None:
    five.grants = {"reason_of": lambda error: reason_of(error, {OddError: ReasonCode.TOPIC_NAME_INVALID})}
    driver = await five.connected()
    five.said.clear()
    driver.refuse(OddError())
    assert five.answers() == [Disconnect(0x90)]


def test_every_error_has_a_code() -> None:
    errors = (ThrottledError(retry_after_s=1), MqttProtocolError(reason="x"), BirthmarkError(), OddError())
    assert [reason_of(error) for error in errors] == [0x97, 0x83, 0x80, 0x83]


async def test_an_error_after_connack_is_unavailable_in_words_that_disconnect_has(five: World) -> None:
    driver = await five.connected()
    five.said.clear()
    driver.refuse(UnavailableError())
    assert five.answers() == [Disconnect(0x89)]  # 0x88 is of CONNACK alone


@pytest.mark.parametrize(
    ("code", "expiry", "end"),
    [
        (0, None, (CloseReason.DISCONNECT, None)),
        (4, None, (CloseReason.DISCONNECT_WITH_WILL, None)),
        (0x81, None, (CloseReason.DISCONNECT_WITH_WILL, None)),
        (0, 0, (CloseReason.DISCONNECT, 0)),
        (0, 77, (CloseReason.DISCONNECT, 77)),
    ],
)
async def test_a_room_learns_how_the_client_left(
    code: int, expiry: int | None, end: tuple[CloseReason, int | None], five: World
) -> None:
    driver = await five.connected(((P.SESSION_EXPIRY, 5),))
    await five.say(driver, Disconnect(code, () if expiry is None else ((P.SESSION_EXPIRY, expiry),)))
    assert five.ends == [end]


async def test_a_lost_connection_and_a_broken_protocol_are_told_apart(five: World, three: World) -> None:
    driver = await five.connected()
    five.said.clear()
    driver.data_received(b"\xc1\0")
    assert (five.answers(), five.ends) == ([Disconnect(0x81)], [(CloseReason.PROTOCOL, None)])
    assert [error.code for error in five.reported] == ["mqtt.protocol_error"]
    driver = await three.connected()
    driver.connection_lost(None)
    assert three.ends == [(CloseReason.LOST, None)]


async def test_what_came_before_the_line_broke_is_still_taken(five: World) -> None:
    driver, gate = await five.connected(), asyncio.Event()
    five.on_published = lambda _: waits(gate)
    await five.say(driver, Publish("t", b"1"))
    five.on_published = lambda _: None
    await five.say(driver, Publish("t", b"2"), Disconnect())
    driver.connection_lost(None)
    assert five.ends == []
    gate.set()
    await settled()
    assert [packet.payload for packet in five.heard if isinstance(packet, Publish)] == [b"1", b"2"]
    assert five.ends == [(CloseReason.DISCONNECT, None)]


async def test_a_line_that_breaks_while_the_room_is_busy_is_lost_afterwards(five: World) -> None:
    driver, gate = await five.connected(), asyncio.Event()
    five.on_published = lambda _: waits(gate)
    await five.say(driver, Publish("t", b"1"))
    driver.connection_lost(None)
    assert five.ends == []
    gate.set()
    await settled()
    assert five.ends == [(CloseReason.LOST, None)]


async def test_lines_that_break_together_end_in_their_owners_turn(five: World) -> None:
    driver = await five.connected()
    turns = driver._backlog
    turns.add(lambda: five.ends.append((CloseReason.SERVER, 0)), driver.owner)
    driver.connection_lost(None)
    assert (five.ends, driver.is_lost) == ([], True)
    await settled()
    assert five.ends == [(CloseReason.SERVER, 0), (CloseReason.LOST, None)], "what came before it is first"


async def test_requests_that_never_wait_for_anything_are_answered_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    worlds = [World() for _ in range(8)]
    drivers = [await world.connected() for world in worlds]
    ticks, answered = count(), 0
    monkeypatch.setattr(fair_scheduler, "now", lambda: next(ticks) * SLICE_S)

    async def answer(driver: MqttDriver, packets: Sequence[Publish]) -> None:
        nonlocal answered
        for _ in packets:
            await driver.wait_for_turn()
            answered += 1

    for world, one in zip(worlds, drivers, strict=True):
        world.on_published = partial(answer, one)
        one.data_received(b"".join(codec.encode(Publish("t", b"?"), LEVEL_5) for _ in range(50)))
    looks = 0
    while answered < 8 * 50:
        before, looks = answered, looks + 1
        await asyncio.sleep(0)
        assert answered - before <= 2 * TURN_S / SLICE_S
    assert looks > 50


async def test_silence_is_told_and_closed(five: World) -> None:
    await five.connected()
    five.said.clear()
    five.clock.move(timedelta(seconds=91))
    five.act()
    assert (five.answers(), five.ends, five.reported) == ([Disconnect(0x8D)], [(CloseReason.KEEP_ALIVE, None)], [])


async def test_each_message_has_its_code_in_mqtt_5_and_the_order_is_kept(five: World, three: World) -> None:
    for world in (five, three):
        driver = await world.connected()
        world.said.clear()
        await world.say(driver, *(Publish("t", b"", 1, packet_id=number) for number in (1, 2, 3)))
        driver.ack(3)
        driver.ack(2, ReasonCode.NOT_AUTHORIZED)
        driver.ack(1)
        driver.ack(None)
        await settled()
    assert five.answers() == [PubAck(1), PubAck(2, 0x87), PubAck(3)]
    assert three.answers() == [PubAck(1), PubAck(2), PubAck(3)]


async def test_what_a_room_acknowledged_leaves_before_the_last_word(five: World) -> None:
    driver = await five.connected()
    await five.say(driver, Publish("t", b"", 1, packet_id=1))
    five.said.clear()
    driver.ack(1)
    driver.close(CloseReason.TAKEN_OVER)
    driver.ack(2, ReasonCode.NOT_AUTHORIZED)
    assert five.answers() == [PubAck(1), Disconnect(0x8E)]


async def test_properties_go_to_mqtt_5_and_what_is_too_large_to_nobody(five: World, three: World) -> None:
    properties: Properties = ((P.CONTENT_TYPE, "a"),)
    driver = await five.connected(((P.MAXIMUM_PACKET_SIZE, 200),))
    five.said.clear()
    assert driver.publish("t", b"1", 1, properties=properties) == 1
    assert driver.publish("t", b"1" * 200, 1) == DISCARDED
    await settled()
    assert five.answers() == [Publish("t", b"1", 1, packet_id=1, properties=properties)]
    old = await three.connected()
    three.said.clear()
    old.publish("t", b"1" * 200, retain=True, properties=properties)
    await settled()
    assert three.answers() == [Publish("t", b"1" * 200, retain=True)]
    old.close()
    assert old.publish("t", b"", 1) is None


async def test_one_parcel_goes_to_many(five: World, three: World) -> None:
    parcel = EncodedMessage("topic", b"x", ((P.USER_PROPERTY, ("a", "b")),))
    for world in (five, three):
        driver = await world.connected()
        world.said.clear()
        assert [driver.deliver(parcel, 1), driver.deliver(parcel)] == [1, None]
        await settled()
    assert [len(world.answers()) for world in (five, three)] == [2, 2]


async def test_who_sends_more_than_was_granted_is_told_after_the_rest_was_heard(five: World) -> None:
    five.grants = {"receive_maximum": 2}
    driver = await five.connected()
    five.said.clear()
    await five.say(driver, *(Publish("t", b"", 1, packet_id=number) for number in (1, 2, 3)))
    assert [packet.packet_id for packet in five.heard if isinstance(packet, Publish)] == [1, 2]
    assert five.answers() == [Disconnect(0x93)]


async def test_a_client_that_has_no_room_for_an_answer_is_closed(five: World) -> None:
    five.reported.clear()
    await five.connected(((P.MAXIMUM_PACKET_SIZE, 8),))
    assert five.answers() == [ConnAck(code=0x95)]
    assert [error.code for error in five.reported] == ["mqtt.protocol_error"]


async def test_who_has_no_room_for_any_answer_is_closed_in_silence(five: World) -> None:
    tiny: Properties = ((P.MAXIMUM_PACKET_SIZE, 3),)
    five.refusal = MqttRefusedError(0x87, ForbiddenError())
    await five.connected(tiny)
    assert (len(five.said), five.is_closed, len(five.reported)) == (0, True, 1)
    five.is_closed = False
    driver = five.start()
    driver.data_received(codec.encode(Connect("c", level=LEVEL_5, properties=tiny)))
    driver.close(CloseReason.STOPPING)
    assert (len(five.said), five.is_closed) == (0, True)


async def test_an_answer_to_a_subscription_has_its_codes(five: World, three: World) -> None:
    for world in (five, three):
        driver = await world.connected()
        world.said.clear()
        await world.say(driver, Subscribe(1, (("a", 1), ("b", 1))))
        driver.send(SubAck(1, (1, 0x87)))
        await settled()
    assert (five.answers(), three.answers()) == ([SubAck(1, (1, 0x87))], [SubAck(1, (1, 0x80))])


async def test_a_bug_of_a_room_costs_one_connection(five: World, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Sequence[Publish]) -> None:
        raise ZeroDivisionError

    five.on_published = fail
    driver = await five.connected()
    five.said.clear()
    await five.say(driver, Publish("t", b""))
    assert (five.answers(), five.ends) == ([Disconnect(0x80)], [(CloseReason.SERVER, None)])
    assert "mqtt.bug" in caplog.text


async def test_a_connect_that_is_wrong_is_told_so_in_connack_and_recorded(five: World) -> None:
    await five.connected(((P.AUTH_METHOD, "x"),))
    assert five.answers() == [ConnAck(code=0x8C)]
    assert [error.code for error in five.reported] == ["mqtt.protocol_error"]
