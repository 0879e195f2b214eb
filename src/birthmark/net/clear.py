"""A connection without TLS, for the health port: the same bounds, sweep and counts as any other."""

import asyncio

from birthmark.net.connection import Connection, Host
from birthmark.net.tls import NO_PEER


class ClearConnection(Connection):
    """See `Connection`; nobody proved anything here."""

    __slots__ = ()

    is_tls = False

    def __init__(self, host: Host) -> None:
        super().__init__(host, None)
        self._is_secure = True
        self._peer = NO_PEER

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.set_deadline(self._host.limits.first_byte_s)
        self._host.established(self)

    def data_received(self, data: bytes) -> None:
        if (self._shut or self._is_stranger) and not self._may_come(len(data)):
            return
        backlog = self._host.backlog
        backlog.begin()
        if (inner := self._inner or self._chosen(data[0])) is not None:
            inner.data_received(data)
        backlog.end(self.owner)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._shut:
            self._raw.write(data)
            self.may_wait(self.unread_bytes)

    def _flush(self) -> int:
        return 0

    def _say_goodbye(self) -> None:
        pass

    def _release(self) -> None:
        pass
