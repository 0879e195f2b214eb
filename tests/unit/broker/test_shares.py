"""A principal's share of what is there for all."""

from birthmark.broker.rules.shares import Shares


def test_one_principal_has_a_fourth_and_no_more() -> None:
    shares = Shares()
    for number in range(5):
        assert shares.has_room("loud", 20)
        shares.add(f"thing-{number}", "loud")
    assert not shares.has_room("loud", 20)
    assert shares.has_room("quiet", 20)


def test_what_is_gone_or_made_by_another_makes_room() -> None:
    shares = Shares()
    shares.add("one", "loud")
    shares.add("two", "loud")
    shares.add("two", "quiet")
    shares.remove("one")
    shares.remove("never was")
    assert shares.has_room("loud", 4)
    assert not shares.has_room("quiet", 4)


def test_however_small_the_whole_everybody_may_have_one() -> None:
    assert Shares().has_room("somebody", 1)


def test_what_the_server_does_itself_is_nobodys() -> None:
    shares = Shares()
    for number in range(9):
        shares.add(f"thing-{number}", "")
    assert shares.has_room("", 1)


def test_what_expired_makes_room() -> None:
    shares = Shares()
    shares.add("one", "loud", expires_at=5)
    shares.forget_expired(4)
    assert not shares.has_room("loud", 4)
    shares.forget_expired(5)
    assert shares.has_room("loud", 4)
