"""The history of a run: what clients sent and saw, what an operator and the faults did. All times are one clock's."""

from typing import Any, NamedTuple

TELEMETRY, C2D, NEIGHBOR, SHADOW, RETAINED = STREAMS = ("telemetry", "c2d", "neighbor", "shadow", "retained")


class NumberSent(NamedTuple):
    """A number of a series that a client transmitted so many times; `acked` is None without acknowledgement."""

    stream: str
    series: str
    number: int
    sent: float
    acked: float | None
    copies: int = 1


class NumberSeen(NamedTuple):
    """A copy that was stored or delivered; `place` is its sequence number, version, or order of arrival."""

    stream: str
    series: str
    number: int
    place: int
    receiver: str = ""
    at: float = 0.0


class FinalValue(NamedTuple):
    """What a read at the end returned for a register: a shadow or a retained topic."""

    stream: str
    series: str
    number: int | None
    version: int = 0


class LineChange(NamedTuple):
    """A client's connection began or ended; `has_session` as the CONNACK said."""

    client: str
    at: float
    is_up: bool
    has_session: bool = True


class GrantAttempt(NamedTuple):
    """Something that a client tried with a credential that is revoked in this run."""

    who: str
    channel: str
    begin: float
    end: float
    is_granted: bool


class RevocationAnswer(NamedTuple):
    """The operator was told at this time that a credential is revoked."""

    who: str
    at: float
    asked: float = 0.0


class InjectedFault(NamedTuple):
    kind: str
    begin: float
    end: float


class ReadinessPoll(NamedTuple):
    begin: float
    end: float
    is_ready: bool


class History(NamedTuple):
    """All of it, in the order in which it was recorded; `end` is when the clients stopped."""

    sent: list[NumberSent]
    seen: list[NumberSeen]
    finals: list[FinalValue]
    lines: list[LineChange]
    attempts: list[GrantAttempt]
    answers: list[RevocationAnswer]
    faults: list[InjectedFault]
    polls: list[ReadinessPoll]
    end: float = 0.0


ROWS = (NumberSent, NumberSeen, FinalValue, LineChange, GrantAttempt, RevocationAnswer, InjectedFault, ReadinessPoll)


def a_history() -> History:
    """Return one in which nothing has happened."""
    return History([], [], [], [], [], [], [], [])


def history_of(value: list[Any]) -> History:
    """Return a history from the JSON that json.dumps makes of it."""
    lists: list[Any] = [[kind(*row) for row in rows] for kind, rows in zip(ROWS, value[:-1], strict=True)]
    return History._make([*lists, value[-1]])
