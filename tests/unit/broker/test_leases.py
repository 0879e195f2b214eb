"""Who is dead: nobody saw its beat change for a lease, whoever else was looked at; and who frees what it left."""

import pytest

from birthmark.broker.rules.leases import BEAT_S, LEASE_S, HeartbeatTracker, TakeoverSchedule


def look(beats: HeartbeatTracker, seen: dict[str, int], since: float, until: float, every: float = BEAT_S) -> list[str]:
    """Read heartbeats that do not change, from one time to another; return who is dead at the end."""
    return [beats.record_heartbeats(seen, since + n * every) for n in range(round((until - since) / every) + 1)][-1]


def test_a_worker_whose_beat_does_not_change_for_a_lease_is_dead() -> None:
    beats = HeartbeatTracker()
    assert look(beats, {"a": 1, "b": 1}, 0.0, 0.75) == []
    assert beats.record_heartbeats({"a": 1, "b": 2}, 1.0) == ["a"]


def test_a_look_at_one_worker_forgets_no_other() -> None:
    beats = HeartbeatTracker()
    for at in (0.0, 0.25, 0.5, 0.75):
        assert not beats.is_over("a", 1, at)
        assert not beats.is_over("b", 1, at)
    assert beats.is_over("a", 1, 1.0)
    assert beats.is_over("b", 1, 1.0)


@pytest.mark.parametrize("away_s", [1.0, 5.0, 30.0])
def test_the_first_read_after_an_outage_of_the_database_declares_nobody_dead(away_s: float) -> None:
    beats = HeartbeatTracker()
    look(beats, {"a": 1}, 0.0, BEAT_S)
    assert look(beats, {"a": 1}, BEAT_S + away_s, 2 * BEAT_S + away_s) == []


def test_a_dead_worker_is_found_after_an_outage_too() -> None:
    beats = HeartbeatTracker()
    beats.record_heartbeats({"a": 1}, 0.0)
    assert look(beats, {"a": 1}, 30.0, 31.0) == ["a"]


def test_a_dead_worker_is_found_by_reads_that_are_slow() -> None:
    assert look(HeartbeatTracker(), {"a": 1}, 0.0, 4.0, every=1.0) == ["a"]


def test_frequent_reads_after_an_outage_do_not_shorten_a_lease() -> None:
    beats = HeartbeatTracker()
    beats.record_heartbeats({"a": 1}, 0.0)
    assert look(beats, {"a": 1}, 30.0, 30.5, every=0.01) == []


def test_a_failed_read_gives_every_worker_a_full_lease() -> None:
    beats = HeartbeatTracker()
    look(beats, {"a": 1}, 0.0, 0.75)
    beats.restart()
    assert look(beats, {"a": 1}, 1.0, 1.75) == []
    assert beats.record_heartbeats({"a": 1}, 2.0) == ["a"]


def test_a_worker_that_left_begins_anew_when_its_name_comes_again() -> None:
    beats = HeartbeatTracker()
    beats.record_heartbeats({"a": 1}, 0.0)
    beats.record_heartbeats({}, 0.5)
    assert beats.record_heartbeats({"a": 1}, 1.0) == []


def test_one_worker_frees_what_a_dead_one_left_and_the_next_only_when_it_had_its_time() -> None:
    left = TakeoverSchedule()
    left.note(["a"], 10.0)
    assert left.due(0, 10.0) == ["a"]
    assert left.due(1, 10.0) == []
    left.note(["a"], 10.5)
    assert left.due(1, 10.0 + LEASE_S) == ["a"]


def test_what_is_seen_of_a_worker_after_it_was_freed_counts_anew() -> None:
    left = TakeoverSchedule()
    left.note(["a"], 10.0)
    left.forget("a")
    assert left.due(0, 10.0) == []
    left.note(["a"], 20.0)
    assert left.due(1, 20.5) == []
