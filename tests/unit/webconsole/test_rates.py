"""How much comes in a second, of counters that only rise."""

from birthmark.webconsole.live_updates import Rates


def test_a_rate_is_what_was_counted_since_the_last_look() -> None:
    rates = Rates()
    rates.after({"messages": 100, "connected": 3}, 10.0)
    assert rates.after({"messages": 150, "connected": 3}, 12.0) == ({"messages": 25.0, "connected": 3}, True)


def test_that_nothing_moves_is_told_once() -> None:
    rates = Rates()
    rates.after({"messages": 100}, 10.0)
    rates.after({"messages": 101}, 11.0)
    assert rates.after({"messages": 101}, 12.0) == ({"messages": 0.0, "connected": 0}, True)
    assert rates.after({"messages": 101}, 13.0)[1] is False


def test_a_worker_that_began_anew_makes_no_rate_below_zero() -> None:
    rates = Rates()
    rates.after({"messages": 100}, 10.0)
    assert rates.after({"messages": 4}, 11.0)[0]["messages"] == 0
