"""Two that use one identity are noticed; a device that loses its network, or moves, is not taken for two."""

from datetime import timedelta

import pytest

from birthmark.net.identity_conflicts import MAX_NAMES, MOST, TakeoverHistory
from support.fakes import FakeClock


def said(contested: TakeoverHistory, *places: str) -> list[bool]:
    return [contested.record_takeover("pump-1", place) is not None for place in places]


@pytest.mark.parametrize("places", ["abab", "aabbaabb", "abcab"])
def test_who_comes_back_by_turns_is_two(places: str) -> None:
    assert any(said(TakeoverHistory(FakeClock()), *places))


@pytest.mark.parametrize("places", ["a", "aaaa", "abcdef", "aab", "aba"])
def test_a_device_that_loses_its_network_or_moves_is_one(places: str) -> None:
    assert not any(said(TakeoverHistory(FakeClock()), *places))


def test_two_behind_one_address_are_noticed_by_how_often_they_end_each_other() -> None:
    assert said(TakeoverHistory(FakeClock()), *"a" * MOST) == [False] * (MOST - 1) + [True]


def test_what_is_long_ago_does_not_count() -> None:
    clock = FakeClock()
    contested = TakeoverHistory(clock)
    assert said(contested, "a", "b", "a") == [False] * 3
    clock.move(timedelta(minutes=11))
    assert said(contested, "b", "a", "b") == [False] * 3


def test_it_is_said_once_until_it_goes_on() -> None:
    assert said(TakeoverHistory(FakeClock()), *"abababab") == [False, False, False, True] * 2


def test_other_workers_are_told_once_of_names_that_had_several_connections_ended() -> None:
    contested = TakeoverHistory(clock := FakeClock())
    said(contested, "a")
    assert contested.take_updates(10) == {}  # a device that lost its network
    clock.move(timedelta(seconds=30))
    said(contested, "a")
    assert contested.take_updates(10) == {"pump-1": [(30.0, "a"), (0.0, "a")]}
    assert contested.take_updates(10) == {}
    said(contested, "b", "a", "b")
    assert contested.take_updates(10) == {"pump-1": []}  # it was noticed here


def test_many_names_take_no_more_memory_than_a_few() -> None:
    contested = TakeoverHistory(FakeClock())
    for number in range(MAX_NAMES + 10):
        contested.record_takeover(f"device-{number}", "a")
        contested.record_takeover(f"device-{number}", "a")
    assert len(contested._ended) == len(contested._untold) == MAX_NAMES
    assert len(contested.take_updates(500)) == 500
