"""A principal's share of what is there for all."""

from birthmark.broker.rules.shares import Portions


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


def test_what_is_gone_or_made_by_another_makes_room() -> None:
    shares = shares_of(*["loud"] * 5)
    shares.add("thing-1", "quiet")
    shares.remove("never was")
    assert shares.has_room("loud", 20)
    shares.add("thing-5", "loud")
    shares.remove("thing-0")
    assert shares.has_room("loud", 20)


def test_a_share_may_be_bounded_however_large_the_whole_is() -> None:
    assert shares_of(*["loud"] * 4).has_room("loud", 1000, 5)
    assert not shares_of(*["loud"] * 5).has_room("loud", 1000, 5)
    assert not shares_of(*["loud"] * 5).has_room("loud", 20, 1000)


def test_however_small_the_whole_everybody_may_have_four() -> None:
    assert shares_of(*["one"] * 3).has_room("one", 1)
    assert not shares_of(*["one"] * 4).has_room("one", 1)


def test_who_is_not_known_has_a_share_as_any_other() -> None:
    assert shares_of(*[""] * 3).has_room("", 1)
    assert not shares_of(*[""] * 4).has_room("", 1)


def test_what_expired_makes_room() -> None:
    shares = shares_of(*["loud"] * 5, expires_at=5)
    shares.forget_expired(4)
    assert not shares.has_room("loud", 20)
    shares.forget_expired(5)
    assert shares.has_room("loud", 20)
