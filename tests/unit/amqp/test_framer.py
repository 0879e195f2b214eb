"""Any chunking gives the same frames; a frame is refused by its size."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.amqp.errors import AmqpCondition, AmqpError
from birthmark.amqp.framer import AMQP_HEADER, EMPTY_FRAME, SASL_HEADER, AmqpFramer, Frame, encode_frame

FRAMES = st.builds(Frame, st.integers(0, 1), st.integers(0, 0xFFFF), st.binary(max_size=300))


def chunks_of(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(st.lists(FRAMES, max_size=6), st.lists(st.integers(0, 2000), max_size=12))
def test_any_chunking_gives_the_same_frames(frames: list[Frame], cuts: list[int]) -> None:
    framer, found = AmqpFramer(), []
    for chunk in chunks_of(b"".join(encode_frame(one.channel, one.body, one.type) for one in frames), cuts):
        framer.receive_data(chunk)
        while (frame := framer.next_frame()) is not None:
            found.append(frame)
    assert found == frames
    assert framer.buffered == 0


@given(st.binary(max_size=40))
def test_any_bytes_are_frames_or_an_amqp_error(data: bytes) -> None:
    framer = AmqpFramer()
    framer.receive_data(data)
    try:
        while framer.next_frame() is not None:
            pass
    except AmqpError:
        pass


def test_a_header_is_returned_once_it_is_complete() -> None:
    framer = AmqpFramer()
    for byte in SASL_HEADER[:-1]:
        framer.receive_data(bytes((byte,)))
        assert framer.next_header() is None
    framer.receive_data(SASL_HEADER[-1:] + AMQP_HEADER)
    assert framer.next_header() == SASL_HEADER
    assert framer.next_header() == AMQP_HEADER


@pytest.mark.parametrize("data", [b"\x16", b"GET /", b"AMQQ"])
def test_another_protocol_is_refused_at_its_first_bytes(data: bytes) -> None:
    framer = AmqpFramer()
    framer.receive_data(data)
    with pytest.raises(AmqpError, match="protocol header"):
        framer.next_header()


@pytest.mark.parametrize("size", [0, 7, 513, 0xFFFFFFFF])
def test_a_frame_is_refused_by_its_first_four_bytes(size: int) -> None:
    framer = AmqpFramer()
    framer.receive_data(size.to_bytes(4))
    with pytest.raises(AmqpError, match="512") as refused:
        framer.next_frame()
    assert refused.value.condition == AmqpCondition.FRAMING_ERROR


@pytest.mark.parametrize("doff", [0, 1, 3, 255])
def test_a_data_offset_outside_the_frame_is_refused(doff: int) -> None:
    framer = AmqpFramer()
    framer.receive_data(bytes((0, 0, 0, 8, doff, 0, 0, 0)))
    with pytest.raises(AmqpError, match="data offset"):
        framer.next_frame()


def test_an_extended_header_is_skipped() -> None:
    framer = AmqpFramer()
    framer.receive_data(bytes.fromhex("0000000d 03 00 0001 ffffffff 61"))
    assert framer.next_frame() == Frame(0, 1, b"a")


def test_an_empty_frame_has_an_empty_body() -> None:
    framer = AmqpFramer()
    framer.receive_data(EMPTY_FRAME)
    assert framer.next_frame() == Frame(0, 0, b"")


def test_many_frames_in_one_chunk_take_linear_work() -> None:
    framer = AmqpFramer()
    framer.receive_data(EMPTY_FRAME * 20_000)
    count = 0
    while framer.next_frame() is not None:
        count += 1
    assert count == 20_000
