"""Foreign text: JSON and numbers in it, made safe to print, and the system's reasons."""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from birthmark.errors import BirthmarkError
from birthmark.shapes import known

_T = TypeVar("_T")
_MAX_REASON_CHARS = 300

_MAX_DIGITS = 18  # within 64 bits


def read_json(body: bytes, kind: type[_T], refused: Callable[..., BirthmarkError]) -> _T:
    """Return JSON as `kind`, or raise `refused` with the fact `detail`: where it is wrong, and how."""
    try:
        return msgspec.json.decode(body, type=known(kind))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise refused(detail=str(error)[:_MAX_REASON_CHARS]) from error


def whole_number(text: str) -> int | None:
    """Return the number that `text` writes in ASCII digits, or None: `int` takes far more, and `str.isdigit` lies."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None


def printable(text: str) -> str:
    """Return `text` in one line, everything not printable in it escaped, so that it cannot forge log lines."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


def readable(body: bytes) -> tuple[str, str]:
    """Return a message's body as text, and how: `utf-8`, or `hex` where it is no text."""
    try:
        return body.decode(), "utf-8"
    except UnicodeDecodeError:
        return body.hex(), "hex"


def reason_of(problem: OSError) -> str:
    """Return the system's reason in words."""
    return (problem.strerror or type(problem).__name__).lower()
