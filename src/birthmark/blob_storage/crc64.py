"""CRC-64 of Azure Blob Storage (`x-ms-content-crc64`): polynomial 0x9A6C9329AC4BC9B5, little-endian."""

_POLYNOMIAL = 0x9A6C9329AC4BC9B5
_ALL = 0xFFFFFFFFFFFFFFFF


def _table() -> tuple[int, ...]:
    found = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)  # noqa: PLW2901 - bit by bit
        found.append(value)
    return tuple(found)


_TABLE = _table()


class Crc64:
    """A checksum that takes data in parts."""

    def __init__(self) -> None:
        self._value = _ALL

    def update(self, data: bytes) -> None:
        """Add data."""
        value, table = self._value, _TABLE
        for byte in data:
            value = value >> 8 ^ table[(value ^ byte) & 255]
        self._value = value

    def digest(self) -> bytes:
        """Return the checksum of all data."""
        return (self._value ^ _ALL).to_bytes(8, "little")
