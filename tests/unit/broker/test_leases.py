"""Who is dead: nobody saw its beat change for a lease, whoever else was looked at; and who frees what it left."""

from birthmark.broker.rules.leases import LEASE_S, HeartbeatTracker, TakeoverSchedule


def test_a_worker_whose_beat_does_not_change_for_a_lease_is_dead() -> None:
    beats = HeartbeatTracker()
    assert beats.record_heartbeats({"a": 1, "b": 1}, 0.0) == []
    assert beats.record_heartbeats({"a": 1, "b": 2}, 1.0) == ["a"]


def test_a_look_at_one_worker_forgets_no_other() -> None:
    beats = HeartbeatTracker()
    for at in (0.0, 0.4, 0.8):
        assert not beats.is_over("a", 1, at)
        assert not beats.is_over("b", 1, at)
    assert beats.is_over("a", 1, 1.0)
    assert beats.is_over("b", 1, 1.0)


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
