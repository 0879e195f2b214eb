"""Acknowledgements leave in the order of the messages."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from birthmark.mqtt.outbound_packets import Receipts


def test_what_is_next_needs_no_looking() -> None:
    receipts = Receipts()
    assert receipts.record_received([1, 2, 3], 10) == 0
    assert receipts.settle_next([1, 2])
    assert not receipts.settle_next([4])
    assert len(receipts) == 1


def test_what_is_too_many_is_not_noted() -> None:
    receipts = Receipts()
    assert receipts.record_received([1, 2], 3) == 0
    assert receipts.record_received([3, 4, 5], 3) == 2
    assert receipts.settle_next([1, 2, 3])
    assert len(receipts) == 0


def test_what_was_never_received_leaves_at_once() -> None:
    receipts = Receipts()
    receipts.record_received([1], 10)
    assert receipts.settle(7, b"7") == b"7"
    assert len(receipts) == 1


@given(st.lists(st.integers(1, 5), max_size=12), st.randoms(use_true_random=False))
def test_any_order_of_settling_gives_the_order_of_the_messages(ids: list[int], random: Random) -> None:
    receipts, left = Receipts(), bytearray()
    receipts.record_received([*ids], 100)
    order = list(ids)
    random.shuffle(order)
    for packet_id in order:
        if receipts.settle_next([packet_id]):
            left.append(packet_id)
        else:
            left += receipts.settle(packet_id, bytes((packet_id,)))
    assert list(left) == ids
    assert (len(receipts), receipts._early) == (0, {})
