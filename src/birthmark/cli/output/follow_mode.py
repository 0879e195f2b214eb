"""Helpers of commands that follow until Ctrl-C: start times and line-by-line output."""

import contextlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import typer

from birthmark.clock_and_entropy import Clock
from birthmark.durations import lifetime_of

BEGINNING = "beginning"


def parse_since(text: str, clock: Clock) -> datetime:
    """Parse a time: `10m` (ago), `2026-11-21T10:00:00Z` or `beginning`; without a time zone it is UTC."""
    if text == BEGINNING:
        return datetime.fromtimestamp(0, UTC)
    with contextlib.suppress(ValueError, OverflowError):
        return clock.now() - lifetime_of(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter("use a time such as 10m, 2h, 2026-11-21T10:00:00Z or beginning") from error
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def announce_first(parts: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield parts as they arrive; print a notice with the first one."""
    for number, part in enumerate(parts):
        if not number:
            typer.echo("Watching. Press Ctrl-C to stop.", err=True)
        yield part


@contextlib.contextmanager
def until_interrupted() -> Iterator[None]:
    """End normally at Ctrl-C, or when the reading program closes the pipe."""
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        yield
