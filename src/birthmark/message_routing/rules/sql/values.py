"""Values of AWS IoT SQL and their conversions (developer guide, AWS IoT SQL reference, Data types).

Values are those of JSON, parsed by msgspec. None is Null, `int` is Int, `Decimal` is Decimal with 34 digits, and `str`,
`bool`, `list`, `dict` as they are. `bytes` is a payload that is not JSON, and `UNDEFINED` is the absence of a value.
"""

import codecs
import re
from collections.abc import Callable
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal
from enum import Enum
from typing import Any, Final, TypeAlias

import msgspec

from birthmark.message_routing.rules.sql.errors import TooMuchError
from birthmark.message_routing.rules.sql.syntax_tree import Version
from birthmark.untrusted_json_and_text import is_deeper

Value: TypeAlias = Any


class Undefined(Enum):
    """Absence of a value: a missing member, or the result of a function with invalid arguments."""

    UNDEFINED = "undefined"


UNDEFINED: Final = Undefined.UNDEFINED

DIGITS = 34
CONTEXT = Context(prec=DIGITS, rounding=ROUND_HALF_EVEN, Emin=-999, Emax=999, capitals=1, clamp=0, flags=[], traps=[])
_INT_LIMIT = 10**DIGITS
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE]-?[0-9]+)?\Z")
_MAX_NUMBER_CHARS = 128
_MAX_INT_DIGITS, _MAX_INT_BITS = 308, 1024
"""Limits for arithmetic, whose time is quadratic in the digits; longer numbers are passed through unchanged."""
MAX_DEPTH = 64
_MAX_MADE_DEPTH = MAX_DEPTH + 36
MAX_BYTES = 128 * 1024
"""Maximum size of a message and of a statement's output (AWS IoT Core quotas: message size)."""
CHARS_PER_STEP = 64
_COMPARED_PER_STEP = 512
_LONG_TEXT, _LONG_PART = 2500, 100
"""Limits of CPython's text search.

At worst it compares every character of the text with every one of the part. In a long text it compares at most 100 with
each, and then searches in linear time.
"""

_encoder = msgspec.json.Encoder(decimal_format="number")


class Meter:
    """Step counter of an evaluation, which limits a statement's time per message."""

    __slots__ = ("left", "may_grow")

    def __init__(self, steps: int, *, may_grow: bool) -> None:
        """`may_grow`: the output can be far larger than the message, so it is checked before it is rendered."""
        self.left, self.may_grow = steps, may_grow

    def take(self, steps: int) -> None:
        """Consume steps. Raise `TooMuchError` if none are left."""
        self.left -= steps
        if self.left < 0:
            raise TooMuchError("The statement requires too many steps for this message.")

    def take_for(self, chars: int) -> None:
        """Consume the steps of reading a text. Raise `TooMuchError`, also for text longer than a message may be."""
        if chars > MAX_BYTES:
            raise TooMuchError("The statement makes a text of more than 131072 characters.")
        self.take(1 + chars // CHARS_PER_STEP)

    def take_to_find(self, text: str, part: str) -> None:
        """Consume the steps of searching a text for a part. Raise `TooMuchError`."""
        compared = min(len(part), _LONG_PART) if len(text) >= _LONG_TEXT else len(part)
        self.take(1 + len(text) // CHARS_PER_STEP + len(text) * compared // _COMPARED_PER_STEP)


def _decimal(digits: str) -> Decimal:
    value = CONTEXT.create_decimal(digits)
    if not value.is_finite():
        raise ValueError("Number out of range")
    return value


def _whole_or_decimal(digits: str) -> int | Decimal:
    return whole(_decimal(digits))


def whole(value: Decimal) -> int | Decimal:
    """Return an Int for an integral Decimal, as in version 2016-03-23."""
    if value == value.to_integral_value() and value.adjusted() < DIGITS:
        return int(value)
    return value


# A custom hook for numbers with a point, which avoids those that msgspec parses slowly.
_DECODERS = {
    Version.V2015_10_08: msgspec.json.Decoder(float_hook=_decimal),  # noqa: TID251
    Version.V2016_03_23: msgspec.json.Decoder(float_hook=_whole_or_decimal),  # noqa: TID251
}


def read_payload(payload: bytes, version: Version) -> Value:
    """Return the JSON of a payload, or its bytes if it is not JSON or nested deeper than `MAX_DEPTH`."""
    try:
        value = _DECODERS[version].decode(payload.removeprefix(codecs.BOM_UTF8))  # RFC 8259 section 8.1
    except (ValueError, RecursionError):
        return payload
    if payload.count(b"{") + payload.count(b"[") > MAX_DEPTH and is_deeper(value, MAX_DEPTH):
        return payload
    return value


def render(value: Value) -> bytes:
    """Return a value as compact JSON; bytes are base64, Undefined is empty."""
    return b"" if value is UNDEFINED else _encoder.encode(value)


def render_within(value: Value, meter: Meter) -> bytes:
    """Return a value as JSON. Raise `TooMuchError` if it exceeds the size limit of a message."""
    if meter.may_grow:
        check_size(value, meter)
    made = render(value)
    meter.take_for(len(made))
    return made


def check_size(value: Value, meter: Meter) -> None:
    """Raise `TooMuchError` for a value larger than a message may be, or deeper than `_MAX_MADE_DEPTH`.

    Such a value may share its parts and be far larger when rendered: the walk stops at the limit, and each element is a
    step.
    """
    weight, waiting = 0, [(value, 0)]
    while waiting:
        one, depth = waiting.pop()
        kind = type(one)
        if kind is dict:
            weight += sum(map(len, one)) + 4 * len(one) + 2
            inside = one.values()
        elif kind is list:
            weight += len(one) + 2
            inside = one
        else:
            weight += len(one) if kind is str or kind is bytes else 4 + one.bit_length() // 3 if kind is int else 4
            continue
        if weight > MAX_BYTES or depth >= _MAX_MADE_DEPTH:
            break
        meter.take(len(one))
        waiting.extend((below, depth + 1) for below in inside)
    else:
        if weight <= MAX_BYTES:
            return
    raise TooMuchError("The statement produces more than 131072 bytes for this message, or nests values too deeply.")


def finite_or_undefined(value: Decimal) -> Decimal | Undefined:
    """Return a finite Decimal, otherwise Undefined."""
    return value if value.is_finite() else UNDEFINED


def number_of(value: Value, meter: Meter | None = None) -> int | Decimal | Undefined:
    """Convert to Decimal, keeping Ints; numeric strings are converted, Booleans are Undefined.

    An operator, which may run for thousands of elements, consumes steps for a long Int.
    """
    kind = type(value)
    if kind is int:
        if -_INT_LIMIT < value < _INT_LIMIT:
            return value  # type: ignore[no-any-return]
        if (bits := value.bit_length()) > _MAX_INT_BITS:
            return UNDEFINED
        if meter is not None:
            meter.take(bits // CHARS_PER_STEP)
        return finite_or_undefined(CONTEXT.create_decimal(value))
    if kind is Decimal:
        return value  # type: ignore[no-any-return]
    if kind is str and len(value) <= _MAX_NUMBER_CHARS and _NUMBER.match(value):
        return finite_or_undefined(CONTEXT.create_decimal(value))
    return UNDEFINED


def int_of(value: Value) -> int | Undefined:
    """Convert to Int, rounding down, as functions do with Int arguments."""
    number = number_of(value)
    if number is UNDEFINED or type(number) is int:
        return number
    return _int(number.to_integral_value(ROUND_FLOOR))  # type: ignore[union-attr]


def nearest_int_of(value: Value) -> int | Undefined:
    """Convert to Int as the conversion table does: round to nearest; of a string, the part before the point."""
    number = number_of(value)
    if number is UNDEFINED or type(number) is int:
        return number
    if type(value) is not str:
        number = number.to_integral_value(ROUND_HALF_UP)  # type: ignore[union-attr]
    return _int(number)  # type: ignore[arg-type]


def _int(value: Decimal) -> int | Undefined:
    """Return the integer part, up to the digits that arithmetic supports."""
    return int(value) if value.adjusted() < _MAX_INT_DIGITS else UNDEFINED


def boolean_of(value: Value) -> bool | Undefined:
    """Convert to Boolean: a Boolean, or the texts true and false."""
    if value is True or value is False:
        return value
    if type(value) is str and len(value) <= len("false"):
        word = value.lower()
        return True if word == "true" else False if word == "false" else UNDEFINED
    return UNDEFINED


def text_of(value: Value, meter: Meter) -> str | Undefined:  # noqa: PLR0911 - one per type
    """Convert to String: JSON of arrays and objects; Null and Undefined are Undefined."""
    kind = type(value)
    if kind is str:
        return value  # type: ignore[no-any-return]
    if value is None or value is UNDEFINED:
        return UNDEFINED
    if kind is bool:
        return "true" if value else "false"
    if kind is bytes:
        meter.take_for(len(value))
        try:
            return value.decode()  # type: ignore[no-any-return]
        except UnicodeDecodeError:
            return UNDEFINED
    if kind is int:
        if not -_INT_LIMIT < value < _INT_LIMIT:
            meter.take(value.bit_length())  # formatting time grows by the square of the length
        return str(value)
    if kind is Decimal:
        return str(value)
    return render_within(value, meter).decode()


_NUMBERS = frozenset({int, Decimal})


def equal(left: Value, right: Value, meter: Meter) -> bool:
    """Return whether two values are equal; values of different types are not, and true is not 1."""
    one, other = type(left), type(right)
    if one is list and other is list:
        meter.take(len(left))
        return len(left) == len(right) and all(equal(*pair, meter) for pair in zip(left, right, strict=True))
    if one is dict and other is dict:
        meter.take(len(left))
        return left.keys() == right.keys() and all(equal(left[key], right[key], meter) for key in left)
    if one is bool or other is bool:
        return left is right
    if one is not other:  # an Int and a Decimal; too long an Int is not computable
        return one in _NUMBERS and other in _NUMBERS and number_of(left, meter) == number_of(right, meter)
    if (one is str or one is bytes) and len(left) == len(right):
        meter.take(len(left) // CHARS_PER_STEP)
    return bool(left == right)


Compiled: TypeAlias = Callable[[Value, Any], Value]
"""A compiled expression: a function of the scope value for names and the run."""


def settled(value: "int | Decimal", *, is_whole: bool) -> Value:
    """Return a result of 34-digit arithmetic: Undefined if not finite, an Int where the version requires it."""
    if type(value) is int:
        if -_INT_LIMIT < value < _INT_LIMIT:
            return value
        value = CONTEXT.create_decimal(value)
    if not value.is_finite():  # type: ignore[union-attr]
        return UNDEFINED
    return whole(value) if is_whole else value  # type: ignore[arg-type]


def calculate(sign: str, left: Value, right: Value, meter: Meter, *, is_whole: bool) -> Value:
    """Return the result of an arithmetic operator; `+` concatenates if an operand is a String."""
    if sign == "+" and (type(left) is str or type(right) is str):
        one, other = text_of(left, meter), text_of(right, meter)
        if one is UNDEFINED or other is UNDEFINED:
            return UNDEFINED
        meter.take_for(len(one) + len(other))
        return one + other
    first, second = number_of(left, meter), number_of(right, meter)
    if first is UNDEFINED or second is UNDEFINED:
        return UNDEFINED
    made = _ARITHMETIC[sign](first, second)
    return UNDEFINED if made is None else settled(made, is_whole=is_whole)


def _divide(left: Any, right: Any) -> Any:
    if right == 0:
        return None
    if type(left) is int and type(right) is int:
        made = abs(left) // abs(right)
        return made if (left < 0) is (right < 0) else -made
    return CONTEXT.divide(left, right)


def _remainder(left: Any, right: Any) -> Any:
    """Return the remainder with the sign of the left operand."""
    if right == 0:
        return None
    if type(left) is int and type(right) is int:
        made = abs(left) % abs(right)
        return -made if left < 0 else made
    return CONTEXT.remainder(left, right)


def _both_ints(left: Any, right: Any) -> bool:
    return type(left) is int and type(right) is int


_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b if _both_ints(a, b) else CONTEXT.add(a, b),
    "-": lambda a, b: a - b if _both_ints(a, b) else CONTEXT.subtract(a, b),
    "*": lambda a, b: a * b if _both_ints(a, b) else CONTEXT.multiply(a, b),
    "/": _divide,
    "%": _remainder,
}
