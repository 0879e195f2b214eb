"""Ways to falsify a history. Each changes one thing, which the check that it names has to find."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from support.history.checks import BACK_WITHIN_S, READY_WITHIN_S, REVOKED_WITHIN_S
from support.history.events import (
    C2D,
    NEIGHBOR,
    RETAINED,
    SHADOW,
    TELEMETRY,
    GrantAttempt,
    History,
    LineChange,
    NumberSeen,
    NumberSent,
)

_Row = TypeVar("_Row")
Falsify = Callable[[History, random.Random], History]


@dataclass(frozen=True, slots=True)
class Plant:
    """One way, and the check that finds it."""

    apply: Falsify
    found_as: str


def _acked(history: History, stream: str) -> list[NumberSent]:
    return [row for row in history.sent if row.stream == stream and row.acked is not None]


def _copies(history: History, of: NumberSent) -> list[NumberSeen]:
    return [row for row in history.seen if (row.stream, row.series, row.number) == (of.stream, of.series, of.number)]


def _without(rows: Iterable[_Row], some: list[_Row]) -> list[_Row]:
    return [row for row in rows if row not in some]


def _lost(stream: str) -> Falsify:
    def apply(history: History, dice: random.Random) -> History:
        lost = _copies(history, dice.choice(_acked(history, stream)))
        return replace(history, seen=_without(history.seen, lost))

    return apply


def _doubled(stream: str) -> Falsify:
    """Add a copy that neither its sender nor a new connection explains."""

    def apply(history: History, dice: random.Random) -> History:
        of = dice.choice([row for row in _acked(history, stream) if row.copies == 1])
        first = _copies(history, of)[0]
        last = max(row.place for row in history.seen if (row.stream, row.series) == (of.stream, of.series))
        return replace(history, seen=[*history.seen, replace(first, place=last + 1)])

    return apply


def _invented(stream: str) -> Falsify:
    def apply(history: History, dice: random.Random) -> History:
        like = dice.choice([row for row in history.seen if row.stream == stream])
        return replace(history, seen=[*history.seen, replace(like, number=10**6, place=10**6)])

    return apply


def _swapped(stream: str) -> Falsify:
    """Exchange the places of the first and the last of a series."""

    def apply(history: History, dice: random.Random) -> History:
        series = dice.choice(_acked(history, stream)).series
        mine = sorted((row for row in _acked(history, stream) if row.series == series), key=lambda row: row.sent)
        first, last = _copies(history, mine[0]), _copies(history, mine[-1])
        moved = [replace(first[0], place=last[0].place), replace(last[0], place=first[0].place)]
        return replace(history, seen=[*_without(history.seen, first + last), *moved])

    return apply


def _two_of_a_version(history: History, dice: random.Random) -> History:
    rows = [row for row in history.seen if row.stream == SHADOW]
    one = dice.choice(rows)
    other = next(row for row in rows if row.series == one.series and row.number != one.number)
    return replace(history, seen=[*_without(history.seen, [other]), replace(other, place=one.place)])


def _other_final(stream: str) -> Falsify:
    """Let a read at the end find the first number of its series."""

    def apply(history: History, dice: random.Random) -> History:
        final = dice.choice([row for row in history.finals if row.stream == stream])
        first = min(row.number for row in _acked(history, stream) if row.series == final.series)
        return replace(history, finals=[*_without(history.finals, [final]), replace(final, number=first)])

    return apply


def _never_read(history: History, dice: random.Random) -> History:
    final = dice.choice([row for row in history.finals if row.stream == RETAINED])
    return replace(history, finals=[*_without(history.finals, [final]), replace(final, number=None)])


def _late_grant(channel: str) -> Falsify:
    def apply(history: History, dice: random.Random) -> History:
        answer = dice.choice(history.answers)
        at = answer.at + REVOKED_WITHIN_S + 0.1
        return replace(history, attempts=[*history.attempts, GrantAttempt(answer.who, channel, at, at + 0.1, True)])

    return apply


def _untried(history: History, dice: random.Random) -> History:
    answer = dice.choice(history.answers)
    return replace(
        history, attempts=[one for one in history.attempts if (one.who, one.begin > answer.at) != (answer.who, True)]
    )


def _gone(history: History, dice: random.Random) -> History:
    line = dice.choice([row for row in history.lines if row.is_up])
    down = LineChange(line.client, history.end - BACK_WITHIN_S, False)
    kept = [row for row in history.lines if row.client != line.client or row.at < down.at]
    return replace(history, lines=[*kept, down])


def _forgotten(history: History, dice: random.Random) -> History:
    line = dice.choice([row for row in history.lines if row.is_up])
    again = [LineChange(line.client, history.end, False), LineChange(line.client, history.end, True, False)]
    return replace(history, lines=[*history.lines, *again])


def _cut_by_a_restart(history: History, dice: random.Random) -> History:
    fault = next(row for row in history.faults if row.kind.startswith("postgresql"))
    client = dice.choice([row.client for row in history.lines if row.is_up and row.at < fault.begin])
    cut = [LineChange(client, fault.begin + 0.1, False), LineChange(client, fault.begin + 0.2, True)]
    return replace(history, lines=[*history.lines, *cut])


def _slow(history: History, dice: random.Random) -> History:
    begin = dice.choice(history.faults).begin
    until = begin + 2 * READY_WITHIN_S
    polls = [replace(row, is_ready=row.is_ready and not begin <= row.end <= until) for row in history.polls]
    return replace(history, polls=polls)


def _blind(history: History, dice: random.Random) -> History:
    begin = dice.choice(history.faults).begin
    return replace(history, polls=[row for row in history.polls if not begin <= row.end <= begin + 2 * READY_WITHIN_S])


def _silent(history: History, dice: random.Random) -> History:
    stream = dice.choice([TELEMETRY, C2D, NEIGHBOR])
    return replace(
        history, sent=[replace(row, acked=None if row.stream == stream else row.acked) for row in history.sent]
    )


PLANTS: dict[str, Plant] = {
    "lost telemetry": Plant(_lost(TELEMETRY), "lost"),
    "lost c2d": Plant(_lost(C2D), "lost"),
    "lost neighbor": Plant(_lost(NEIGHBOR), "lost"),
    "not accepted": Plant(_lost(SHADOW), "lost"),
    "doubled telemetry": Plant(_doubled(TELEMETRY), "doubled"),
    "doubled c2d": Plant(_doubled(C2D), "doubled"),
    "doubled neighbor": Plant(_doubled(NEIGHBOR), "doubled"),
    "applied twice": Plant(_doubled(SHADOW), "doubled"),
    "invented telemetry": Plant(_invented(TELEMETRY), "invented"),
    "invented c2d": Plant(_invented(C2D), "invented"),
    "swapped telemetry": Plant(_swapped(TELEMETRY), "order"),
    "swapped neighbor": Plant(_swapped(NEIGHBOR), "order"),
    "wrong version": Plant(_two_of_a_version, "version"),
    "wrong final": Plant(_other_final(SHADOW), "final"),
    "stale retained": Plant(_other_final(RETAINED), "stale"),
    "no retained": Plant(_never_read, "register"),
    "late connect": Plant(_late_grant("connect"), "late grant"),
    "late receipt": Plant(_late_grant("receive"), "late grant"),
    "untried": Plant(_untried, "unproven"),
    "gone": Plant(_gone, "gone"),
    "forgotten": Plant(_forgotten, "forgotten"),
    "cut": Plant(_cut_by_a_restart, "cut"),
    "slow": Plant(_slow, "not ready"),
    "blind": Plant(_blind, "blind"),
    "silent": Plant(_silent, "silence"),
}
