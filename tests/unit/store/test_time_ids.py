"""Numbers that several workers give without asking each other."""

from hypothesis import given
from hypothesis import strategies as st

from birthmark.store.database import SharedDatabase
from birthmark.store.time_ids import Numbers, at


def numbers_of(worker: int) -> Numbers:
    sharing = SharedDatabase()
    sharing.number = worker
    return Numbers(sharing)


@given(st.lists(st.integers(0, 2**50), max_size=30))
def test_each_is_greater_than_all_before_whatever_the_clock_says(times: list[int]) -> None:
    numbers = numbers_of(7)
    given_out = [numbers.next(now) for now in times]
    assert given_out == sorted(set(given_out))
    assert {one % 256 for one in given_out} <= {7}


def test_no_two_workers_give_the_same_at_the_same_moment() -> None:
    first, second = numbers_of(1), numbers_of(2)
    assert not {first.next(5) for _ in range(100)} & {second.next(5) for _ in range(100)}


def test_it_goes_on_after_what_is_in_use() -> None:
    numbers = numbers_of(3)
    numbers.start_after(at(1000) + 200)
    assert numbers.next(5) > at(1000) + 200
