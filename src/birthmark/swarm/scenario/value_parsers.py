"""Parsers of scenario values: durations, shares, rates. Each raises `MistakeError`."""

import contextlib
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from birthmark.agent.config.toml_tables import TEXT, MistakeError, Read
from birthmark.durations import duration_of

E = TypeVar("E", bound=StrEnum)

_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%")
_LONGEST_S = 36_500 * 86400.0
_WHOLE = 100.0


def span(value: object) -> float:
    """Parse a duration, and return seconds."""
    seconds = _number(value)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            seconds = duration_of(value).total_seconds()
    if seconds is None or not 0 <= seconds <= _LONGEST_S:
        raise MistakeError("must be a duration", '`{name} = "10s"` (ms, s, m, h or d)')
    return seconds


def some_time(value: object) -> float:
    """Return a positive number of seconds."""
    if not (seconds := span(value)):
        raise MistakeError("must be greater than zero", '`{name} = "10s"`')
    return seconds


def spans(value: object) -> tuple[float, ...]:
    """Parse a list of durations, and return seconds."""
    if not isinstance(value, list):
        raise MistakeError("must be a list of durations", '`{name} = ["30s", "60s"]`')
    return tuple(span(one) for one in value)


def share(value: object) -> float:
    """Return a fraction between 0 and 1."""
    found = _SHARE.fullmatch(value) if isinstance(value, str) else None
    part = float(found[1]) / _WHOLE if found else _number(value)
    if part is None or not 0 <= part <= 1:
        raise MistakeError("must be a percentage", '`{name} = "5%"`')
    return part


def renewal(value: object) -> tuple[float, float]:
    """Return the seconds between renewals, or the share of a certificate's lifetime."""
    if isinstance(value, str) and value.rstrip().endswith("%"):
        return 0.0, share(value)
    return some_time(value), 0.0


def rate(value: object) -> float:
    """Return a rate per second."""
    found = _number(value)
    if found is None or not 0 < found <= 1e6:  # noqa: PLR2004 - above any real machine
        raise MistakeError("must be a number of devices per second", "`{name} = 50`")
    return found


def number(least: int, limit: int) -> Read[int]:
    """Return the parser of integers within bounds."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= limit:
            raise MistakeError(f"must be a whole number from {least} to {limit}", f"`{{name}} = {least}`")
        return value

    return read


def path(value: object) -> Path:
    """Return a path with `~` expanded."""
    return Path(TEXT(value)).expanduser()


def one_of(kind: type[E]) -> Read[E]:
    """Return the parser of an enum value."""

    def read(value: object) -> E:
        try:
            return kind(TEXT(value))
        except ValueError as error:
            accepted = " or ".join(f'`{{name}} = "{one.value}"`' for one in kind)
            raise MistakeError("is not known", accepted) from error

    return read


def word_of(words: Mapping[str, Any]) -> Read[Any]:
    """Return the parser of a value from a mapping of names."""

    def read(value: object) -> Any:
        if (text := TEXT(value)) not in words:
            raise MistakeError("is not known", " or ".join(f'`{{name}} = "{one}"`' for one in words))
        return words[text]

    return read


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
