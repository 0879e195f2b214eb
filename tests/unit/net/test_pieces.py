"""Long WebSocket frames become several, with the same bytes."""

import random
import struct

import pytest
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from birthmark.net.bounded_websocket import PIECE_BYTES, FrameSplitter
from support.floods.unauthenticated import masked

MOST = 1024 * 1024


def frame(payload: bytes, opcode: Opcode = Opcode.BINARY, *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=True)


def read(data: bytes, steps: int) -> list[Frame]:
    """Return the frames that the library reads when what comes is cut into steps."""
    pieces, library = FrameSplitter(MOST), ServerProtocol(max_size=(MOST, PIECE_BYTES))
    library.state = library.state.OPEN
    library.parser = library.parse()
    next(library.parser)
    for at in range(0, len(data), steps):
        library.receive_data(pieces.split_frames(data[at : at + steps]))
        assert library.parser_exc is None
    return [event for event in library.events_received() if isinstance(event, Frame)]


@pytest.mark.parametrize("steps", [1, 7, 512, MOST])
def test_a_frame_of_any_length_has_the_same_bytes_and_one_end(steps: int) -> None:
    for size in (0, 1, 125, 126, 65_535, 65_536, PIECE_BYTES, PIECE_BYTES + 1, 5 * PIECE_BYTES):
        payload = random.Random(size).randbytes(size)
        found = read(frame(payload) + frame(b"next"), steps)
        assert b"".join(bytes(one.data) for one in found[:-1]) == payload
        assert [one.opcode for one in found] == [Opcode.BINARY, *[Opcode.CONT] * (len(found) - 2), Opcode.BINARY]
        assert [one.fin for one in found] == [*[False] * (len(found) - 2), True, True]


def test_fragments_stay_fragments_and_control_frames_may_come_between() -> None:
    first, second = bytes(PIECE_BYTES + 5), b"x" * (PIECE_BYTES + 6)
    sent = frame(first, fin=False) + frame(b"?", Opcode.PING) + frame(second, Opcode.CONT)
    found = read(sent, 512)
    assert [(one.opcode, one.fin, len(one.data)) for one in found] == [
        (Opcode.BINARY, False, PIECE_BYTES),
        (Opcode.CONT, False, 5),
        (Opcode.PING, True, 1),
        (Opcode.CONT, False, PIECE_BYTES),
        (Opcode.CONT, True, 6),
    ]


@pytest.mark.parametrize(
    "head",
    [
        b"\x82\xff" + struct.pack(">Q", MOST + 1) + bytes(4),
        b"\x89\xff" + struct.pack(">Q", PIECE_BYTES + 1) + bytes(4),
        b"\x82\x7f" + struct.pack(">Q", PIECE_BYTES + 1),
    ],
    ids=["too long", "a long ping", "without a mask"],
)
def test_what_the_library_refuses_reaches_it_as_it_came(head: bytes) -> None:
    assert FrameSplitter(MOST).split_frames(head + b"payload") == head + b"payload"


def test_short_frames_stay_as_they_are() -> None:
    sent = b"".join(masked(bytes(size)) for size in (0, 1, 200, PIECE_BYTES))
    assert FrameSplitter(MOST).split_frames(sent) == sent
