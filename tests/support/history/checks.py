"""What is wrong about a history: a pure function from a history to findings.

Not here: how a history is recorded (benchmarks/soak_history.py), and how one is falsified (plants.py).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from support.history.events import (
    C2D,
    NEIGHBOR,
    RETAINED,
    SHADOW,
    STREAMS,
    TELEMETRY,
    GrantAttempt,
    History,
    InjectedFault,
    NumberSeen,
    NumberSent,
)

REVOKED_WITHIN_S = 1.5
BACK_WITHIN_S = 30.0
READY_WITHIN_S = 3.0
OUTAGE_S = 1.5
"""How long PostgreSQL is meant to be away; what its own start takes beyond that is not the server's."""
BLIND_S = 3.0
"""No time as long as this is without a poll of the readiness."""
MUST_REFUSE = ("connect", "https")
"""A revoked credential has to be tried in these ways after its time."""
_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that should not be; `check` says by which check."""

    check: str
    about: str
    text: str

    def __str__(self) -> str:
        return f"{self.check}: {self.about}: {self.text}"


def findings(history: History) -> list[Finding]:
    """Return everything that is wrong."""
    checks = (_silence, _delivery, _order, _versions, _registers, _revocations, _lines, _restarts, _readiness)
    return [finding for check in checks for finding in check(history)]


def _silence(history: History) -> Iterator[Finding]:
    """A check of nothing proves nothing."""
    acked = {row.stream for row in history.sent if row.acked is not None}
    for stream in STREAMS:
        if stream not in acked:
            yield Finding("silence", stream, "nothing was acknowledged")
    for name in ("faults", "answers", "polls"):
        if not getattr(history, name):
            yield Finding("silence", name, "none are recorded")


def _by_series(history: History) -> dict[_Key, tuple[list[NumberSent], dict[int, list[NumberSeen]]]]:
    found: dict[_Key, tuple[list[NumberSent], dict[int, list[NumberSeen]]]] = {}
    for sent in history.sent:
        found.setdefault((sent.stream, sent.series), ([], defaultdict(list)))[0].append(sent)
    for seen in sorted(history.seen, key=lambda row: row.place):
        found.setdefault((seen.stream, seen.series), ([], defaultdict(list)))[1][seen.number].append(seen)
    return found


def _delivery(history: History) -> Iterator[Finding]:
    """What was acknowledged is there; there are no more copies than were sent or had to be delivered again."""
    ups = defaultdict(list)
    for line in history.lines:
        if line.is_up:
            ups[line.client].append(line.at)
    for (stream, series), (sent, seen) in _by_series(history).items():
        if stream == RETAINED:
            continue
        known = {row.number: row for row in sent}
        for number, row in known.items():
            if row.acked is not None and number not in seen:
                yield Finding("lost", f"{stream} {series}", f"{number} was acknowledged at {row.acked:.2f}")
        for number, copies in seen.items():
            if number not in known:
                yield Finding("invented", f"{stream} {series}", f"{number} was never sent")
                continue
            extra = len({copy.place for copy in copies}) - known[number].copies
            if stream in {C2D, NEIGHBOR}:
                extra -= sum(copies[0].at < at <= copies[-1].at for at in ups[copies[0].receiver])
            if extra > 0:
                yield Finding("doubled", f"{stream} {series}", f"{number}, {extra} times more than explained")


def _order(history: History) -> Iterator[Finding]:
    """What was acknowledged before another was sent comes before it."""
    for (stream, series), (sent, seen) in _by_series(history).items():
        known = {row.number: row for row in sent}
        first = sorted((copies[0].place, number) for number, copies in seen.items() if number in known)
        earliest, whose = float("inf"), 0
        for _, number in reversed(first):
            row = known[number]
            if earliest < row.sent:
                yield Finding(
                    "order", f"{stream} {series}", f"{whose} was acknowledged before {number}, and comes after"
                )
            if row.acked is not None and row.acked < earliest:
                earliest, whose = row.acked, number


def _versions(history: History) -> Iterator[Finding]:
    """A version belongs to one update, and the final shadow is that of the last version."""
    holders: dict[tuple[str, int], int] = {}
    for row in history.seen:
        if row.stream == SHADOW and holders.setdefault((row.series, row.place), row.number) != row.number:
            text = f"version {row.place} is of {holders[row.series, row.place]} and of {row.number}"
            yield Finding("version", row.series, text)
    for final in history.finals:
        mine = [version for series, version in holders if series == final.series]
        if final.stream != SHADOW or not mine:
            continue
        if (final.version, final.number) != (max(mine), holders[final.series, max(mine)]):
            text = f"read version {final.version} with {final.number}; accepted last: version {max(mine)}"
            yield Finding("final", final.series, f"{text} with {holders[final.series, max(mine)]}")


def _registers(history: History) -> Iterator[Finding]:
    """A register has a value that was sent, and that no later acknowledged one has replaced."""
    written = defaultdict(dict)
    for row in history.sent:
        written[row.stream, row.series][row.number] = row
    finals = {(final.stream, final.series): final for final in history.finals}
    for key, numbers in written.items():
        if key[0] not in {SHADOW, RETAINED} or all(row.acked is None for row in numbers.values()):
            continue
        final = finals.get(key)
        if final is None or final.number not in numbers:
            yield Finding("register", " ".join(key), f"has {final and final.number}, which was not sent")
            continue
        acked = numbers[final.number].acked
        later = [row.number for row in numbers.values() if None not in {row.acked, acked} and row.sent > (acked or 0)]
        if later:
            yield Finding("stale", " ".join(key), f"has {final.number}; {max(later)} was acknowledged after it")


def _revocations(history: History) -> Iterator[Finding]:
    """A revoked credential is good for nothing after its time, and was good before."""
    attempts: dict[str, list[GrantAttempt]] = defaultdict(list)
    for row in history.attempts:
        attempts[row.who].append(row)
    for answer in history.answers:
        mine, over = attempts[answer.who], answer.at + REVOKED_WITHIN_S
        for row in mine:
            if row.is_granted and row.begin > over:
                text = f"{row.channel} granted {row.begin - answer.at:.2f} s after the operator's answer"
                yield Finding("late grant", answer.who, text)
        for channel in MUST_REFUSE:
            if not any(row.channel == channel and row.begin > over for row in mine):
                yield Finding("unproven", answer.who, f"{channel} was not tried after the revocation")
        if not any(row.is_granted and row.begin < answer.at for row in mine):
            yield Finding("unproven", answer.who, "nothing was granted before the revocation")


def _downs(history: History) -> list[tuple[str, float, float | None]]:
    """Return each cut: the client, when, and when it was back."""
    lines = defaultdict(list)
    for line in sorted(history.lines, key=lambda row: row.at):
        lines[line.client].append(line)
    cuts = []
    for client, changes in lines.items():
        for number, change in enumerate(changes):
            was_up = number > 0 and changes[number - 1].is_up
            if was_up and not change.is_up:
                back = next((later.at for later in changes[number:] if later.is_up), None)
                cuts.append((client, change.at, back))
    return cuts


def _lines(history: History) -> Iterator[Finding]:
    """Who is cut returns, to the session that it had."""
    for client, at, back in _downs(history):
        if back is None or back - at > BACK_WITHIN_S:
            yield Finding("gone", client, f"cut at {at:.2f}, back {'never' if back is None else f'at {back:.2f}'}")
    known = set()
    for line in sorted(history.lines, key=lambda row: row.at):
        if line.is_up and line.client in known and not line.has_session:
            yield Finding("forgotten", line.client, f"its session was gone at {line.at:.2f}")
        known |= {line.client} if line.is_up else set()


def _windows(history: History) -> list[tuple[InjectedFault, float]]:
    """Return each fault and when the next one began."""
    faults = sorted(history.faults, key=lambda row: row.begin)
    ends = [*(row.begin for row in faults[1:]), history.end]
    return list(zip(faults, ends, strict=True)) if faults else []


def _restarts(history: History) -> Iterator[Finding]:
    """A short restart of PostgreSQL costs no connection."""
    downs = _downs(history)
    for fault, until in _windows(history):
        cut = [client for client, at, _ in downs if fault.begin <= at < until]
        if fault.kind.startswith("postgresql") and cut:
            yield Finding("cut", f"{fault.kind} at {fault.begin:.2f}", f"{len(cut)} connections ended")


def _not_ready(history: History, begin: float, until: float) -> tuple[float, float]:
    """Return the longest time without readiness, and the longest without a poll."""
    longest, since, blind, last = 0.0, None, 0.0, begin
    for poll in history.polls:
        if not begin <= poll.end <= until:
            continue
        blind, last = max(blind, poll.begin - last), poll.end
        if not poll.is_ready and since is None:
            since = max(poll.begin, begin)
        if since is not None:
            longest = max(longest, poll.end - since)
            since = None if poll.is_ready else since
    return longest, max(blind, until - last)


def _readiness(history: History) -> Iterator[Finding]:
    for fault, until in _windows(history):
        away, blind = _not_ready(history, fault.begin, until)
        allowed = READY_WITHIN_S
        if fault.kind.startswith("postgresql"):
            allowed += max(0.0, fault.end - fault.begin - OUTAGE_S)
        if away > allowed:
            yield Finding("not ready", f"{fault.kind} at {fault.begin:.2f}", f"{away:.2f} s of {allowed:.2f} s")
        if blind > BLIND_S:
            yield Finding("blind", f"{fault.kind} at {fault.begin:.2f}", f"nobody looked for {blind:.2f} s")


def figures(history: History) -> dict[str, Any]:
    """Return what the run came to, for the report."""
    found: dict[str, Any] = {}
    series = _by_series(history)
    for stream in STREAMS:
        rows = [row for row in history.sent if row.stream == stream]
        acked = [row.acked - row.sent for row in rows if row.acked is not None]
        seen = [copies for key, (_, of) in series.items() if key[0] == stream for copies in of.values()]
        copies = sum(len({copy.place for copy in one}) - 1 for one in seen)
        resent = sum(row.copies > 1 for row in rows)
        found[stream] = {"sent": len(rows), "acked": len(acked), "resent": resent, "duplicates": copies}
        found[stream] |= {"ack_s": _spread(acked)}
    downs = _downs(history)
    back = [back - at for _, at, back in downs if back is not None]
    found["cuts"] = {"count": len(downs), "back_s": _spread(back)}
    found["not_ready_s"], found["cut_by"] = {}, {}
    for fault, until in _windows(history):
        away = round(_not_ready(history, fault.begin, until)[0], 2)
        cut = sum(fault.begin <= at < until for _, at, _ in downs)
        found["not_ready_s"].setdefault(fault.kind, []).append(away)
        found["cut_by"].setdefault(fault.kind, []).append(cut)
    answers = {answer.who: answer.at for answer in history.answers}
    late = [row.begin - answers[row.who] for row in history.attempts if row.is_granted and row.who in answers]
    later = [row for row in history.attempts if row.who in answers and row.begin > answers[row.who]]
    found["revocations"] = {"count": len(answers), "attempts_after": len(later)}
    found["revocations"] |= {"granted_after": sum(gap > 0 for gap in late), "latest_s": round(max([0.0, *late]), 3)}
    return found


def _spread(values: Sequence[float]) -> dict[str, float]:
    ranked = sorted(values)
    at = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return (
        {name: round(ranked[min(len(ranked) - 1, int(len(ranked) * q))], 3) for name, q in at.items()} if ranked else {}
    )
