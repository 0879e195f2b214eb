"""Many subscribers of one device that do not read: what waits for them all is bounded, and others are served."""

import socket
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from birthmark.mqtt import codec
from birthmark.mqtt.packets import Publish, Subscribe
from support.floods.flood_world import a_world
from support.floods.floods import Line
from support.floods.unauthenticated import rss_mib

pytestmark = pytest.mark.system
LIMIT_MIB = 32
SUBSCRIBERS, MESSAGES, SIZE = 60, 50, 100_000


def say(line: Line, packet: bytes) -> None:
    for at in range(0, len(packet), 16384):
        line.seal(packet[at : at + 16384])
    line.flush()


def test_subscribers_that_do_not_read_take_a_bounded_part_of_memory(tmp_path: Path) -> None:
    with a_world(tmp_path, f"[limits]\nmax_unread_bytes = {LIMIT_MIB * 1024 * 1024}\n") as world, ExitStack() as stack:
        sleeper = world.visits["aws flooder"]
        for number in range(SUBSCRIBERS):
            line = Line(replace(sleeper, name=f"{sleeper.name}-{number}")).open()
            line.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stack.callback(line.close)
            say(line, codec.encode(Subscribe(1, (("open/large", 0),))))
            line.read()
        before = rss_mib(world.server)
        publisher = Line(world.witness).open()
        stack.callback(publisher.close)
        for number in range(1, MESSAGES + 1):
            say(publisher, codec.encode(Publish("open/large", b"x" * SIZE, 1, packet_id=number)))
            while len(publisher.plain) < 4:
                publisher.read()
            publisher.plain.clear()
        assert rss_mib(world.server) - before < 2 * LIMIT_MIB  # it would be nine
        assert "net.slow_reader_dropped" in world.server.log()
