"""What is wrong about a history: a pure function from a history to findings.

Not here: how a history is recorded (benchmarks/soak_history.py), and how one is falsified (plants.py).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from support.history.events import (
    C2D,
    NEIGHBOR,
    RETAINED,
    SHADOW,
    STREAMS,
    History,
    InjectedFault,
    NumberSeen,
    NumberSent,
)

REVOKED_WITHIN_S = 1.5
BACK_WITHIN_S = 30.0
READY_WITHIN_S = 3.0
OUTAGE_S = 1.5
"""How long PostgreSQL is meant to be away; what its own stop and start take beyond that is not the server's."""
BLIND_S = 3.0
"""No time as long as this is without a poll of the readiness."""
WAYS = ("connect", "https")
"""A credential has to be granted in these ways before its revocation, and to be tried after."""
_Series = dict[tuple[str, str], tuple[dict[int, NumberSent], dict[int, list[NumberSeen]]]]


class Finding(NamedTuple):
    """One thing that should not be; `check` says by which check."""

    check: str
    about: str
    text: str


TIMED = frozenset({"late grant", "unproven", "gone", "cut", "not ready", "blind"})
"""What a slow machine alone can cause."""


def findings(history: History) -> list[Finding]:
    """Return everything that is wrong."""
    checks = (_silence, _delivery, _order, _versions, _registers, _revocations, _lines, _restarts, _readiness)
    return [finding for check in checks for finding in check(history)]


def _silence(history: History) -> Iterator[Finding]:
    """A check of nothing proves nothing."""
    acked = {row.stream for row in history.sent if row.acked is not None}
    parts = {"faults": history.faults, "revocations": history.answers, "polls": history.polls}
    for name in [*(set(STREAMS) - acked), *(name for name, rows in parts.items() if not rows)]:
        yield Finding("silence", name, "nothing was acknowledged or recorded")


def _series(history: History) -> _Series:
    """Return what was sent and what was seen of each series, by number; copies in the order of their places."""
    found: _Series = defaultdict(lambda: ({}, {}))
    for sent in history.sent:
        found[sent.stream, sent.series][0][sent.number] = sent
    for seen in sorted(history.seen, key=lambda row: row.place):
        found[seen.stream, seen.series][1].setdefault(seen.number, []).append(seen)
    return found


def _delivery(history: History) -> Iterator[Finding]:
    """What was acknowledged is there; there are no more copies than were sent or had to be delivered again."""
    for (stream, series), (sent, seen) in _series(history).items():
        about = f"{stream} {series}"
        kept = [row for row in sent.values() if row.acked is not None and stream != RETAINED]
        yield from (
            Finding("lost", about, f"{row.number}, acked {row.acked}") for row in kept if row.number not in seen
        )
        yield from (Finding("invented", about, f"{number} was never sent") for number in seen.keys() - sent.keys())
        for number in seen.keys() & sent.keys():
            extra = _more_than_sent(sent[number], seen[number])
            if extra > 0 and stream in {C2D, NEIGHBOR}:
                extra -= _redeliveries(history, sent[number], seen[number])
            if extra > 0:
                yield Finding("doubled", about, f"{number}, {extra} times more than explained")


def _more_than_sent(row: NumberSent, copies: list[NumberSeen]) -> int:
    return max(0, len({copy.place for copy in copies}) - row.copies)


def _redeliveries(history: History, row: NumberSent, copies: list[NumberSeen]) -> int:
    """Return how often QoS 1 lets a server deliver a message again.

    It may after each new connection of the receiver, and after each failure before the sender's acknowledgement.
    """
    who, first, last = copies[0].receiver, copies[0].at, copies[-1].at
    ups = sum(line.is_up and line.client == who and first < line.at <= last for line in history.lines)
    return ups + sum(row.sent <= fault.begin <= (row.acked or last) for fault in history.faults)


def _order(history: History) -> Iterator[Finding]:
    """What was acknowledged before another was sent comes before it."""
    for (stream, series), (sent, seen) in _series(history).items():
        first = sorted((copies[0].place, number) for number, copies in seen.items() if number in sent)
        earliest, whose, pairs = float("inf"), 0, []
        for row in (sent[number] for _, number in reversed(first)):
            if earliest < row.sent:
                pairs.append((whose, row.number))
            if row.acked is not None and row.acked < earliest:
                earliest, whose = row.acked, row.number
        if pairs:
            text = "{} was acknowledged before {} was sent, and comes after it".format(*pairs[-1])
            yield Finding("order", f"{stream} {series}", f"{text}; {len(pairs)} of these")


def _versions(history: History) -> Iterator[Finding]:
    """A version belongs to one update, and the final shadow is that of the last version."""
    holders: dict[str, dict[int, int]] = defaultdict(dict)
    for row in history.seen:
        if row.stream == SHADOW and (holder := holders[row.series].setdefault(row.place, row.number)) != row.number:
            yield Finding("version", row.series, f"version {row.place} is of {holder} and of {row.number}")
    for final in history.finals:
        last = max(holders[final.series].items(), default=None)
        if final.stream == SHADOW and last not in {None, (final.version, final.number)}:
            text = f"read version {final.version} with {final.number}; last accepted: version and number {last}"
            yield Finding("final", final.series, text)


def _registers(history: History) -> Iterator[Finding]:
    """A register has a value that was sent, and that no later acknowledged one has replaced."""
    finals = {(final.stream, final.series): final.number for final in history.finals}
    for key, (sent, _) in _series(history).items():
        written = [row for row in sent.values() if row.acked is not None]
        if key[0] not in {SHADOW, RETAINED} or not written:
            continue
        found = sent.get(finals.get(key) or 0)
        if found is None:
            yield Finding("register", " ".join(key), f"has {finals.get(key)}, which was not sent")
            continue
        over = found.acked
        later = [row.number for row in written if over is not None and row.sent > over]
        if later:
            yield Finding("stale", " ".join(key), f"has {found.number}; {max(later)} was acknowledged after it")


def _revocations(history: History) -> Iterator[Finding]:
    """A revoked credential is good for nothing after its time, and was good before."""
    for who, at, _ in history.answers:
        mine = [row for row in history.attempts if row.who == who]
        late = [row for row in mine if row.begin > at + REVOKED_WITHIN_S]
        for row in late:
            if row.is_granted:
                yield Finding("late grant", who, f"{row.channel} granted {row.begin - at:.2f} s after the answer")
        for channel in set(WAYS) - {row.channel for row in late}:
            yield Finding("unproven", who, f"{channel} was not tried after the revocation")
        for channel in set(WAYS) - {row.channel for row in mine if row.is_granted and row.begin < at}:
            yield Finding("unproven", who, f"{channel} was not granted before the revocation")


def _cuts(history: History) -> list[tuple[str, float, float | None]]:
    """Return each connection that ended: the client, when, and when it was back."""
    cuts, ups = [], set()
    lines = sorted(history.lines, key=lambda row: row.at)
    for number, line in enumerate(lines):
        if line.is_up:
            ups.add(line.client)
        elif line.client in ups:
            ups.remove(line.client)
            back = (row.at for row in lines[number:] if row.client == line.client and row.is_up)
            cuts.append((line.client, line.at, next(back, None)))
    return cuts


def _lines(history: History) -> Iterator[Finding]:
    """Who is cut returns, to the session that it had."""
    for client, at, back in _cuts(history):
        if back is None or back - at > BACK_WITHIN_S:
            yield Finding("gone", client, f"cut at {at:.2f}, back at {back}")
    known = set()
    for line in sorted(history.lines, key=lambda row: row.at):
        if line.is_up and line.client in known and not line.has_session:
            yield Finding("forgotten", line.client, f"its session was gone at {line.at:.2f}")
        known.add(line.client)


def _windows(history: History) -> Iterator[tuple[InjectedFault, float, str]]:
    """Return each fault, when the next one began, and its name."""
    faults = sorted(history.faults, key=lambda row: row.begin)
    ends = [*(row.begin for row in faults[1:]), history.end]
    for fault, until in zip(faults, ends, strict=False):
        yield fault, until, f"{fault.kind} at {fault.begin:.2f}"


def _restarts(history: History) -> Iterator[Finding]:
    """A short restart of PostgreSQL costs no connection."""
    for fault, until, about in _windows(history):
        cut = [client for client, at, _ in _cuts(history) if fault.begin <= at < until]
        if cut and fault.kind.startswith("postgresql"):
            yield Finding("cut", about, f"{len(cut)} connections ended")


def _not_ready(history: History, begin: float, until: float) -> tuple[float, float]:
    """Return the longest time without readiness, and the longest without a poll."""
    longest, blind, last, since, was_ready = 0.0, 0.0, begin, begin, True
    for poll in (poll for poll in history.polls if begin <= poll.end <= until):
        blind, last = max(blind, poll.begin - last), poll.end
        since = max(poll.begin, begin) if was_ready else since
        if not (was_ready and poll.is_ready):
            longest = max(longest, poll.end - since)
        was_ready = poll.is_ready
    return longest, max(blind, until - last)


def _readiness(history: History) -> Iterator[Finding]:
    """No fault costs readiness for long, and somebody looked all the time."""
    for fault, until, about in _windows(history):
        away, blind = _not_ready(history, fault.begin, until)
        more = fault.end - fault.begin - OUTAGE_S if fault.kind.startswith("postgresql") else 0
        if away > READY_WITHIN_S + max(0, more):
            yield Finding("not ready", about, f"{away:.2f} s, of which {max(0, more):.2f} s are PostgreSQL's own")
        if blind > BLIND_S:
            yield Finding("blind", about, f"nobody looked for {blind:.2f} s")


def figures(history: History) -> dict[str, Any]:
    """Return what the run came to, for the report."""
    found: dict[str, Any] = {}
    for stream in STREAMS:
        rows = [row for row in history.sent if row.stream == stream]
        series = [both for key, both in _series(history).items() if key[0] == stream]
        more = [
            _more_than_sent(sent[number], seen[number]) for sent, seen in series for number in seen.keys() & sent.keys()
        ]
        found[stream] = {"sent": len(rows), "resent": sum(row.copies > 1 for row in rows), "more_than_sent": sum(more)}
        found[stream]["ack_s"] = _spread(row.acked - row.sent for row in rows if row.acked is not None)
    cuts = _cuts(history)
    found["cuts"] = _spread(back - at for _, at, back in cuts if back is not None)
    by_fault: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for fault, until, _ in _windows(history):
        by_fault[fault.kind]["lasted_s"].append(round(fault.end - fault.begin, 2))
        by_fault[fault.kind]["not_ready_s"].append(round(_not_ready(history, fault.begin, until)[0], 2))
        by_fault[fault.kind]["cut"].append(sum(fault.begin <= at < until for _, at, _ in cuts))
    answers = {answer.who: answer.at for answer in history.answers}
    after = [row for row in history.attempts if row.begin > answers.get(row.who, history.end)]
    late = _spread(row.begin - answers[row.who] for row in after if row.is_granted)
    answered = _spread(answer.at - answer.asked for answer in history.answers)
    told: dict[str, Any] = {"answered_s": answered, "tried_after": len(after), "granted_after_s": late}
    told["granted"] = Counter(row.channel for row in history.attempts if row.is_granted)
    return found | {"by_fault": by_fault, "revocations": told}


def _spread(values: Iterable[float]) -> dict[str, float]:
    ranked = sorted(values)
    at = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0} if ranked else {}
    spread = {name: round(ranked[min(len(ranked) - 1, int(len(ranked) * part))], 3) for name, part in at.items()}
    return {"count": len(ranked)} | spread
