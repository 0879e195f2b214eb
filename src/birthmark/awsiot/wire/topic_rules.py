"""JSON of topic rules: statement, actions and error action (service model `iot`, `TopicRulePayload`).

Only actions with a supported destination are accepted. Others are rejected with an error that names the action.
"""

from typing import Annotated, Any, Literal

import msgspec

from birthmark.awsiot.wire import BodyInvalidError
from birthmark.errors import InvalidRequestError
from birthmark.unknown_field_detection import find_unread_member

MAX_ACTIONS = 10
_Text = Annotated[str, msgspec.Meta(max_length=16_384)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]


class ActionNotServedError(InvalidRequestError):
    """The rule action is not supported."""

    code = "awsiot.rule_action_not_served"
    message = "The rule action {action} is not supported"
    cause = "The rule has the action {action}, which this server does not support. Nothing was changed."
    fix = (
        "Use republish, http, s3 (a folder), firehose (a file of lines), kinesis (list streams: `birthmark aws "
        "stream ls`), lambda or kafka. Map lambda functions under [functions] in the configuration, and kafka "
        "servers (NATS, MQTT) under [servers]."
    )
    action: str


class KeyValue(msgspec.Struct):
    key: _Text
    value: _Text


class RepublishHeaders(msgspec.Struct, rename="camel", omit_defaults=True):
    payload_format_indicator: _Text | None = None
    content_type: _Text | None = None
    response_topic: _Text | None = None
    correlation_data: _Text | None = None
    message_expiry: _Text | None = None
    user_properties: Annotated[list[KeyValue], msgspec.Meta(max_length=100)] | None = None


class Republish(msgspec.Struct, rename="camel", omit_defaults=True):
    topic: _Name
    role_arn: _Text = ""
    qos: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0
    headers: RepublishHeaders | None = None


class Http(msgspec.Struct, rename="camel", omit_defaults=True):
    url: _Name
    confirmation_url: _Name | None = None
    headers: Annotated[list[KeyValue], msgspec.Meta(max_length=100)] | None = None


class S3(msgspec.Struct, rename="camel", omit_defaults=True):
    bucket_name: Annotated[str, msgspec.Meta(min_length=3, max_length=256)]
    key: _Name
    role_arn: _Text = ""
    canned_acl: Literal["private"] | None = None


class Firehose(msgspec.Struct, rename="camel", omit_defaults=True):
    delivery_stream_name: _Name
    role_arn: _Text = ""
    separator: Literal["\n", "\t", "\r\n", ","] | None = None


class Kinesis(msgspec.Struct, rename="camel", omit_defaults=True):
    stream_name: _Name
    role_arn: _Text = ""
    partition_key: _Text | None = None


class Lambda(msgspec.Struct, rename="camel", omit_defaults=True):
    function_arn: _Name


class Kafka(msgspec.Struct, rename="camel", omit_defaults=True):
    destination_arn: _Name
    topic: _Name
    client_properties: dict[str, str] = {}


Kind = Republish | Http | S3 | Firehose | Kinesis | Lambda | Kafka
KINDS: dict[str, Any] = {
    "republish": Republish,
    "http": Http,
    "s3": S3,
    "firehose": Firehose,
    "kinesis": Kinesis,
    "lambda": Lambda,
    "kafka": Kafka,
}


class Payload(msgspec.Struct, rename="camel", omit_defaults=True):
    """Definition of a topic rule. Each action is an object with one member, named after the action's type."""

    sql: Annotated[str, msgspec.Meta(min_length=1)]
    actions: Annotated[list[dict[str, Any]], msgspec.Meta(max_length=MAX_ACTIONS)]
    description: _Text = ""
    rule_disabled: bool = False
    aws_iot_sql_version: str = "2015-10-08"
    error_action: dict[str, Any] | None = None


def parse_payload(value: Any) -> Payload:
    """Parse a rule definition. Raise `BodyInvalidError`, `ActionNotServedError`."""
    try:
        if not isinstance(value, dict):
            raise BodyInvalidError(detail="topicRulePayload is not an object")
        if (member := find_unread_member(value, Payload)) is not None:
            raise BodyInvalidError(detail=f"topicRulePayload.{member} is not known"[:300])
        return msgspec.convert(value, Payload)
    except msgspec.ValidationError as error:
        raise BodyInvalidError(detail=f"topicRulePayload: {error}"[:300]) from error


def parse_action(values: dict[str, Any]) -> Kind:
    """Return an action. Raise `BodyInvalidError`, `ActionNotServedError`."""
    named = [name for name, one in values.items() if one is not None]
    if len(named) != 1:
        raise BodyInvalidError(detail="an action is an object with one member, its kind")
    (name,) = named
    if (kind := KINDS.get(name)) is None:
        raise ActionNotServedError(action=name[:100])
    if (member := find_unread_member(values[name], kind)) is not None:
        raise ActionNotServedError(action=f"{name} with {member}"[:100])
    try:
        made: Kind = msgspec.convert(values[name], kind)
    except msgspec.ValidationError as error:
        raise BodyInvalidError(detail=f"the action {name}: {error}"[:300]) from error
    return made


def name_of(action: Kind) -> str:
    """Return an action's kind in the naming of AWS IoT Core."""
    return next(name for name, kind in KINDS.items() if isinstance(action, kind))
