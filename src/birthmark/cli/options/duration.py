"""Duration options: `30s`, `5m`, `1h`, or a bare number in the unit of earlier releases."""

from dataclasses import dataclass
from datetime import timedelta

import typer

from birthmark.durations import FORMS, duration_of, lifetime_of

_SECONDS = {"s": 1, "m": 60}


@dataclass(frozen=True)
class DurationParser:
    """Parses text into a bounded number of `unit`s; `is_whole` requires an integer, as the protocol does."""

    unit: str = "s"
    minimum: float = 0
    maximum: float | None = None
    is_whole: bool = False
    __name__ = "TIME"  # typer requires a parser name

    def __call__(self, value: str | float) -> float:
        """Return the number. Raise `typer.BadParameter`."""
        text = str(value)
        is_bare = text.replace(".", "", 1).isdecimal()
        try:
            count = duration_of(text + self.unit if is_bare else text).total_seconds() / _SECONDS[self.unit]
        except ValueError as error:
            raise typer.BadParameter(f"{text!r} is not a duration: {FORMS}") from error
        if count < self.minimum:
            raise typer.BadParameter(f"{text} is too short: at least {self.minimum:g}{self.unit}")
        if self.maximum is not None and count > self.maximum:
            raise typer.BadParameter(f"{text} is too long: at most {self.maximum:g}{self.unit}")
        if not self.is_whole:
            return count
        if not count.is_integer():
            raise typer.BadParameter(f"{text} must be a multiple of 1{self.unit}")
        return int(count)


def parse_within(text: str) -> timedelta:
    """Return the duration."""
    try:
        return lifetime_of(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
