"""Positions and partitions are whole numbers that any process and version reads alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.broker.rules import stream_partitions_and_positions
from birthmark.broker.rules.stream_partitions_and_positions import (
    BEGINNING,
    MAX_MESSAGES,
    PARTITIONS,
    PositionInvalidError,
    cut,
    first_unread,
    key_of,
    may_name,
    parse_positions,
    partition_of,
    position_of,
    render_names,
    render_positions,
    seq_of,
    through,
)

seqs = st.integers(1, 2**50)
indexes = st.integers(0, MAX_MESSAGES - 1)


def test_a_device_stays_in_its_partition_from_release_to_release() -> None:
    assert [partition_of(key_of(name)) for name in ("pump-7", "se050-0001", "ä", "")] == [2, 3, 1, 2]


def test_every_partition_gets_its_share() -> None:
    counts = [0] * PARTITIONS
    for number in range(4000):
        counts[partition_of(key_of(f"device-{number:06}"))] += 1
    assert min(counts) > 800


@given(seqs, indexes, seqs, indexes)
def test_positions_are_in_the_order_of_commits_and_places(seq: int, index: int, other: int, place: int) -> None:
    position = position_of(seq, index)
    assert seq_of(position) == seq
    assert (position < position_of(other, place)) == ((seq, index) < (other, place))
    assert BEGINNING[0] < position <= through(seq)[0] < position_of(seq + 1, 0)


@given(seqs, st.integers(0, MAX_MESSAGES - 1))
def test_what_follows_a_position_begins_at_the_next_place(seq: int, index: int) -> None:
    assert first_unread(seq, position_of(seq, index)) == index + 1
    assert first_unread(seq, position_of(seq, index) - 1) == index
    assert first_unread(seq, 0) == 0
    assert first_unread(seq, through(seq - 1)[0]) == 0


@given(st.tuples(*[st.integers(0, 2**63 - 1)] * PARTITIONS))
def test_positions_survive_being_written(positions: tuple[int, ...]) -> None:
    assert parse_positions(render_positions(positions)) == positions


@pytest.mark.parametrize("text", ["", "1", "1.2.3", "1.2.3.4.5", "1.2.3.-4", "1.2.3.x", "1.2.3.²", f"0.0.0.{2**63}"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(PositionInvalidError):
        parse_positions(text)


@given(st.sets(st.integers(0, 2**32 - 1)), st.integers(0, 2**32 - 1))
def test_names_never_leave_out_a_device(keys: set[int], other: int) -> None:
    names = render_names(keys)
    assert all(may_name(names, key) for key in keys)
    assert may_name(b"", other)
    assert not may_name(render_names({1}), 2)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), min_size=1, max_size=30), st.data())
def test_trimming_leaves_the_newest_and_what_is_young_and_within_the_bytes(
    given_: list[tuple[int, int]], data: st.DataObject
) -> None:
    rows, at, upto = [], 0, 0
    for seq, (wait, size) in enumerate(given_, 1):
        at += wait
        rows.append((seq, at, upto))
        upto += size
    before, keep = data.draw(st.integers(0, at + 1)), data.draw(st.integers(0, upto))
    last = cut(rows, len(rows), before, upto - keep) or 0
    left = rows[last:]
    assert left[-1] == rows[-1]
    assert all((then >= before and upto - begins <= keep) or seq == len(rows) for seq, then, begins in left)
    assert all(then < before or upto - begins > keep for _, then, begins in rows[:last])


def test_the_numbers_that_are_in_databases_do_not_change() -> None:
    assert (stream_partitions_and_positions.PARTITIONS, stream_partitions_and_positions.INDEX_BITS) == (4, 12)
