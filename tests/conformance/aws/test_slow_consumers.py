"""Clients that do not read, or do not acknowledge: what they cost is bounded, nobody else waits, and `why` names them.

MQTT lets a server drop QoS 0 and close a connection (3.1.1 section 4.8, 5.0 sections 4.9 and 4.13).
"""

import contextlib
import os
import queue
import socket
import sqlite3
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from paho.mqtt import client as paho

from birthmark.mqtt import codec
from birthmark.mqtt.engine import MqttEngine, MqttRole
from birthmark.mqtt.packets import LEVEL_3_1_1, ConnAck, Connect, Publish
from support.aws.device import Enrolled
from support.floods.unauthenticated import masked
from support.server.scaled import for_one
from support.server.servers import RunningServer

pytestmark = pytest.mark.serve

Enroll = Callable[..., Enrolled]
SIZE = 100_000
MAX_BUFFER = 8 * 1024 * 1024


@contextmanager
def a_raw_client(server: RunningServer, thing: Enrolled, topic: str, qos: int) -> Iterator[ssl.SSLSocket]:
    """Connect with a clean session and subscribe; nothing is read after that unless the test reads it."""
    context = ssl.create_default_context(cafile=thing.files["ca"])
    context.load_cert_chain(thing.files["certificate"], thing.files["key"])
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect((server.address, 8883))
    with context.wrap_socket(raw, server_hostname=thing.files["endpoint"]) as sock:
        sock.settimeout(10)
        engine = MqttEngine(MqttRole.CLIENT)
        engine.send(Connect(thing.name))
        sock.sendall(engine.data_to_send())
        engine.receive_data(sock.recv(4), 0.0)
        assert isinstance(engine.next_event(), ConnAck)
        engine.subscribe([(topic, qos)])
        sock.sendall(engine.data_to_send())
        assert sock.recv(5)[0] == 0x90
        yield sock


@contextmanager
def a_raw_websocket(server: RunningServer, thing: Enrolled, topic: str) -> Iterator[ssl.SSLSocket]:
    """The same over WebSocket, with QoS 0."""
    host, account = thing.files["endpoint"], server.endpoints["aws"]
    signed = AWSRequest("GET", f"https://{host}/mqtt")
    key = Credentials(account["access_key_id"], account["secret_access_key"])
    SigV4QueryAuth(key, "iotdevicegateway", account["region"], 300).add_auth(signed)
    path = signed.url.removeprefix(f"https://{host}")
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect((server.address, 8443))
    context = ssl.create_default_context(cafile=thing.files["ca"])
    with context.wrap_socket(raw, server_hostname=host) as sock:
        sock.settimeout(10)
        upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        upgrade += "Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{upgrade}".encode())
        assert b" 101 " in sock.recv(4096)
        engine = MqttEngine(MqttRole.CLIENT)
        engine.send(Connect(thing.name))
        sock.sendall(masked(engine.data_to_send()))
        assert sock.recv(6)[2:] == b"\x20\x02\x00\x00"
        sock.sendall(
            masked(b"\x82" + bytes([5 + len(topic)]) + b"\x00\x01\x00" + bytes([len(topic)]) + topic.encode() + b"\0")
        )
        assert sock.recv(7)[2] == 0x90
        yield sock


@contextmanager
def a_publisher(server: RunningServer, thing: Enrolled) -> Iterator[Any]:
    client = paho.Client(client_id=f"{thing.name}-publisher")
    context = ssl.create_default_context(cafile=thing.files["ca"])
    context.load_cert_chain(thing.files["certificate"], thing.files["key"])
    client.tls_set_context(context)
    client.max_inflight_messages_set(50)
    client.connect(thing.files["endpoint"], 8883)
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def publish(client: Any, topic: str, count: int, size: int = SIZE) -> None:
    """Publish with QoS 1; return when the server has acknowledged all."""
    sent = [client.publish(topic, number.to_bytes(4) + bytes(size - 4), 1) for number in range(count)]
    for one in sent:
        one.wait_for_publish(30)
        assert one.is_published()


def all_that_comes(sock: ssl.SSLSocket) -> int:
    """Read until the server has closed; return how many bytes came."""
    size = 0
    with suppress(OSError):
        while data := sock.recv(65536):
            size += len(data)
    return size


def send_many(sock: ssl.SSLSocket, message: bytes) -> None:
    for _ in range(2000):
        sock.sendall(message)


def rss(server: RunningServer) -> int:
    pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def test_a_client_that_does_not_read_is_closed_and_named_and_others_get_everything(
    enroll: Enroll, server: RunningServer
) -> None:
    thing, other = enroll("unread"), enroll("reader")
    got: queue.Queue[int] = queue.Queue()
    with a_raw_client(server, thing, "flood/#", 0) as sock, a_publisher(server, other) as client:
        client.on_message = lambda _client, _data, message: got.put(int.from_bytes(message.payload[:4]))
        client.subscribe("flood/#", 0)
        publish(client, "flood/warm", 20)
        before = rss(server)
        publish(client, "flood/t", 500)
        assert [got.get(timeout=10) for _ in range(520)] == [*range(20), *range(500)]
        assert rss(server) - before < 4 * MAX_BUFFER  # of the 50 MB that were sent
        why = server.why(thing.name)
        assert why["code"] == "net.slow_reader"
        assert str(MAX_BUFFER) in why["cause"]
        assert all_that_comes(sock) < 250 * SIZE  # it reads now, what was under way


def test_a_client_that_does_not_read_is_closed_over_websocket_too(enroll: Enroll, server: RunningServer) -> None:
    thing, other = enroll("unread-websocket"), enroll("writer")
    with a_raw_websocket(server, thing, "ws/#") as sock, a_publisher(server, other) as client:
        publish(client, "ws/t", 300)
        assert server.why(thing.name)["code"] == "net.slow_reader"
        assert all_that_comes(sock) < 250 * SIZE


def test_a_client_that_does_not_acknowledge_keeps_its_connection_and_loses_what_is_too_much(
    enroll: Enroll, server: RunningServer
) -> None:
    thing, other = enroll("unacknowledged"), enroll("acknowledged")
    with a_raw_client(server, thing, "unacked/#", 1) as sock, a_publisher(server, other) as client:
        sock.settimeout(1)
        before = rss(server)
        received = 0
        for _ in range(6):
            publish(client, "unacked/t", 50)
            try:
                while data := sock.recv(1 << 20):
                    received += len(data)
            except TimeoutError:
                pass
        assert 100 * SIZE <= received < 101 * SIZE  # its window, and nothing beyond
        assert rss(server) - before < 100 * SIZE + 2 * MAX_BUFFER
        assert server.why(thing.name)["code"] == "awsiot.slow_consumer"
        for number in range(1, 101):
            sock.sendall(b"\x40\x02" + number.to_bytes(2))
        deadline, more = time.monotonic() + 20, 0
        while more < 80 * SIZE and time.monotonic() < deadline:
            more += len(sock.recv(1 << 20))
        assert 80 * SIZE <= more <= MAX_BUFFER + 2 * SIZE  # what waited


@for_one
def test_what_the_database_is_not_ready_for_is_not_read_whatever_its_qos(enroll: Enroll, server: RunningServer) -> None:
    thing = enroll("retainer")
    message = codec.encode(Publish("retained/t", bytes(SIZE), 0, retain=True), LEVEL_3_1_1)
    database = sqlite3.connect(server.data / "birthmark.db", isolation_level=None)
    with a_raw_client(server, thing, "retained/none", 0) as sock, contextlib.closing(database):
        sock.settimeout(1)
        before = rss(server)
        database.execute("BEGIN IMMEDIATE")
        try:
            with pytest.raises(TimeoutError):
                send_many(sock, message)
            assert rss(server) - before < 250 * SIZE
        finally:
            database.execute("ROLLBACK")
