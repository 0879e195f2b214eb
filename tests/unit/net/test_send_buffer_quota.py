"""What waits to be read: bounded over all and for a principal; who reads is left alone."""

from birthmark.net.send_buffer_quota import SMALL_BYTES, SendBufferQuota

BIG = 4 * SMALL_BYTES


class Pile:
    """Holders are names like `a1`; their first letter is whose they are."""

    def __init__(self, total: int, each: int) -> None:
        self.sizes: dict[str, int] = {}
        self.gone: list[tuple[str, str]] = []
        self.unread = SendBufferQuota[str](
            total, each, lambda one: self.sizes.get(one, 0), lambda one: one[0], self._evict
        )

    def _evict(self, holder: str, _limit: int, setting: str) -> None:
        self.gone.append((holder, setting))

    def wait(self, holder: str, size: int) -> None:
        self.sizes[holder] = size
        self.unread.note(holder, size)


def test_the_largest_of_whoever_has_most_goes_first() -> None:
    pile = Pile(total=6 * BIG, each=5 * BIG)
    pile.wait("a1", 2 * BIG)
    pile.wait("a2", BIG)
    pile.wait("b1", 2 * BIG)
    pile.wait("b2", BIG)
    pile.wait("a3", BIG)
    assert pile.gone == [("a1", "max_unread_bytes")]


def test_a_principal_has_a_share_whatever_the_others_leave() -> None:
    pile = Pile(total=100 * BIG, each=2 * BIG)
    pile.wait("a1", BIG)
    pile.wait("b1", 2 * BIG)
    pile.wait("a2", 2 * BIG)
    assert pile.gone == [("a2", "max_unread_bytes_per_peer")]


def test_what_was_read_meanwhile_is_not_held_against_anybody() -> None:
    pile = Pile(total=2 * BIG, each=2 * BIG)
    pile.wait("a1", 2 * BIG)
    pile.sizes["a1"] = 0
    pile.wait("b1", 2 * BIG)
    assert not pile.gone
    assert pile.unread.used == 2 * BIG


def test_little_is_not_counted_and_who_is_gone_leaves_nothing_behind() -> None:
    pile = Pile(total=BIG, each=BIG)
    for number in range(100):
        pile.wait(f"a{number}", SMALL_BYTES - 1)
    pile.wait("b1", BIG)
    pile.unread.release("b1")
    assert not pile.gone
    assert pile.unread.used == 0
