"""Pairs of links for twin requests and for direct methods: one in each direction, of one channel."""

from collections import deque
from collections.abc import Awaitable

from birthmark.amqp.errors import AmqpError
from birthmark.amqp.events import DeliveryReceived
from birthmark.amqp.link import LinkState
from birthmark.amqp.message import AmqpMessage, read_message
from birthmark.amqp.performatives import ACCEPTED
from birthmark.amqp.receiver_link import ReceiverLink
from birthmark.amqp.sender_link import SenderLink
from birthmark.errors import BirthmarkError
from birthmark.iothub import wire
from birthmark.iothub.amqp.link_handler import LinkDevice, LinkHandler
from birthmark.iothub.connections.direct_methods import MethodCalls
from birthmark.iothub.connections.twin_requests import read_twin, report_properties
from birthmark.iothub.error_mapping import http_error
from birthmark.iothub.rules.publish_refusals import MAX_MESSAGE_BYTES
from birthmark.iothub.service import IotHub
from birthmark.iothub.wire.amqp_twins import (
    DeviceRequestError,
    TwinOperation,
    TwinRequest,
    correlation_of,
    parse_method_response,
    parse_twin_request,
    render_desired,
    render_method_call,
    render_twin_error,
    render_twin_response,
)
from birthmark.net.amqp_driver import AmqpDriver

_CREDIT = 50
_MAX_CALLS = 50  # that wait for credit; the oldest is dropped, and its caller has a timeout
_OK, _NO_CONTENT = 200, 204


class PairedLinks(LinkHandler):
    """The links of one channel."""

    __slots__ = ("_device", "_driver", "_sending")

    def __init__(self, device: LinkDevice, driver: AmqpDriver) -> None:
        self._device = device
        self._driver = driver
        self._sending: SenderLink | None = None

    def attach(self, link: ReceiverLink | SenderLink) -> None:
        """Accept a link of the channel."""
        if isinstance(link, SenderLink):
            self._sending = link
            link.accept(settled=True)
        else:
            link.accept(credit=_CREDIT, max_message_bytes=MAX_MESSAGE_BYTES)

    @property
    def can_send(self) -> bool:
        """Whether the device receives on this channel."""
        return self._sending is not None and self._sending.state is LinkState.ATTACHED

    def _send(self, payload: bytes) -> None:
        """Send a message, or keep it until the device grants credit. Raise `AmqpError` if too many wait."""
        if self._sending is not None and self._sending.state is LinkState.ATTACHED:
            self._sending.enqueue(payload, settled=True)
            self._driver.wrote()

    def _read(self, event: DeliveryReceived) -> AmqpMessage | None:
        """Settle a delivery and return its message, or record why it has none."""
        event.link.settle(event.delivery_id, ACCEPTED)
        self._driver.wrote()
        try:
            return read_message(event.payload)
        except AmqpError as error:
            self._device.driver.note(DeviceRequestError(device_id=self._name, detail=error.description))
            return None

    @property
    def _name(self) -> str:
        return self._device.identity.name


class TwinLinks(PairedLinks):
    """Twin requests of a device, their responses, and changes of desired properties."""

    __slots__ = ("_iothub", "_is_subscribed")

    def __init__(self, iothub: IotHub, device: LinkDevice, driver: AmqpDriver) -> None:
        super().__init__(device, driver)
        self._iothub = iothub
        self._is_subscribed = False

    def received(self, event: DeliveryReceived) -> Awaitable[None] | None:
        message = self._read(event)
        return None if message is None else self._answer(message)

    def notify(self, change: wire.DesiredChange, patch: bytes) -> None:
        """Send changed desired properties to a subscribed device."""
        if self._is_subscribed:
            self._send(render_desired(patch, change.version))

    async def _answer(self, message: AmqpMessage) -> None:
        correlation = correlation_of(message)
        try:
            response = await self._response_to(parse_twin_request(self._name, message))
        except BirthmarkError as error:
            status, _, number = http_error(error)
            self._device.driver.note(error)
            response = render_twin_error(correlation, status, number, str(error))
        try:
            self._send(response)
        except AmqpError as error:  # too many responses wait for credit
            self._device.driver.note(DeviceRequestError(device_id=self._name, detail=error.description))

    async def _response_to(self, request: TwinRequest) -> bytes:
        device, correlation = self._device, request.correlation
        match request.operation:
            case TwinOperation.GET:
                twin = await read_twin(self._iothub, device.hub, device.identity)
                return render_twin_response(correlation, _OK, twin)
            case TwinOperation.REPORT:
                version = await report_properties(
                    self._iothub, device.hub, device.identity, request.patch, request.version
                )
                return render_twin_response(correlation, _NO_CONTENT, version=version)
            case TwinOperation.SUBSCRIBE:
                await device.subscribe(wire.DESIRED)
                self._is_subscribed = True
            case TwinOperation.UNSUBSCRIBE:
                self._is_subscribed = False
        return render_twin_response(correlation, _OK)


class MethodLinks(PairedLinks):
    """Direct method calls to a device, and its responses. A call without credit waits until its caller gives up."""

    __slots__ = ("_calls", "_waiting")

    def __init__(self, calls: MethodCalls, device: LinkDevice, driver: AmqpDriver) -> None:
        super().__init__(device, driver)
        self._calls = calls
        self._waiting: deque[tuple[wire.MethodRequest, bytes]] | None = None

    def call(self, request: wire.MethodRequest, payload: bytes) -> None:
        """Send a call, or keep it until the device grants credit."""
        if self._waiting is None:
            self._waiting = deque(maxlen=_MAX_CALLS)
        self._waiting.append((request, payload))
        self.resume()

    def resume(self) -> None:
        while self._waiting and self._sending is not None and self._sending.capacity:
            request, payload = self._waiting.popleft()
            if self._calls.is_waiting(request.rid):
                self._send(render_method_call(request.rid, request.method, payload))

    def received(self, event: DeliveryReceived) -> Awaitable[None] | None:
        if (message := self._read(event)) is None:
            return None
        try:
            response = parse_method_response(self._name, message)
        except BirthmarkError as error:
            self._device.driver.note(error)
            return None
        answer = wire.MethodAnswer(response.status, response.rid)
        self._calls.accept_response(self._device.hub.name, self._name, answer, response.payload)
        return None
