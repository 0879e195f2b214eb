"""Values of the language and how one becomes another (developer guide, AWS IoT SQL reference, Data types).

A value is what JSON has, read by msgspec: None is Null, `int` is Int, `Decimal` is Decimal with 34 digits, and `str`,
`bool`, `list`, `dict` as they are; `bytes` is a payload that is no JSON, and `UNDEFINED` is no value at all.
"""

import codecs
import re
from collections.abc import Callable
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal
from enum import Enum
from typing import Any, Final, TypeAlias

import msgspec

from birthmark.message_routing.rules.sql.errors import TooMuchError
from birthmark.message_routing.rules.sql.syntax import Version
from birthmark.untrusted_text import is_deeper

Value: TypeAlias = Any


class Undefined(Enum):
    """Not a value: what is missing, and what a function given the wrong things answers."""

    UNDEFINED = "undefined"


UNDEFINED: Final = Undefined.UNDEFINED

DIGITS = 34
CONTEXT = Context(prec=DIGITS, rounding=ROUND_HALF_EVEN, Emin=-999, Emax=999, capitals=1, clamp=0, flags=[], traps=[])
_INT_LIMIT = 10**DIGITS
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE]-?[0-9]+)?\Z")
_MAX_NUMBER_CHARS = 128
_MAX_INT_DIGITS, _MAX_INT_BITS = 308, 1024
"""With longer ones nothing is calculated, which takes a time that grows by the square; they go out as they came."""
MAX_DEPTH = 64
_MAX_MADE_DEPTH = MAX_DEPTH + 36
MAX_BYTES = 128 * 1024
"""What a message may be, and what one statement may make of it (AWS IoT Core quotas: the size of a message)."""
CHARS_PER_STEP = 64
_COMPARED_PER_STEP = 512
_LONG_TEXT, _LONG_PART = 2500, 100
"""CPython compares every character of the text with every one of the part at worst, but in a long text no more than a
hundred with each: it then searches in linear time."""

_encoder = msgspec.json.Encoder(decimal_format="number")


class Meter:
    """Counts the steps of one evaluation, so that no statement takes long over one message."""

    __slots__ = ("left", "may_grow")

    def __init__(self, steps: int, *, may_grow: bool) -> None:
        """`may_grow`: what is made of the message can be far more than the message; look before it is written out."""
        self.left, self.may_grow = steps, may_grow

    def take(self, steps: int) -> None:
        """Take steps. Raise `TooMuchError` once there are none left."""
        self.left -= steps
        if self.left < 0:
            raise TooMuchError("The statement takes too many steps for this message.")

    def take_for(self, chars: int) -> None:
        """Take the steps of looking at a text. Raise `TooMuchError`, also where it is longer than a message may be."""
        if chars > MAX_BYTES:
            raise TooMuchError("The statement makes a text of more than 131072 characters.")
        self.take(1 + chars // CHARS_PER_STEP)

    def take_to_find(self, text: str, part: str) -> None:
        """Take the steps of looking for a part of a text. Raise `TooMuchError`."""
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
    """Return an Int for a Decimal that is whole, as 2016-03-23 has it."""
    if value == value.to_integral_value() and value.adjusted() < DIGITS:
        return int(value)
    return value


# A hook of our own for numbers with a point, so none of those that msgspec is slow at comes to it.
_DECODERS = {
    Version.V2015_10_08: msgspec.json.Decoder(float_hook=_decimal),  # noqa: TID251
    Version.V2016_03_23: msgspec.json.Decoder(float_hook=_whole_or_decimal),  # noqa: TID251
}


def read_payload(payload: bytes, version: Version) -> Value:
    """Return the JSON of a payload, or its bytes where it is none: not JSON, or nested deeper than `MAX_DEPTH`."""
    try:
        value = _DECODERS[version].decode(payload.removeprefix(codecs.BOM_UTF8))  # RFC 8259 section 8.1
    except (ValueError, RecursionError):
        return payload
    if payload.count(b"{") + payload.count(b"[") > MAX_DEPTH and is_deeper(value, MAX_DEPTH):
        return payload
    return value


def render(value: Value) -> bytes:
    """Return a value as JSON without spaces; bytes are base64, Undefined is nothing at all."""
    return b"" if value is UNDEFINED else _encoder.encode(value)


def render_within(value: Value, meter: Meter) -> bytes:
    """Return a value as JSON. Raise `TooMuchError` rather than write more than a message may have."""
    if meter.may_grow:
        weigh(value, meter)
    made = render(value)
    meter.take_for(len(made))
    return made


def weigh(value: Value, meter: Meter) -> None:
    """Raise `TooMuchError` for a value that is more than a message may have, or deeper than `_MAX_MADE_DEPTH`.

    Such a value may share its parts, and be far larger written than it is held: the walk ends at the limit, and each
    element is a step.
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
    raise TooMuchError("The statement makes more than 131072 bytes of this message, or nests it too deep.")


def settle(value: Decimal) -> Decimal | Undefined:
    """Return a finite Decimal, else Undefined."""
    return value if value.is_finite() else UNDEFINED


def number_of(value: Value, meter: Meter | None = None) -> int | Decimal | Undefined:
    """Convert to Decimal, Ints staying Ints: booleans are none, strings where they are written as numbers.

    An operator, which may be asked for each of thousands of elements, pays for a long Int.
    """
    kind = type(value)
    if kind is int:
        if -_INT_LIMIT < value < _INT_LIMIT:
            return value  # type: ignore[no-any-return]
        if (bits := value.bit_length()) > _MAX_INT_BITS:
            return UNDEFINED
        if meter is not None:
            meter.take(bits // CHARS_PER_STEP)
        return settle(CONTEXT.create_decimal(value))
    if kind is Decimal:
        return value  # type: ignore[no-any-return]
    if kind is str and len(value) <= _MAX_NUMBER_CHARS and _NUMBER.match(value):
        return settle(CONTEXT.create_decimal(value))
    return UNDEFINED


def int_of(value: Value) -> int | Undefined:
    """Convert to Int, rounding down: what functions do to their Int arguments."""
    number = number_of(value)
    if number is UNDEFINED or type(number) is int:
        return number
    return _int(number.to_integral_value(ROUND_FLOOR))  # type: ignore[union-attr]


def nearest_int_of(value: Value) -> int | Undefined:
    """Convert to Int as the table of conversions does: the nearest one, of a string what stands before the point."""
    number = number_of(value)
    if number is UNDEFINED or type(number) is int:
        return number
    if type(value) is not str:
        number = number.to_integral_value(ROUND_HALF_UP)  # type: ignore[union-attr]
    return _int(number)  # type: ignore[arg-type]


def _int(value: Decimal) -> int | Undefined:
    """Return the Int before the point, of as many digits as can be calculated with."""
    return int(value) if value.adjusted() < _MAX_INT_DIGITS else UNDEFINED


def boolean_of(value: Value) -> bool | Undefined:
    """Convert to Boolean: itself, or the words true and false."""
    if value is True or value is False:
        return value
    if type(value) is str and len(value) <= len("false"):
        word = value.lower()
        return True if word == "true" else False if word == "false" else UNDEFINED
    return UNDEFINED


def text_of(value: Value, meter: Meter) -> str | Undefined:  # noqa: PLR0911 - a row for each type
    """Convert to String: JSON of arrays and objects; Null and Undefined have none."""
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
            meter.take(value.bit_length())  # the time it takes to write one grows by the square of its length
        return str(value)
    if kind is Decimal:
        return str(value)
    return render_within(value, meter).decode()


_NUMBERS = frozenset({int, Decimal})


def equal(left: Value, right: Value, meter: Meter) -> bool:
    """Say whether two values are the same; of other types they are not, and true is not 1."""
    one, other = type(left), type(right)
    if one is list and other is list:
        meter.take(len(left))
        return len(left) == len(right) and all(equal(*pair, meter) for pair in zip(left, right, strict=True))
    if one is dict and other is dict:
        meter.take(len(left))
        return left.keys() == right.keys() and all(equal(left[key], right[key], meter) for key in left)
    if one is bool or other is bool:
        return left is right
    if one is not other:  # an Int and a Decimal; a long Int is none that can be calculated with
        return one in _NUMBERS and other in _NUMBERS and number_of(left, meter) == number_of(right, meter)
    if (one is str or one is bytes) and len(left) == len(right):
        meter.take(len(left) // CHARS_PER_STEP)
    return bool(left == right)


Compiled: TypeAlias = Callable[[Value, Any], Value]
"""An expression made ready: the value that names are looked up in, and the run; out comes a value."""


def settled(value: "int | Decimal", *, is_whole: bool) -> Value:
    """Return a result of arithmetic in 34 digits: Undefined where it has none, an Int where the version says so."""
    if type(value) is int:
        if -_INT_LIMIT < value < _INT_LIMIT:
            return value
        value = CONTEXT.create_decimal(value)
    if not value.is_finite():  # type: ignore[union-attr]
        return UNDEFINED
    return whole(value) if is_whole else value  # type: ignore[arg-type]


def calculate(sign: str, left: Value, right: Value, meter: Meter, *, is_whole: bool) -> Value:
    """Return what an operator of arithmetic makes of two values; `+` joins where one of them is a String."""
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
    """The sign is the left one's."""
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
