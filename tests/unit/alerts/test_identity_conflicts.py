"""One identity at two workers: each sees one address, and both together see that it goes back and forth."""

from datetime import timedelta

import pytest

from birthmark.alerts.identity_conflicts import find_alternating_names
from birthmark.alerts.model import ConnectionTakeovers
from birthmark.clock_and_entropy import to_micros
from support.fakes import NOON

PUMP = ("hub", "pump-1")


def seen(worker: str, *ends: tuple[int, str], name: str = "pump-1", kind: str = "hub") -> ConnectionTakeovers:
    """Return what a worker wrote: how many seconds ago, and where."""
    each = tuple(f"{to_micros(NOON - timedelta(seconds=ago_s))} {where}" for ago_s, where in ends)
    return ConnectionTakeovers(kind, name, worker, NOON, each)


def test_two_that_end_each_other_across_workers_are_seen_by_their_addresses() -> None:
    rows = [seen("w1", (40, "10.0.0.1"), (20, "10.0.0.1")), seen("w2", (30, "10.0.0.2"), (10, "10.0.0.2"))]
    found = find_alternating_names(rows, NOON, {})
    assert [where[-1] for _, where in found[PUMP]] == ["1", "2", "1", "2"]


@pytest.mark.parametrize(
    "rows",
    [
        [seen("w1", (40, "a"), (30, "b"), (20, "a"), (10, "b"))],  # it has said so itself
        [seen("w1", (40, "a"), (30, "a")), seen("w2", (20, "b"), (10, "b"))],  # it moved
        [seen("w1", (40, "a"), (20, "a")), seen("w2", (30, "a"), (10, "a"))],  # one place, and a bad network
        [seen("w1", (40, "a"), (20, "a")), seen("w2", (30, "b"), (10, "b"), name="pump-2")],
        [seen("w1", (40, "a"), (20, "a")), seen("w2", (30, "b"), (10, "b"), kind="aws")],
        [seen("w1", (4000, "a"), (20, "a")), seen("w2", (3000, "b"), (10, "b"))],  # long ago
        [seen("w1", (40, "a"), (20, "a")), seen("w2")],  # that one has said all it saw
    ],
)
def test_what_is_one_device_is_not_taken_for_two(rows: list[ConnectionTakeovers]) -> None:
    assert find_alternating_names(rows, NOON, {}) == {}


def test_what_was_said_is_said_again_only_when_it_goes_on() -> None:
    rows = [seen("w1", (40, "a"), (20, "a")), seen("w2", (30, "b"), (10, "b"))]
    (ends,) = find_alternating_names(rows, NOON, {}).values()
    assert find_alternating_names(rows, NOON, {PUMP: ends[-1][0]}) == {}
    more = [seen("w1", (8, "a"), (4, "a")), seen("w2", (6, "b"), (2, "b"))]
    assert find_alternating_names(more, NOON, {PUMP: ends[-1][0]})
