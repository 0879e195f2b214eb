"""The history of a run: what clients sent and saw, what an operator and the faults did. All times are one clock's."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

TELEMETRY, C2D, NEIGHBOR, SHADOW, RETAINED = "telemetry", "c2d", "neighbor", "shadow", "retained"
STREAMS = (TELEMETRY, C2D, NEIGHBOR, SHADOW, RETAINED)


@dataclass(frozen=True, slots=True)
class NumberSent:
    """A number of a stream that a client transmitted so many times; `acked` is None without acknowledgement."""

    stream: str
    series: str
    number: int
    sent: float
    acked: float | None
    copies: int = 1


@dataclass(frozen=True, slots=True)
class NumberSeen:
    """A copy that was stored or delivered; `place` is its sequence number, version, or order of arrival."""

    stream: str
    series: str
    number: int
    place: int
    receiver: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class FinalValue:
    """What a read at the end returned for a register: a shadow or a retained topic."""

    stream: str
    series: str
    number: int | None
    version: int = 0


@dataclass(frozen=True, slots=True)
class LineChange:
    """A client's connection began or ended; `has_session` as the CONNACK said."""

    client: str
    at: float
    is_up: bool
    has_session: bool = True


@dataclass(frozen=True, slots=True)
class GrantAttempt:
    """Something that a client tried with a credential that is revoked in this run."""

    who: str
    channel: str
    begin: float
    end: float
    is_granted: bool


@dataclass(frozen=True, slots=True)
class RevocationAnswer:
    """The operator was told at this time that a credential is revoked."""

    who: str
    at: float


@dataclass(frozen=True, slots=True)
class InjectedFault:
    kind: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class ReadinessPoll:
    begin: float
    end: float
    is_ready: bool


@dataclass
class History:
    """All of it; `end` is when the clients stopped."""

    sent: list[NumberSent] = field(default_factory=list)
    seen: list[NumberSeen] = field(default_factory=list)
    finals: list[FinalValue] = field(default_factory=list)
    lines: list[LineChange] = field(default_factory=list)
    attempts: list[GrantAttempt] = field(default_factory=list)
    answers: list[RevocationAnswer] = field(default_factory=list)
    faults: list[InjectedFault] = field(default_factory=list)
    polls: list[ReadinessPoll] = field(default_factory=list)
    end: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return rows without field names, to be small in a file."""
        rows = {name: [list(dataclasses.astuple(row)) for row in getattr(self, name)] for name in _ROWS}
        return rows | {"end": self.end}

    @classmethod
    def of_json(cls, value: dict[str, Any]) -> "History":
        return cls(**{name: [kind(*row) for row in value[name]] for name, kind in _ROWS.items()}, end=value["end"])


_ROWS: dict[str, Any] = {
    "sent": NumberSent,
    "seen": NumberSeen,
    "finals": FinalValue,
    "lines": LineChange,
    "attempts": GrantAttempt,
    "answers": RevocationAnswer,
    "faults": InjectedFault,
    "polls": ReadinessPoll,
}
