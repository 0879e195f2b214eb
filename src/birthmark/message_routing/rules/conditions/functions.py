"""Condition functions (IoT Hub query language, Functions): invalid arguments return Undefined."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from birthmark.message_routing.rules.sql.values import CHARS_PER_STEP, UNDEFINED, Meter, Value

_NUMBER = re.compile(r"\s*[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?\s*\Z")
_MAX_NUMBER_CHARS = 64
_ANY = 1000


@dataclass(frozen=True, slots=True)
class ConditionFunction:
    call: Callable[..., Value]
    least: int
    most: int
    usage: str


def is_number(value: Value) -> bool:
    """Return whether a value is a number; Booleans are not."""
    return type(value) is int or type(value) is float


def finite(value: Value) -> Value:
    """Return a number, or Undefined if it is not finite."""
    return value if type(value) is int or math.isfinite(value) else UNDEFINED


def _of_number(compute: Callable[[Any], Any]) -> Callable[[Meter, Value], Value]:
    def call(_meter: Meter, value: Value) -> Value:
        if not is_number(value):
            return UNDEFINED
        try:
            return finite(compute(value))
        except (ValueError, OverflowError):
            return UNDEFINED

    return call


def _power(_meter: Meter, base: Value, exponent: Value) -> Value:
    if not is_number(base) or not is_number(exponent):
        return UNDEFINED
    try:
        return finite(math.pow(base, exponent))
    except (ValueError, OverflowError):
        return UNDEFINED


def _of_text(compute: Callable[[str], Any]) -> Callable[[Meter, Value], Value]:
    def call(meter: Meter, value: Value) -> Value:
        if type(value) is not str:
            return UNDEFINED
        meter.take(1 + len(value) // CHARS_PER_STEP)
        return compute(value)

    return call


def _of_texts(compute: Callable[[str, str], Any]) -> Callable[[Meter, Value, Value], Value]:
    def call(meter: Meter, value: Value, part: Value) -> Value:
        if type(value) is not str or type(part) is not str:
            return UNDEFINED
        meter.take(1 + len(value) // CHARS_PER_STEP)
        return compute(value, part)

    return call


def _searching(compute: Callable[[str, str], Any]) -> Callable[[Meter, Value, Value], Value]:
    def call(meter: Meter, value: Value, part: Value) -> Value:
        if type(value) is not str or type(part) is not str:
            return UNDEFINED
        meter.take_to_find(value, part)
        return compute(value, part)

    return call


def _concat(meter: Meter, *values: Value) -> Value:
    if any(type(one) is not str for one in values):
        return UNDEFINED
    meter.take_for(sum(map(len, values)))
    return "".join(values)


def _substring(meter: Meter, value: Value, start: Value, *length: Value) -> Value:
    if type(value) is not str or not is_number(start) or not all(map(is_number, length)):
        return UNDEFINED
    meter.take(1 + len(value) // CHARS_PER_STEP)
    begin = max(int(start), 0)
    return value[begin:] if not length else value[begin : begin + max(int(length[0]), 0)]


def _as_number(_meter: Meter, value: Value) -> Value:
    if is_number(value):
        return value
    if type(value) is not str or len(value) > _MAX_NUMBER_CHARS or not _NUMBER.match(value):
        return UNDEFINED
    text = value.strip()
    return int(text) if text.lstrip("+-").isdigit() else finite(float(text))


def _is(check: Callable[[Value], bool]) -> ConditionFunction:
    return ConditionFunction(lambda _meter, value: check(value), 1, 1, "Write IS_DEFINED(name).")


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


_NUMBERS = "Write ABS(AS_NUMBER(severity))."
_TEXTS = "Write STARTS_WITH(name, 'text')."

FUNCTIONS: Mapping[str, ConditionFunction] = {
    "abs": ConditionFunction(_of_number(abs), 1, 1, _NUMBERS),
    "exp": ConditionFunction(_of_number(math.exp), 1, 1, _NUMBERS),
    "power": ConditionFunction(_power, 2, 2, "Write POWER(2, 8)."),
    "square": ConditionFunction(_of_number(lambda value: float(value) * value), 1, 1, _NUMBERS),
    "ceiling": ConditionFunction(_of_number(math.ceil), 1, 1, _NUMBERS),
    "floor": ConditionFunction(_of_number(math.floor), 1, 1, _NUMBERS),
    "sign": ConditionFunction(_of_number(_sign), 1, 1, _NUMBERS),
    "sqrt": ConditionFunction(_of_number(math.sqrt), 1, 1, _NUMBERS),
    "as_number": ConditionFunction(_as_number, 1, 1, "Write AS_NUMBER(severity)."),
    "is_array": _is(lambda value: type(value) is list),
    "is_bool": _is(lambda value: type(value) is bool),
    "is_defined": _is(lambda value: value is not UNDEFINED),
    "is_null": _is(lambda value: value is None),
    "is_number": _is(is_number),
    "is_object": _is(lambda value: type(value) is dict),
    "is_primitive": _is(lambda value: value is None or type(value) in {str, bool, int, float}),
    "is_string": _is(lambda value: type(value) is str),
    "concat": ConditionFunction(_concat, 2, _ANY, "Write CONCAT(first, second)."),
    "length": ConditionFunction(_of_text(len), 1, 1, "Write LENGTH(name)."),
    "lower": ConditionFunction(_of_text(str.lower), 1, 1, "Write LOWER(name)."),
    "upper": ConditionFunction(_of_text(str.upper), 1, 1, "Write UPPER(name)."),
    "substring": ConditionFunction(_substring, 2, 3, "Write SUBSTRING(name, 0, 4)."),
    "index_of": ConditionFunction(_searching(str.find), 2, 2, _TEXTS),
    "starts_with": ConditionFunction(_of_texts(str.startswith), 2, 2, _TEXTS),
    "ends_with": ConditionFunction(_of_texts(str.endswith), 2, 2, _TEXTS),
    "contains": ConditionFunction(_searching(lambda value, part: part in value), 2, 2, _TEXTS),
}
