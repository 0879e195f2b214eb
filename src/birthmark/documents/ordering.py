"""Numbers in the order that integers have."""

import struct


def ordered(value: float) -> int:
    """Return an integer that stands to others as this number to theirs."""
    (bits,) = struct.unpack(">q", struct.pack(">d", value + 0.0))
    return int(bits) if bits >= 0 else -(int(bits) & 0x7FFF_FFFF_FFFF_FFFF) - 1
