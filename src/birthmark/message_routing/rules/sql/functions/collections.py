"""Functions of arrays, objects, and of what a value is (developer guide, Functions)."""

import base64
import binascii

from birthmark.message_routing.rules.sql.context import Run
from birthmark.message_routing.rules.sql.functions.catalogue import NEW, Function
from birthmark.message_routing.rules.sql.values import UNDEFINED, Value, nearest_int_of, read_payload, text_of

_CHARS_PER_STEP = 3
"""It is decoded, and read as JSON."""


def get(_run: Run, value: Value, key: Value) -> Value:
    kind = type(value)
    if kind is dict:
        return value.get(key, UNDEFINED) if type(key) is str else UNDEFINED
    if kind is not list and kind is not str:
        return UNDEFINED
    at = nearest_int_of(key)
    return UNDEFINED if at is UNDEFINED or not 0 <= at < len(value) else value[at]


def get_or_default(_run: Run, value: Value, otherwise: Value) -> Value:
    return otherwise if value is UNDEFINED or value is None else value


def is_null(_run: Run, value: Value) -> Value:
    return value is None


def is_undefined(_run: Run, value: Value) -> Value:
    return value is UNDEFINED


def encode(run: Run, value: Value, scheme: Value) -> Value:
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


def decode(run: Run, value: Value, scheme: Value) -> Value:
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


def transform(run: Run, mode: Value, attributes: Value, values: Value) -> Value:
    if mode != "enrichArray" or type(attributes) is not dict or type(values) is not list:
        return UNDEFINED
    if any(type(one) is not dict for one in values):
        return UNDEFINED
    run.meter.take(len(values) * (1 + len(attributes)) + sum(map(len, values)))
    return [{**one, **attributes} for one in values]


FUNCTIONS = (
    Function("get", get, 2, 2),
    Function("get_or_default", get_or_default, 2, 2),
    Function("isnull", is_null, 1, 1),
    Function("isundefined", is_undefined, 1, 1, NEW),
    Function("encode", encode, 2, 2, NEW),
    Function("decode", decode, 2, 2, NEW),
    Function("transform", transform, 3, 3, NEW),
)
