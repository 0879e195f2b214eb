"""Functions of arrays, objects and value types (developer guide, Functions)."""

import base64
import binascii

from birthmark.message_routing.rules.sql.evaluation_context import EvaluationContext
from birthmark.message_routing.rules.sql.functions.sql_function import NEW, SqlFunction
from birthmark.message_routing.rules.sql.values import UNDEFINED, Value, nearest_int_of, read_payload, text_of

_CHARS_PER_STEP = 3
"""Characters per step: the text is decoded, then parsed as JSON."""


def get(_run: EvaluationContext, value: Value, key: Value) -> Value:
    kind = type(value)
    if kind is dict:
        return value.get(key, UNDEFINED) if type(key) is str else UNDEFINED
    if kind is not list and kind is not str:
        return UNDEFINED
    at = nearest_int_of(key)
    return UNDEFINED if at is UNDEFINED or not 0 <= at < len(value) else value[at]


def get_or_default(_run: EvaluationContext, value: Value, otherwise: Value) -> Value:
    return otherwise if value is UNDEFINED or value is None else value


def is_null(_run: EvaluationContext, value: Value) -> Value:
    return value is None


def is_undefined(_run: EvaluationContext, value: Value) -> Value:
    return value is UNDEFINED


def encode(run: EvaluationContext, value: Value, scheme: Value) -> Value:
    if scheme != "base64":
        return UNDEFINED
    if type(value) is bytes:
        body = value
    else:
        text = text_of(value, run.meter)
        if text is UNDEFINED:
            return UNDEFINED
        body = text.encode()
    run.meter.take_for(len(body) * 4 // 3)
    return base64.b64encode(body).decode()


def decode(run: EvaluationContext, value: Value, scheme: Value) -> Value:
    if scheme != "base64":
        return UNDEFINED
    text = text_of(value, run.meter)
    if text is UNDEFINED:
        return None
    run.meter.take(1 + len(text) // _CHARS_PER_STEP)
    try:
        body = base64.b64decode(text, validate=True)
        read = read_payload(body, run.version)
        return body.decode() if type(read) is bytes else read
    except (binascii.Error, ValueError):
        return None


def transform(run: EvaluationContext, mode: Value, attributes: Value, values: Value) -> Value:
    if mode != "enrichArray" or type(attributes) is not dict or type(values) is not list:
        return UNDEFINED
    if any(type(one) is not dict for one in values):
        return UNDEFINED
    run.meter.take(len(values) * (1 + len(attributes)) + sum(map(len, values)))
    return [{**one, **attributes} for one in values]


FUNCTIONS = (
    SqlFunction("get", get, 2, 2),
    SqlFunction("get_or_default", get_or_default, 2, 2),
    SqlFunction("isnull", is_null, 1, 1),
    SqlFunction("isundefined", is_undefined, 1, 1, NEW),
    SqlFunction("encode", encode, 2, 2, NEW),
    SqlFunction("decode", decode, 2, 2, NEW),
    SqlFunction("transform", transform, 3, 3, NEW),
)
