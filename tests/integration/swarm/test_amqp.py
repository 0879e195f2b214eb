"""AMQP of a simulated device, against the server's engine over TLS: outcomes, refusals and ends of the connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from birthmark.amqp.engine import AmqpEngine
from birthmark.amqp.errors import AmqpCondition, AmqpError, AmqpErrorScope
from birthmark.amqp.events import AmqpEvent, ConnectionClosed, ConnectionOpened, DeliveryReceived, LinkRequested
from birthmark.amqp.limits import AmqpLimits
from birthmark.amqp.message import DataBody, read_message
from birthmark.amqp.performatives import RELEASED
from birthmark.amqp.receiver_link import ReceiverLink
from birthmark.device_transports.errors import AmqpRefusedError, LinkLostError
from birthmark.errors import BirthmarkError
from birthmark.swarm.links.amqp import SwarmAmqp
from support.agent.tls_target import a_target

pytestmark = pytest.mark.integration

QUOTA = AmqpError(AmqpCondition.RESOURCE_LIMIT_EXCEEDED, "quota", scope=AmqpErrorScope.DELIVERY)
NOT_ALLOWED = AmqpError(AmqpCondition.UNAUTHORIZED_ACCESS, "disabled", scope=AmqpErrorScope.LINK)
Take = Callable[[AmqpEngine, DeliveryReceived], None]
Connect = Callable[[], Awaitable[SwarmAmqp]]
seen: list[AmqpEvent] = []


def accept(_engine: AmqpEngine, event: DeliveryReceived) -> None:
    event.link.settle(event.delivery_id)


@contextlib.asynccontextmanager
async def a_hub(
    directory: Path, take: Take = accept, *, refusal: AmqpError | None = None, limits: AmqpLimits | None = None
) -> AsyncIterator[Connect]:
    """Serve AMQP with `take` for each message, and provide a function that connects a device."""
    seen.clear()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop, engine = asyncio.get_running_loop(), AmqpEngine(limits or AmqpLimits())
        while data := await reader.read(65536):
            events = engine.receive_data(data, loop.time())
            while events:
                seen.extend(events)
                for event in events:
                    decide(engine, event)
                events = engine.next_events()
            writer.write(engine.data_to_send(loop.time()))

    def decide(engine: AmqpEngine, event: AmqpEvent) -> None:
        match event:
            case ConnectionOpened():
                engine.accept_open()
            case LinkRequested(link=ReceiverLink() as link):
                link.accept(credit=1) if refusal is None else link.refuse(refusal)
            case DeliveryReceived():
                take(engine, event)
            case _:
                pass

    async with a_target(serve, directory) as (dialer, port):

        async def connect() -> SwarmAmqp:
            device = SwarmAmqp(dialer, None)
            await device.connect("localhost", port, "meter-1", 240)
            return device

        yield connect


def soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_messages_are_sent_one_after_another_to_the_address_of_the_device(tmp_path: Path) -> None:
    async with a_hub(tmp_path) as connect:
        device = await connect()
        for number in range(5):
            await device.send(b"%d" % number)
        assert device.take_refusal() == ""
        await device.close()
        while not isinstance(seen[-1], ConnectionClosed):
            await asyncio.sleep(0)
    requested = next(one for one in seen if isinstance(one, LinkRequested))
    assert requested.link.target_address == "/devices/meter-1/messages/events"
    bodies = [read_message(one.payload).body for one in seen if isinstance(one, DeliveryReceived)]
    assert bodies == [DataBody((b"%d" % number,)) for number in range(5)]
    assert seen[-1] == ConnectionClosed(None, by_peer=True)


@pytest.mark.parametrize(
    ("take", "reason"),
    [
        (lambda _engine, event: event.link.reject(event.delivery_id, QUOTA), "amqp:resource-limit-exceeded"),
        (lambda _engine, event: event.link.settle(event.delivery_id, RELEASED), "amqp.released"),
    ],
)
async def test_a_rejected_message_has_a_reason_and_the_connection_stays(
    tmp_path: Path, take: Take, reason: str
) -> None:
    async with a_hub(tmp_path, take) as connect:
        device = await connect()
        for _ in range(2):
            await device.send(b"{}")
            assert device.take_refusal() == reason
        assert device.take_refusal() == ""
        device.cut()


async def test_a_refused_link_is_a_refusal_of_the_device(tmp_path: Path) -> None:
    async with a_hub(tmp_path, refusal=NOT_ALLOWED) as connect:
        with pytest.raises(AmqpRefusedError) as refusal:
            await connect()
        assert refusal.value.condition == AmqpCondition.UNAUTHORIZED_ACCESS


@pytest.mark.parametrize(
    "take",
    [
        lambda _engine, event: event.link.detach(AmqpError(AmqpCondition.LINK_STOLEN, "another")),
        lambda engine, _event: engine.close(AmqpError(AmqpCondition.CONNECTION_FORCED, "stopped")),
    ],
)
async def test_an_end_before_the_outcome_is_a_lost_connection(tmp_path: Path, take: Take) -> None:
    async with a_hub(tmp_path, take) as connect:
        device = await connect()
        with pytest.raises(LinkLostError, match=r"another|stopped"):
            await device.send(b"{}")
        with pytest.raises(LinkLostError):
            await device.idle(soon(5))


async def test_an_idle_device_sends_empty_frames(tmp_path: Path) -> None:
    async with a_hub(tmp_path, limits=AmqpLimits(idle_timeout_ms=1000)) as connect:
        device = await connect()
        await device.idle(soon(2.5))  # the server would close after 2 s of silence
        await device.send(b"{}")
        await device.close()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\x03\x01\x00\x00", b"\xff" * 99, b""])
async def test_what_is_no_amqp_ends_the_connection_with_a_reason(tmp_path: Path, answer: bytes) -> None:
    async def mumble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        await writer.drain()

    async with a_target(mumble, tmp_path) as (dialer, port):
        with pytest.raises(BirthmarkError) as refusal:
            await SwarmAmqp(dialer, None).connect("localhost", port, "meter-1", 240)
        assert refusal.value.explain_cause()
