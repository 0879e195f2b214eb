"""Targets that mean no good: a device of a swarm loses its connection, and nothing else."""

import asyncio
from pathlib import Path

import pytest

from birthmark.device_transports.errors import LinkAnswerError, LinkLostError
from birthmark.errors import BirthmarkError
from birthmark.mqtt import codec
from birthmark.mqtt.packets import ConnAck, Connect, Publish
from birthmark.swarm.links.https import SwarmHttps
from birthmark.swarm.links.low_memory_tls_stream import Dialer
from birthmark.swarm.links.mqtt import SwarmMqtt
from support.agent.tls_target import a_target

pytestmark = pytest.mark.integration

WELCOME = codec.encode(ConnAck())
FLOOD = b"".join(codec.encode(Publish("t", b"x", 1, packet_id=number)) for number in range(1, 2000))


async def pour(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write; once the client has gone, `drain` alone gives the loop no chance to say so."""
    writer.write(data)
    await writer.drain()
    await asyncio.sleep(0)


async def connected(dialer: Dialer, port: int) -> SwarmMqtt:
    mqtt = SwarmMqtt(dialer, None)
    await mqtt.connect("localhost", port, Connect("meter-1"))
    return mqtt


def soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_messages_without_end_that_nobody_asked_for_take_no_memory(tmp_path: Path) -> None:
    async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(WELCOME)
        while True:  # and never reads an acknowledgement
            await pour(writer, FLOOD)

    async with a_target(flood, tmp_path) as (dialer, port):
        mqtt = await connected(dialer, port)
        with pytest.raises(LinkLostError, match="does not read"):
            await mqtt.idle(soon(25))
        assert mqtt.received > 1999


async def test_others_have_their_turn_while_one_is_flooded(tmp_path: Path) -> None:
    quick = codec.encode(Publish("t", bytes(16_000)))

    async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(WELCOME)
        while True:
            await pour(writer, quick * 20)

    async with a_target(flood, tmp_path) as (dialer, port):
        mqtt = await connected(dialer, port)
        begun = asyncio.get_running_loop().time()
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert asyncio.get_running_loop().time() - begun < 5
        mqtt.cut()


@pytest.mark.parametrize("answer", [b"\x00\xff\xff\xff\xff\xff", b"\xff" * 100, WELCOME * 2, b"SSH-2.0-x\r\n", b""])
async def test_what_is_no_mqtt_ends_the_connection_with_a_reason(tmp_path: Path, answer: bytes) -> None:
    async def mumble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        await writer.drain()

    async with a_target(mumble, tmp_path) as (dialer, port):
        with pytest.raises(BirthmarkError) as refusal:
            await (await connected(dialer, port)).idle(soon(10))
        assert refusal.value.explain_cause()


async def test_an_answer_may_last_until_the_connection_ends(tmp_path: Path) -> None:
    async def brief(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nhello")
        await writer.drain()

    async with a_target(brief, tmp_path) as (dialer, port):
        answer = await SwarmHttps(dialer, None).request("GET", f"https://localhost:{port}/", headers={})
        assert (answer.status, answer.body) == (200, b"hello")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
        b"x" * 100_000,
    ],
)
async def test_an_answer_that_is_too_much_is_refused(tmp_path: Path, answer: bytes) -> None:
    async def too_much(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    async with a_target(too_much, tmp_path) as (dialer, port):
        with pytest.raises(LinkAnswerError):
            await SwarmHttps(dialer, None).request("GET", f"https://localhost:{port}/", headers={})
