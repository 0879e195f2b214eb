"""MQTT in WebSocket frames (RFC 6455), as hubs and AWS accept it on port 443; without IO."""

import asyncio

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from birthmark.device_transports.errors import LinkAnswerError, LinkLostError
from birthmark.device_transports.urls import WEBSOCKET_PATH

_MAX_MESSAGE_BYTES = 1024 * 1024
_READ_BYTES = 64 * 1024
_DATA = {Opcode.BINARY, Opcode.CONT}


class WebSocketBytes:
    """Conversion between bytes and WebSocket frames."""

    def __init__(self, host: str, port: int, path: str = WEBSOCKET_PATH) -> None:
        place = f"[{host}]" if ":" in host else host
        self._host, self._port = host, port
        self._protocol = ClientProtocol(
            parse_uri(f"wss://{place}:{port}{path}"), subprotocols=[Subprotocol("mqtt")], max_size=_MAX_MESSAGE_BYTES
        )

    async def open(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Open a WebSocket. Raise `LinkAnswerError` or `LinkLostError`."""
        self._protocol.send_request(self._protocol.connect())
        writer.write(self._outgoing())
        while self._protocol.state is State.CONNECTING and self._protocol.handshake_exc is None:
            if not (data := await reader.read(_READ_BYTES)):
                raise LinkLostError(host=self._host, reason="the server closed the connection")
            self._protocol.receive_data(data)
        problem = self._protocol.handshake_exc
        if isinstance(problem, InvalidHandshake):
            raise LinkAnswerError(host=self._host, port=self._port, reason=f"not a WebSocket: {problem}") from problem
        if problem is not None:
            raise LinkLostError(host=self._host, reason=str(problem)) from problem

    def encode_frames(self, data: bytes) -> bytes:
        """Return frames with these bytes; none after the server has closed the WebSocket."""
        if data and self._protocol.state is State.OPEN:
            self._protocol.send_binary(data)
        return self._outgoing()

    def decode_frames(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the payload of received frames, and the bytes to send in response."""
        self._protocol.receive_data(data)
        events = self._protocol.events_received()
        found = b"".join(event.data for event in events if getattr(event, "opcode", None) in _DATA)  # type: ignore[union-attr]
        return found, self._outgoing()

    @property
    def close_reason(self) -> str:
        """Reason why the server closed the WebSocket; empty while it is open."""
        if self._protocol.state is State.OPEN:
            return ""
        close = self._protocol.close_rcvd
        return "the server closed it" if close is None else f"the server closed it ({close})"

    def _outgoing(self) -> bytes:
        return b"".join(self._protocol.data_to_send())
