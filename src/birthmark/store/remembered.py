"""Rows that are read again and again, made into values once; what changed is forgotten by event."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from birthmark.store.database import Database, Heard, Row
from birthmark.store.events import Event
from birthmark.store.statements import Statement

_T = TypeVar("_T")
UNSURE_S = 60.0
"""An engine that went away finishes the commit that it had, or gives it up, long before that."""


class Remembered:
    """Answers of the database, at most `max_entries`, the oldest of which goes first.

    Whoever changes such a row announces it by an event of one of `kinds`, and all is forgotten before that change is
    answered. While nobody can tell whether one was kept, nothing is.
    """

    def __init__(self, database: Database, *kinds: type[Event], max_entries: int = 1024) -> None:
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._max_entries = max_entries
        self._known: dict[tuple[Statement, tuple[Any, ...]], Sequence[Any]] = {}
        self._changes = 0
        self._kinds = kinds
        self._unsure_until = 0.0
        database.on_events(self._hear)

    def __len__(self) -> int:
        return len(self._known)

    async def all(self, statement: Statement, make: Callable[[Row], _T], /, **params: Any) -> Sequence[_T]:
        """Return what `make` makes of every row; a statement is always asked with the same `make`."""
        key = (statement, tuple(params.values()))
        is_fresh = self._database.sharing.is_fresh()
        if is_fresh and (known := self._known.get(key)) is not None:
            return cast("Sequence[_T]", known)
        before = self._changes
        made = tuple([make(row) for row in await self._database.all(statement, **params)])
        # Else it may be what was read before a change.
        if is_fresh and before == self._changes and self._loop.time() >= self._unsure_until:
            if len(self._known) >= self._max_entries:
                del self._known[next(iter(self._known))]
            self._known[key] = made
        return made

    def _hear(self, events: Sequence[Heard], is_sure: bool) -> None:  # noqa: FBT001 - as the port has it
        if any(isinstance(event, self._kinds) for _, event in events):
            self._changes += 1
            self._known.clear()
            if not is_sure:
                self._unsure_until = self._loop.time() + UNSURE_S
