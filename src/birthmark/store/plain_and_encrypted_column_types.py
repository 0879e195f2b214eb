"""The three column types, which have the same meaning on both engines: text, 64-bit integers, bytes.

A column of text or bytes may be `sealed`: it contains secrets (`sealing`).
"""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, LargeBinary, Text
from sqlalchemy.types import TypeEngine

from birthmark.clock_and_entropy import EPOCH, MICROSECOND, to_micros

__all__ = ["from_micros", "to_micros"]


def from_micros(micros: int) -> datetime:
    """Return the timezone-aware UTC datetime for the microseconds of `to_micros`."""
    return EPOCH + micros * MICROSECOND


class SealedText(Text):
    """Type of encrypted text columns."""

    cache_ok = True


class SealedBytes(LargeBinary):
    """Type of encrypted bytes columns."""

    cache_ok = True


def is_sealed(kind: TypeEngine[Any]) -> bool:
    """Return whether values of a type are encrypted."""
    return isinstance(kind, SealedText | SealedBytes)


def holds_secrets(column: Column[Any]) -> bool:
    """Return whether a column contains secrets."""
    return is_sealed(column.type)


def text(name: str, *, key: bool = False, optional: bool = False, sealed: bool = False, **more: Any) -> Column[str]:
    """Return a text column; `key` makes it part of the primary key."""
    return Column(name, SealedText if sealed else Text, primary_key=key, nullable=optional, **more)


def number(name: str, *, key: bool = False, optional: bool = False, **more: Any) -> Column[int]:
    """Return an integer column, also for times in microseconds and booleans."""
    return Column(name, BigInteger, primary_key=key, nullable=optional, autoincrement=False, **more)


def blob(name: str, *, key: bool = False, optional: bool = False, sealed: bool = False) -> Column[bytes]:
    """Return a column of bytes."""
    return Column(name, SealedBytes if sealed else LargeBinary, primary_key=key, nullable=optional)
