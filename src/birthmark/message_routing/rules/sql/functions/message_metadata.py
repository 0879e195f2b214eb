"""Functions of message metadata (developer guide, Functions)."""

import base64
from uuid import UUID

from birthmark.message_routing.rules.sql.evaluation_context import EvaluationContext
from birthmark.message_routing.rules.sql.functions.sql_function import NEW, SqlFunction
from birthmark.message_routing.rules.sql.values import CHARS_PER_STEP, UNDEFINED, Value, int_of

_BASIC_INGEST = "$aws/rules/"
_INGEST_LEVELS = 3
_FORMATS = {0: "UNSPECIFIED_BYTES", 1: "UTF8_DATA"}
_WITH_NAME = 3


def seen_topic(topic: str) -> str:
    """Return a topic as seen by statements: without the three levels of basic ingest."""
    if topic.startswith(_BASIC_INGEST):
        levels = topic.split("/", _INGEST_LEVELS)
        return levels[_INGEST_LEVELS] if len(levels) > _INGEST_LEVELS else ""
    return topic


def topic(run: EvaluationContext, *number: Value) -> Value:
    seen = seen_topic(run.message.topic)
    if not number:
        return seen
    run.meter.take_for(len(seen))
    at, levels = int_of(number[0]), seen.split("/")
    return UNDEFINED if at is UNDEFINED or not 1 <= at <= len(levels) else levels[at - 1]


def timestamp(run: EvaluationContext) -> Value:
    return run.message.timestamp_ms


def clientid(run: EvaluationContext) -> Value:
    return "n/a" if run.message.client_id is None else run.message.client_id


def principal(run: EvaluationContext) -> Value:
    return UNDEFINED if run.message.principal is None else run.message.principal


def accountid(run: EvaluationContext) -> Value:
    return run.message.account_id


def traceid(run: EvaluationContext) -> Value:
    return UNDEFINED if run.message.trace_id is None else run.message.trace_id


def sourceip(run: EvaluationContext) -> Value:
    return UNDEFINED if run.message.source_ip is None else run.message.source_ip


def sql_version(run: EvaluationContext) -> Value:
    return run.version.value


def newuuid(run: EvaluationContext) -> Value:
    return str(UUID(bytes=run.entropy.token(16), version=4))


def get_mqtt_property(run: EvaluationContext, name: Value) -> Value:
    message = run.message
    match name:
        case "content_type":
            found: Value = message.content_type
        case "response_topic":
            found = message.response_topic
        case "correlation_data":
            data = message.correlation_data or b""
            run.meter.take(len(data) // CHARS_PER_STEP)
            found = None if message.correlation_data is None else base64.b64encode(data).decode()
        case "format_indicator":
            # A missing indicator is the same as 0 (MQTT 5.0 section 3.3.2.3.2).
            found = _FORMATS.get(message.payload_format_indicator or 0)
        case _:
            return UNDEFINED
    return UNDEFINED if found is None else found


def get_user_properties(run: EvaluationContext, *key: Value) -> Value:
    """Return the values of a key, or all properties, each as an object."""
    properties = run.message.user_properties
    run.meter.take(len(properties))
    found = (
        [value for name, value in properties if name == key[0]]
        if key
        else [{name: value} for name, value in properties]
    )
    return found or UNDEFINED


def get_thing_shadow(run: EvaluationContext, thing: Value, *more: Value) -> Value:
    """Return a shadow document; the last argument is a role, which is ignored."""
    name = more[0] if len(more) == _WITH_NAME - 1 else None
    if type(thing) is not str or not (name is None or type(name) is str):
        return UNDEFINED
    return run.lookups.shadow(thing, name or None)


FUNCTIONS = (
    SqlFunction("topic", topic, 0, 1),
    SqlFunction("timestamp", timestamp, 0, 0),
    SqlFunction("clientid", clientid, 0, 0),
    SqlFunction("principal", principal, 0, 0),
    SqlFunction("accountid", accountid, 0, 0),
    SqlFunction("traceid", traceid, 0, 0),
    SqlFunction("sourceip", sourceip, 0, 0),
    SqlFunction("sql_version", sql_version, 0, 0),
    SqlFunction("newuuid", newuuid, 0, 0),
    SqlFunction("get_mqtt_property", get_mqtt_property, 1, 1, NEW),
    SqlFunction("get_user_properties", get_user_properties, 0, 1, NEW),
    SqlFunction("get_thing_shadow", get_thing_shadow, 2, 3, NEW),
)
