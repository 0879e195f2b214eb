"""The three kinds of columns there are, so that a row means the same on both engines: text, 64-bit integers, bytes."""

from typing import Any

from sqlalchemy import BigInteger, Column, LargeBinary, Text


def text(name: str, *, key: bool = False, optional: bool = False, **more: Any) -> Column[str]:
    """Return a column of text; a `key` is one of the table's primary key."""
    return Column(name, Text, primary_key=key, nullable=optional, **more)


def number(name: str, *, key: bool = False, optional: bool = False, **more: Any) -> Column[int]:
    """Return a column of integers: times in microseconds and booleans, too."""
    return Column(name, BigInteger, primary_key=key, nullable=optional, autoincrement=False, **more)


def blob(name: str, *, key: bool = False, optional: bool = False) -> Column[bytes]:
    """Return a column of bytes."""
    return Column(name, LargeBinary, primary_key=key, nullable=optional)
