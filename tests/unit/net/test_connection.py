"""A connection without a socket."""

import asyncio
import errno
import typing

from birthmark.net.clear import ClearConnection
from birthmark.net.connection import Host


class ResetByPeer(asyncio.Transport):
    """What a socket is like when the peer has reset it and nobody was told yet."""

    def __init__(self) -> None:
        super().__init__()
        self.is_aborted = False

    def is_closing(self) -> bool:
        return self.is_aborted

    def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def write_eof(self) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    def abort(self) -> None:
        self.is_aborted = True


def test_closing_what_the_peer_has_reset_ends_it() -> None:
    raw = ResetByPeer()
    connection = ClearConnection(typing.cast("Host", None))
    connection._raw = raw
    connection.close()
    assert raw.is_aborted
