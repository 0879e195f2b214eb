"""What a service wants written: conditional writes, audit rows and events, all or nothing."""

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from birthmark.actor import Actor
from birthmark.errors import BirthmarkError, ChangedMeanwhileError, ConflictError
from birthmark.store.events import Event
from birthmark.store.statements import Statement

T = TypeVar("T")


async def decided_again(
    decide: Callable[[], Awaitable[T]], *, after: type[ConflictError] = ChangedMeanwhileError, attempts: int = 2
) -> T:
    """Return what `decide` returns: it reads, decides and commits on the condition that nothing changed meanwhile.

    Raise its own errors, and `after`, by which it says that another was faster, at the last of `attempts`.
    """
    for _ in range(attempts - 1):
        with suppress(after):
            return await decide()
    return await decide()


canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class AuditRow:
    """Who did what to whom. `detail` is canonical JSON text without secrets."""

    actor: str
    action: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class Write:
    """One statement. `expect` is the number of rows it must touch, else `otherwise` is raised (or a conflict)."""

    statement: Statement
    params: Mapping[str, Any]
    expect: int | None
    otherwise: BirthmarkError | None


@dataclass(frozen=True, slots=True)
class CounterChange:
    """One more, or fewer, of a figure (`figures`). `since` is where its period begins, None: the hour of the commit."""

    name: str
    place: str
    state: str
    since: int | None
    by: int


@dataclass(slots=True)
class Changes:
    """One unit of work. Methods return self, so a service can write it as one expression."""

    writes: list[Write] = field(default_factory=list)
    audits: list[AuditRow] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    counts: list[CounterChange] = field(default_factory=list)
    first_event: int = 0
    """The number of the first event's row in the outbox."""
    at: int = 0
    """When it was, in microseconds, as its audit rows say."""

    def run(
        self,
        statement: Statement,
        /,
        *,
        expect: int | None = None,
        otherwise: BirthmarkError | None = None,
        **params: Any,
    ) -> Self:
        """Add a statement with its parameters by name; every bound name must be given."""
        self.writes.append(Write(statement, params, expect, otherwise))
        return self

    def audit(self, actor: str, action: str, subject: str, **detail: object) -> Self:
        """Add an audit row; `detail` must be JSON-able and hold no secret. What an actor tells of itself goes there.

        What the actor may do only so often is counted by the same commit.
        """
        told: Mapping[str, object] = detail
        if isinstance(actor, Actor):
            told = {**actor.told, **detail}
            if actor.takes is not None and (write := actor.takes(action, detail)) is not None:
                self.writes.append(write)
        text = canonical(told)
        self.audits.append(AuditRow(str(actor), action, subject, text))
        return self

    def event(self, event: Event) -> Self:
        """Announce `event` on the bus once this is durable."""
        self.events.append(event)
        return self

    def count(self, name: str, place: str = "", state: str = "", *, since: int | None = 0, by: int = 1) -> Self:
        """Let a figure follow: `by` more of `name` at `place` in `state`, of a period that begins at `since`."""
        self.counts.append(CounterChange(name, place, state, since, by))
        return self

    def number(self, first_event: int, at: int) -> None:
        """Note the number of its first event and its time; the engine calls it when it writes their rows."""
        self.first_event, self.at = first_event, at

    @property
    def is_one_statement(self) -> bool:
        """Nothing but one write without a condition: it is kept whole or not at all, whatever is around it."""
        is_alone = not self.audits and not self.events and not self.counts
        return len(self.writes) == 1 and self.writes[0].expect is None and is_alone

    def merge(self, other: "Changes") -> Self:
        """Take all of `other` in, after what is here."""
        self.writes += other.writes
        self.audits += other.audits
        self.events += other.events
        self.counts += other.counts
        return self
