"""A principal's share of what is there for all."""

from birthmark.broker.rules.principal_quotas import Portions


def shares_of(*owners: str, expires_at: int | None = None) -> Portions:
    made = Portions()
    for number, owner in enumerate(owners):
        made.add(f"thing-{number}", owner, expires_at)
    return made


def test_one_principal_has_a_fourth_and_no_more() -> None:
    assert shares_of(*["loud"] * 4).has_room("loud", 20)
    full = shares_of(*["loud"] * 5)
    assert not full.has_room("loud", 20)
    assert full.has_room("quiet", 20)


def test_what_is_gone_makes_room() -> None:
    shares = shares_of(*["loud"] * 5)
    shares.remove("never was")
    assert not shares.has_room("loud", 20)
    shares.remove("thing-0")
    assert shares.has_room("loud", 20)


def test_what_another_has_now_stays_its_makers() -> None:
    shares = shares_of(*["loud"] * 5)
    shares.add("thing-1", "quiet")
    assert not shares.has_room("loud", 20)
    assert shares.owner("thing-1") == "loud"


def test_what_was_put_in_the_place_of_another_goes_at_its_own_time() -> None:
    shares = shares_of(*["loud"] * 5, expires_at=5)
    shares.add("thing-0", "whoever", None)
    shares.forget_expired(5)
    assert shares.owner("thing-0") == "loud"
    assert shares.owner("thing-1") == ""


def test_a_share_may_be_bounded_however_large_the_whole_is() -> None:
    assert shares_of(*["loud"] * 4).has_room("loud", 1000, 5)
    assert not shares_of(*["loud"] * 5).has_room("loud", 1000, 5)
    assert not shares_of(*["loud"] * 5).has_room("loud", 20, 1000)


def test_however_small_the_whole_everybody_may_have_four() -> None:
    assert shares_of(*["one"] * 3).has_room("one", 1)
    assert not shares_of(*["one"] * 4).has_room("one", 1)


def test_what_is_from_before_the_clock_was_set_stays_counted() -> None:
    shares = Portions()
    shares.add("thing", "loud", expires_at=5, timestamp=3)
    shares.forget_expired(9, since=4)
    assert shares.owner("thing") == "loud"
    shares.forget_expired(9, since=3)
    assert shares.owner("thing") == ""


def test_who_is_not_known_has_a_share_as_any_other() -> None:
    assert shares_of(*[""] * 3).has_room("", 1)
    assert not shares_of(*[""] * 4).has_room("", 1)


def test_what_expired_makes_room() -> None:
    shares = shares_of(*["loud"] * 5, expires_at=5)
    shares.forget_expired(4)
    assert not shares.has_room("loud", 20)
    shares.forget_expired(5)
    assert shares.has_room("loud", 20)
