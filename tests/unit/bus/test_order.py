"""Late events, and the room that is kept for knowing them."""

from birthmark.bus.local import LatestVersions
from support.store.store_table import ThingTold


class Named(ThingTold, frozen=True, tag="test.named"):
    @property
    def entity(self) -> str:
        return self.word


def test_an_older_event_is_late_and_the_same_one_again_is_not() -> None:
    latest = LatestVersions()
    assert [latest.admits(Named("a", version=version)) for version in (2, 1, 2, 3)] == [True, False, True, True]


def test_kinds_and_entities_have_an_order_of_their_own() -> None:
    latest = LatestVersions()
    assert latest.admits(Named("a", version=2))
    assert latest.admits(Named("b", version=1))
    assert latest.admits(ThingTold("a", version=1))


def test_what_has_no_order_is_never_late_and_takes_no_room() -> None:
    latest = LatestVersions()
    assert latest.admits(Named("a", version=2))
    assert latest.admits(Named("a"))
    assert latest.admits(Named("b"))
    assert len(latest) == 1


def test_room_is_bounded_and_the_one_that_was_told_of_longest_ago_goes_first() -> None:
    latest = LatestVersions(max_entities=2)
    for name in "aba":
        assert latest.admits(Named(name, version=2))
    assert latest.admits(Named("c", version=2))
    assert len(latest) == 2
    assert not latest.admits(Named("a", version=1))
    assert latest.admits(Named("b", version=1))
