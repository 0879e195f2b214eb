"""A device that a test drives over AMQP, because no SDK for Python has devices over AMQP.

Every call waits for the hub. Use it in one thread.
"""

import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec

from birthmark.amqp.client_engine import AmqpClientEngine
from birthmark.amqp.client_session import ClientSession
from birthmark.amqp.errors import AmqpError
from birthmark.amqp.events import (
    AmqpEvent,
    ConnectionClosed,
    ConnectionOpened,
    DeliveryReceived,
    DeliverySettled,
    LinkAttached,
    LinkDetached,
)
from birthmark.amqp.message import AmqpMessage, DataBody, MessageProperties, read_message, write_message
from birthmark.amqp.performatives import ACCEPTED, AcceptedOutcome, Outcome, RejectedOutcome, ReleasedOutcome
from birthmark.amqp.receiver_link import ReceiverLink
from birthmark.amqp.sender_link import SenderLink
from birthmark.amqp.values import Int, Symbol
from birthmark.auth.sas import hmac_sha256, render_sas
from birthmark.clock_and_entropy import SystemClock
from birthmark.iothub.wire.amqp_tokens import CBS_ADDRESS, put_token_request, read_put_token_answer
from birthmark.untrusted_json_and_text import decode_json

_CLOCK = SystemClock()
_TIMEOUT_S = 10.0
_CREDIT = 50
_CHANNEL = Symbol("com.microsoft:channel-correlation-id")


class AmqpDeviceError(Exception):
    """The hub refused, or did not answer in time; `condition` is AMQP's, empty without an answer."""

    def __init__(self, told: str, condition: str = "") -> None:
        super().__init__(told)
        self.condition = condition


class DeviceMessage(msgspec.Struct, frozen=True):
    """A message to the device; settle it with `complete`, `abandon` or `reject` of the client."""

    data: bytes
    message_id: str
    properties: Mapping[str, Any]
    delivery_count: int
    delivery_id: int


class DeviceMethodCall(msgspec.Struct, frozen=True):
    """A direct method call; answer it with `send_method_response`."""

    name: str
    payload: Any
    request_id: UUID


class AmqpDeviceClient:
    """A connection of one device. `key` is its symmetric key; without one, `context` has its certificate."""

    def __init__(
        self,
        host: str,
        device_id: str,
        context: ssl.SSLContext,
        key: bytes | None,
        *,
        port: int,
        wait_s: float = _TIMEOUT_S,
    ) -> None:
        self._host, self._device_id, self._port = host, device_id, port
        self._context, self._key, self._wait_s = context, key, wait_s
        self._begin()

    def _begin(self) -> None:
        """Forget an earlier connection."""
        self._engine = AmqpClientEngine(self._host, container_id=self._device_id)
        self._line: ssl.SSLSocket | None = None
        self._is_watching = False
        self._session: ClientSession | None = None
        self._senders: dict[str, SenderLink] = {}
        self._receivers: dict[str, ReceiverLink] = {}
        self._attached: set[object] = set()
        self._received: dict[object, deque[DeliveryReceived]] = {}
        self._outcomes: dict[int, Outcome | None] = {}
        self._end: AmqpError | None = None
        self._is_over = False
        self._requests = 0

    # ---- connection

    def connect(self) -> None:
        """Connect and authenticate, also after a lost connection. Raise `AmqpDeviceError`."""
        self.cut()
        self._begin()
        try:
            raw = socket.create_connection((self._host, self._port), self._wait_s)
            self._line = self._context.wrap_socket(raw, server_hostname=self._host)
        except OSError as error:
            raise AmqpDeviceError(f"{self._host} port {self._port}: {error}") from error
        self._engine.begin(_CLOCK.monotonic())
        self._flush()
        opened: list[bool] = []
        self._until(lambda: bool(opened), opened)
        self._session = self._engine.begin_session()
        if self._key is not None:
            self._put_token(self._key)
        else:  # the first link is authenticated
            self._sender("messages/events")

    def shutdown(self) -> None:
        """Close the connection."""
        if self._line is not None:
            self._engine.close()
            with contextlib.suppress(AmqpDeviceError):  # it was lost
                self._flush()
            self.cut()

    def cut(self) -> None:
        """Break the connection, as a network failure does."""
        if self._line is not None:
            self._line.close()
            self._line = None

    # ---- messages

    def send_message(self, data: str | bytes, properties: Mapping[str, str] | None = None) -> None:
        """Send telemetry, and return once the hub has stored it. Raise `AmqpDeviceError` if the hub rejects it."""
        body = data.encode() if isinstance(data, str) else data
        self._send(
            self._sender("messages/events"), AmqpMessage(DataBody((body,)), application_properties=properties or {})
        )

    def receive_message(self, timeout_s: float | None = None) -> DeviceMessage:
        """Return the next message to the device. Raise `AmqpDeviceError` if none comes in time."""
        event = self._next(self._receiver("messages/devicebound"), timeout_s)
        message = read_message(event.payload)
        count = message.message_annotations.get(Symbol("iothub-deliverycount"), 1)
        return DeviceMessage(
            _data_of(message),
            str(message.properties.message_id or ""),
            message.application_properties,
            int(count),
            event.delivery_id,
        )

    def complete(self, message: DeviceMessage) -> None:
        """Delete a message."""
        self._settle(message, ACCEPTED)

    def abandon(self, message: DeviceMessage) -> None:
        """Return a message to the queue: it is delivered again."""
        self._settle(message, ReleasedOutcome())

    def reject(self, message: DeviceMessage) -> None:
        """Dead-letter a message."""
        self._settle(message, RejectedOutcome())

    # ---- twin

    def get_twin(self) -> dict[str, Any]:
        """Return the twin: its desired and reported properties."""
        twin: dict[str, Any] = decode_json(_data_of(self._ask_twin("GET")))
        return twin

    def patch_twin_reported_properties(self, patch: Mapping[str, Any]) -> int:
        """Update reported properties, and return their new version. Raise `AmqpDeviceError`."""
        answer = self._ask_twin("PATCH", "/properties/reported", msgspec.json.encode(patch))
        return int(answer.message_annotations[Symbol("version")])

    def receive_twin_desired_properties_patch(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Return the next change of desired properties after the first call of this method or of `watch_twin`."""
        self.watch_twin()
        patch: dict[str, Any] = decode_json(_data_of(self._next_of_twin(None, timeout_s)))
        return patch

    def watch_twin(self) -> None:
        """Subscribe to changes of desired properties."""
        if not self._is_watching:
            self._ask_twin("PUT", "/notifications/twin/properties/desired")
            self._is_watching = True

    # ---- methods

    def receive_method_request(self, timeout_s: float | None = None) -> DeviceMethodCall:
        """Return the next direct method call."""
        self._sender("methods/devicebound")
        message = read_message(self._next(self._receiver("methods/devicebound"), timeout_s).payload)
        correlation = message.properties.correlation_id
        name = str(message.application_properties["IoThub-methodname"])
        return DeviceMethodCall(name, decode_json(_data_of(message) or b"null"), UUID(str(correlation)))

    def send_method_response(self, request: DeviceMethodCall, status: int, payload: object = None) -> None:
        """Answer a call."""
        properties = MessageProperties(correlation_id=request.request_id)
        body = DataBody((msgspec.json.encode(payload),))
        self._send(self._sender("methods/devicebound"), AmqpMessage(body, properties, {"IoThub-status": Int(status)}))

    # ---- inside

    def _open_session(self) -> ClientSession:
        if self._line is None or self._session is None:
            raise AmqpDeviceError("the client is not connected: call connect()")
        return self._session

    def _put_token(self, key: bytes) -> None:
        resource = f"{self._host}/devices/{self._device_id}"
        token = render_sas(resource, hmac_sha256(key), _CLOCK.now() + timedelta(hours=1))
        asks, answers = self._attach_sender(CBS_ADDRESS), self._attach_receiver(CBS_ADDRESS)
        self._transfer(asks, put_token_request(resource, token, "1", reply_to=CBS_ADDRESS))
        answer = read_put_token_answer(self._next(answers).payload)
        if not answer.is_ok:
            raise AmqpDeviceError(f"the token was refused: {answer.description}", "amqp:unauthorized-access")

    def _ask_twin(self, operation: str, resource: str | None = None, body: bytes = b"") -> AmqpMessage:
        requests = self._sender("twin")
        self._receiver("twin")
        self._requests += 1
        correlation = str(self._requests)
        annotations = {Symbol("operation"): operation, Symbol("resource"): resource}
        properties = MessageProperties(correlation_id=correlation)
        self._send(requests, AmqpMessage(DataBody((body,)), properties, message_annotations=annotations))
        answer = self._next_of_twin(correlation)
        status = int(answer.message_annotations[Symbol("status")])
        if status >= 300:  # noqa: PLR2004 - HTTP
            raise AmqpDeviceError(f"{operation} of the twin: {status} {_data_of(answer).decode()}")
        return answer

    def _next_of_twin(self, correlation: str | None, timeout_s: float | None = None) -> AmqpMessage:
        """Return the answer to a request, or the next change without one."""
        kept = self._received[self._receiver("twin")]

        def find() -> DeliveryReceived | None:
            found = (one for one in kept if read_message(one.payload).properties.correlation_id == correlation)
            return next(found, None)

        self._until(lambda: find() is not None, timeout_s=timeout_s)
        event = find()
        assert event is not None
        kept.remove(event)
        event.link.settle(event.delivery_id)
        self._flush()
        return read_message(event.payload)

    def _sender(self, feature: str) -> SenderLink:
        if (link := self._senders.get(feature)) is None:
            link = self._senders[feature] = self._attach_sender(self._address(feature), feature)
        return link

    def _receiver(self, feature: str) -> ReceiverLink:
        if (link := self._receivers.get(feature)) is None:
            link = self._receivers[feature] = self._attach_receiver(self._address(feature), feature)
        return link

    def _address(self, feature: str) -> str:
        return f"/devices/{self._device_id}/{feature}"

    def _attach_sender(self, address: str, channel: str = "") -> SenderLink:
        link = self._open_session().attach_sender(f"sender {address}", address, properties={_CHANNEL: channel})
        self._until(lambda: link in self._attached)
        return link

    def _attach_receiver(self, address: str, channel: str = "") -> ReceiverLink:
        link = self._open_session().attach_receiver(
            f"receiver {address}", address, credit=_CREDIT, properties={_CHANNEL: channel}
        )
        self._received[link] = deque()
        self._until(lambda: link in self._attached)
        return link

    def _send(self, link: SenderLink, message: AmqpMessage) -> None:
        """Send a delivery, and wait for its outcome."""
        delivery_id = self._transfer(link, write_message(message))
        self._until(lambda: delivery_id in self._outcomes)
        outcome = self._outcomes.pop(delivery_id)
        if not isinstance(outcome, AcceptedOutcome):
            error = outcome.error if isinstance(outcome, RejectedOutcome) else None
            condition = "" if error is None else str(error.condition)
            raise AmqpDeviceError(f"rejected: {condition} {'' if error is None else error.description}", condition)

    def _transfer(self, link: SenderLink, payload: bytes) -> int:
        self._until(lambda: link.capacity > 0)
        delivery_id = link.send(payload, settled=False)
        self._flush()
        return delivery_id

    def _settle(self, message: DeviceMessage, outcome: Outcome) -> None:
        self._receiver("messages/devicebound").settle(message.delivery_id, outcome)
        self._flush()

    def _next(self, link: ReceiverLink, timeout_s: float | None = None) -> DeliveryReceived:
        kept = self._received[link]
        self._until(lambda: bool(kept), timeout_s=timeout_s)
        event = kept.popleft()
        if link is not self._receivers.get("messages/devicebound"):
            link.settle(event.delivery_id)
            self._flush()
        return event

    def _until(
        self, condition: Callable[[], bool], opened: list[bool] | None = None, timeout_s: float | None = None
    ) -> None:
        """Process what the hub sends until a condition is true. Raise `AmqpDeviceError`."""
        if self._line is None:
            raise AmqpDeviceError("the client is not connected: call connect()")
        end = _CLOCK.monotonic() + (self._wait_s if timeout_s is None else timeout_s)
        self._flush()
        while not condition():
            if self._end is not None or self._is_over or self._line is None:
                error, self._end = self._end, None
                condition_text = "" if error is None else error.condition
                raise AmqpDeviceError("the hub ended it" if error is None else str(error), condition_text)
            left = end - _CLOCK.monotonic()
            if left <= 0:
                raise AmqpDeviceError(f"the hub did not answer within {timeout_s or self._wait_s:g} s")
            self._line.settimeout(left)
            try:
                data = self._line.recv(65536)
            except TimeoutError:
                continue
            except OSError as error:
                self._is_over = True
                raise AmqpDeviceError(f"the line was cut: {error}") from error
            self._is_over = not data
            for event in self._engine.receive_data(data, _CLOCK.monotonic()):
                self._take(event, opened)
            self._flush()

    def _take(self, event: AmqpEvent, opened: list[bool] | None) -> None:
        match event:
            case ConnectionOpened() if opened is not None:
                opened.append(True)
            case LinkAttached(link=link):
                self._attached.add(link)
            case DeliveryReceived(link=link):
                self._received[link].append(event)
            case DeliverySettled(delivery_ids=delivery_ids, outcome=outcome):
                self._outcomes.update(dict.fromkeys(delivery_ids, outcome))
            case LinkDetached(link=link, error=error):
                self._end = self._end or error
                for links in (self._senders, self._receivers):
                    for feature in [feature for feature, one in links.items() if one is link]:
                        del links[feature]
                self._is_watching = self._is_watching and "twin" in self._receivers
            case ConnectionClosed(error=error):
                self._end, self._is_over = self._end or error, True
            case _:
                pass

    def _flush(self) -> None:
        if self._line is not None and (data := self._engine.data_to_send(_CLOCK.monotonic())):
            try:
                self._line.sendall(data)
            except OSError as error:
                self._is_over = True
                raise AmqpDeviceError(f"the line was cut: {error}") from error


def _data_of(message: AmqpMessage) -> bytes:
    return message.body.payload if isinstance(message.body, DataBody) else b""
