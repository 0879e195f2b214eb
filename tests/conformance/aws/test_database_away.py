"""The database is away for some seconds: who needs nothing of it goes on, and nobody is told what is not durable.

Locked by another process, on a disk that is full, stopped: each in turn.
"""

import contextlib
import queue
import sqlite3
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from paho.mqtt import client as paho

from support.aws.device import Enrolled
from support.server.readiness import ALL_THERE, DATABASE_AWAY, until_ready
from support.server.scaled import for_one
from support.server.servers import RunningServer, a_server
from support.services.postgres import a_postgres_server

pytestmark = [pytest.mark.system, for_one]
Enroll = Callable[..., Enrolled]
Away = Callable[[], AbstractContextManager[None]]


@dataclass
class Trouble:
    """A server, and a way to take its database away. `is_waited_for`: who needs it hears nothing until it is back."""

    server: RunningServer
    away: Away
    is_waited_for: bool = True


@contextmanager
def locked(tmp: Any) -> Iterator[Trouble]:
    with a_server(tmp, is_warm=False) as server:

        @contextmanager
        def away() -> Iterator[None]:
            with contextlib.closing(sqlite3.connect(server.data / "birthmark.db", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                yield
                other.execute("ROLLBACK")

        yield Trouble(server, away)


@contextmanager
def full(tmp: Any) -> Iterator[Trouble]:
    with a_server(tmp, is_warm=False) as server:

        def may_write(size: str) -> None:
            subprocess.run(["prlimit", f"--pid={server.pid}", f"--fsize={size}:unlimited"], check=True)

        @contextmanager
        def away() -> Iterator[None]:
            may_write("4096")
            yield
            may_write("unlimited")

        yield Trouble(server, away, is_waited_for=False)


@contextmanager
def stopped(tmp: Any) -> Iterator[Trouble]:
    with a_postgres_server() as postgres, a_server(tmp, f'database = "{postgres.url}"\n', is_warm=False) as server:

        @contextmanager
        def away() -> Iterator[None]:
            postgres.stop("fast")
            until_ready(server, (503, DATABASE_AWAY))
            yield
            postgres.start()

        yield Trouble(server, away)


@pytest.fixture(scope="module", params=[locked, full, stopped], ids=lambda way: way.__name__)
def trouble(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trouble]:
    with request.param(tmp_path_factory.mktemp("away")) as found:
        yield found


@pytest.fixture(scope="module")
def server(trouble: Trouble) -> RunningServer:
    return trouble.server


class Client:
    """A client of paho's; what it got, and how often it lost its connection."""

    def __init__(self, thing: Enrolled, client_id: str, *, clean: bool = True) -> None:
        context = ssl.create_default_context(cafile=thing.files["ca"])
        context.load_cert_chain(thing.files["certificate"], thing.files["key"])
        self.got: queue.Queue[str] = queue.Queue()
        self.cuts = 0
        self.is_there, self.is_subscribed = threading.Event(), threading.Event()
        self._client = paho.Client(client_id=client_id, clean_session=clean)
        self._client.tls_set_context(context)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda *_: self.is_there.set()
        self._client.on_subscribe = lambda *_: self.is_subscribed.set()
        self._client.on_message = lambda _client, _data, message: self.got.put(message.payload.decode())
        self._client.on_disconnect = self._on_disconnect
        self._client.connect_async(thing.files["endpoint"], 8883)
        self._client.loop_start()

    def connected(self) -> "Client":
        assert self.is_there.wait(10)
        return self

    def subscribed(self, topic_filter: str) -> "Client":
        self._client.subscribe(topic_filter, 1)
        assert self.is_subscribed.wait(10)
        return self

    def publish(self, topic: str, text: str, qos: int = 1) -> Any:
        return self._client.publish(topic, text, qos)

    def close(self) -> None:
        self._client.on_disconnect = None
        self._client.disconnect()
        self._client.loop_stop()

    def _on_disconnect(self, *_: object) -> None:
        self.cuts += 1


def is_acknowledged(sent: Any, within_s: float) -> bool:
    sent.wait_for_publish(within_s)
    return bool(sent.is_published())


def test_who_is_connected_stays_and_nothing_is_acknowledged_that_is_not_durable(
    trouble: Trouble, enroll: Enroll
) -> None:
    thing = enroll("away")
    with contextlib.ExitStack() as stack:

        def a_client(name: str, **more: Any) -> Client:
            client = Client(thing, name, **more)
            stack.callback(client.close)
            return client

        live = a_client("live").connected().subscribed("live/#")
        stored = a_client("stored", clean=False).connected().subscribed("kept/#")
        publisher, keeper = a_client("publisher").connected(), a_client("keeper").connected()
        assert is_acknowledged(publisher.publish("live/t", "before"), 10)
        assert is_acknowledged(keeper.publish("kept/t", "before"), 10)
        with trouble.away():
            kept = keeper.publish("kept/t", "while it was away")
            publisher.publish("live/t", "QoS 0", 0)
            assert is_acknowledged(publisher.publish("live/t", "QoS 1"), 5)  # no stored session hears of it
            assert not is_acknowledged(kept, 2.5)
            assert [live.got.get(timeout=5) for _ in range(3)] == ["before", "QoS 0", "QoS 1"]
            assert stored.got.get(timeout=5) == "before"
            assert stored.got.empty()
            late = a_client("late")
        assert is_acknowledged(kept, 15)
        assert stored.got.get(timeout=15) == "while it was away"
        late.connected().subscribed("late/#")
        assert (live.cuts, stored.cuts, publisher.cuts) == (0, 0, 0)
        assert (keeper.cuts == 0) is trouble.is_waited_for  # 3.1.1 has no other way to say that it was not kept
        until_ready(trouble.server, (200, ALL_THERE))
