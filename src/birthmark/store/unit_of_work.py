"""The unit of work of a service: conditional writes, audit rows and events, committed atomically."""

import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from birthmark.actor import Actor
from birthmark.errors import BirthmarkError, ChangedMeanwhileError, ConflictError
from birthmark.store.compiled_statements import Statement
from birthmark.store.event_base_and_codec import Event

T = TypeVar("T")


async def retry_on_conflict(
    decide: Callable[[], Awaitable[T]], *, after: type[ConflictError] = ChangedMeanwhileError, attempts: int = 2
) -> T:
    """Return the result of `decide`, which reads, decides and commits with a condition; retry on conflicts.

    Raise its own errors, and the conflict `after` at the last of `attempts`.
    """
    for _ in range(attempts - 1):
        with suppress(after):
            return await decide()
    return await decide()


canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An audit entry: actor, action and subject. `detail` is canonical JSON text without secrets."""

    actor: str
    action: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class Write:
    """A statement. `expect` is the required row count; on a mismatch `otherwise` is raised (default: a conflict).

    Frequent writes give a function that returns the error, so that no error is created without a mismatch.
    """

    statement: Statement
    params: Mapping[str, Any]
    expect: int | None
    otherwise: BirthmarkError | Callable[[], BirthmarkError] | None

    def refusal(self) -> BirthmarkError:
        """Return the error to raise on a mismatch."""
        if isinstance(self.otherwise, BirthmarkError):
            return self.otherwise
        return ChangedMeanwhileError() if self.otherwise is None else self.otherwise()


@dataclass(frozen=True, slots=True)
class CounterChange:
    """A change of a counter (`figures`). `since` is the start of its period; None is the hour of the commit."""

    name: str
    place: str
    state: str
    since: int | None
    by: int


@dataclass(slots=True)
class Changes:
    """A unit of work. Methods return self, for use in one expression."""

    writes: list[Write] = field(default_factory=list)
    audits: list[AuditRow] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    counts: list[CounterChange] = field(default_factory=list)
    first_event: int = 0
    """Outbox row number of the first event."""
    at: int = 0
    """Time of the change in microseconds, as in its audit rows."""

    def run(
        self,
        statement: Statement,
        /,
        *,
        expect: int | None = None,
        otherwise: BirthmarkError | Callable[[], BirthmarkError] | None = None,
        **params: Any,
    ) -> Self:
        """Add a statement with its parameters by name; every bound name is required."""
        self.writes.append(Write(statement, params, expect, otherwise))
        return self

    def audit(self, actor: str, action: str, subject: str, **detail: object) -> Self:
        """Add an audit row; `detail` must be JSON-serializable and contain no secret.

        `detail` includes data that the actor reports about itself. Rate limits of the actor are counted in the same
        commit.
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
        """Publish `event` on the bus after the commit."""
        self.events.append(event)
        return self

    def count(self, name: str, scope: str = "", state: str = "", *, since: int | None = 0, by: int = 1) -> Self:
        """Add `by` to the counter `name` at `place` in `state`, for the period that begins at `since`."""
        self.counts.append(CounterChange(name, scope, state, since, by))
        return self

    def number(self, first_event: int, timestamp: int) -> None:
        """Set the number of the first event and the time; the engine calls this when it writes the rows."""
        self.first_event, self.at = first_event, timestamp

    @property
    def is_one_statement(self) -> bool:
        """Whether this is a single unconditional write, which is atomic in any context."""
        is_alone = not self.audits and not self.events and not self.counts
        return len(self.writes) == 1 and self.writes[0].expect is None and is_alone

    def merge(self, other: "Changes") -> Self:
        """Append all content of `other`."""
        self.writes += other.writes
        self.audits += other.audits
        self.events += other.events
        self.counts += other.counts
        return self
