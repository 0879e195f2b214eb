"""The three kinds of columns there are, so that a row means the same on both engines: text, 64-bit integers, bytes.

A column of text or bytes may be `sealed`: what it holds are secrets (`sealing`).
"""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, LargeBinary, Text
from sqlalchemy.types import TypeEngine

from birthmark.clock import EPOCH, MICROSECOND, to_micros

__all__ = ["from_micros", "to_micros"]


def from_micros(micros: int) -> datetime:
    """Return the aware UTC datetime that `to_micros` came from."""
    return EPOCH + micros * MICROSECOND


class SealedText(Text):
    """The type of text that is sealed."""

    cache_ok = True


class SealedBytes(LargeBinary):
    """The type of bytes that are sealed."""

    cache_ok = True


def is_sealed(kind: TypeEngine[Any]) -> bool:
    """Say whether values of a type are sealed."""
    return isinstance(kind, SealedText | SealedBytes)


def holds_secrets(column: Column[Any]) -> bool:
    """Say whether a column holds secrets."""
    return is_sealed(column.type)


def text(name: str, *, key: bool = False, optional: bool = False, sealed: bool = False, **more: Any) -> Column[str]:
    """Return a column of text; a `key` is one of the table's primary key."""
    return Column(name, SealedText if sealed else Text, primary_key=key, nullable=optional, **more)


def number(name: str, *, key: bool = False, optional: bool = False, **more: Any) -> Column[int]:
    """Return a column of integers: times in microseconds and booleans, too."""
    return Column(name, BigInteger, primary_key=key, nullable=optional, autoincrement=False, **more)


def blob(name: str, *, key: bool = False, optional: bool = False, sealed: bool = False) -> Column[bytes]:
    """Return a column of bytes."""
    return Column(name, SealedBytes if sealed else LargeBinary, primary_key=key, nullable=optional)
