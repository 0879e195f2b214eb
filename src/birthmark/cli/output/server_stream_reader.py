"""Reading of server streams from a position, a time, or a consumer group's position."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import typer

from birthmark.cli.options.server import ServerOutputOptions, at
from birthmark.cli.output.command_output import say
from birthmark.cli.output.follow_mode import announce_first, parse_since, until_interrupted
from birthmark.clock_and_entropy import SystemClock
from birthmark.sigint_delay import uninterrupted


@dataclass(frozen=True, slots=True)
class StreamReading:
    """Start position, and whether to follow new entries; without a start, reading begins with new entries."""

    since: str | None
    after: str | None
    group: str | None
    follow: bool

    @property
    def goes_on(self) -> bool:
        return self.follow or (self.since is None and self.after is None and self.group is None)


def read(
    server: ServerOutputOptions,
    stream: tuple[str, ...],
    asked: StreamReading,
    line: Callable[[Mapping[str, Any]], str],
    **more: str | None,
) -> None:
    """Print the entries of a stream; `line` formats an entry as one line. The server stores a group's position."""
    begins = {
        "since": None if asked.since is None else parse_since(asked.since, SystemClock()).isoformat(),
        "after": asked.after,
    }
    place, client = "", server.client
    query = {**begins, **more, "group": asked.group, "follow": "true" if asked.goes_on else None}
    with until_interrupted():
        pages = client.lines(at(*stream, "stream"), **query)
        for page in announce_first(pages) if asked.goes_on else pages:
            if page["gap"]:
                typer.echo("Some messages are missing here: they were trimmed before they were read.", err=True)
            with uninterrupted(twice=True):  # items must not repeat after the printed position
                for row in page["items"]:
                    say(server.as_json, row, line(row))
                sys.stdout.flush()
                told_until, place = place, page["next"]
            if asked.group is not None and told_until != place:
                client.put(at(*stream, "groups", asked.group), {"after": place})
    if asked.group is None and place:
        typer.echo(f"To continue from here: --after {place}", err=True)
