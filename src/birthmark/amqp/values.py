"""AMQP values that Python has no type for, so that a decoded value is encoded with its own type (part 1 section 1.6).

Types that Python has are used as they are:

- `None`, `bool`, `bytes` (binary), `str` (string) and `UUID`
- `int` (long) and `float` (double)
- `list` and `dict` (map), whose keys are text or numbers
"""

from dataclasses import dataclass
from typing import Any


class Symbol(str):
    """ASCII text from a constrained domain."""

    __slots__ = ()


class Char(str):
    """One Unicode character."""

    __slots__ = ()


class UByte(int):
    """Unsigned 8-bit integer."""


class UShort(int):
    """Unsigned 16-bit integer."""


class UInt(int):
    """Unsigned 32-bit integer."""


class ULong(int):
    """Unsigned 64-bit integer."""


class Byte(int):
    """Signed 8-bit integer."""


class Short(int):
    """Signed 16-bit integer."""


class Int(int):
    """Signed 32-bit integer."""


class Timestamp(int):
    """Milliseconds since the Unix epoch, signed 64-bit."""


class Float(float):
    """32-bit floating point number."""

    __slots__ = ()


class DecimalBytes(bytes):
    """A decimal32, decimal64 or decimal128 as its 4, 8 or 16 bytes; nothing here computes with it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Array:
    """Elements of one type; `kind` is their Python type, also if there are none."""

    kind: type
    values: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class DescribedValue:
    """A value with a descriptor that this package has no class for, such as a filter."""

    descriptor: Any
    value: Any
