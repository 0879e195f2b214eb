"""Partitions and positions of a stream as integers.

A stream has four partitions; all messages of a device are in one of them, in order. Each commit has one sequence
number, with at most one segment per partition. A message's position is its sequence number and its index in the
segment.
"""

import struct
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import TypeAlias

from birthmark.errors import InvalidRequestError

PARTITIONS = 4
INDEX_BITS = 12
MAX_MESSAGES = 1 << INDEX_BITS
_LAST = MAX_MESSAGES - 1
_MAX_POSITION = (1 << 63) - 1
Positions: TypeAlias = tuple[int, ...]
"""Last position read in each partition; 0 is before the first message."""
BEGINNING: Positions = (0,) * PARTITIONS


class PositionInvalidError(InvalidRequestError):
    """The stream position is not valid."""

    code = "broker.position_invalid"
    message = "Invalid stream position: {position}"
    cause = "The stream position {position} is not valid."
    fix = "Use the position from the last response, or a time: `{command}`"
    command: str = "birthmark hub monitor --since 10m"
    position: str


def key_of(name: str) -> int:
    """Return the hash of a device name; it is the same in every process and version."""
    return int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "little")


def partition_of(key: int) -> int:
    """Return the partition of a key."""
    return key % PARTITIONS


def position_of(seq: int, index: int) -> int:
    """Return the position of a message in a segment."""
    return seq << INDEX_BITS | index


def seq_of(position: int) -> int:
    """Return the sequence number of a position."""
    return position >> INDEX_BITS


def through(seq: int) -> Positions:
    """Return the positions after everything up to and including a sequence number has been read."""
    return (position_of(seq, _LAST),) * PARTITIONS


def first_unread(seq: int, after: int) -> int:
    """Return the index of the first message of a segment after a position."""
    return max(0, after + 1 - position_of(seq, 0))


def render_positions(positions: Positions) -> str:
    """Return positions as text."""
    return ".".join(map(str, positions))


def parse_positions(text: str) -> Positions:
    """Parse positions from text. Raise `PositionInvalidError`."""
    parts = text.split(".")
    if len(parts) != PARTITIONS or not all(one.isascii() and one.isdigit() and len(one) < 20 for one in parts):  # noqa: PLR2004 - digits of 63 bits
        raise PositionInvalidError(position=text[:100])
    positions = tuple([int(one) for one in parts])
    if max(positions) > _MAX_POSITION:
        raise PositionInvalidError(position=text[:100])
    return positions


def render_names(keys: Iterable[int]) -> bytes:
    """Return the column that lists the devices of some segments."""
    found = sorted(keys)
    return struct.pack(f"<{len(found)}I", *found)


def may_name(names: bytes, key: int) -> bool:
    """Return whether a device may be among those named; an empty index matches every device."""
    return not names or struct.pack("<I", key) in names


def cut(commits: Sequence[tuple[int, int, int]], newest: int, before: int, first_byte: int) -> int | None:
    """Return the highest sequence number of the commits to delete, or None.

    A commit is its sequence number, its time and the bytes of the stream before it. It is deleted if it is older than
    `before`, or if it starts before `first_byte`. The newest commit is never deleted, because the next sequence number
    is derived from it. A reused number would hide messages from readers that are already past it.
    """
    gone = [seq for seq, at, begins in commits if (at < before or begins < first_byte) and seq < newest]
    return gone[-1] if gone else None
