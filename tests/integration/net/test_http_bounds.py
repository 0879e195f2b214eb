"""What a peer may do after its headers: trailers and endless bodies are bounded too."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

from birthmark.net.bounded_http import PROGRESS_BYTES, UNCLAIMED_BYTES, HttpService
from birthmark.net.listener import ClearConnection
from birthmark.net.listener_limits import Limits
from birthmark.net.tls import NO_PEER
from support.fakes import FakeClock

LIMITS = Limits(max_body_bytes=4096, max_header_bytes=2048)
CHUNKED = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
AHEAD = b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"


class Wire(asyncio.Transport):
    """Keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.is_over = False

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def close(self) -> None:
        self.is_over = True

    def is_closing(self) -> bool:
        return self.is_over

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def write_eof(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0


class Slow:
    """A connection to an application that answers when it is told to, and the sweep that looks at its deadline."""

    def __init__(self) -> None:
        self.clock, self.wire, self.seen = FakeClock(), Wire(), 0
        self._may_answer = asyncio.Semaphore(0)
        host = Mock(limits=LIMITS, monotonic=self.clock.monotonic)
        host.choose.return_value = HttpService(self._app, LIMITS).protocol(NO_PEER)
        self.connection = ClearConnection(host)
        self.connection.connection_made(self.wire)

    async def _app(self, _scope: Any, _receive: Any, send: Any) -> None:
        self.seen += 1
        await self._may_answer.acquire()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def answer(self) -> None:
        self._may_answer.release()
        for _ in range(10):
            await asyncio.sleep(0)

    def after(self, seconds: float) -> bool:
        """Let time pass; say whether the connection was cut."""
        self.clock.move(timedelta(seconds=seconds))
        if self.connection.deadline is not None and self.connection.deadline <= self.clock.monotonic():
            self.connection.deadline_passed()
        return self.connection.is_closing

    def end(self) -> None:
        self.connection.connection_lost(None)


async def talk(body: Callable[[Any, Wire], Awaitable[None]]) -> list[Any]:
    """Run `body` on a connection; return the header lists that the application saw, as they are at its end."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        seen.append(scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    wire = Wire()
    protocol: Any = HttpService(app, LIMITS).protocol(NO_PEER)
    protocol.connection_made(wire)
    await body(protocol, wire)
    protocol.connection_lost(None)
    return seen


async def test_trailers_never_become_headers() -> None:
    async def body(protocol: Any, wire: Wire) -> None:
        protocol.data_received(CHUNKED + b"1\r\na\r\n0\r\nAuthorization: Bearer forged\r\n\r\n")
        await asyncio.sleep(0.01)
        assert wire.sent.startswith(b"HTTP/1.1 200")

    (headers,) = await talk(body)
    assert b"authorization" not in dict(headers)


async def test_endless_trailers_are_cut_off() -> None:
    async def body(protocol: Any, wire: Wire) -> None:
        protocol.data_received(CHUNKED + b"0\r\n")
        for number in range(5000):
            protocol.data_received(b"X-%d: y\r\n" % number)
            if wire.is_over:
                break
        assert wire.is_over
        assert number * 10 < 16 * LIMITS.max_body_bytes

    await talk(body)


async def test_one_endless_trailer_is_cut_off() -> None:
    async def body(protocol: Any, wire: Wire) -> None:
        protocol.data_received(CHUNKED + b"0\r\nX: ")
        for _ in range(500):
            protocol.data_received(b"y" * 1000)
        assert wire.is_over

    await talk(body)


async def test_length_and_chunks_together_are_refused() -> None:
    async def body(protocol: Any, wire: Wire) -> None:
        protocol.data_received(
            b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        )
        await asyncio.sleep(0.01)
        assert wire.sent.startswith(b"HTTP/1.1 400")
        assert wire.is_over

    assert (await talk(body)) == []


async def test_two_lengths_are_refused() -> None:
    async def body(protocol: Any, wire: Wire) -> None:
        protocol.data_received(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd")
        await asyncio.sleep(0.01)
        assert wire.sent.startswith(b"HTTP/1.1 400")

    assert (await talk(body)) == []


async def test_some_requests_may_be_sent_ahead_of_their_answers() -> None:
    async def body(protocol: Any, wire: Wire) -> None:
        protocol.data_received(AHEAD * 8)
        async with asyncio.timeout(5):
            while wire.sent.count(b"HTTP/1.1 200") < 8:
                await asyncio.sleep(0.01)

    assert len(await talk(body)) == 8


async def test_who_sends_thousands_of_requests_ahead_is_cut_off() -> None:
    async def body(protocol: Any, wire: Wire) -> None:
        protocol.data_received(AHEAD * 3000)
        assert len(protocol.pipeline) < 100
        await asyncio.sleep(0.01)
        assert wire.is_over

    assert len(await talk(body)) < 100


async def test_requests_sent_ahead_without_end_are_cut_off() -> None:
    async def body(protocol: Any, wire: Wire) -> None:
        for _ in range(50):
            protocol.data_received(AHEAD * 10)
            await asyncio.sleep(0)
        assert len(protocol.pipeline) < 100
        assert wire.is_over

    await talk(body)


async def test_a_connection_that_answers_what_was_sent_ahead_is_not_idle() -> None:
    slow = Slow()
    slow.connection.data_received(AHEAD * 2)
    await slow.answer()
    assert slow.seen == 2
    assert not slow.after(2 * LIMITS.idle_s)
    await slow.answer()
    assert slow.wire.sent.count(b"HTTP/1.1 200") == 2
    slow.end()


async def test_a_connection_is_cut_when_it_is_idle_after_its_last_answer() -> None:
    slow = Slow()
    slow.connection.data_received(AHEAD * 2)
    for _ in range(2):
        await slow.answer()
    assert not slow.after(LIMITS.idle_s - 1)
    assert slow.after(1)
    slow.end()


async def test_an_answer_gives_the_next_request_no_more_time_for_its_headers() -> None:
    slow = Slow()
    slow.connection.data_received(AHEAD + AHEAD[:8])
    await slow.answer()
    assert slow.after(LIMITS.header_s)
    assert b"HTTP/1.1 408" in slow.wire.sent
    slow.end()


async def test_a_connection_whose_request_was_answered_before_its_end_is_cut_when_it_is_idle() -> None:
    slow = Slow()
    slow.connection.data_received(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
    await slow.answer()
    slow.connection.data_received(b"cd")
    assert not slow.after(LIMITS.idle_s - 1)
    assert slow.after(1)
    slow.end()


STREAMED = 4 * PROGRESS_BYTES


class StreamedUpload:
    """A connection to an application that reads a streamed body, and the sweep that looks at its deadline."""

    def __init__(self, declared: int = STREAMED, *, claims: bool = True) -> None:
        self._claims = claims
        self.clock, self.wire, self.got = FakeClock(), Wire(), 0
        host = Mock(limits=LIMITS, monotonic=self.clock.monotonic)
        service = HttpService(self._app, LIMITS, None, lambda target: STREAMED if target.startswith(b"/s/") else 0)
        host.choose.return_value = service.protocol(NO_PEER)
        self.connection = ClearConnection(host)
        self.connection.connection_made(self.wire)
        self.say(f"PUT /s/f HTTP/1.1\r\nHost: x\r\nContent-Length: {declared}\r\n\r\n".encode())

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if self._claims:
            scope["extensions"]["stream_body"]()
        while True:
            message = await receive()
            self.got += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 201, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    def say(self, data: bytes) -> None:
        self.connection.data_received(data)

    async def send(self, size: int) -> None:
        for _ in range(size // 65536):
            self.say(bytes(65536))
            await asyncio.sleep(0)

    def after(self, seconds: float) -> bool:
        self.clock.move(timedelta(seconds=seconds))
        if self.connection.deadline is not None and self.connection.deadline <= self.clock.monotonic():
            self.connection.deadline_passed()
        return self.connection.is_closing


async def test_a_streamed_body_may_take_long_while_it_makes_progress() -> None:
    upload = StreamedUpload()
    for _ in range(4):
        assert not upload.after(LIMITS.body_s - 1)
        await upload.send(PROGRESS_BYTES)
    await asyncio.sleep(0.01)
    assert upload.got == STREAMED
    assert upload.wire.sent.startswith(b"HTTP/1.1 201")


async def test_a_streamed_body_without_progress_is_cut_off() -> None:
    upload = StreamedUpload()
    await upload.send(PROGRESS_BYTES // 2)
    assert upload.after(LIMITS.body_s + 1)
    assert upload.wire.sent.startswith(b"HTTP/1.1 408")


async def test_a_streamed_body_above_its_own_limit_is_refused() -> None:
    assert StreamedUpload(STREAMED + 1).wire.sent.startswith(b"HTTP/1.1 413")


async def test_a_streamed_body_is_refused_if_the_application_reads_it_as_a_whole() -> None:
    upload = StreamedUpload(claims=False)
    await upload.send(2 * PROGRESS_BYTES)
    assert upload.wire.sent.startswith(b"HTTP/1.1 413")
    assert upload.got <= UNCLAIMED_BYTES
