"""AWS devices of a server, by paho: an account of their own, and what each got."""

import contextlib
import itertools
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho

from support.server.servers import RunningServer

PATIENCE_S = 20


def until(condition: Callable[[], object], what: object = "", seconds: float = PATIENCE_S) -> None:
    """Wait; who waits long looks less often, as a look may be a command."""
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        assert waited < seconds, what
        time.sleep(min(max(0.01, waited / 5), 1.0))


class ReconnectingClient(paho.Client):  # type: ignore[misc] # paho has no types
    """A client that also reconnects when the connection fails while it writes: paho's loop ends with `SSLEOFError`."""

    def loop_forever(self, *args: Any, **kwargs: Any) -> Any:
        while True:
            with contextlib.suppress(ssl.SSLEOFError):
                return super().loop_forever(*args, **kwargs)


class Account:
    """A certificate that may do everything at AWS, and clients that show it."""

    names = itertools.count()

    def __init__(self, server: RunningServer) -> None:
        self.cloud = server.cloud
        self.iot: Any = self.cloud.boto3()
        thing = self.cloud.aws_thing()
        self.certificate_id, self.arn = thing.identity.certificate_id, thing.identity.certificate_arn
        self.files, self.endpoint = (thing.certificate_file, thing.key_file), thing.endpoint
        self._clients: list[Any] = []

    def client(self, name: str = "", *, clean: bool = True, will: str | None = None, host: str = "") -> Any:
        """Return a client that is connected; `ended` is set when it is not, `got` is what came."""
        client = ReconnectingClient(client_id=name or f"c{next(self.names)}", clean_session=clean)
        context = ssl.create_default_context(cafile=self.cloud.ca_file)
        context.load_cert_chain(*self.files)
        client.tls_set_context(context)
        client.reconnect_delay_set(30, 30)
        if will is not None:
            client.will_set(will, "gone", 1)
        client.got, client.is_there, client.ended = [], threading.Event(), threading.Event()
        client.on_connect = lambda *_: client.is_there.set()
        client.on_disconnect = lambda *_: client.ended.set()
        client.on_message = lambda _client, _data, message: client.got.append((message.topic, message.payload.decode()))
        client.connect(host or self.endpoint, 8883)
        client.loop_start()
        self._clients.append(client)
        assert client.is_there.wait(PATIENCE_S)
        return client

    def subscribed(self, topic: str, count: int, **options: Any) -> list[Any]:
        """Return so many clients that subscribed, in all likelihood some at each worker."""
        clients = [self.client(**options) for _ in range(count)]
        granted = threading.Semaphore(0)
        for client in clients:
            client.on_subscribe = lambda *_: granted.release()
            client.subscribe(topic, 1)
        for _ in clients:
            assert granted.acquire(timeout=PATIENCE_S)
        return clients

    def close(self) -> None:
        for client in self._clients:
            client.disconnect()
            client.loop_stop()
            client._reset_sockets()  # which it leaves to the collector


def publish(client: Any, topic: str, payload: str) -> None:
    told = client.publish(topic, payload, 1)
    told.wait_for_publish(PATIENCE_S)
    assert told.is_published()


def until_got(client: Any, payloads: list[str]) -> None:
    """Return when it got each of these; what it had acknowledged just before it moved may come twice."""
    until(lambda: {payload for _, payload in client.got} >= set(payloads), client.got)
