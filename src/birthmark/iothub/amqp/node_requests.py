"""Requests to the nodes `$cbs` and `$management`, and the links on which they are answered.

An answer goes to a link of the request's session whose source is the node.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from birthmark.amqp.errors import AmqpError
from birthmark.amqp.events import DeliveryReceived
from birthmark.amqp.message import AmqpMessage, MessageProperties, ValueBody, read_message, write_message
from birthmark.amqp.performatives import ACCEPTED
from birthmark.amqp.receiver_link import ReceiverLink
from birthmark.amqp.sender_link import SenderLink
from birthmark.amqp.values import Array, Int, Timestamp
from birthmark.broker.rules.stream_partitions_and_positions import PARTITIONS
from birthmark.errors import (
    BirthmarkError,
    InvalidRequestError,
    NotFoundError,
    PolicyError,
    ThrottledError,
    UnauthenticatedError,
    UnavailableError,
)
from birthmark.iothub.amqp.claims import NoClaimError
from birthmark.iothub.amqp.event_reader import is_partition
from birthmark.iothub.amqp.link_handler import LinkConnection, LinkHandler
from birthmark.iothub.model import Hub
from birthmark.iothub.service import IotHub
from birthmark.iothub.wire.amqp_addresses import AmqpNode, is_in_entity, parse_address

_OK, _ACCEPTED, _BAD_REQUEST, _UNAUTHORIZED = 200, 202, 400, 401
_TEMPORARY: Mapping[type[BirthmarkError], int] = {ThrottledError: 429, UnavailableError: 503}
_OF_TOKENS: Mapping[type[BirthmarkError], int] = {**_TEMPORARY, InvalidRequestError: _BAD_REQUEST}
"""Status of a refused token; 401 for other errors."""
_OF_REQUESTS: Mapping[type[BirthmarkError], int] = {
    **_TEMPORARY,
    UnauthenticatedError: _UNAUTHORIZED,
    NotFoundError: 404,
}
"""Status of a refused request to `$management`; 400 for other errors."""
_CREDIT = 50
MAX_REQUEST_BYTES = 16 * 1024
MAX_NODE_LINKS = 128
"""Links of a connection to `$cbs` and `$management`."""
_MAX_SHOWN = 200
Claim = Callable[[str, str, str], Awaitable[Hub | None]]
"""Adds a claim: the audience, the token and its type; returns a back end's hub. Raise `BirthmarkError`."""


class AmqpRequestError(InvalidRequestError):
    """A request to a node is not valid."""

    code = "iothub.amqp_request_invalid"
    message = "The request is not valid: {detail}"
    cause = "A request over AMQP is not valid: {detail}."
    fix = "Use an Event Hubs SDK with the hub's connection string: `birthmark hub key --policy service`"
    detail: str


class NodeLinksError(PolicyError):
    """The connection has too many links to nodes."""

    code = "iothub.too_many_node_links"
    cause = "A connection attached more than {limit} links to $cbs or $management."
    fix = "Use one pair of links for all tokens of a connection, as the SDKs do. List hubs: `birthmark hub ls`"
    limit: int


class UnknownPartitionError(NotFoundError):
    """The hub has no such partition."""

    code = "iothub.unknown_partition"
    message = "Partition {partition} does not exist"
    cause = "A client asked for partition {partition} of hub {hub}, which has the partitions 0 to {last}."
    fix = "Ask the SDK for the partition IDs. To read all partitions with the CLI: `birthmark hub messages --hub {hub}`"
    hub: str
    last: int = PARTITIONS - 1
    partition: str


class EntityNotOfHubError(NotFoundError):
    """The address names another entity than the hub's."""

    code = "iothub.entity_not_of_hub"
    message = "The entity {entity} does not exist at hub {hub}"
    cause = "The client's address or EntityPath names {entity}, but the token belongs to hub {hub}."
    fix = (
        "Set EntityPath={hub} in the connection string. To print the connection string: `birthmark hub key {hub} "
        "--policy service`"
    )
    entity: str
    hub: str


def check_entity(hub: Hub, name: str) -> None:
    """Raise `EntityNotOfHubError` unless a name is that of the hub's entity."""
    if hub.name.lower() != name.lower():
        raise EntityNotOfHubError(hub=hub.name, entity=name[:_MAX_SHOWN])


def parse_partition(hub: Hub, text: str) -> int:
    """Return the number of a partition. Raise `UnknownPartitionError`."""
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and is_partition(int(text))):  # noqa: PLR2004 - digits
        raise UnknownPartitionError(hub=hub.name, partition=text[:20])
    return int(text)


class NodeRequests(LinkHandler):
    """All links of a connection to the nodes."""

    def __init__(self, iothub: IotHub, connection: LinkConnection, claim: Claim) -> None:
        self._iothub = iothub
        self._connection = connection
        self._claim = claim
        self._links: set[ReceiverLink | SenderLink] = set()
        self._answering: list[SenderLink] = []  # newest last

    def attach(self, link: ReceiverLink | SenderLink) -> None:
        """Accept a link. Raise `NodeLinksError`."""
        if len(self._links) >= MAX_NODE_LINKS:
            raise NodeLinksError(limit=MAX_NODE_LINKS)
        self._links.add(link)
        if isinstance(link, SenderLink):
            link.accept(settled=True)
            self._answering.append(link)
        else:
            link.accept(credit=_CREDIT, max_message_bytes=MAX_REQUEST_BYTES)

    def forget(self, link: ReceiverLink | SenderLink) -> None:
        """Forget a link that has ended."""
        self._links.discard(link)
        if isinstance(link, SenderLink) and link in self._answering:
            self._answering.remove(link)

    def received(self, event: DeliveryReceived) -> Awaitable[None] | None:
        event.link.settle(event.delivery_id, ACCEPTED)
        try:
            message = read_message(event.payload)
        except AmqpError as error:
            self._connection.driver.note(AmqpRequestError(detail=error.description))
            return None
        if parse_address(event.link.target_address) is AmqpNode.CBS:
            return self._put_token(event.link, message)
        return self._manage(event.link, message)

    async def _put_token(self, link: ReceiverLink, message: AmqpMessage) -> None:
        asked, body = message.application_properties, message.body
        token, audience = body.value if isinstance(body, ValueBody) else None, str(asked.get("name", ""))
        try:
            if asked.get("operation") != "put-token" or not isinstance(token, str):
                raise AmqpRequestError(detail="a request to $cbs is not put-token with a text")
            hub = await self._claim(audience, token, str(asked.get("type", "")))
        except BirthmarkError as error:
            self._connection.driver.note(error)
            self._answer(link, message, _status_of(error, _OF_TOKENS, _UNAUTHORIZED), str(error))
        else:
            # Event Hubs answers with 202, which azure_messaging_eventhubs for Rust requires; IoT Hub with 200, which
            # its SDKs for Node and Java require.
            is_of_events = hub is not None and "://" in audience and is_in_entity(audience, hub.name)
            self._answer(link, message, *((_ACCEPTED, "Accepted") if is_of_events else (_OK, "OK")))

    async def _manage(self, link: ReceiverLink, message: AmqpMessage) -> None:
        asked = message.application_properties
        try:
            await self._claim_hub(asked)
            body = await self._entity(asked)
        except BirthmarkError as error:
            self._connection.driver.note(error)
            self._answer(link, message, _status_of(error, _OF_REQUESTS, _BAD_REQUEST), str(error))
        else:
            self._answer(link, message, _OK, "OK", body)

    async def _claim_hub(self, asked: Any) -> None:
        """Accept the token of a request on a connection without one, as the Event Hubs SDK for Java presents it."""
        try:
            _ = self._connection.hub
        except NoClaimError:
            await self._claim(str(AmqpNode.MANAGEMENT), str(asked.get("security_token", "")), "")

    async def _entity(self, asked: Any) -> dict[str, Any]:
        """Return the properties of the entity or of one of its partitions."""
        name, kind = str(asked.get("name", "")), asked.get("type")
        hub = self._connection.hub
        check_entity(hub, name)
        self._connection.authorize(hub, f"{hub.name}/{AmqpNode.MANAGEMENT}")
        if asked.get("operation") != "READ":
            raise AmqpRequestError(detail="the operation is not READ")
        if kind == "com.microsoft:eventhub":
            return {
                "name": hub.name,
                "type": "com.microsoft:eventhub",
                "created_at": Timestamp(0),
                "partition_count": Int(PARTITIONS),
                "partition_ids": Array(str, tuple(map(str, range(PARTITIONS)))),
                "georeplication_factor": Int(1),  # azeventhubs for Go requires it
            }
        if kind == "com.microsoft:partition":
            return await self._partition(hub, str(asked.get("partition", "")))
        raise AmqpRequestError(detail="the type is not com.microsoft:eventhub or com.microsoft:partition")

    async def _partition(self, hub: Hub, text: str) -> dict[str, Any]:
        state = await self._iothub.telemetry.stream(hub).partition_state(parse_partition(hub, text))
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
                # azure-eventhub for Python reads the description of `$management` under the second name.
                {"status-code": Int(status), "status-description": told, "statusDescription": told},
            )
        )
        try:
            answering.enqueue(payload, settled=True)
        except AmqpError as error:  # too many answers wait for credit
            self._connection.detach(answering, AmqpRequestError(detail=error.description))
        self._connection.driver.wrote()

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


def _status_of(error: BirthmarkError, statuses: Mapping[type[BirthmarkError], int], default: int) -> int:
    """Return the status of the error's nearest listed base class."""
    return next((statuses[kind] for kind in type(error).__mro__ if kind in statuses), default)
