"""uvicorn's WebSocket protocol with limits.

Data is forwarded as it arrives, and a close does not wait for its echo.

A message of many tiny fragments, or many tiny messages, costs no more than its bytes. A client whose frames exceed a
time slice waits for its next turn. The library limits the size of a message over all its fragments. Data is forwarded
before the message is complete, because MQTT limits the packet size itself.
"""

import asyncio
import re
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request

from birthmark.net.errors import HttpBrokenError
from birthmark.net.fair_scheduler import SLICE_S, Backlog, now

PIECE_BYTES = 16 * 1024  # multiple of the mask's four bytes, so that pieces and masks stay aligned
_FIN, _CONTROL, _MASKED, _LENGTH = 0x80, 0x08, 0x80, 0x7F
_SHORT, _LONG = 126, 127
_ORIGIN = re.compile(r"https?://[^/?]*", re.IGNORECASE)


class FrameSplitter:
    """Splits large frames of one connection.

    Frames over `most` bytes stay unchanged so that the library refuses them.
    """

    def __init__(self, limit: int) -> None:
        self._most = limit
        self._head = bytearray()  # received so far
        self._now = 0  # payload bytes until the next head
        self._later = 0  # remaining payload bytes of this frame
        self._fin = 0
        self._mask = b""

    def split_frames(self, data: bytes) -> bytes:
        """Return the received data with frame headers inserted into long frames."""
        out, at, end = bytearray(), 0, len(data)
        while at < end:
            if self._now:
                size = min(self._now, end - at)
                out += data[at : at + size]
                at += size
                self._now -= size
            else:
                self._head.append(data[at])
                at += 1
                self._begin(out)
            if not self._now and self._later:
                self._begin_piece(out, 0)
        return bytes(out)

    def _begin(self, out: bytearray) -> None:
        """Start a frame once its header is complete."""
        head = self._head
        if len(head) < 2:  # noqa: PLR2004 - the head's length is in them
            return
        length, masked = head[1] & _LENGTH, bool(head[1] & _MASKED)
        more = {_SHORT: 2, _LONG: 8}.get(length, 0)
        if len(head) < 2 + more + 4 * masked:
            return
        size = int.from_bytes(head[2 : 2 + more]) if more else length
        self._head = bytearray()
        if head[0] & _CONTROL or not masked or not PIECE_BYTES < size <= self._most:
            self._now = size
            out += head
            return
        self._fin, self._mask, self._later = head[0] & _FIN, bytes(head[-4:]), size
        self._begin_piece(out, head[0] & ~_FIN)

    def _begin_piece(self, out: bytearray, first: int) -> None:
        """Insert the header of a piece.

        The first piece has the frame's opcode, others are continuations, and the last has FIN.
        """
        self._now = min(self._later, PIECE_BYTES)
        self._later -= self._now
        fin = 0 if self._later else self._fin
        out += bytes((first | fin, _MASKED | _SHORT)) + self._now.to_bytes(2) + self._mask


# Some clients report the reason for a rejection only at the end of the connection. Their remaining data and their Close
# are read for a moment after ours (`Connection.close`).
_CLOSE_WAIT_S = 0.0
# Each frame costs time, even an empty one: an unauthenticated client gets as many as a CONNECT in tiny pieces needs,
# read in steps with a clock check in between.
MAX_STRANGER_FRAMES = 1024
_STEP_BYTES = 512
# MQTT has its own pings. These cost as much as a message without flow control, so they have a quota per device, too.
MAX_PINGS = 600
_PINGS_S = 60.0


class ReceiveBuffer:
    """Data that the application has not read; waiting binary messages are joined, as MQTT is a byte stream."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._some = asyncio.Event()

    def put_nowait(self, event: dict[str, Any]) -> None:
        last = self._events[-1] if self._events else {}
        if "bytes" in event and "bytes" in last:
            last["bytes"] += event["bytes"]
            return
        self._events.append(event if "bytes" not in event else {**event, "bytes": bytearray(event["bytes"])})
        self._some.set()

    async def get(self) -> dict[str, Any]:
        while not self._events:
            self._some.clear()
            await self._some.wait()
        event = self._events.pop(0)
        return {**event, "bytes": bytes(event["bytes"])} if "bytes" in event else event

    def empty(self) -> bool:
        return not self._events


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol with limits on frames, pings and processing time."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.queue = ReceiveBuffer()  # type: ignore[assignment] # only the used queue methods
        self.close_timeout = _CLOSE_WAIT_S
        self.conn.max_fragment_size = PIECE_BYTES
        self._pieces = FrameSplitter(self.config.ws_max_size)
        self._rest = bytearray()
        self._is_waiting = False  # in backlog
        self._frames = 0
        self._pings = 0
        self._pings_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.handshake_initiated:  # the request, which comes at once, alone
            super().data_received(data)
            if not self.handshake_initiated:  # HTTP's parser accepts more than the WebSocket library does
                self._refuse()
            return
        self._rest += data
        if not self._is_waiting:
            self._process_pending()

    def handle_connect(self, event: Request) -> None:
        """Read a target in absolute form as its path (RFC 9112 section 3.2.2); Azure's device SDK for Java sends it."""
        if origin := _ORIGIN.match(event.path):
            event.path = event.path[origin.end() :]
        super().handle_connect(event)

    def _refuse(self) -> None:
        connection, error = getattr(self.transport, "connection", None), HttpBrokenError()
        if connection is not None:
            connection.refused(error)
        body = f"{error}\n".encode()
        head = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n"
        self.transport.write(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.transport.close()

    def handle_parser_exception(self) -> None:
        """Close after a protocol error; one before the answer to the request has no close frame."""
        if self.conn.close_sent is None:
            self._refuse()
        else:
            super().handle_parser_exception()

    def _process_pending(self) -> None:
        """Process received data for at most one time slice; reading stays paused while data remains."""
        since = now()
        while self._rest and not self.transport.is_closing():
            if now() - since > SLICE_S:
                self._wait()
                return
            step = bytes(self._rest[:_STEP_BYTES])
            del self._rest[:_STEP_BYTES]
            super().data_received(self._pieces.split_frames(step))
        self._rest.clear()
        if self._is_waiting:
            self._is_waiting = False
            self.transport.resume_reading()

    def _wait(self) -> None:
        if not self._is_waiting:
            self._is_waiting = True
            self.transport.pause_reading()
        connection = getattr(self.transport, "connection", None)
        Backlog.running().add(self._process_pending, "" if connection is None else connection.owner)

    def handle_ping(self) -> None:
        if self._is_frame_allowed() and self._are_pings_few():
            super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        if self._is_frame_allowed() and self._are_pings_few():
            super().handle_pong(event)

    def _is_frame_allowed(self) -> bool:
        """Count a frame; close an unauthenticated connection that exceeds its frame limit."""
        connection = getattr(self.transport, "connection", None)
        if connection is None or not connection.is_unauthenticated:
            return True
        self._frames += 1
        if self._frames == MAX_STRANGER_FRAMES:
            self.conn.fail(1008, "too many frames")
            self.handle_parser_exception()
        return self._frames < MAX_STRANGER_FRAMES

    def _are_pings_few(self) -> bool:
        """Count a ping or pong; close the connection of a peer that sends too many."""
        if (now := self.loop.time()) - self._pings_since > _PINGS_S:
            self._pings, self._pings_since = 0, now
        self._pings += 1
        if self._pings == MAX_PINGS:
            self.conn.fail(1008, "too many pings")
            self.handle_parser_exception()
        return self._pings < MAX_PINGS

    def handle_bytes(self, event: Frame) -> None:
        if self._is_frame_allowed():
            self._deliver(event)

    def handle_text(self, event: Frame) -> None:
        """Reject a text frame: MQTT requires binary frames (3.1.1 section 6)."""
        del event
        self.conn.fail(1003, "MQTT is binary")
        self.handle_parser_exception()

    def handle_cont(self, event: Frame) -> None:
        if self._is_frame_allowed():
            self._deliver(event)

    def _deliver(self, event: Frame) -> None:
        if event.data:
            self.frames = [bytes(event.data)]
            self.send_receive_event_to_app()

    def shutdown(self) -> None:
        super().shutdown()
        if self.close_timer is not None:
            self.close_timer.cancel()
