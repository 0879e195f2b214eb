"""Who must go when strangers have used up their room."""

from birthmark.net.budget import GRACE_S, Budget


def a_budget(total: int = 100, per_address: int = 10) -> tuple[Budget[str], list[str]]:
    gone: list[str] = []
    return Budget(total, per_address, lambda holder, _limit, _address: gone.append(holder)), gone


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
