"""One accepted socket: TLS through memory BIOs, then MQTT or HTTP, chosen by the first byte.

The chosen protocol uses a plaintext `Transport` and accesses TLS only with `get_extra_info("birthmark.peer")`.
"""

import asyncio
import contextlib
import fcntl
import logging
import socket
import struct
import termios
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Protocol, cast

from OpenSSL import SSL

from birthmark.errors import BirthmarkError
from birthmark.net.errors import (
    ServerNotTrustedError,
    SlowReaderError,
    TooSlowError,
    explain_handshake,
    slow_peer_facts,
)
from birthmark.net.fair_scheduler import SLICE_S, Backlog, now
from birthmark.net.listener_limits import Limits
from birthmark.net.quota_key import share_of
from birthmark.net.send_buffer_quota import SMALL_BYTES
from birthmark.net.tls import NO_PEER, WAY, TlsPeer, certificate_of, peer_of
from birthmark.net.tls_pipe import RECORD_BYTES, TlsBrokenError, TlsEndedError, TlsPipe
from birthmark.pki.certificates import CertificateInvalidError

_HEADER = 5  # RFC 8446 section 5.1: type, version, and a length in the last two bytes


class TlsRecords:
    """Received bytes that have not been passed to TLS."""

    __slots__ = ("_missing", "taken", "waiting")

    def __init__(self) -> None:
        self.waiting = b""
        """Bytes not yet consumed."""
        self._missing = 0  # bytes of the last record passed on
        self.taken = 0
        """Number of records started in the last result of `take`."""

    def add(self, data: bytes) -> None:
        self.waiting = self.waiting + data if self.waiting else data

    def take(self, count: int) -> bytes:
        """Return available bytes of at most `count` more records; empty while a header is incomplete."""
        rest, at, size, begun = self.waiting, self._missing, len(self.waiting), 0
        if not at and size > _HEADER and _HEADER + (rest[3] << 8 | rest[4]) == size:  # the usual case
            self.waiting, self.taken = b"", 1
            return rest
        while at < size and begun < count and at + _HEADER <= size:
            at += _HEADER + (rest[at + 3] << 8 | rest[at + 4])
            begun += 1
        self.taken = begun
        if at >= size:
            self.waiting, self._missing = b"", at - size
            return rest
        self.waiting, self._missing = rest[at:], 0
        return rest[:at]


log = logging.getLogger(__name__)

MQTT_CONNECT = 0x10
_HELLO_RETRY_BYTES = 256  # a flight with our certificate is longer, a HelloRetryRequest shorter
_LOOK_S = 0.5
_NO_LINGER = struct.pack("ii", 1, 0)
_TRUST_OR_TIME = "it does not trust this server, or it gave up"
_LINGER_S = 2.0
_LINGER_BYTES = 16 * 1024 * 1024
_LAST_WORDS_S = 10.0  # time for a slow connection to take this many remaining bytes
_LAST_WORDS_BYTES = 16 * 1024
_RECORDS = 8  # passed to TLS at once
_MAX_BARREN = 32  # consecutive records without plaintext, far above any client's use
_NOT_YET = asyncio.Transport()  # until connection_made


class PendingAnswer(Enum):
    """Whether a response is pending for a peer at shutdown."""

    NOTHING = auto()
    PERHAPS = auto()
    """The peer's request is incomplete and may never complete."""
    ANSWER = auto()


class ConnectionHost(Protocol):
    """Listener functions that a connection uses."""

    limits: Limits
    room: memoryview
    """Shared read buffer of `RECORD_BYTES`; its content is consumed immediately."""
    backlog: Backlog

    def monotonic(self) -> float: ...

    def choose(self, first_byte: int, peer: TlsPeer) -> asyncio.Protocol:
        """Return the protocol for this connection, or raise the refusal."""
        ...

    def opened(self, connection: "Connection") -> None: ...

    def established(self, connection: "Connection") -> None: ...

    def count_unprocessed(self, connection: "Connection", size: int) -> None:
        """Count unprocessed bytes of an unauthenticated client."""
        ...

    def mark_processed(self, connection: "Connection") -> None:
        """Reset the count of unprocessed bytes of an unauthenticated client."""
        ...

    def mark_authenticated(self, connection: "Connection") -> None:
        """Note that the peer has authenticated."""
        ...

    def count_unread(self, connection: "Connection", size: int) -> None:
        """Note the number of bytes that the peer has not read."""
        ...

    def closed(self, connection: "Connection") -> None: ...

    def refused(self, error: BirthmarkError, connection: "Connection") -> None: ...


class Connection(asyncio.BufferedProtocol):
    """Server-side TLS connection. The listener's sweep checks `deadline`.

    The peer is unauthenticated until a protocol calls `authenticated`; until then, its unprocessed bytes count against
    a quota. A read returns at most one record. After a time slice, or while the protocol is paused, the remainder stays
    in TLS and reading is paused.
    """

    __slots__ = (
        "_awaits_trust",
        "_barren",
        "_has_rest",
        "_has_unread",
        "_holds",
        "_host",
        "_inner",
        "_is_gone",
        "_is_secure",
        "_is_unauthenticated",
        "_is_waiting",
        "_last_words",
        "_linger_bytes",
        "_on_crowded_out",
        "_on_deadline",
        "_owner",
        "_peer",
        "_plain",
        "_raw",
        "_records",
        "_shut",
        "_tls",
        "_unfinished_bytes",
        "_unreadable",
        "address",
        "deadline",
        "problem",
        "queued_bytes",
    )

    is_tls = True

    def __init__(self, host: ConnectionHost, context: SSL.Context | None) -> None:
        self._host = host
        self._tls: TlsPipe
        if context is not None:
            self._tls = WAY.accept(context)
        self._peer: TlsPeer | None = None
        self._unreadable: BirthmarkError | None = None
        self._is_unauthenticated = True
        self._on_crowded_out: Callable[[BirthmarkError], None] | None = None
        self._plain = PlainTransport(self)
        self._inner: asyncio.Protocol | None = None
        self._raw: asyncio.Transport = _NOT_YET
        self._shut = False
        self._awaits_trust = False  # certificate sent, no reaction received yet
        self._linger_bytes = _LINGER_BYTES
        self._records = TlsRecords()
        self._barren = 0  # records since the last plaintext
        self._is_gone = False
        self._unfinished_bytes = 0
        self._last_words = 0  # bytes still queued at the last check after the end
        self._on_deadline: Callable[[], None] | None = None
        self._is_secure = False  # handshake complete
        self._has_unread = False
        self.queued_bytes = 0  # bytes queued above, for a turn to be written
        self._holds = 0  # number of active read holds
        self._has_rest = False  # unread data in TLS
        self._is_waiting = False  # in backlog
        self._owner: str | None = None
        self.address = ""
        self.deadline: float | None = None
        self.problem: BirthmarkError | None = None  # why this side aborted

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast("asyncio.Transport", transport)  # uvloop's only behaves like one
        name = transport.get_extra_info("peername")
        if not self.address:  # a load balancer sent no client address; a Unix socket has none
            self.address = name[0] if isinstance(name, tuple) else ""
        self.deadline = self._host.monotonic() + self._host.limits.handshake_s
        self._host.opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._host.room

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._host.room[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Process ciphertext. This is a hot path for every message; function calls are avoided."""
        if (self._shut or self._is_unauthenticated) and not self._accept_bytes(len(data)):
            return
        self._records.add(data)
        backlog = self._host.backlog
        is_behind = backlog.is_behind(self._owner or self.owner)
        if not self._holds and (is_behind or ((not self._is_secure or self._inner is None) and backlog.is_full)):
            self._defer_rest()  # traffic of one connection delays only its owner's other ones
            return
        backlog.begin()
        self._process()
        backlog.end(self._owner or self.owner)

    def _accept_bytes(self, size: int) -> bool:
        """Count received bytes before authentication or after the close; return whether they are processed."""
        if self._shut:
            self._linger_bytes -= size
            if self._linger_bytes < 0:
                self.abort()
            return False
        self._host.count_unprocessed(self, size)
        return not self._shut

    def _process(self) -> None:
        """Continue processing; the connection may end or fail here."""
        was_secure = self._is_secure
        try:
            is_quiet = (
                (not was_secure and not self._continue_handshake()) or self._forward_plaintext() or not was_secure
            )
        except TlsEndedError:
            self.close()
            return
        except TlsBrokenError as error:
            log.debug("tls.broken", extra={"reason": str(error)})
            self.abort()
            return
        if is_quiet and not self._shut:  # TLS may have output of its own
            self._flush()

    def _continue_handshake(self) -> bool:
        """Continue the handshake and return whether it is complete."""
        while not self._shut and self._feed():
            if self._handshake():
                self._barren = 0
                return True
        return False

    def _feed(self) -> bool:
        """Pass some records to TLS; return whether there were any."""
        some = self._records.take(_RECORDS)
        if some:
            self._tls.feed(some)
            self._barren += self._records.taken
        return bool(some)

    def _forward_plaintext(self) -> bool:
        """Forward plaintext for one time slice; return whether there was none."""
        tls, records, since, is_quiet = self._tls, self._records, 0.0, True
        if tls.is_dry and not self._holds and not self._feed():
            return True
        while not self._shut:
            if self._holds:
                self._has_rest = True
                break
            if plain := tls.read():
                is_quiet, self._barren = False, 0
                if (inner := self._inner or self._choose_protocol(plain[0])) is None:
                    break
                inner.data_received(plain)
                if tls.is_dry and not (records.waiting and self._feed()):
                    break
            elif not self._feed():
                break
            elif self._barren > _MAX_BARREN:
                log.info("tls.barren", extra={"address": self.address})
                self.abort()
                break
            at = now()
            since = since or at
            is_late = at - since > SLICE_S or (self._is_unauthenticated and self._barren > _RECORDS)
            if is_late and not self._shut:
                self._defer_rest()
                break
        return is_quiet

    def _defer_rest(self) -> None:
        """Pause reading and schedule the remaining data for a later time slice."""
        self._has_rest = True
        self._raw.pause_reading()
        self._go_on_later()

    def _go_on_later(self) -> None:
        if not self._is_waiting:
            self._is_waiting = True
            self._host.backlog.add(self._process_rest, self.owner)

    @property
    def owner(self) -> str:
        """Owner for scheduling.

        An unauthenticated peer is scheduled by its address, whatever certificate it presents.
        """
        if self._owner is None:
            self._owner = share_of(self.address)
        return self._owner

    def _process_rest(self) -> None:
        """Forward the remaining data, then resume reading if none is left."""
        self._is_waiting = False
        if self._shut or self._holds:
            return
        self._has_rest = False
        self._process()
        self._resume_reading()

    def _resume_reading(self) -> None:
        """Resume reading if all received data is processed."""
        if not (self._has_rest or self._is_waiting or self._holds or self.is_closing):
            self._raw.resume_reading()

    def eof_received(self) -> None:
        """Limit the wait for the peer to read pending data; the transport then closes by itself."""
        self.set_deadline(_LINGER_S, self._linger)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_gone = True
        if self._awaits_trust and not self._shut and not self._has_rest:  # may be its reaction
            self._host.refused(self._not_trusted("it closed the connection after it received the certificate"), self)
        self._shut = True
        self.deadline = None
        self._host.closed(self)
        inner, self._inner = self._inner, None
        if inner is not None:
            backlog = self._host.backlog
            backlog.begin()
            inner.connection_lost(self.problem or exc)
            backlog.end(self.owner)
        self._release()

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    # For the plaintext layer.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._shut or not data:
            return
        try:
            if len(data) <= RECORD_BYTES:
                self._raw.write(self._tls.seal(data))
            else:
                view = memoryview(data)
                for at in range(0, len(data), RECORD_BYTES):
                    self._raw.write(self._tls.seal(view[at : at + RECORD_BYTES]))
        except TlsBrokenError:
            self.abort()
            return
        waits = self._raw.get_write_buffer_size() + self.queued_bytes + self._unfinished_bytes  # `unread_bytes`
        if waits or self._has_unread:
            self.can_buffer(waits)

    def can_buffer(self, size: int) -> bool:
        """Return whether the peer may have `size` unread bytes; close the connection if not."""
        if self._shut:  # already uncounted
            return False
        limit = self._host.limits.max_write_buffer_bytes
        if size > limit:
            self.close_slow_reader(limit, "max_write_buffer_bytes")
        elif size or self._has_unread:
            self._has_unread = size > 0
            self._host.count_unread(self, size)
        return not self._shut

    def close_slow_reader(self, limit: int, setting: str) -> None:
        """Close the connection because its peer reads too slowly."""
        if not self._shut:
            self.problem = SlowReaderError(limit=limit, setting=setting, value=2 * limit)
        log.info("net.slow_reader_dropped", extra={"address": self.address, "setting": setting})
        self.abort()  # even if it should close after the last read

    @property
    def unread_bytes(self) -> int:
        """Memory held for the peer: unread data and incomplete packets."""
        return self._raw.get_write_buffer_size() + self.queued_bytes + self._unfinished_bytes

    def record_incomplete(self, size: int) -> None:
        """Record the size of an incomplete packet."""
        if size >= SMALL_BYTES or self._unfinished_bytes:
            self._unfinished_bytes = size if size >= SMALL_BYTES else 0
            self.can_buffer(self.unread_bytes)

    def close(self) -> None:
        """Send close_notify, then close, so that clients can distinguish this from a broken connection.

        Data that still arrives is read and dropped for a short time. Closing with unread bytes makes the kernel reset
        the connection, and the peer may lose our final data.
        """
        if self._shut:
            return
        self._shut = True
        self._say_goodbye()
        if self._raw.is_closing():  # closed by the peer
            self.set_deadline(_LINGER_S, self._linger)
            return
        try:
            self._raw.write_eof()
        except OSError:  # the peer reset the connection, not reported yet
            self._reset()
            return
        self._raw.resume_reading()
        self.set_deadline(_LINGER_S, self._linger)

    def _linger(self) -> None:
        """Extend the deadline while the peer still reads the final data; slow connections need the time."""
        waits = self._raw.get_write_buffer_size() + self._kernel_send_queue_bytes()
        is_read = not self._last_words or waits <= self._last_words - _LAST_WORDS_BYTES
        if waits and is_read:
            self._last_words = waits
            self.set_deadline(_LAST_WORDS_S, self._linger)
        else:
            self._reset()

    def drain(self) -> PendingAnswer:
        """Let a pending or imminent request be answered, then end; return whether a response is pending."""
        if self._shut:
            return PendingAnswer.NOTHING
        if not self._is_secure or self._inner is None:
            return PendingAnswer.PERHAPS
        drain: Callable[[], PendingAnswer] | None = getattr(self._inner, "drain", None)
        return PendingAnswer.NOTHING if drain is None else drain()

    def abort(self) -> None:
        self._shut = True
        self._reset()

    def _reset(self) -> None:
        """Abort the connection and discard kernel data that a non-reading peer would hold for minutes.

        Small amounts, such as an alert or a short response, are left to the kernel to deliver.
        """
        if self._kernel_send_queue_bytes() > _LAST_WORDS_BYTES:
            with contextlib.suppress(OSError):
                self._raw.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._raw.abort()

    def _kernel_send_queue_bytes(self) -> int:
        """Return the number of unacknowledged bytes in the kernel's send queue (SIOCOUTQ, tcp(7))."""
        sock = self._raw.get_extra_info("socket")
        if sock is None or self._is_gone:  # its number may be reused by now
            return 0
        try:
            (waits,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
        except (OSError, ValueError):  # closed by now
            return 0
        return int(waits)

    @property
    def is_closing(self) -> bool:
        return self._shut or self._raw.is_closing()

    def pause_reading(self) -> None:
        """Stop forwarding data until the same caller calls `resume_reading`."""
        self._holds += 1
        if not self.is_closing:
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._holds = max(0, self._holds - 1)
        if self._holds or self.is_closing:
            return
        if self._has_rest:
            self._go_on_later()
        self._resume_reading()

    def set_deadline(self, after_s: float | None, act: Callable[[], None] | None = None) -> None:
        """Call `act`, or close the connection, unless the deadline is moved within `after_s` seconds."""
        self.deadline = None if after_s is None else self._host.monotonic() + after_s
        self._on_deadline = act

    def deadline_passed(self) -> None:
        """End the connection if a deadline passed; called by the sweep."""
        self.deadline = None
        if self._on_deadline is not None:
            self._on_deadline()
            return
        if self._awaits_trust and not self._has_rest:  # some libraries stop responding without an alert
            self._host.refused(self._not_trusted("it stopped responding after it received the certificate"), self)
            self.abort()
            return
        phase, setting = "the TLS handshake", "handshake_s"
        if self._is_secure:
            phase, setting = "sending its first bytes", "first_byte_s"
        self._host.refused(TooSlowError(**slow_peer_facts(phase, setting, self._host.limits)), self)
        self.abort()

    @property
    def peer(self) -> TlsPeer:
        """The handshake result, read on first use; `NO_PEER` while it cannot be read."""
        if self._peer is None and self._is_secure:
            with contextlib.suppress(BirthmarkError):
                return self._read_handshake_result()
        return self._peer or NO_PEER

    @property
    def handshake_parameters(self) -> tuple[str, str]:
        """Protocol and key exchange of the finished handshake; empty strings for a connection without TLS."""
        return (self._tls.version(), self._tls.group()) if self.is_tls else ("", "")

    @property
    def raw(self) -> asyncio.Transport:
        return self._raw

    def mark_authenticated(self, owner: str) -> None:
        """Mark the peer as authenticated as `owner`; the limits for unauthenticated clients no longer apply."""
        if self._is_unauthenticated:
            self._is_unauthenticated, self._owner = False, owner
            self._host.mark_authenticated(self)

    @property
    def is_unauthenticated(self) -> bool:
        return self._is_unauthenticated

    def mark_processed(self) -> None:
        """Note that everything the peer has sent so far is processed and answered."""
        if self._is_unauthenticated:
            self._host.mark_processed(self)

    def refused(self, error: BirthmarkError) -> None:
        """Record a protocol's refusal of this peer."""
        self._host.refused(error, self)

    def set_eviction_callback(self, act: Callable[[BirthmarkError], None] | None) -> None:
        """Set the callback that sends a final response before eviction by the unauthenticated-client quota."""
        self._on_crowded_out = act

    def evict(self, error: BirthmarkError) -> None:
        """Evict this connection; called by the listener."""
        if self._on_crowded_out is not None and not self._shut:
            self._on_crowded_out(error)
        else:
            self._host.refused(error, self)
            self.abort()

    # Inside.

    def _say_goodbye(self) -> None:
        self._tls.shutdown()
        self._flush()

    def _release(self) -> None:
        self._peer = self._peer or NO_PEER
        self._tls.close()

    def _not_trusted(self, reason: str) -> BirthmarkError:
        return ServerNotTrustedError(reason=f"{reason}; {_TRUST_OR_TIME}", sni=self._tls.sni())

    def _handshake(self) -> bool:
        try:
            self._is_secure = self._tls.handshake()
        except TlsBrokenError as error:
            try:
                sent = certificate_of(self._tls)
            except CertificateInvalidError:
                sent = None
            self._give_up(explain_handshake(error.queue, sent, self._tls.sni()))
            return False
        if not self._is_secure:
            self._awaits_trust = self._flush() > _HELLO_RETRY_BYTES or self._awaits_trust
            return False
        self._awaits_trust = False
        self.set_deadline(_LOOK_S, self._check_silent_peer)
        self._host.established(self)
        return True  # tickets leave with an immediate answer, if any

    def _check_silent_peer(self) -> None:
        """Read the certificate of a silent peer, so that an unreadable certificate is recorded."""
        self._host.backlog.add(self._look_at_peer, self.owner)

    def _look_at_peer(self) -> None:
        if not self._shut and self._inner is None and self._read_peer() is not None:
            self.set_deadline(self._host.limits.first_byte_s)

    def _read_peer(self) -> TlsPeer | None:
        """Return the peer, or close the connection if its certificates are unreadable or too large."""
        try:
            return self._read_handshake_result()
        except BirthmarkError as error:
            self._give_up(error)
            return self._peer

    def _read_handshake_result(self) -> TlsPeer:
        """Return the handshake result.

        An unreadable certificate is parsed only once, because parsing can be expensive.
        """
        if self._unreadable is not None:
            raise self._unreadable
        if self._peer is None:
            try:
                self._peer = peer_of(self._tls)
            except BirthmarkError as error:
                self._unreadable = error
                raise
        return self._peer

    def _give_up(self, error: BirthmarkError) -> None:
        self._flush()  # the alert gives the client all that TLS can
        self._shut = True
        self._raw.close()
        self._host.refused(error, self)

    def _choose_protocol(self, first_byte: int) -> asyncio.Protocol | None:
        """Return the protocol for a new connection and start it; None if the connection is refused."""
        if (peer := self._read_peer()) is None:
            return None
        try:
            inner = self._host.choose(first_byte, peer)
        except BirthmarkError as error:
            self._host.refused(error, self)
            self.close()
            return None
        self._inner = inner
        self.set_deadline(None)
        inner.connection_made(self._plain)
        return inner

    def _flush(self) -> int:
        """Send pending TLS output and return its size in bytes."""
        if said := self._tls.drain():
            self._raw.write(said)
            if self._is_secure and not self._shut:  # answers that cost the peer nothing
                self.can_buffer(self.unread_bytes)
        return len(said)


class PlainTransport(asyncio.Transport):
    """Plaintext transport of a `Connection`, used by uvicorn's protocols and the MQTT driver."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    @property
    def connection(self) -> Connection:
        return self._connection

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._connection.write(data)

    def writelines(self, list_of_data: Any) -> None:
        self._connection.write(b"".join(list_of_data))

    def close(self) -> None:
        self._connection.close()

    def abort(self) -> None:
        self._connection.abort()

    def is_closing(self) -> bool:
        return self._connection.is_closing

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self._connection.pause_reading()

    def resume_reading(self) -> None:
        self._connection.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._connection._inner = cast("asyncio.Protocol", protocol)  # noqa: SLF001 - one logical class

    def get_protocol(self) -> asyncio.BaseProtocol:
        inner = self._connection._inner  # noqa: SLF001 - one logical class
        assert inner is not None  # noqa: S101 - a transport's protocol exists
        return inner

    def get_write_buffer_size(self) -> int:
        return self._connection.raw.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._connection.raw.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "sslcontext":
            return self._connection.is_tls or default  # uvicorn's check for the https scheme
        if name == "socket":  # uvicorn would query known values from the kernel, twice per connection
            return default
        if name in {"peername", "sockname"}:
            found = self._connection.raw.get_extra_info(name)
            if not isinstance(found, tuple):
                return found or default
            return found[:2] if name == "sockname" else (self._connection.address, found[1])
        if name == "birthmark.peer":
            return self._connection.peer
        return self._connection.raw.get_extra_info(name, default)
