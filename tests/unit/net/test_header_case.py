"""How the head of a response leaves."""

import asyncio

from birthmark.net.header_case import Capitals


class Written:
    """A transport that notes each write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def close(self) -> None:
        self.is_closed = True


HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\netag: x\r\n\r\n"
AS_SENT = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: x\r\n\r\n"


async def test_a_head_and_the_body_that_follows_at_once_are_one_write() -> None:
    written = Written()
    response = Capitals(written)
    response.write(HEAD)
    response.write(b"hi")
    assert written.writes == [AS_SENT + b"hi"]
    await asyncio.sleep(0)
    assert len(written.writes) == 1


async def test_a_head_that_nothing_follows_leaves_by_itself() -> None:
    written = Written()
    Capitals(written).write(HEAD)
    await asyncio.sleep(0)
    assert written.writes == [AS_SENT]


async def test_a_head_leaves_before_its_connection_closes() -> None:
    written = Written()
    response = Capitals(written)
    response.write(HEAD)
    response.close()
    assert (written.writes, written.is_closed) == ([AS_SENT], True)


async def test_the_head_of_a_stream_does_not_wait() -> None:
    written = Written()
    Capitals(written).write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    assert written.writes == [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]


async def test_a_word_before_the_response_leaves_as_it_is() -> None:
    written = Written()
    Capitals(written).write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert written.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]
