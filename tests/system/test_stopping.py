"""SIGTERM under load: no newcomer, every connection told, nothing acknowledged lost, and an end in time."""

import signal
import ssl
import threading
from pathlib import Path

import pytest

from birthmark.mqtt import codec
from birthmark.mqtt.packets import Connect, Publish
from flood_world import FloodWorld, a_world
from floods import Line, Visit
from postgres import a_postgres_server

pytestmark = pytest.mark.system
PUBLISHERS = 8


def publish_until_the_end(visit: Visit, acknowledged: list[int]) -> None:
    """Send a message when the one before is acknowledged, and note each that was."""
    line = Line(visit).open()
    number = 0
    try:
        while True:
            number += 1
            packet = Publish("open/stopping", b"%d" % number, 1, retain=False, dup=False, packet_id=number % 65535 + 1)
            line.seal(codec.encode(packet, visit.level))
            line.flush()
            while len(line.plain) < 4:
                line.read()
            line.plain.clear()
            acknowledged.append(number)
    except (OSError, ssl.SSLError):
        line.close()


def visits_of(world: FloodWorld) -> list[Visit]:
    return [world.visits[f"{cloud} {role}"] for cloud in ("aws", "hub") for role in ("flooder", "witness")]


def test_a_server_whose_database_is_away_ends_in_time(tmp_path: Path) -> None:
    with a_postgres_server() as postgres, a_world(tmp_path, f'database = "{postgres.url}"\n') as world:
        process, visit = world.server.process, world.visits["aws witness"]
        assert process is not None
        line = Line(visit)
        line.seal(codec.encode(Connect(visit.name, clean_start=False, keep_alive_s=600)))
        line.flush()
        while len(line.plain) < 4:
            line.read()
        postgres.stop("immediate")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        line.close()
        assert process.stdout is not None
        process.stdout.close()
        world.server.process = None
        postgres.start()  # which ends as it began


def test_a_server_that_is_stopped_under_load_ends_its_connections_first_and_itself_in_time(tmp_path: Path) -> None:
    with a_world(tmp_path) as world:
        process = world.server.process
        assert process is not None
        acknowledged: list[list[int]] = [[] for _ in range(PUBLISHERS)]
        visit = world.visits["aws flooder"]
        threads = [threading.Thread(target=publish_until_the_end, args=(visit, got)) for got in acknowledged[:1]]
        threads += [
            threading.Thread(target=publish_until_the_end, args=(other, got))
            for other, got in zip(visits_of(world)[1:2], acknowledged[1:2], strict=True)
        ]
        for thread in threads:
            thread.start()
        while not all(len(got) > 50 for got in acknowledged[: len(threads)]):
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        for thread in threads:
            thread.join(15)
            assert not thread.is_alive()
        log = world.server.log()
        assert "background.failed" not in log
        assert "not_settled" not in log
        assert process.stdout is not None
        process.stdout.close()
        world.server.process = None
