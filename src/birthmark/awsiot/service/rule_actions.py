"""What stands here for the services that rules send to, as ways out of the engine."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from birthmark.awsiot.model import Account
from birthmark.awsiot.ports import FunctionCaller, Functions
from birthmark.awsiot.rules import topic_validation
from birthmark.awsiot.service.kinesis_streams import DataStreams
from birthmark.awsiot.service.rule_destinations import KIND, Destinations
from birthmark.awsiot.service.s3_buckets import Buckets
from birthmark.awsiot.service.topic_rules import LED_BY, TopicRules
from birthmark.broker.keyed_lock import until_done
from birthmark.broker.model import MICROS, BrokerMessage
from birthmark.broker.publisher import MessagePublisher
from birthmark.errors import BirthmarkError
from birthmark.message_routing.carriers.errors import AddressInvalidError
from birthmark.message_routing.carriers.files import FileCarrier, FolderQuota, LineCarrier
from birthmark.message_routing.carriers.http import HttpCarrier, Post
from birthmark.message_routing.carriers.mqtt import MqttCarrier
from birthmark.message_routing.carriers.nats import NatsCarrier
from birthmark.message_routing.carriers.streams import StreamCarrier
from birthmark.message_routing.deliveries import Delivery, MessageServer, Sink
from birthmark.mqtt.errors import LocalProtocolError
from birthmark.mqtt.properties import PropertyId, PropertyScope, write_properties
from birthmark.outbound.http_sender import OutboundResponse, UrlInvalidError
from birthmark.untrusted_text import decode_json

Ask = Callable[[str, bytes, Callable[[BirthmarkError], object], str], Awaitable[None]]
"""Asks a service of the cloud by a reserved topic, for a principal."""


class ExternalTargets(Post, Protocol):
    """The way out by HTTP."""

    def check(self, url: str) -> None:
        """Check a URL before it is kept. Raise why it may not be called."""
        ...


class NoOutside:
    """There is no way out."""

    def check(self, url: str) -> None:
        """Raise `UrlInvalidError`."""
        del url
        raise UrlInvalidError

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> OutboundResponse:
        """Raise `UrlInvalidError`."""
        del url, headers, body
        raise UrlInvalidError


class Republisher:
    """Publishes to the account's own topics; what asks a service of the cloud goes there."""

    is_quick = True

    def __init__(
        self,
        account: Account,
        topic_rules: TopicRules,
        messages: Callable[[], MessagePublisher],
        ask: Callable[[], Ask],
    ) -> None:
        self._account = account
        self._rules = topic_rules
        self.messages, self.ask = messages, ask

    async def carry(self, letters: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """See `birthmark.message_routing.deliveries.Carrier`."""
        results: list[BirthmarkError | None] = [None] * len(letters)
        some: list[tuple[int, BrokerMessage, Sequence[str]]] = []
        for number, letter in enumerate(letters):
            topic = letter.address["topic"]
            try:
                topic_validation.check_publish("a rule", topic, len(letter.body), letter.address["qos"])
                if topic.startswith("$"):
                    await self._ask(letter)
                    continue
                some.append((number, self._message(letter), _trail_of(letter)))
            except AddressInvalidError as error:
                results[number] = error
            except BirthmarkError as error:
                reason = error.explain_cause().removesuffix(".")
                results[number] = AddressInvalidError(receiver=topic[:200], reason=reason)
        if some:
            try:
                await self._publish([(message, trail) for _, message, trail in some])
            except BirthmarkError as error:
                results = [error if one is None else one for one in results]
        return results

    async def _ask(self, letter: Delivery) -> None:
        """Ask a service; what it publishes then is known to have come of this rule."""
        token = LED_BY.set(_trail_of(letter))
        try:
            await self.ask()(letter.address["topic"], letter.body, self._rules.record, "")
        finally:
            LED_BY.reset(token)

    async def _publish(self, some: Sequence[tuple[BrokerMessage, Sequence[str]]]) -> None:
        safe, done = until_done()
        done = self._rules.republished(some, done)
        if (waiting := self.messages().hand_on([message for message, _ in some], done)) is not None:
            await waiting
        await safe

    def _message(self, letter: Delivery) -> BrokerMessage:
        properties: list[tuple[PropertyId, Any]] = []
        expires_at: int | None = None
        for key, *values in letter.address["properties"]:
            if key == "expiry":
                expires_at = self._rules.clock.micros() + values[0] * MICROS
            elif key == PropertyId.USER_PROPERTY:
                properties.append((PropertyId.USER_PROPERTY, (values[0], values[1])))
            elif key == PropertyId.CORRELATION_DATA:
                properties.append((PropertyId.CORRELATION_DATA, _unpacked(values[0])))
            else:
                properties.append((PropertyId(key), values[0]))
        address = letter.address
        try:
            write_properties(tuple(properties), PropertyScope.PUBLISH)  # a template may have made anything of a message
        except LocalProtocolError as error:
            raise AddressInvalidError(receiver=address["topic"][:200], reason=str(error)) from error
        return BrokerMessage(address["topic"], letter.body, address["qos"], False, tuple(properties), expires_at)  # noqa: FBT003 - retained


def _trail_of(letter: Delivery) -> tuple[str, ...]:
    return (*letter.origin["trail"], letter.lane.rpartition("/")[0])


def _unpacked(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return text.encode()


class _ConfirmedDestinations:
    """Posts to addresses that have confirmed that rules may."""

    is_quick = False

    def __init__(self, destinations: Destinations, outside: Post, account: Account) -> None:
        self._destinations = destinations
        self._http = HttpCarrier(outside)
        self._account = account

    async def carry(self, letters: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """See `birthmark.message_routing.deliveries.Carrier`."""
        ready: list[Delivery] = []
        problems: list[BirthmarkError | None] = []
        for letter in letters:
            try:
                ready.append(self._ready(letter))
                problems.append(None)
            except BirthmarkError as error:
                problems.append(error)
        results = iter(await self._http.carry(ready))
        return [next(results) if problem is None else problem for problem in problems]

    def _ready(self, letter: Delivery) -> Delivery:
        if not (confirmed := letter.address["confirmed"]):  # it is what asks to confirm
            return letter
        by = self._destinations.allowed(letter.address["url"], confirmed)
        headers = {"content-type": "application/json", **{k: _line(v) for k, v in letter.address["headers"].items()}}
        headers |= {"x-amz-rules-engine-destination-arn": self._account.arn(KIND, by.id)}
        headers["x-amz-rules-engine-message-type"] = "HttpAction"
        told = {"headers": headers, "is_filled": letter.address["url"] != by.url}
        return Delivery(letter.lane, letter.kind, {**letter.address, **told}, letter.body, letter.origin)


def _line(text: str) -> str:
    """Return what may stand in a header: a template may have made anything of a message."""
    return "".join(one for one in text if one.isprintable() and one.isascii())[:1024].strip()


class _Functions:
    """Calls functions with what a rule selected, as the service does: nobody waits for what they answer."""

    is_quick = False

    def __init__(self, functions: Functions) -> None:
        self._functions = functions

    async def carry(self, letters: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """See `birthmark.message_routing.deliveries.Carrier`."""
        turns = asyncio.Semaphore(8)

        async def one(letter: Delivery) -> BirthmarkError | None:
            try:
                event = decode_json(letter.body)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                event = base64.b64encode(letter.body).decode()
            async with turns:
                try:
                    await self._functions.call(letter.address["arn"], event, FunctionCaller.KNOWN)
                except BirthmarkError as error:
                    return error
            return None

        return await asyncio.gather(*map(one, letters))


class _Servers:
    """Sends to a server of the configuration by what it speaks."""

    is_quick = False

    def __init__(self, destinations: Destinations, servers: Mapping[str, MessageServer]) -> None:
        self._destinations = destinations
        self._servers = servers
        self._nats = NatsCarrier(servers)
        self._mqtt = MqttCarrier(servers)

    async def carry(self, letters: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """See `birthmark.message_routing.deliveries.Carrier`."""
        results: dict[int, BirthmarkError | None] = {}
        for arn in dict.fromkeys(one.address["arn"] for one in letters):
            numbers = [number for number, one in enumerate(letters) if one.address["arn"] == arn]
            found = await self._to(arn, [letters[number] for number in numbers])
            results |= dict(zip(numbers, found, strict=True))
        return [results[number] for number in range(len(letters))]

    async def _to(self, arn: str, letters: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        try:
            name = self._destinations.server_of(arn)
        except BirthmarkError as error:
            return [error] * len(letters)
        ready = [Delivery(one.lane, one.kind, {**one.address, "server": name}, one.body, one.origin) for one in letters]
        by = self._mqtt if self._servers[name].url.startswith("mqtt") else self._nats
        return await by.carry(ready)


def carriers_of(
    *,
    republisher: Republisher,
    destinations: Destinations,
    outside: Post,
    functions: Functions,
    buckets: Buckets,
    streams: DataStreams,
    servers: Mapping[str, MessageServer],
    account: Account,
    now: Callable[[], int],
) -> Mapping[str, Sink]:
    """Return the ways out, by the kinds of action that the service has."""

    def object_at(letter: Delivery) -> Path:
        return _place(buckets, letter.address["bucket"], letter.address["key"])

    def lines_at(letter: Delivery) -> Path:
        return _place(buckets, letter.address["stream"], "records")

    room = FolderQuota(buckets.root, now)
    return {
        "republish": republisher,
        "http": _ConfirmedDestinations(destinations, outside, account),
        "s3": FileCarrier(object_at, room),
        "firehose": LineCarrier(lines_at, room),
        "kinesis": StreamCarrier(streams.find, now),
        "lambda": _Functions(functions),
        "kafka": _Servers(destinations, servers),
    }


def _place(buckets: Buckets, bucket: str, key: str) -> Path:
    try:
        return buckets.new(bucket, key)
    except BirthmarkError as error:
        reason = error.explain_cause().removesuffix(".")
        raise AddressInvalidError(receiver=f"{bucket}/{key}"[:200], reason=reason) from error
