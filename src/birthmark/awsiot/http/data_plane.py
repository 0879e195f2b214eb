"""Data plane: publish, shadows, retained messages. Also available to devices under their policies."""

import base64
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from birthmark.awsiot.http.operation_routing_and_request_members import AwsRequest
from birthmark.awsiot.model import ThingName, parse_shadow_name, parse_thing_name
from birthmark.awsiot.rules import mqtt_protocol_limits
from birthmark.awsiot.rules.mqtt_protocol_limits import RetainedMissingError
from birthmark.awsiot.rules.reserved_topics import is_answered_over_https
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.awsiot.wire.shadows import ShadowRequest, parse_request, shadow_json
from birthmark.broker import Namespace
from birthmark.broker.model import MICROS, BrokerMessage
from birthmark.clock_and_entropy import Entropy, new_uuid
from birthmark.errors import BirthmarkError
from birthmark.mqtt.properties import Properties, PropertyId, PropertyValue
from birthmark.mqtt.topics import is_valid_name
from birthmark.untrusted_json_and_text import decode_json

FOR_DEVICES = frozenset(
    {
        "Publish",
        "GetThingShadow",
        "UpdateThingShadow",
        "DeleteThingShadow",
        "ListNamedShadowsForThing",
        "GetRetainedMessage",
        "ListRetainedMessages",
    }
)
"""Operations available to devices with a certificate, as far as their policies allow."""
_MAX_RETAINED = 200
"""Maximum page size of ListRetainedMessages (measured)."""
_MAX_EXPIRY_S = 0xFFFFFFFF
_UTF8 = "UTF8_DATA"

Ask = Callable[[str, bytes, Callable[[BirthmarkError], object], str], Awaitable[None]]
"""Calls a cloud service by a reserved topic, for a principal."""


class DataOperations:
    """The operations of `iot-data`."""

    def __init__(self, aws: AwsIot, space: Namespace, ask: Ask, entropy: Entropy) -> None:
        self._devices = aws.devices
        self._shadows = aws.shadows
        self._space = space
        self._ask = ask
        self._entropy = entropy

    # ---- messages

    async def publish(self, request: AwsRequest) -> Any:
        topic, qos, retain = request["topic"], request.number("qos") or 0, request.flag("retain")
        if qos not in {0, 1}:
            raise BodyInvalidError(detail="qos is neither 0 nor 1")
        mqtt_protocol_limits.check_publish("over HTTPS", topic, len(request.body), qos, retain=retain)
        self._devices.check(request.grant, "iot:Publish", "topic", topic)
        if retain:
            self._devices.check(request.grant, "iot:RetainPublish", "topic", topic)
        if topic.startswith("$"):
            if not is_answered_over_https(topic):
                raise mqtt_protocol_limits.MqttOnlyTopicError(topic=topic[: mqtt_protocol_limits.MAX_TOPIC_BYTES])
            await self._ask(topic, request.body, request.note, request.grant.principal)
        else:
            lasts_s = request.number("messageExpiry")
            if lasts_s is not None and lasts_s > _MAX_EXPIRY_S:
                raise BodyInvalidError(detail="messageExpiry is more than 4294967295 seconds")
            expires_at = None if lasts_s is None else self._space.now() + lasts_s * MICROS
            whose = str(request.grant.principal)  # a user's needs more than a name, which messages do not store
            message = BrokerMessage(topic, request.body, qos, retain, _properties(request), expires_at, principal=whose)
            await self._space.messages.publish_one(message)
        return {"message": "OK", "traceId": new_uuid(self._entropy)}

    async def get_retained_message(self, request: AwsRequest) -> Any:
        topic = request["topic"]
        self._devices.check(request.grant, "iot:GetRetainedMessage", "topic", topic)
        if (found := await self._space.retained.of(topic)) is None:
            raise RetainedMissingError(topic=topic[: mqtt_protocol_limits.MAX_TOPIC_BYTES])
        message, at = found
        answer: dict[str, Any] = {"topic": topic, "payload": base64.b64encode(message.payload).decode()}
        answer |= {"qos": message.qos, "lastModifiedTime": at // 1000}
        named = [{value[0]: value[1]} for key, value in message.properties if key is PropertyId.USER_PROPERTY]
        if named:
            answer["userProperties"] = base64.b64encode(msgspec.json.encode(named)).decode()
        return answer

    async def list_retained_messages(self, request: AwsRequest) -> Any:
        self._devices.check(request.grant, "iot:ListRetainedMessages", "topic", "*")
        if (given := request.number("maxResults")) is not None and not 1 <= given <= _MAX_RETAINED:
            raise BodyInvalidError(detail=f"Invalid maxResults value: {given}")
        page = await self._space.retained.topics(request.after, request.size)
        found = [
            {
                "topic": row["topic"],
                "payloadSize": row["size"],
                "qos": row["qos"],
                "lastModifiedTime": row["at"] // 1000,
            }
            for row in page.items
        ]
        return request.paged("retainedTopics", found, page)

    # ---- shadows

    async def get_thing_shadow(self, request: AwsRequest) -> Any:
        thing, name = self._shadow(request, "iot:GetThingShadow")
        return shadow_json(await self._shadows.get(thing, name), self._shadows.now())

    async def update_thing_shadow(self, request: AwsRequest) -> Any:
        thing, name = self._shadow(request, "iot:UpdateThingShadow")
        return await self._shadows.update(
            thing, name, parse_request(request.body), principal=request.grant.principal, actor=request.operator
        )

    async def delete_thing_shadow(self, request: AwsRequest) -> Any:
        thing, name = self._shadow(request, "iot:DeleteThingShadow")
        return await self._shadows.delete(thing, name, ShadowRequest({}), actor=request.operator)

    async def list_named_shadows_for_thing(self, request: AwsRequest) -> Any:
        thing = parse_thing_name(request["thingName"])
        self._devices.check(request.grant, "iot:ListNamedShadowsForThing", "thing", thing)
        page = await self._shadows.names(thing, request.after, request.size)
        return request.paged("results", page.items, page) | {"timestamp": self._shadows.now() // MICROS}

    def _shadow(self, request: AwsRequest, action: str) -> tuple[ThingName, str]:
        """Return the requested shadow, after checking the caller's permission."""
        thing = parse_thing_name(request["thingName"])
        name = request.get("shadowName")
        self._devices.check(request.grant, action, "thing", thing)
        return thing, "" if name is None else parse_shadow_name(thing, name)


def _properties(request: AwsRequest) -> Properties:
    """Return the MQTT 5 properties of a published message. Raise `BodyInvalidError`."""
    found: list[tuple[PropertyId, PropertyValue]] = []
    if (indicator := request.get("payloadFormatIndicator")) is not None:
        found.append((PropertyId.PAYLOAD_FORMAT, int(indicator == _UTF8)))
    if (content_type := request.get("contentType")) is not None:
        found.append((PropertyId.CONTENT_TYPE, _text("contentType", content_type)))
    if (topic := request.get("responseTopic")) is not None:
        if not is_valid_name(topic):
            raise BodyInvalidError(detail="responseTopic is empty or has a wildcard")
        found.append((PropertyId.RESPONSE_TOPIC, topic))
    if (data := request.get("correlationData")) is not None:
        found.append((PropertyId.CORRELATION_DATA, _unpacked("correlationData", data)))
    if (named := request.get("userProperties")) is not None:
        pairs = [(_text("userProperties", name), _text("userProperties", value)) for name, value in _pairs(named)]
        found += [(PropertyId.USER_PROPERTY, pair) for pair in pairs]
    return tuple(found)


def _pairs(text: str) -> list[tuple[str, str]]:
    """Return user properties from base64 JSON: an array of objects with a name and a value each.

    The SDKs encode JSON text a second time, as a JSON string.
    """
    try:
        given = decode_json(_unpacked("userProperties", text))
        if isinstance(given, str):
            given = decode_json(given)
        objects = msgspec.convert(given, list[dict[str, str]])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BodyInvalidError(detail="userProperties is not a JSON array of objects with strings") from error
    return [pair for one in objects for pair in one.items()]


def _text(name: str, text: str) -> str:
    """Return a valid MQTT string, without U+0000 ([MQTT-1.5.4-2])."""
    if "\0" in text:
        raise BodyInvalidError(detail=f"{name} contains U+0000")
    return text


def _unpacked(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise BodyInvalidError(detail=f"{name} is not base64") from error
