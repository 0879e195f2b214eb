"""MQTT 3.1.1 by awscrt. Its automatic reconnect ends at the first loss, because the caller controls retries."""

import asyncio
import contextlib
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from awscrt import mqtt
from awscrt.exceptions import AwsCrtError

from birthmark.device_transports.crt.tls import (
    CRT_TIMEOUT_S,
    check_proxy,
    check_trust,
    client_context,
    crt_proxy,
    translate_error,
    wrap_future,
)
from birthmark.device_transports.errors import (
    CLOSED_HERE,
    LinkLostError,
    LinkTimeoutError,
    MqttRefusedError,
    SubscriptionRefusedError,
)
from birthmark.device_transports.identity_and_trust import ServerTrust, TokenIdentity
from birthmark.device_transports.ports import ReceivedMessage
from birthmark.device_transports.proxy import ProxyFailedError
from birthmark.device_transports.urls import WEBSOCKET_PATH, WEBSOCKET_PORT
from birthmark.errors import BirthmarkError
from birthmark.mqtt.packets import Connect

_MAX_UNTAKEN = 1000
_REFUSED = "AWS_ERROR_MQTT_PROTOCOL_ERROR"  # while connecting: a rejecting CONNACK; awscrt hides the reason code
_NEVER_S = 3600  # never reconnect: we disconnect long before that


class CrtMqtt:
    """`MqttClient` by awscrt. awscrt calls back on its own thread; the event loop does the rest."""

    def __init__(self, identity: TokenIdentity, trust: ServerTrust, timeout_s: float = CRT_TIMEOUT_S) -> None:
        self._identity = identity
        self._trust = trust
        self._timeout_s = timeout_s
        self._host, self._port = "", 0
        self._connection: mqtt.Connection | None = None
        self._loop = asyncio.get_running_loop()
        self._untaken: asyncio.Queue[ReceivedMessage | None] = asyncio.Queue()
        self._over: asyncio.Future[BirthmarkError] = self._loop.create_future()

    async def connect(self, host: str, port: int, connect: Connect) -> bool:
        proxy = crt_proxy(host, port)
        is_web = port == WEBSOCKET_PORT or proxy is not None
        self._host, self._port = host, WEBSOCKET_PORT if is_web else port
        connection = mqtt.Connection(
            mqtt.Client(tls_ctx=client_context(self._identity, self._trust)),
            host,
            self._port,
            connect.client_id,
            clean_session=connect.clean_start,
            on_connection_interrupted=_weak_callback(self._on_interrupted),
            reconnect_min_timeout_secs=_NEVER_S,
            reconnect_max_timeout_secs=_NEVER_S,
            keep_alive_secs=connect.keep_alive_s,
            protocol_operation_timeout_ms=int(self._timeout_s * 1000),
            username=connect.username,
            password=None if connect.password is None else connect.password.decode(),
            use_websockets=is_web,
            proxy_options=proxy,
            websocket_handshake_transform=_set_hub_path if is_web else None,
            disable_metrics=True,  # it would add its own text to the user name
        )
        connection.on_message(_weak_callback(self._on_message))
        self._connection = connection  # a failed connection must be released, too
        try:
            answer = await self._answer(connection.connect(), is_first=True)
        except BirthmarkError as problem:
            error = problem
            try:
                await check_proxy(host, self._port)
            except ProxyFailedError as refused:
                error = refused
            if isinstance(problem.__cause__, AwsCrtError) and problem.__cause__.name == _REFUSED:
                error = MqttRefusedError(
                    host=host, client_id=connect.client_id, return_code="by a code that the SDK hides"
                )
            self._end(error)
            raise error from problem
        return bool(answer["session_present"])

    async def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        future, _packet_id = self._alive().subscribe(topic_filter, mqtt.QoS(qos))
        try:
            await self._answer(future)
        except mqtt.SubscribeError as error:
            raise SubscriptionRefusedError(host=self._host, topic=topic_filter) from error

    async def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        future, _packet_id = self._alive().publish(topic, payload, mqtt.QoS(qos))
        await self._answer(future)

    async def next_message(self) -> ReceivedMessage:
        message = await self._untaken.get()
        if message is None:
            self._untaken.put_nowait(None)  # for the next caller
            raise self._over.result()
        return message

    async def wait_for_loss(self) -> Exception:
        return await asyncio.shield(self._over)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        self._end(LinkLostError(host=self._host, reason=CLOSED_HERE))
        if connection is not None:
            with contextlib.suppress(AwsCrtError, TimeoutError):
                async with asyncio.timeout(self._timeout_s):
                    await wrap_future(connection.disconnect())

    # ---- inside

    def _alive(self) -> mqtt.Connection:
        if self._over.done():
            raise self._over.result()
        if self._connection is None:
            raise LinkLostError(host=self._host, reason=CLOSED_HERE)
        return self._connection

    async def _answer(self, future: "Future[Any]", *, is_first: bool = False) -> Any:
        """Return awscrt's result. Raise on the end of the connection or at the timeout."""
        wrapped = wrap_future(future)
        try:
            if is_first:
                await check_trust(wrapped, self._host, self._port, self._trust)
            done, _ = await asyncio.wait(
                {wrapped, self._over}, timeout=self._timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if wrapped in done:
                return wrapped.result()
        except AwsCrtError as error:
            raise translate_error(error, self._host, self._port, self._identity) from error
        finally:
            wrapped.cancel()
        if self._over.done():
            raise self._over.result()
        raise LinkTimeoutError(host=self._host, port=self._port, seconds=f"{self._timeout_s:g}")

    def _on_message(self, *, topic: str, payload: bytes, **_: Any) -> None:
        self._in_loop(self._take, ReceivedMessage(topic, payload))

    def _on_interrupted(self, *, error: AwsCrtError, **_: Any) -> None:
        lost = LinkLostError(host=self._host, reason=error.message)
        self._in_loop(self._end, lost)

    def _in_loop(self, act: Any, argument: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its listeners with it
            self._loop.call_soon_threadsafe(act, argument)

    def _take(self, message: ReceivedMessage) -> None:
        if self._untaken.qsize() >= _MAX_UNTAKEN:
            reason = f"{_MAX_UNTAKEN} received messages are unread, the maximum"
            self._end(LinkLostError(host=self._host, reason=reason))
        elif not self._over.done():
            self._untaken.put_nowait(message)

    def _end(self, error: BirthmarkError) -> None:
        if self._over.done():
            return
        self._over.set_result(error)
        self._untaken.put_nowait(None)
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None


def _set_hub_path(*, transform_args: mqtt.WebsocketHandshakeTransformArgs, **_: Any) -> None:
    """Set the WebSocket path of hubs; awscrt's default is the path of AWS IoT."""
    transform_args.http_request.path = WEBSOCKET_PATH
    transform_args.set_done()


def _weak_callback(method: Callable[..., None]) -> Callable[..., None]:
    """Return a callback that holds its object only weakly.

    awscrt holds callbacks outside the garbage collector's view. A connection and the error that ended it would keep
    each other alive, and with them their thread and the token's session.
    """
    found = weakref.WeakMethod(method)

    def call(**facts: Any) -> None:
        if (method := found()) is not None:
            method(**facts)

    return call
