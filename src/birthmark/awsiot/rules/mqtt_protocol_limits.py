"""Client ID and topic validation before any policy (developer guide, "Reserved topics" and quotas)."""

from birthmark.awsiot.rules.reserved_topics import BASIC_INGEST, may_subscribe, request_of
from birthmark.errors import InvalidRequestError, NotFoundError, PolicyError
from birthmark.mqtt.topics import is_valid_filter, is_valid_name


class RetainedMissingError(NotFoundError):
    """The topic has no retained message."""

    code = "awsiot.retained_missing"
    message = "No retained message for topic {topic}"
    cause = (
        "The topic {topic} has no retained message: no message was published with the retain flag, or the retained "
        "message expired."
    )
    fix = (
        "Publish a retained message: `aws iot-data publish --topic {topic} --qos 1 --retain --payload aGVsbG8=`. List "
        "retained messages: `aws iot-data list-retained-messages`."
    )
    topic: str


MAX_TOPIC_BYTES = 256
MAX_SLASHES = 7
MAX_PAYLOAD_BYTES = 128 * 1024
MAX_CLIENT_ID_BYTES = 128
MAX_FILTERS = 8
MAX_SUBSCRIPTIONS = 50
MAX_NAME_CHARS = 128
"""Maximum length of a rule name in a basic ingest topic, and of a shared subscription's name."""
_TOO_LONG = f"longer than {MAX_NAME_CHARS} characters"
_SHARED = "$share/"

_RIGHT = "This request is valid: `aws iot-data publish --topic hello --qos 1 --payload aGVsbG8=`"


class ClientIdInvalidError(InvalidRequestError):
    """The client ID is not valid."""

    code = "awsiot.client_id_invalid"
    message = "The client ID is not valid: {detail}"
    cause = "The client ID {thing} is not valid: {detail}."
    fix = (
        "A client ID can have up to 128 bytes in UTF-8; an empty client ID requires a clean session. Preferably, use "
        "the thing's name as the client ID. List things: `birthmark aws thing ls`"
    )
    detail: str
    thing: str


class TopicInvalidError(InvalidRequestError):
    """The topic is malformed, too long or too deep."""

    code = "awsiot.topic_invalid"
    message = "The topic is not valid: {detail}"
    cause = "The client {thing} used the topic {topic}, which is not valid: {detail}."
    fix = f"A topic has up to 256 bytes in UTF-8 and 7 slashes; wildcards are for subscriptions. {_RIGHT}"
    detail: str
    thing: str
    topic: str


class ReservedTopicError(InvalidRequestError):
    """The reserved topic is not supported."""

    code = "awsiot.reserved_topic_not_served"
    cause = (
        "The client {thing} used the topic {topic}. Topics that begin with $ are reserved, and this server does not "
        "support this topic."
    )
    fix = (
        "Publish only to these topics below $aws/: things/THING/shadow/get, update and delete, and the same with "
        "shadow/name/NAME; jobs of a thing; certificates/create; provisioning; rules/RULE/TOPIC for one rule. "
        f"Subscriptions to things/THING/shadow/… and events/… are supported. {_RIGHT}"
    )
    thing: str
    topic: str


class QosNotServedError(InvalidRequestError):
    """QoS 2 is not supported."""

    code = "awsiot.qos_not_served"
    cause = "The client {thing} published with QoS 2 to {topic}; AWS IoT Core supports QoS 0 and 1."
    fix = f"Publish with QoS 1. {_RIGHT}"
    thing: str
    topic: str


class ReportDroppedError(PolicyError):
    """The report of an agent is for a service that this server does not support."""

    code = "awsiot.report_dropped"
    message = "The report to {topic} was dropped"
    cause = (
        "The agent of {thing} reports to {topic}. This server does not support Device Defender or Greengrass; the "
        "agent stays connected."
    )
    fix = (
        "Disable Device Defender or Greengrass health reports in the agent's configuration, or ignore this message. "
        "Show this device's rejected requests: `birthmark why {thing}`"
    )
    thing: str
    topic: str


class MqttOnlyTopicError(InvalidRequestError):
    """The reserved topic accepts requests over MQTT only."""

    code = "awsiot.mqtt_only_topic"
    message = "The topic {topic} accepts requests over MQTT only"
    cause = "A client published to {topic} over HTTPS; AWS IoT accepts requests on this topic over MQTT only."
    fix = "Publish over MQTT. Jobs also have an HTTPS API, which this command describes: `aws iot-jobs-data help`"
    topic: str


class PayloadTooLargeError(InvalidRequestError):
    """The message is too large."""

    code = "awsiot.payload_too_large"
    cause = "The client {thing} sent a payload of {size} bytes; the limit is 131072 bytes."
    fix = f"Send smaller messages. {_RIGHT}"
    size: int
    thing: str


class SlowConsumerError(PolicyError):
    """Messages were dropped because the client does not keep up."""

    code = "awsiot.slow_consumer"
    message = "Messages were dropped: {limit} messages are queued"
    cause = (
        "The client {thing} is offline or does not acknowledge messages. The queue reached its limit of {limit} "
        "messages, or {size_kib} KiB of large messages while the client is connected with a clean session. Further "
        "messages were dropped."
    )
    fix = (
        "Connect the client more often, acknowledge messages sooner, or subscribe to fewer topics. If the client "
        "needs all messages, increase the queue limit in the server's configuration file, above the tables: "
        "`aws.max_waiting = {value}`"
    )
    limit: int
    size_kib: int
    thing: str
    value: int


class TooManyFiltersError(InvalidRequestError):
    """The packet or connection has too many topic filters."""

    code = "awsiot.too_many_subscriptions"
    message = "Too many topic filters {scope}"
    cause = "The client {thing} requested {count} subscriptions; the limit is {limit} {scope}."
    fix = "Request at most `{limit}` topic filters {scope}. Use wildcards, more packets, or more connections."
    count: int
    limit: int
    scope: str
    thing: str


def check_client_id(client_id: str, *, is_kept: bool) -> None:
    """Raise if a client may not use this ID. `is_kept`: the session outlives the connection."""
    if len(client_id.encode()) > MAX_CLIENT_ID_BYTES:
        name = client_id[:MAX_CLIENT_ID_BYTES]
        raise ClientIdInvalidError(thing=name, detail="it is longer than 128 bytes")
    if not client_id and is_kept:
        raise ClientIdInvalidError(thing="", detail="it is empty, but the session is persistent")


def check_publish(client_id: str, topic: str, size: int, qos: int, *, retain: bool = False) -> None:
    """Raise if a client may not publish this to `topic`, regardless of its policies."""
    facts = {"thing": client_id, "topic": topic[:MAX_TOPIC_BYTES]}
    if qos > 1:
        raise QosNotServedError(**facts)
    if not is_valid_name(topic):
        raise TopicInvalidError(detail="it is empty or has a wildcard", **facts)
    check_size(client_id, topic)
    if topic.startswith("$") and request_of(topic) is None and not topic.startswith(BASIC_INGEST):
        raise ReservedTopicError(**facts)
    if retain and topic.startswith("$"):
        raise TopicInvalidError(detail="nothing is retained on a topic of the cloud's own", **facts)
    if size > MAX_PAYLOAD_BYTES:
        raise PayloadTooLargeError(size=size, **facts)


def check_filter(client_id: str, name: str) -> None:
    """Raise if a client may not subscribe to `name`, regardless of its policies."""
    facts = {"thing": client_id, "topic": name[:MAX_TOPIC_BYTES]}
    topic_filter = name
    if name.startswith(_SHARED):
        _, share, topic_filter = [*name.split("/", 2), ""][:3]
        if not share or "+" in share or "#" in share:
            raise TopicInvalidError(detail="the name of a shared subscription is empty or has a wildcard", **facts)
        if len(share) > MAX_NAME_CHARS:
            raise TopicInvalidError(detail=f"the name of a shared subscription is {_TOO_LONG}", **facts)
    if not is_valid_filter(topic_filter):
        raise TopicInvalidError(detail="it is empty or has a misplaced wildcard", **facts)
    check_size(client_id, topic_filter)
    if topic_filter.startswith("$") and not may_subscribe(topic_filter):
        raise ReservedTopicError(**facts)


def check_size(client_id: str, topic: str) -> None:
    """Raise if a topic or filter is too long or deep; for basic ingest, the part after the rule's name."""
    facts = {"thing": client_id, "topic": topic[:MAX_TOPIC_BYTES]}
    if topic.startswith(BASIC_INGEST):
        name, _, topic = topic.removeprefix(BASIC_INGEST).partition("/")
        if len(name) > MAX_NAME_CHARS:
            raise TopicInvalidError(detail=f"the name of the rule is {_TOO_LONG}", **facts)
    if len(topic.encode()) > MAX_TOPIC_BYTES:
        raise TopicInvalidError(detail="it is longer than 256 bytes", **facts)
    if topic.count("/") > MAX_SLASHES:
        raise TopicInvalidError(detail="it has more than 7 slashes", **facts)
