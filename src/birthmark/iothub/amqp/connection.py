"""One AMQP connection of a hub's back end: claims, links, requests and readers."""

import asyncio
from collections import Counter
from collections.abc import Awaitable
from functools import partial
from typing import Any

from birthmark.amqp.errors import AmqpCondition, AmqpError, AmqpErrorScope
from birthmark.amqp.events import (
    AmqpEvent,
    ConnectionOpened,
    CreditChanged,
    DeliveryReceived,
    LinkDetached,
    LinkRequested,
    SaslStarted,
)
from birthmark.amqp.message import AmqpMessage, MessageProperties, ValueBody, read_message, write_message
from birthmark.amqp.performatives import ACCEPTED
from birthmark.amqp.receiver_link import ReceiverLink
from birthmark.amqp.sasl import SaslMechanism
from birthmark.amqp.sender_link import SenderLink
from birthmark.amqp.values import Array, DescribedValue, Int, Symbol, Timestamp
from birthmark.broker.ports import MessageStream
from birthmark.broker.rules.stream_partitions_and_positions import PARTITIONS
from birthmark.clock_and_entropy import Clock
from birthmark.errors import BirthmarkError, InvalidRequestError, NotFoundError, UnauthenticatedError
from birthmark.iothub.amqp.claims import Claims, NoClaimError
from birthmark.iothub.amqp.event_reader import EventReader, StreamTail, is_partition
from birthmark.iothub.model import Hub, TelemetryMessage
from birthmark.iothub.rules.event_positions import parse_filter
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.hubs_and_authorization import UnknownHubError
from birthmark.iothub.wire.amqp_addresses import AmqpNode, EventPartition, HubEvents, parse_address
from birthmark.net.amqp_driver import AmqpDriver

GROUPS = frozenset({"$default"})
MAX_READERS = 5
"""Readers of one consumer group on one partition, at each worker (Event Hubs quotas)."""
_SELECTOR = "apache.org:selector-filter:string"
_UNAUTHORIZED, _BAD_REQUEST, _NOT_FOUND, _OK = 401, 400, 404, 200


class AmqpAddressError(NotFoundError):
    """The hub has no such address."""

    code = "iothub.amqp_address_unknown"
    cause = "A client attached a link to {address}, which this server does not have."
    fix = (
        "Read events with an Event Hubs SDK, and send messages to devices over HTTPS: `birthmark hub c2d DEVICE hello`"
    )
    address: str


class TooManyReadersError(InvalidRequestError):
    """The partition has too many readers of one consumer group."""

    code = "iothub.too_many_readers"
    cause = "Partition {partition} of hub {hub} has {limit} readers of the consumer group $Default, the maximum."
    fix = "Close unused readers. To read the same events with the CLI: `birthmark hub monitor --hub {hub}`"
    hub: str
    limit: int
    partition: int


class HubAmqpConnections:
    """All AMQP connections of this worker, and what they share."""

    def __init__(self, iothub: IotHub, clock: Clock) -> None:
        self.iothub = iothub
        self.clock = clock
        self.readers: Counter[tuple[str, int]] = Counter()
        """Readers by hub and partition."""
        self._tails: dict[str, tuple[MessageStream[TelemetryMessage], StreamTail]] = {}
        self._connections: set[HubAmqpConnection] = set()

    def connect(self, driver: AmqpDriver) -> "HubAmqpConnection":
        """Return the hub's side of a new connection."""
        made = HubAmqpConnection(self, driver)
        self._connections.add(made)
        return made

    def forget(self, connection: "HubAmqpConnection") -> None:
        """Forget a closed connection."""
        self._connections.discard(connection)

    def tail(self, hub: Hub) -> StreamTail:
        """Return the watch of a hub's stream, shared by its readers."""
        stream = self.iothub.telemetry.stream(hub)
        known = self._tails.get(hub.name)
        if known is None or known[0] is not stream:
            known = self._tails[hub.name] = (stream, StreamTail(stream))
        return known[1]

    def recheck(self, _event: object) -> None:
        """End the links whose hub, key or user is no longer valid."""
        for connection in tuple(self._connections):
            connection.recheck()


class HubAmqpConnection:
    """Handles the events of one connection."""

    def __init__(self, everyone: HubAmqpConnections, driver: AmqpDriver) -> None:
        self._everyone = everyone
        self._driver = driver
        self._clock = everyone.clock
        self._claims: Claims | None = None
        self._readers: dict[SenderLink, tuple[EventReader, Hub, asyncio.Task[None]]] = {}
        self._answering: list[SenderLink] = []  # links of nodes that answer requests, newest last

    # ---- for the driver

    def handle(self, event: AmqpEvent) -> Awaitable[None] | None:
        """Handle an event of the peer."""
        match event:
            case SaslStarted():
                self._sasl(event)
            case ConnectionOpened():
                self._driver.engine.accept_open()
            case LinkRequested(link=link):
                return self._requested(link)
            case DeliveryReceived():
                return self._received(event)
            case CreditChanged(link=link):
                if link in self._readers:
                    self._readers[link][0].resume()
            case LinkDetached(link=link):
                self._detached(link)
            case _:
                pass
        return None

    def writable(self) -> None:
        """Continue to send on every link."""
        for reader, _, _ in self._readers.values():
            reader.resume()

    def check_deadlines(self, at: float) -> float | None:
        """Detach links whose token has expired."""
        self.recheck()
        return at + 10.0 if self._readers else None

    def closed(self) -> None:
        """End all readers."""
        for link in tuple(self._readers):
            self._detached(link)
        self._everyone.forget(self)

    def recheck(self) -> None:
        """Detach the links that no claim authorizes any more."""
        for link, (_, hub, _) in tuple(self._readers.items()):
            try:
                self._check(hub, link.source_address or "")
            except BirthmarkError as error:
                self._driver.note(error)
                self._detach(link, AmqpCondition.UNAUTHORIZED_ACCESS, str(error))

    # ---- inside

    @property
    def claims(self) -> Claims:
        if self._claims is None:
            self._claims = Claims(self._everyone.iothub.hubs, self._driver.address)
        return self._claims

    def _check(self, hub: Hub, address: str) -> None:
        self._everyone.iothub.hubs.check_is_there(hub)
        self.claims.check(hub, address, self._clock.now())

    def _sasl(self, event: SaslStarted) -> None:
        if event.mechanism == SaslMechanism.PLAIN:
            try:
                self._claim(event.authentication_id, event.password)
            except BirthmarkError as error:
                self._driver.note(error)
                self._driver.engine.refuse_sasl()
                return
        self._driver.engine.accept_sasl()

    def _claim(self, audience: str, token: str) -> None:
        hub = self.claims.add(audience, token)
        self._driver.mark_authenticated(f"hub:{hub.name}")

    def _requested(self, link: ReceiverLink | SenderLink) -> Awaitable[None] | None:
        text = (link.source_address if isinstance(link, SenderLink) else link.target_address) or ""
        address = parse_address(text)
        try:
            match address:
                case AmqpNode():
                    self._attach_node(link, address)
                case EventPartition() if isinstance(link, SenderLink):
                    return self._read(link, address)
                case HubEvents() if isinstance(link, SenderLink):
                    self._redirect(link, address)
                case _:
                    raise AmqpAddressError(address=text[:200])
        except BirthmarkError as error:
            self._refuse(link, error)
        return None

    def _attach_node(self, link: ReceiverLink | SenderLink, node: AmqpNode) -> None:
        if node is AmqpNode.MANAGEMENT and self.claims.hub() is None:
            raise NoClaimError(address=str(node), hub="birthmark")
        if isinstance(link, SenderLink):
            link.accept(settled=True)
            self._answering.append(link)
        else:
            link.accept(credit=50)

    async def _read(self, link: SenderLink, address: EventPartition) -> None:
        try:
            await self._start_reader(link, address)
        except BirthmarkError as error:
            self._refuse(link, error)

    async def _start_reader(self, link: SenderLink, address: EventPartition) -> None:
        hub = self.claims.hub()
        if hub is None or hub.name.lower() != address.entity.lower():
            raise NoClaimError(address=(link.source_address or "")[:200], hub=address.entity)
        self._check(hub, link.source_address or "")
        if address.group.lower() not in GROUPS or not is_partition(address.partition):
            raise AmqpAddressError(address=(link.source_address or "")[:200])
        key = hub.name, address.partition
        if self._everyone.readers[key] >= MAX_READERS:
            raise TooManyReadersError(hub=hub.name, limit=MAX_READERS, partition=address.partition)
        position = parse_filter(_selector_of(link))
        stream = self._everyone.iothub.telemetry.stream(hub)
        reader = EventReader(link, stream, self._everyone.tail(hub), self._driver, address.partition)
        await reader.start(position)
        link.accept(settled=True, max_message_bytes=1024 * 1024)
        self._everyone.readers[key] += 1
        task = asyncio.get_running_loop().create_task(reader.run(partial(self._ended, link)))
        self._readers[link] = (reader, hub, task)
        self._driver.resume_events()

    def _ended(self, link: SenderLink, error: BirthmarkError) -> None:
        self._driver.note(error)
        self._detach(link, AmqpCondition.DETACH_FORCED, str(error))

    def _redirect(self, link: SenderLink, address: HubEvents) -> None:
        hub = self.claims.hub()
        if hub is None:
            raise NoClaimError(address=(link.source_address or "")[:200], hub="birthmark")
        path = address.path.strip("/") or AmqpNode.MANAGEMENT
        info = {
            Symbol("hostname"): hub.host,
            Symbol("network-host"): hub.host,
            Symbol("address"): f"amqps://{hub.host}:5671/{hub.name}/{path}",
        }
        told = "use the Event Hubs-compatible endpoint"
        link.refuse(AmqpError(AmqpCondition.LINK_REDIRECT, told, scope=AmqpErrorScope.LINK, info=info))

    def _refuse(self, link: ReceiverLink | SenderLink, error: BirthmarkError) -> None:
        self._driver.note(error)
        link.refuse(AmqpError(condition_of(error), str(error), scope=AmqpErrorScope.LINK))
        self._driver.wrote()

    def _detach(self, link: SenderLink, condition: str, told: str) -> None:
        link.detach(AmqpError(condition, told, scope=AmqpErrorScope.LINK))
        self._detached(link)
        self._driver.wrote()

    def _detached(self, link: ReceiverLink | SenderLink) -> None:
        if isinstance(link, SenderLink):
            if link in self._answering:
                self._answering.remove(link)
            if (known := self._readers.pop(link, None)) is not None:
                reader, hub, task = known
                self._everyone.readers[hub.name, reader.partition] -= 1
                task.cancel()

    # ---- requests

    def _received(self, event: DeliveryReceived) -> Awaitable[None] | None:
        node = parse_address(event.link.target_address)
        event.link.settle(event.delivery_id, ACCEPTED)
        try:
            message = read_message(event.payload)
        except AmqpError as error:
            self._driver.note(AmqpRequestError(detail=error.description))
            return None
        if node is AmqpNode.CBS:
            self._put_token(event.link, message)
            return None
        return self._manage(event.link, message)

    def _put_token(self, link: ReceiverLink, message: AmqpMessage) -> None:
        asked, body = message.application_properties, message.body
        token = body.value if isinstance(body, ValueBody) else None
        try:
            if asked.get("operation") != "put-token" or not isinstance(token, str):
                raise AmqpRequestError(detail="a request to $cbs is not put-token with a text")
            self._claim(str(asked.get("name", ""))[:512], token)
        except BirthmarkError as error:
            self._driver.note(error)
            self._answer(link, message, _UNAUTHORIZED, str(error))
        else:
            self._answer(link, message, _OK, "OK")

    async def _manage(self, link: ReceiverLink, message: AmqpMessage) -> None:
        try:
            body = await self._entity(message.application_properties)
        except BirthmarkError as error:
            self._driver.note(error)
            is_unknown = isinstance(error, NotFoundError)
            is_refused = isinstance(error, UnauthenticatedError)
            status = _NOT_FOUND if is_unknown else _UNAUTHORIZED if is_refused else _BAD_REQUEST
            self._answer(link, message, status, str(error))
        else:
            self._answer(link, message, _OK, "OK", body)

    async def _entity(self, asked: Any) -> dict[str, Any]:
        """Return the properties of the entity or of one of its partitions."""
        name, kind = str(asked.get("name", "")), asked.get("type")
        hub = self.claims.hub()
        if hub is None or hub.name.lower() != name.lower():
            raise UnknownHubError(host=name[:200])
        self._check(hub, str(AmqpNode.MANAGEMENT))
        if asked.get("operation") != "READ":
            raise AmqpRequestError(detail="the operation is not READ")
        if kind == "com.microsoft:eventhub":
            return {
                "name": hub.name,
                "type": "com.microsoft:eventhub",
                "created_at": Timestamp(0),
                "partition_count": Int(PARTITIONS),
                "partition_ids": Array(str, tuple(map(str, range(PARTITIONS)))),
            }
        if kind == "com.microsoft:partition":
            return await self._partition(hub, str(asked.get("partition", "")))
        raise AmqpRequestError(detail="the type is not com.microsoft:eventhub or com.microsoft:partition")

    async def _partition(self, hub: Hub, text: str) -> dict[str, Any]:
        if not (text.isascii() and text.isdigit() and len(text) < 5 and is_partition(int(text))):  # noqa: PLR2004 - digits
            raise AmqpAddressError(address=f"partition {text[:20]}")
        state = await self._everyone.iothub.telemetry.stream(hub).partition_state(int(text))
        return {
            "name": hub.name,
            "type": "com.microsoft:partition",
            "partition": text,
            "begin_sequence_number": state.first_number,
            "last_enqueued_sequence_number": state.next_number - 1,
            "last_enqueued_offset": str(state.last_position) if state.next_number else "-1",
            "last_enqueued_time_utc": Timestamp(state.last_micros // 1000),
            "is_partition_empty": state.is_empty,
        }

    def _answer(
        self, link: ReceiverLink, request: AmqpMessage, status: int, told: str, body: dict[str, Any] | None = None
    ) -> None:
        answering = self._answering_link(link, request.properties.reply_to)
        if answering is None:
            return
        payload = write_message(
            AmqpMessage(
                None if body is None else ValueBody(body),
                MessageProperties(correlation_id=request.properties.message_id),
                {"status-code": Int(status), "status-description": told},
            )
        )
        answering.enqueue(payload, settled=True)
        self._driver.wrote()

    def _answering_link(self, link: ReceiverLink, reply_to: str | None) -> SenderLink | None:
        """Return the link for an answer: of the same session and node, preferably the one that `reply_to` names."""
        node = parse_address(link.target_address)
        fitting = [
            one
            for one in self._answering
            if one.session_id == link.session_id and parse_address(one.source_address) is node
        ]
        named = [one for one in fitting if reply_to and reply_to in {one.name, one.target_address}]
        return next(iter((named or fitting)[::-1]), None)


class AmqpRequestError(InvalidRequestError):
    """A request to a node is not valid."""

    code = "iothub.amqp_request_invalid"
    cause = "A request over AMQP is not valid: {detail}."
    fix = "Use an Event Hubs SDK with the hub's connection string: `birthmark hub key service`"
    detail: str


def condition_of(error: BirthmarkError) -> str:
    """Return the AMQP condition of a refusal."""
    if isinstance(error, UnauthenticatedError):
        return AmqpCondition.UNAUTHORIZED_ACCESS
    if isinstance(error, NotFoundError):
        return AmqpCondition.NOT_FOUND
    if isinstance(error, TooManyReadersError):
        return AmqpCondition.RESOURCE_LIMIT_EXCEEDED
    return "com.microsoft:argument-error" if isinstance(error, InvalidRequestError) else AmqpCondition.INTERNAL_ERROR


def _selector_of(link: SenderLink) -> str | None:
    value = next((one for name, one in link.filter.items() if str(name) == _SELECTOR), None)
    found = value.value if isinstance(value, DescribedValue) else value
    return found if isinstance(found, str) else None
