"""SIGTERM under load: no newcomer, every connection told, nothing acknowledged lost, and an end in time."""

import base64
import signal
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from birthmark.mqtt import codec
from birthmark.mqtt.packets import Connect, Publish
from support.azure.sas_tokens import make_sas
from support.floods.flood_world import FloodWorld, a_world
from support.floods.floods import Line, Visit
from support.server.servers import RunningServer, a_server
from support.services.postgres import a_postgres_server

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


def a_web_connection(server: RunningServer) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    raw = socket.create_connection((server.address, 8443), 10)
    return context.wrap_socket(raw, server_hostname=server.address)


def asked(connection: ssl.SSLSocket) -> bytes:
    connection.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
    return connection.recv(4096)


def call_a_method(connection: ssl.SSLSocket, server: RunningServer) -> None:
    """Ask for a device that is away, with all the patience that there is."""
    server.run("hub", "device", "create", "pump-1")
    known = dict(part.split("=", 1) for part in server.cloud.hub_connection_string.split(";"))
    key = base64.b64decode(known["SharedAccessKey"])
    token = make_sas(known["HostName"], key, int(time.time()) + 300, "iothubowner")
    body = b'{"methodName": "look", "connectTimeoutInSeconds": 300}'
    head = f"POST /twins/pump-1/methods?api-version=2021-04-12 HTTP/1.1\r\nHost: {known['HostName']}\r\n"
    connection.sendall(f"{head}Authorization: {token}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


def test_who_was_let_in_before_the_end_has_an_answer_and_nobody_holds_the_end_up(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        assert server.process is not None
        with (
            a_web_connection(server) as late,
            a_web_connection(server) as idle,
            a_web_connection(server) as silent,
            a_web_connection(server) as waiting,
        ):
            assert b" 404 " in asked(idle)
            call_a_method(waiting, server)
            time.sleep(0.5)
            server.process.send_signal(signal.SIGTERM)
            assert b" 503 " in waiting.recv(4096)
            assert idle.recv(1) == b""  # what was answered is over at once
            assert b" 404 " in asked(late)
            assert late.recv(1) == b""
            assert server.process.wait(10) == 0
            assert silent.recv(1) == b""
        assert server.process.stdout is not None
        server.process.stdout.close()
        server.process = None


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
