"""Rule actions: replacements of the AWS services that rules send to, as sinks of the engine."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from birthmark.awsiot.model import Account
from birthmark.awsiot.ports import FunctionCaller, Functions
from birthmark.awsiot.rules import mqtt_protocol_limits
from birthmark.awsiot.service.local_data_streams import DataStreams
from birthmark.awsiot.service.rule_destinations import KIND, Destinations
from birthmark.awsiot.service.s3_buckets import Buckets
from birthmark.awsiot.service.topic_rules import LED_BY, TopicRules
from birthmark.broker.keyed_lock import until_done
from birthmark.broker.message_fan_out import MessagePublisher
from birthmark.broker.model import MICROS, BrokerMessage
from birthmark.errors import BirthmarkError
from birthmark.message_routing.delivery_model import Delivery, MessageServer, Sink
from birthmark.message_routing.sinks.errors import AddressInvalidError
from birthmark.message_routing.sinks.files import FileSink, FolderQuota, LineSink
from birthmark.message_routing.sinks.http import HttpSink, Post
from birthmark.message_routing.sinks.local_streams import StreamSink
from birthmark.message_routing.sinks.mqtt import MqttSink
from birthmark.message_routing.sinks.nats import NatsSink
from birthmark.mqtt.errors import LocalProtocolError
from birthmark.mqtt.properties import PropertyId, PropertyScope, write_properties
from birthmark.outbound.http_client import OutboundResponse, UrlInvalidError
from birthmark.untrusted_json_and_text import decode_json

Ask = Callable[[str, bytes, Callable[[BirthmarkError], object], str], Awaitable[None]]
"""Calls a cloud service by a reserved topic, for a principal."""


class ExternalTargets(Post, Protocol):
    """HTTP sink."""

    def check(self, url: str) -> None:
        """Check a URL before it is saved. Raise why it may not be called."""
        ...


class NoOutside:
    """Placeholder for a missing HTTP sink."""

    def check(self, url: str) -> None:
        """Reject every URL. Raise `UrlInvalidError`."""
        del url
        raise UrlInvalidError

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> OutboundResponse:
        """Reject every request. Raise `UrlInvalidError`."""
        del url, headers, body
        raise UrlInvalidError


class Republisher:
    """Publishes to the account's own topics; service requests go to their service."""

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

    async def carry(self, deliveries: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """Deliver messages; implements `birthmark.message_routing.delivery_model.Carrier`."""
        results: list[BirthmarkError | None] = [None] * len(deliveries)
        some: list[tuple[int, BrokerMessage, Sequence[str]]] = []
        for number, letter in enumerate(deliveries):
            topic = letter.address["topic"]
            try:
                mqtt_protocol_limits.check_publish("a rule", topic, len(letter.body), letter.address["qos"])
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

    async def _ask(self, delivery: Delivery) -> None:
        """Call a service; messages that it publishes are attributed to this rule."""
        token = LED_BY.set(_trail_of(delivery))
        try:
            await self.ask()(delivery.address["topic"], delivery.body, self._rules.record, "")
        finally:
            LED_BY.reset(token)

    async def _publish(self, some: Sequence[tuple[BrokerMessage, Sequence[str]]]) -> None:
        safe, done = until_done()
        done = self._rules.log_republished(some, done)
        if (waiting := self.messages().hand_on([message for message, _ in some], done)) is not None:
            await waiting
        await safe

    def _message(self, delivery: Delivery) -> BrokerMessage:
        properties: list[tuple[PropertyId, Any]] = []
        expires_at: int | None = None
        for key, *values in delivery.address["properties"]:
            if key == "expiry":
                expires_at = self._rules.clock.micros() + values[0] * MICROS
            elif key == PropertyId.USER_PROPERTY:
                properties.append((PropertyId.USER_PROPERTY, (values[0], values[1])))
            elif key == PropertyId.CORRELATION_DATA:
                properties.append((PropertyId.CORRELATION_DATA, _unpacked(values[0])))
            else:
                properties.append((PropertyId(key), values[0]))
        address = delivery.address
        try:
            write_properties(tuple(properties), PropertyScope.PUBLISH)  # a template may produce invalid properties
        except LocalProtocolError as error:
            raise AddressInvalidError(receiver=address["topic"][:200], reason=str(error)) from error
        return BrokerMessage(address["topic"], delivery.body, address["qos"], False, tuple(properties), expires_at)  # noqa: FBT003 - retained


def _trail_of(delivery: Delivery) -> tuple[str, ...]:
    return (*delivery.origin["trail"], delivery.lane.rpartition("/")[0])


def _unpacked(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return text.encode()


class _ConfirmedDestinations:
    """Sink for HTTP destinations whose URL is confirmed."""

    is_quick = False

    def __init__(self, destinations: Destinations, outside: Post, account: Account) -> None:
        self._destinations = destinations
        self._http = HttpSink(outside)
        self._account = account

    async def carry(self, deliveries: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """Deliver messages; implements `birthmark.message_routing.delivery_model.Carrier`."""
        ready: list[Delivery] = []
        problems: list[BirthmarkError | None] = []
        for letter in deliveries:
            try:
                ready.append(self._ready(letter))
                problems.append(None)
            except BirthmarkError as error:
                problems.append(error)
        results = iter(await self._http.carry(ready))
        return [next(results) if problem is None else problem for problem in problems]

    def _ready(self, delivery: Delivery) -> Delivery:
        if not (confirmed := delivery.address["confirmed"]):  # confirmation request
            return delivery
        by = self._destinations.allowed(delivery.address["url"], confirmed)
        headers = {"content-type": "application/json", **{k: _line(v) for k, v in delivery.address["headers"].items()}}
        headers |= {"x-amz-rules-engine-destination-arn": self._account.arn(KIND, by.id)}
        headers["x-amz-rules-engine-message-type"] = "HttpAction"
        told = {"headers": headers, "is_filled": delivery.address["url"] != by.url}
        return Delivery(delivery.lane, delivery.kind, {**delivery.address, **told}, delivery.body, delivery.origin)


def _line(text: str) -> str:
    """Return a valid header value; templates may insert arbitrary message content."""
    return "".join(one for one in text if one.isprintable() and one.isascii())[:1024].strip()


class _Functions:
    """Invokes functions with selected messages, asynchronously as in AWS: responses are ignored."""

    is_quick = False

    def __init__(self, functions: Functions) -> None:
        self._functions = functions

    async def carry(self, deliveries: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """Deliver messages; implements `birthmark.message_routing.delivery_model.Carrier`."""
        turns = asyncio.Semaphore(8)

        async def one(delivery: Delivery) -> BirthmarkError | None:
            try:
                event = decode_json(delivery.body)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                event = base64.b64encode(delivery.body).decode()
            async with turns:
                try:
                    await self._functions.call(delivery.address["arn"], event, FunctionCaller.KNOWN)
                except BirthmarkError as error:
                    return error
            return None

        return await asyncio.gather(*map(one, deliveries))


class _Servers:
    """Sends to a configured server over its protocol."""

    is_quick = False

    def __init__(self, destinations: Destinations, servers: Mapping[str, MessageServer]) -> None:
        self._destinations = destinations
        self._servers = servers
        self._nats = NatsSink(servers)
        self._mqtt = MqttSink(servers)

    async def carry(self, deliveries: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """Deliver messages; implements `birthmark.message_routing.delivery_model.Carrier`."""
        results: dict[int, BirthmarkError | None] = {}
        for arn in dict.fromkeys(one.address["arn"] for one in deliveries):
            numbers = [number for number, one in enumerate(deliveries) if one.address["arn"] == arn]
            found = await self._to(arn, [deliveries[number] for number in numbers])
            results |= dict(zip(numbers, found, strict=True))
        return [results[number] for number in range(len(deliveries))]

    async def _to(self, arn: str, deliveries: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        try:
            name = self._destinations.server_of(arn)
        except BirthmarkError as error:
            return [error] * len(deliveries)
        ready = [
            Delivery(one.lane, one.kind, {**one.address, "server": name}, one.body, one.origin) for one in deliveries
        ]
        by = self._mqtt if self._servers[name].url.startswith("mqtt") else self._nats
        return await by.carry(ready)


def sinks_of(
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
    """Return the sinks by kind of action."""

    def object_at(delivery: Delivery) -> Path:
        return _place(buckets, delivery.address["bucket"], delivery.address["key"])

    def lines_at(delivery: Delivery) -> Path:
        return _place(buckets, delivery.address["stream"], "records")

    room = FolderQuota(buckets.root, now)
    return {
        "republish": republisher,
        "http": _ConfirmedDestinations(destinations, outside, account),
        "s3": FileSink(object_at, room),
        "firehose": LineSink(lines_at, room),
        "kinesis": StreamSink(streams.find, now),
        "lambda": _Functions(functions),
        "kafka": _Servers(destinations, servers),
    }


def _place(buckets: Buckets, bucket: str, key: str) -> Path:
    try:
        return buckets.new(bucket, key)
    except BirthmarkError as error:
        reason = error.explain_cause().removesuffix(".")
        raise AddressInvalidError(receiver=f"{bucket}/{key}"[:200], reason=reason) from error
