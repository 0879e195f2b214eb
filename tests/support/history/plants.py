"""Ways to falsify a history. Each changes one thing, which the check that it names has to find."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from support.history import checks
from support.history.events import C2D, NEIGHBOR, RETAINED, SHADOW, TELEMETRY, GrantAttempt, History, LineChange

Falsify = Callable[[History, random.Random], History]
_FAR = 10**6
_SLOW_S = 2 * checks.READY_WITHIN_S


class Plant(NamedTuple):
    """One way, and the check that finds it."""

    apply: Falsify
    found_as: str


def _instead(part: str, rows: Callable[[History], list[Any]], change: Callable[[Any, History], list[Any]]) -> Falsify:
    """Choose one of the rows of a part, and put others in its place."""

    def apply(history: History, dice: random.Random) -> History:
        chosen = dice.choice(rows(history))
        kept = [row for row in getattr(history, part) if row != chosen]
        return _with(history, part, kept + change(chosen, history))

    return apply


def _beside(part: str, choice: str, make: Callable[[Any, History], list[Any]]) -> Falsify:
    """Choose one row of another part, and add what follows from it."""

    def apply(history: History, dice: random.Random) -> History:
        return _with(history, part, getattr(history, part) + make(dice.choice(getattr(history, choice)), history))

    return apply


def _with(history: History, part: str, rows: Any) -> History:
    return history._replace(**{part: rows})


def _once(stream: str) -> Callable[[History], list[Any]]:
    """Choose among what was acknowledged before anything failed, transmitted once, and seen once."""

    def rows(history: History) -> list[Any]:
        acked = [row for row in history.sent if row.stream == stream and row.acked is not None and row.copies == 1]
        sent = {
            row[:3] for row in acked if not any(row.sent <= fault.begin <= (row.acked or 0) for fault in history.faults)
        }
        seen = [row for row in history.seen if row[:3] in sent]
        copies = Counter(row[:3] for row in seen)
        return [row for row in seen if copies[row[:3]] == 1]

    return rows


def _lost(stream: str) -> Plant:
    return Plant(_instead("seen", _once(stream), lambda _row, _history: []), "lost")


def _doubled(stream: str) -> Plant:
    return Plant(_instead("seen", _once(stream), lambda row, _: [row, row._replace(place=row.place + _FAR)]), "doubled")


def _invented(stream: str) -> Plant:
    change = _instead("seen", _once(stream), lambda row, _: [row, row._replace(number=_FAR, place=row.place + _FAR)])
    return Plant(change, "invented")


def _late(stream: str) -> Plant:
    """Move the first number of a series behind the last."""

    def firsts(history: History) -> list[Any]:
        return [row for row in history.seen if row.stream == stream and row.number == 1]

    return Plant(_instead("seen", firsts, lambda row, _: [row._replace(place=row.place + _FAR)]), "order")


def _final(stream: str, number: int | None, found_as: str) -> Plant:
    def rows(history: History) -> list[Any]:
        return [row for row in history.finals if row.stream == stream]

    return Plant(_instead("finals", rows, lambda row, _: [row._replace(number=number)]), found_as)


def _another_version(row: Any, history: History) -> list[Any]:
    other = next(one for one in history.seen if one[:2] == row[:2] and one.number != row.number)
    return [row._replace(place=other.place)]


def _grant(channel: str) -> Plant:
    def make(answer: Any, _: History) -> list[Any]:
        at = answer.at + checks.REVOKED_WITHIN_S + 0.1
        return [GrantAttempt(answer.who, channel, at, at + 0.1, is_granted=True)]

    return Plant(_beside("attempts", "answers", make), "late grant")


def _untried(history: History, dice: random.Random) -> History:
    who, at, _ = dice.choice(history.answers)
    return history._replace(attempts=[row for row in history.attempts if row.who != who or row.begin < at])


def _refused_always(history: History, dice: random.Random) -> History:
    who = dice.choice(history.answers).who
    granted = [row for row in history.attempts if (row.who, row.channel, row.is_granted) == (who, "https", True)]
    return history._replace(attempts=[row for row in history.attempts if row not in granted])


def _down(line: Any, history: History) -> list[Any]:
    return [LineChange(line.client, history.end + 1, is_up=False)]


def _new_session(line: Any, history: History) -> list[Any]:
    return [*_down(line, history), LineChange(line.client, history.end + 2, is_up=True, has_session=False)]


def _cut(line: Any, history: History) -> list[Any]:
    at = next(row.begin for row in history.faults if row.kind.startswith("postgresql"))
    return [LineChange(line.client, at, is_up=True), LineChange(line.client, at + 0.1, is_up=False)]


def _slow(history: History, dice: random.Random) -> History:
    at = dice.choice(history.faults).begin
    polls = [row._replace(is_ready=row.is_ready and not 0 <= row.end - at <= _SLOW_S) for row in history.polls]
    return history._replace(polls=polls)


def _blind(history: History, dice: random.Random) -> History:
    at = dice.choice(history.faults).begin
    return history._replace(polls=[row for row in history.polls if not 0 <= row.end - at <= _SLOW_S])


def _silent(history: History, dice: random.Random) -> History:
    stream = dice.choice([TELEMETRY, C2D, NEIGHBOR])
    sent = [row._replace(acked=None) if row.stream == stream else row for row in history.sent]
    return history._replace(sent=sent)


PLANTS: dict[str, Plant] = {
    **{f"lost {stream}": _lost(stream) for stream in (TELEMETRY, C2D, NEIGHBOR, SHADOW)},
    **{f"doubled {stream}": _doubled(stream) for stream in (TELEMETRY, C2D, NEIGHBOR, SHADOW)},
    **{f"invented {stream}": _invented(stream) for stream in (TELEMETRY, C2D)},
    **{f"late {stream}": _late(stream) for stream in (TELEMETRY, NEIGHBOR)},
    "wrong version": Plant(_instead("seen", _once(SHADOW), _another_version), "version"),
    "wrong final": _final(SHADOW, 1, "final"),
    "stale retained": _final(RETAINED, 1, "stale"),
    "no retained": _final(RETAINED, None, "register"),
    **{f"late {channel}": _grant(channel) for channel in ("connect", "receive")},
    "untried": Plant(_untried, "unproven"),
    "refused always": Plant(_refused_always, "unproven"),
    "gone": Plant(_beside("lines", "lines", _down), "gone"),
    "new session": Plant(_beside("lines", "lines", _new_session), "forgotten"),
    "cut": Plant(_beside("lines", "lines", _cut), "cut"),
    "slow": Plant(_slow, "not ready"),
    "blind": Plant(_blind, "blind"),
    "silent": Plant(_silent, "silence"),
}
