"""Who must go when strangers have used up their room."""

from hypothesis import given
from hypothesis import strategies as st

from birthmark.net.unauthenticated_quota import GRACE_S, UnauthenticatedQuota


def a_budget(total: int = 100, per_address: int = 10) -> tuple[UnauthenticatedQuota[str], list[str]]:
    gone: list[str] = []
    return UnauthenticatedQuota(total, per_address, lambda holder, _limit, _address: gone.append(holder)), gone


def test_what_fits_stays() -> None:
    budget, gone = a_budget()
    budget.take("a", "192.0.2.1", 10, 0.0)
    assert (gone, budget.used) == ([], 10)


def test_the_oldest_of_an_address_makes_room_for_the_next() -> None:
    budget, gone = a_budget()
    budget.take("old", "192.0.2.1", 6, 0.0)
    budget.take("new", "192.0.2.1", 6, GRACE_S)
    assert (gone, budget.used) == (["old"], 6)


def test_in_a_rush_the_newcomer_goes_and_nobody_who_is_being_served() -> None:
    budget, gone = a_budget()
    budget.take("first", "192.0.2.1", 6, 0.0)
    budget.take("second", "192.0.2.1", 6, 0.1)
    assert gone == ["second"]


def test_another_address_has_a_share_of_its_own() -> None:
    budget, gone = a_budget()
    budget.take("a", "192.0.2.1", 10, 0.0)
    budget.take("b", "192.0.2.2", 10, 9.0)
    assert gone == []


def test_many_addresses_together_are_bounded_too() -> None:
    budget, gone = a_budget(total=25)
    for number in range(3):
        budget.take(f"{number}", f"192.0.2.{number}", 10, number * GRACE_S)
    assert (gone, budget.used) == (["0"], 20)


def test_what_is_released_can_be_taken_again_and_nothing_stays() -> None:
    budget, gone = a_budget()
    for number in range(1000):
        budget.take(f"{number}", "192.0.2.1", 10, 0.0)
        budget.release(f"{number}")
    assert (gone, budget.used) == ([], 0)
    assert not budget._of


def filled(total: int) -> tuple[UnauthenticatedQuota[str], list[str]]:
    """Return one that two addresses have filled just now, with much and with more."""
    budget, gone = a_budget(total=total, per_address=100)
    for number in range(8):
        budget.take(f"more {number}", "192.0.2.1", 10, 0.0)
    budget.take("much", "192.0.2.2", 15, 0.0)
    return budget, gone


def test_who_holds_most_makes_room_at_once_for_one_that_holds_little() -> None:
    budget, gone = filled(95)
    budget.take("little", "192.0.2.3", 5, 0.1)
    assert gone == ["more 0"]
    assert "little" in budget._held


def test_among_those_that_hold_most_a_rush_pushes_nobody_out() -> None:
    budget, gone = filled(95)
    budget.take("more still", "192.0.2.1", 5, 0.1)
    assert gone == ["more still"]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(1, 40), st.sampled_from("abc")), max_size=80))
def test_what_it_counts_is_what_is_held(steps: list[tuple[bool, int, int, str]]) -> None:
    budget, _gone = a_budget(total=100, per_address=60)
    for now, (is_new, holder, size, address) in enumerate(steps):
        known = budget._held.get(str(holder))
        if is_new:
            budget.take(str(holder), known.address if known else address, size, float(now))
        else:
            budget.release(str(holder))
        assert budget.used == sum(share.size for share in budget._held.values()) <= 100
        sums = {one: held for one, held in budget._sums.items() if held}
        assert {one: bits for bits, ones in budget._by_size.items() for one in ones} == {
            one: held.bit_length() for one, held in sums.items()
        }


def test_a_rush_from_many_addresses_pushes_out_none_that_holds_little() -> None:
    budget, gone = a_budget(total=120, per_address=20)
    budget.take("honest", "198.51.100.1", 1, 0.0)
    for number in range(2000):
        budget.take(f"{number}", f"192.0.2.{number % 12}", 1, number / 100)
    assert "honest" not in gone
    assert len(gone) > 1000


def test_of_many_that_hold_one_each_the_oldest_makes_room_in_its_turn() -> None:
    budget, gone = a_budget(total=50, per_address=20)
    for number in range(60):
        budget.take(f"{number}", f"192.0.2.{number}", 1, number)
    assert gone == [str(number) for number in range(10)]
