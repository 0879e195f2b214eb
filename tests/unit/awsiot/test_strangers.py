"""How often strangers may have a function asked: bounded by address, and by authorizer over all of them."""

from datetime import timedelta

import pytest

from birthmark.awsiot.service import authorizer_throttle
from birthmark.awsiot.service.authorizer_throttle import (
    OF_ADDRESS,
    OF_AUTHORIZER,
    AuthorizerThrottle,
    AuthorizerThrottledError,
)
from support.fakes import FakeClock


def tries(known: AuthorizerThrottle, address: str, most: int = 1000) -> int:
    """Return how often an address may ask that is never let in."""
    for count in range(most):
        try:
            known.begin("door", address)
        except AuthorizerThrottledError:
            return count
    return most


def test_an_address_asks_so_often_and_after_a_while_again() -> None:
    clock = FakeClock()
    known = AuthorizerThrottle(clock)
    assert tries(known, "192.0.2.1") == OF_ADDRESS
    assert tries(known, "192.0.2.2") == OF_ADDRESS, "another has its own"
    clock.move(timedelta(seconds=10))
    assert tries(known, "192.0.2.1") == 5


def test_a_try_for_which_the_function_was_not_asked_is_given_back() -> None:
    known = AuthorizerThrottle(FakeClock())
    for _ in range(10 * OF_ADDRESS):
        known.begin("door", "192.0.2.1")
        known.refund_attempt("door", "192.0.2.1")
    assert tries(known, "192.0.2.1") == OF_ADDRESS


def test_a_network_of_one_owner_is_one_address() -> None:
    known = AuthorizerThrottle(FakeClock())
    assert tries(known, "2001:db8::1") == OF_ADDRESS
    assert tries(known, "2001:db8::2") == 0


def test_who_is_let_in_uses_nothing_up() -> None:
    known = AuthorizerThrottle(FakeClock())
    for _ in range(10 * OF_ADDRESS):
        known.begin("door", "192.0.2.1")
        known.record_success("door", "192.0.2.1")
    assert tries(known, "192.0.2.1") == OF_ADDRESS


def test_many_addresses_together_are_bounded_and_keep_nobody_out_that_was_let_in() -> None:
    known = AuthorizerThrottle(FakeClock())
    known.begin("door", "198.51.100.1")
    known.record_success("door", "198.51.100.1")
    asked = sum(tries(known, f"192.0.2.{number}") for number in range(100))
    assert asked == OF_AUTHORIZER
    assert tries(known, "198.51.100.1") == OF_ADDRESS
    with pytest.raises(AuthorizerThrottledError, match="Too many"):
        known.begin("door", "203.0.113.1")
    known.begin("another door", "203.0.113.1")


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorizer_throttle, "_MOST_KNOWN", 8)
    clock = FakeClock()
    known = AuthorizerThrottle(clock)
    for number in range(100):
        clock.move(timedelta(seconds=1))
        known.begin("door", f"192.0.2.{number}")
        known.record_success("door", f"192.0.2.{number}")
    assert len(known._addresses._left) == len(known._welcome) == 8
