"""What clients asked, how each operation ended, and what that proves of the servers between them.

Every operation has a beginning and an end by one clock, and an outcome: it happened, it did not, or nobody can tell.
What is unknown may have happened at any time since its beginning, also after its end. Each check takes the operations
of all clients and says, per device, what no server that keeps its promises could have answered.
"""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Fault(StrEnum):
    LOST = "lost"
    INVENTED = "invented"
    DOUBLED = "doubled"
    REORDERED = "reordered"
    GOES_BACK = "goes back"
    GRANTED = "granted after it was taken"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Operation:
    """One that a client asked for; `value` tells it from others of the device, `version` is what the answer said."""

    device: str
    value: Any
    began: float
    ended: float
    outcome: Outcome = Outcome.OK
    version: int | None = None

    def precedes(self, other: "Operation") -> bool:
        """Say whether this was over, and known to be done, before the other began."""
        return self.outcome is Outcome.OK and self.ended < other.began


@dataclass(frozen=True, slots=True)
class Seen:
    """A value that reached somebody, at a time."""

    device: str
    value: Any
    at: float


@dataclass(frozen=True, slots=True)
class Finding:
    """What was promised and not kept."""

    fault: Fault
    device: str
    detail: str


def of_messages(sent: Iterable[Operation], seen: Iterable[Seen], *, is_once: bool = False) -> Iterator[Finding]:
    """Check messages from devices: acknowledged ones are seen, in the order of their sender, and none was made up.

    `is_once` where a message that was sent once has to be seen once, as by its number in a stream.
    """
    asked, found = _by_device(sent), _by_device(seen)
    for device in asked.keys() | found.keys():
        operations, values = asked.get(device, []), [one.value for one in found.get(device, [])]
        yield from _of_one(device, operations, values, is_once=is_once)


def _of_one(device: str, operations: Sequence[Operation], values: Sequence[Any], *, is_once: bool) -> Iterator[Finding]:
    first = {value: at for at, value in reversed(list(enumerate(values)))}
    may_be = {one.value for one in operations if one.outcome is not Outcome.FAILED}
    for one in operations:
        if one.outcome is Outcome.OK and one.value not in first:
            yield Finding(Fault.LOST, device, f"{one.value} was acknowledged")
    for value in first:
        if value not in may_be:
            yield Finding(Fault.INVENTED, device, f"{value} was never sent, or refused")
    if is_once:
        for value, times in Counter(values).items():
            if times > 1:
                yield Finding(Fault.DOUBLED, device, f"{value} came {times} times")
    yield from _out_of_order(device, [one for one in operations if one.value in first], first)


def _out_of_order(device: str, operations: Sequence[Operation], first: Mapping[Any, int]) -> Iterator[Finding]:
    latest: Operation | None = None  # of those that were over, the one that was seen last
    for one, over in _with_what_was_over(sorted(operations, key=lambda one: one.began)):
        for before in over:
            if latest is None or first[before.value] > first[latest.value]:
                latest = before
        if latest is not None and first[latest.value] > first[one.value]:
            yield Finding(Fault.REORDERED, device, f"{one.value} came before {latest.value}")


def _with_what_was_over(operations: Sequence[Operation]) -> Iterator[tuple[Operation, list[Operation]]]:
    """Yield each operation, by its beginning, with those that were over by then and not told of yet."""
    done = sorted((one for one in operations if one.outcome is Outcome.OK), key=lambda one: one.ended)
    at = 0
    for one in operations:
        over = []
        while at < len(done) and done[at].precedes(one):
            over.append(done[at])
            at += 1
        yield one, over


def of_inboxes(
    put: Iterable[Operation], delivered: Iterable[Seen], settled: Iterable[Operation], left: Iterable[Seen] = ()
) -> Iterator[Finding]:
    """Check messages to devices: each is delivered or `left`, in order, and never again once it was settled.

    A message that was delivered and not settled is delivered again: that is no fault.
    """
    put, delivered, left = list(put), list(delivered), list(left)
    reached = [*delivered, *left]
    yield from of_messages(put, sorted(reached, key=lambda one: one.at))
    ended = {(one.device, one.value): one.ended for one in settled if one.outcome is Outcome.OK}
    for one in reached:
        if one.at > ended.get((one.device, one.value), math.inf):
            yield Finding(Fault.DOUBLED, one.device, f"{one.value} came again after it was settled")


def of_versions(writes: Iterable[Operation], reads: Iterable[Operation]) -> Iterator[Finding]:
    """Check a record that each write gives its next version: no version twice, none that goes back, none unwritten."""
    written, read = _by_device(writes), _by_device(reads)
    for device in written.keys() | read.keys():
        done = [one for one in written.get(device, []) if one.outcome is Outcome.OK]
        by_version: dict[int | None, Operation] = {}
        for one in done:
            if (other := by_version.setdefault(one.version, one)) is not one:
                yield Finding(Fault.LOST, device, f"{other.value} and {one.value} both became version {one.version}")
        looks = [one for one in read.get(device, []) if one.outcome is Outcome.OK]
        yield from _going_back(device, done, looks)
        maybe = {one.value for one in written.get(device, []) if one.outcome is not Outcome.FAILED}
        for look in looks:
            known = by_version.get(look.version)
            if known is not None and known.value != look.value:
                yield Finding(Fault.LOST, device, f"version {look.version} was {known.value}, and read {look.value}")
            elif known is None and look.version and look.value not in maybe:
                yield Finding(Fault.INVENTED, device, f"{look.value} was read, and never written")


def _going_back(device: str, writes: Sequence[Operation], reads: Sequence[Operation]) -> Iterator[Finding]:
    is_write = {id(one) for one in writes}
    highest: Operation | None = None
    for one, over in _with_what_was_over(sorted([*writes, *reads], key=lambda one: one.began)):
        for before in over:
            if highest is None or (before.version or 0) > (highest.version or 0):
                highest = before
        if highest is None:
            continue
        least = (highest.version or 0) + (1 if id(one) in is_write else 0)
        if (one.version or 0) < least:
            detail = f"{one.value} has version {one.version} after {highest.version} was told"
            yield Finding(Fault.GOES_BACK, device, detail)


def of_steps(writes: Iterable[Operation], reads: Iterable[Operation]) -> Iterator[Finding]:
    """Check a record that begins without a version: it has come no further than what may have been written."""
    written, read = _by_device(writes), _by_device(reads)
    for device in written.keys() | read.keys():
        told = [*written.get(device, []), *read.get(device, [])]
        highest = max((one.version or 0 for one in told if one.outcome is Outcome.OK), default=0)
        most = sum(one.outcome is not Outcome.FAILED for one in written.get(device, []))
        if highest > most:
            yield Finding(Fault.SKIPPED, device, f"version {highest} was told after {most} writes at most")


def of_registers(writes: Iterable[Operation], reads: Iterable[Operation]) -> Iterator[Finding]:
    """Check what keeps its last value: a read tells one that was written, and none before one that was acknowledged.

    A read of None tells that there is no value.
    """
    written = _by_device(writes)
    for read in reads:
        may_be = [one for one in written.get(read.device, []) if one.outcome is not Outcome.FAILED]
        told = next((one for one in may_be if one.value == read.value), None)
        if told is None and read.value is not None:
            yield Finding(Fault.INVENTED, read.device, f"{read.value} was never written, or refused")
            continue
        later = [one for one in may_be if one.precedes(read) and (told is None or told.ended < one.began)]
        if later:
            yield Finding(Fault.LOST, read.device, f"{later[-1].value} was acknowledged, and {read.value} was read")


def of_sessions(taken: Iterable[Operation], used: Iterable[Operation]) -> Iterator[Finding]:
    """Check who has a client's session: `value` is the connection. After a later one has it, no earlier one does."""
    takes, uses = _by_device(taken), _by_device(used)
    for device, connections in takes.items():
        began = {one.value: one.began for one in connections}
        latest: Operation | None = None
        merged = sorted(uses.get(device, []), key=lambda one: one.began)
        done = iter(sorted((one for one in connections if one.outcome is Outcome.OK), key=lambda one: one.ended))
        coming = next(done, None)
        for use in merged:
            while coming is not None and coming.ended < use.began:
                if latest is None or began[coming.value] > began[latest.value]:
                    latest = coming
                coming = next(done, None)
            if use.outcome is not Outcome.OK or latest is None or use.value == latest.value:
                continue
            was_over = next((one.ended for one in connections if one.value == use.value), math.inf)
            if was_over < latest.began:
                yield Finding(Fault.GRANTED, device, f"{use.value} was served after {latest.value} had the session")


def of_grants(taken: Iterable[Operation], given: Iterable[Operation], used: Iterable[Operation]) -> Iterator[Finding]:
    """Check that nothing is granted which began after a right was taken, unless it may have been given again."""
    takes, gives = _by_device(taken), _by_device(given)
    for use in used:
        if use.outcome is not Outcome.OK:
            continue
        over = [one for one in takes.get(use.device, []) if one.precedes(use)]
        if not over:
            continue
        last = max(over, key=lambda one: one.began)
        again = any(
            one.outcome is not Outcome.FAILED and one.began < use.ended and not one.precedes(last)
            for one in gives.get(use.device, [])
        )
        if not again:
            yield Finding(Fault.GRANTED, use.device, f"{use.value} was granted after {last.value}")


def _by_device(each: Iterable[Any]) -> Mapping[str, list[Any]]:
    found: defaultdict[str, list[Any]] = defaultdict(list)
    for one in each:
        found[one.device].append(one)
    return found


def in_turn(values: Iterable[Any], device: str = "pump", *, start: float = 0.0) -> list[Operation]:
    """Return operations of a client that asks for one after the other."""
    times = itertools.count()
    return [Operation(device, value, start + (at := next(times)), start + at + 0.5) for value in values]
