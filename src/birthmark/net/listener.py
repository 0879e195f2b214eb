"""Listening ports: their services, connection limits, and the sweep that enforces deadlines.

The first byte selects a connection's protocol: 0x10 is an MQTT CONNECT, anything else is HTTP.
"""

import asyncio
import contextlib
import errno
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from OpenSSL import SSL

from birthmark.clock_and_entropy import Clock
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.net.accepted_connection import MQTT_CONNECT, Connection, ConnectionHost, PendingAnswer
from birthmark.net.acceptor import AT_ONCE, FEW_AT_ONCE, QUEUE, Acceptor
from birthmark.net.errors import NotAllowedHereError, TooManyBytesError, TooManyConnectionsError
from birthmark.net.fair_scheduler import SLICE_S, Backlog
from birthmark.net.fair_scheduler import now as work_time
from birthmark.net.listener_limits import Limits
from birthmark.net.proxy_protocol import Proxies
from birthmark.net.quota_key import owner_of, share_of
from birthmark.net.send_buffer_quota import SendBufferQuota
from birthmark.net.tls import NO_PEER, TlsPeer
from birthmark.net.tls_pipe import RECORD_BYTES
from birthmark.net.unauthenticated_quota import GRACE_S, UnauthenticatedQuota

Holder = TypeVar("Holder")


class PendingHandshakes(Generic[Holder]):
    """Unfinished handshakes per address.

    Each operation takes constant time, regardless of the number of addresses.
    """

    __slots__ = ("_address", "_most", "_of", "_with")

    def __init__(self) -> None:
        self._address: dict[Holder, str] = {}
        self._of: dict[str, dict[Holder, None]] = {}  # oldest per address first
        self._with: list[dict[str, None]] = [{}]  # addresses by count
        self._most = 0

    def __len__(self) -> int:
        return len(self._address)

    def __contains__(self, holder: object) -> bool:
        return holder in self._address

    def add(self, holder: Holder, address: str) -> None:
        """Add a connection."""
        self._address[holder] = address
        own = self._of.setdefault(address, {})
        own[holder] = None
        self._move(address, len(own) - 1, len(own))

    def remove(self, holder: Holder) -> None:
        """Remove a connection if present."""
        if (address := self._address.pop(holder, None)) is None:
            return
        own = self._of[address]
        del own[holder]
        self._move(address, len(own) + 1, len(own))
        if not own:
            del self._of[address]

    def find_eviction_candidate(self) -> Holder:
        """Return the oldest connection of the address with the most; an address with one slow connection keeps it."""
        return next(iter(self._of[next(iter(self._with[self._most]))]))

    def _move(self, address: str, was: int, count: int) -> None:
        self._with[was].pop(address, None)
        if count == len(self._with):
            self._with.append({})
        if count:
            self._with[count][address] = None
        if count > self._most or not self._with[self._most]:
            self._most = count  # one above the maximum, or one below if none remains there


class ClearConnection(Connection):
    """Connection without TLS; its peer has no proven identity."""

    __slots__ = ()

    is_tls = False

    def __init__(self, host: ConnectionHost) -> None:
        super().__init__(host, None)
        self._is_secure = True
        self._peer = NO_PEER

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.set_deadline(self._host.limits.first_byte_s)
        self._host.established(self)

    def data_received(self, data: bytes) -> None:
        if (self._shut or self._is_unauthenticated) and not self._accept_bytes(len(data)):
            return
        backlog = self._host.backlog
        backlog.begin()
        if (inner := self._inner or self._choose_protocol(data[0])) is not None:
            inner.data_received(data)
        backlog.end(self.owner)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._shut:
            self._raw.write(data)
            self.can_buffer(self.unread_bytes)

    def _flush(self) -> int:
        return 0

    def _say_goodbye(self) -> None:
        pass

    def _release(self) -> None:
        pass


log = logging.getLogger(__name__)

_SEND_BUFFER_BYTES = 128 * 1024  # in the kernel, which doubles it; its default is megabytes
_SWEEP_S = 0.5
_LOOK_AGAIN_S = 0.02

MakeProtocol = Callable[[TlsPeer], asyncio.Protocol]
Bind = Callable[[str, int], Awaitable[list[socket.socket]]]
OnRefused = Callable[[BirthmarkError, str, TlsPeer], None]


class PortTakenError(UnavailableError):
    """The port is in use by another program."""

    code = "net.port_taken"
    message = "Port {port} on {address} is in use"
    cause = "Another program on this machine already listens on port {port} of {address}."
    fix = (
        "Find the program with `ss -ltnp 'sport = :{port}'` and stop it. If the program does not listen on all "
        "addresses (0.0.0.0), you can use another address: `{without} --listen 127.0.0.2`. The SDKs require port "
        "8883."
    )
    address: str
    port: str
    without: str = "birthmark serve"
    """Typed command without its addresses."""


class PortForbiddenError(UnavailableError):
    """This user cannot listen on the port."""

    code = "net.port_forbidden"
    message = "No permission to listen on port {port} of {address}"
    cause = "This user is not permitted to listen on port {port} of {address}."
    fix = (
        "To use a port below 1024, run as root, grant CAP_NET_BIND_SERVICE, or set "
        "net.ipv4.ip_unprivileged_port_start={port}."
    )
    for_a_person = "root has to grant the permission"
    address: str
    port: str


class AddressMissingError(UnavailableError):
    """The address does not belong to this machine."""

    code = "net.address_missing"
    message = "Cannot listen on {address}:{port}"
    cause = "{address} is not an address of this machine: {reason}."
    fix = "Use an address of this machine (`hostname -I` lists them), 127.0.0.1, or 0.0.0.0 for all."
    address: str
    port: str
    reason: object


class Listeners:
    """All listening ports of a process, with one sweep and one connection count for all of them."""

    def __init__(
        self,
        clock: Clock,
        limits: Limits,
        on_refused: OnRefused,
        *,
        grace_s: float = GRACE_S,
        bind: Bind | None = None,
        proxies: Proxies | None = None,
        handshakes: Counter[tuple[str, str]] | None = None,
    ) -> None:
        self.limits = limits
        self.room = memoryview(bytearray(RECORD_BYTES))
        self.backlog = Backlog.running()
        self._clock = clock
        self._bind = bind or bind_sockets
        self._proxies = proxies
        self._at_once = AT_ONCE if grace_s else FEW_AT_ONCE
        self._on_refused = on_refused
        self.doors: list[Acceptor] = []
        self._servers: list[asyncio.Server] = []  # Unix sockets
        self._connections: set[Connection] = set()
        self._pending = PendingHandshakes[Connection]()
        self._per_peer: Counter[str] = Counter()
        self._keys: dict[Connection, str] = {}  # of clients authenticated by certificate
        self._per_key: Counter[str] = Counter()
        self.handshakes: Counter[tuple[str, str]] = Counter() if handshakes is None else handshakes
        """Finished handshakes by protocol and key exchange group."""
        self._unauthenticated: UnauthenticatedQuota[Connection] = UnauthenticatedQuota(
            limits.max_unauthenticated, limits.max_unauthenticated_per_peer, self._on_too_many_unauthenticated, grace_s
        )
        self._bytes: UnauthenticatedQuota[Connection] = UnauthenticatedQuota(
            limits.max_unauthenticated_bytes, limits.max_unauthenticated_bytes_per_peer, self._bytes_too_many, grace_s
        )
        self._unread: SendBufferQuota[Connection] = SendBufferQuota(
            limits.max_unread_bytes,
            limits.max_unread_bytes_per_peer,
            lambda connection: connection.unread_bytes,
            _unread_owner,
            lambda connection, limit, setting: connection.close_slow_reader(limit, setting),
        )
        self._sweep: asyncio.TimerHandle | None = None
        self._drained = asyncio.Event()

    async def listen(
        self,
        addresses: Sequence[str],
        port: int,
        context: Callable[[], SSL.Context] | None,
        services: Mapping[str, MakeProtocol],
    ) -> None:
        """Bind `port` on each address; `services` maps "mqtt", "amqp" and "http" to protocol factories.

        `context` is called for each connection, so that a new certificate needs no new listener; without it there is no
        TLS. Raise `PortTakenError`, `PortForbiddenError` or `AddressMissingError`; nothing stays bound then.
        """
        bound: list[socket.socket] = []
        for address in addresses:
            try:
                bound += await self._bind(address, port)
            except OSError as error:
                for one in bound:
                    one.close()
                raise bind_error(error, address, port) from error
        make = partial(_accept, _Port(self, services), context)
        for one in bound:  # accepted sockets inherit it: unread data waits here, where it is counted
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            self.doors.append(Acceptor(one, make, self._is_over_quota, self._at_once, self._proxies))
        self._begin_to_sweep()

    async def listen_at(self, listener: socket.socket, services: Mapping[str, MakeProtocol]) -> None:
        """Serve without TLS on a bound Unix socket."""
        make = partial(_accept, _Port(self, services), None)
        self._servers.append(await asyncio.get_running_loop().create_unix_server(make, sock=listener))
        self._begin_to_sweep()

    def _begin_to_sweep(self) -> None:
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep_deadlines)

    def stop_accepting(self) -> None:
        """Stop accepting connections; existing ones continue."""
        for door in self.doors:
            door.close()
        for server in self._servers:
            server.close()

    async def drain_pending(self, answer_s: float = 5.0, ask_s: float = 2.0) -> None:
        """Wait for pending responses after `refuse_newcomers`; shorter for connections without a complete request."""
        for look in range(int(answer_s / _LOOK_AGAIN_S)):
            owed = {one.drain() for one in tuple(self._connections)}
            if PendingAnswer.ANSWER not in owed and (
                PendingAnswer.PERHAPS not in owed or look * _LOOK_AGAIN_S >= ask_s
            ):
                return
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def close(self, drain_s: float = 5.0) -> None:
        """Stop accepting, close every connection cleanly, and wait up to `drain_s` for their ends."""
        self.stop_accepting()
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._connections):
            connection.close()
        with contextlib.suppress(TimeoutError):
            if self._connections:
                self._drained.clear()
                await asyncio.wait_for(self._drained.wait(), drain_s)
        for connection in list(self._connections):
            connection.abort()

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def admit(self, connection: Connection) -> None:
        """Register a connection, or refuse it."""
        self._connections.add(connection)
        share = share_of(connection.address)
        self._pending.add(connection, share)
        self._per_peer[share] += 1
        for count, setting, scope in (
            (len(self._connections), "max_connections", "This server"),
            (self._per_peer[share], "max_connections_per_peer", share),
        ):
            if count > getattr(self.limits, setting):
                self._turn_away(connection, self._too_many(scope, setting))
                return
        self._unauthenticated.take(connection, share, 1, self.monotonic())  # own quota first: an empty one evicts none
        if len(self._pending) > self.limits.max_pending_handshakes:
            too_many = self._too_many("The queue of handshakes", "max_pending_handshakes")
            self._turn_away(self._pending.find_eviction_candidate(), too_many)

    def _is_over_quota(self, address: str) -> bool:
        """Return whether the address of a new connection has used up its quota, before a connection is created."""
        if not self._unauthenticated.is_used_up(share := share_of(address), self.monotonic()):
            return False
        self._on_refused(self._too_many_unauthenticated(share), address, NO_PEER)
        return True

    def established(self, connection: Connection) -> None:
        """Record a completed handshake; the connection is no longer pending."""
        self._pending.remove(connection)
        if connection.is_tls:
            self.handshakes[connection.handshake_parameters] += 1

    def mark_authenticated(self, connection: Connection) -> None:
        """Handle a peer's authentication; close the connection if its certificate has too many already."""
        self._release_quotas(connection)
        key, leaf = connection.owner, connection.peer.leaf
        if leaf is None or key != owner_of(leaf, "") or connection not in self._connections:
            return
        self._keys[connection] = key
        self._per_key[key] += 1
        if self._per_key[key] > self.limits.max_connections_per_key:
            scope = f"Certificate {key}"
            self._turn_away(connection, self._too_many(scope, "max_connections_per_key"))

    def _release_quotas(self, connection: Connection) -> None:
        """Release the quotas for unauthenticated clients."""
        self._unauthenticated.release(connection)
        self._bytes.release(connection)

    def count_unprocessed(self, connection: Connection, size: int) -> None:
        """Count unprocessed bytes of an unauthenticated client."""
        self._bytes.take(connection, share_of(connection.address), size, self.monotonic())

    def count_unread(self, connection: Connection, size: int) -> None:
        """Record the number of bytes that the peer has not read."""
        self._unread.note(connection, size)

    def mark_processed(self, connection: Connection) -> None:
        """Release the count of unprocessed bytes."""
        self._bytes.release(connection)

    def dismiss(self, connection: Connection) -> None:
        """Remove a connection from all counts."""
        self._connections.discard(connection)
        self._unread.release(connection)
        self._pending.remove(connection)
        self._release_quotas(connection)
        if (key := self._keys.pop(connection, None)) is not None:
            self._per_key[key] -= 1
            if not self._per_key[key]:
                del self._per_key[key]
        share = share_of(connection.address)
        self._per_peer[share] -= 1
        if self._per_peer[share] <= 0:
            del self._per_peer[share]
        if not self._connections:
            self._drained.set()

    def _turn_away(self, connection: Connection, error: BirthmarkError) -> None:
        self._pending.remove(connection)
        self._release_quotas(connection)
        self._on_refused(error, connection.address, connection.peer)
        connection.abort()

    def _too_many(self, scope: str, setting: str) -> BirthmarkError:
        limit = getattr(self.limits, setting)
        return TooManyConnectionsError(scope=scope, limit=limit, setting=setting, value=2 * limit, retry_after_s=5)

    def _too_many_unauthenticated(self, address: str) -> BirthmarkError:
        scope = f"Address {address}" if address else "This server"
        setting = "max_unauthenticated_per_peer" if address else "max_unauthenticated"
        return self._too_many(f"{scope}, counting only unauthenticated clients,", setting)

    def _on_too_many_unauthenticated(self, connection: Connection, _limit: int, address: str) -> None:
        self._turn_away(connection, self._too_many_unauthenticated(address))

    def _bytes_too_many(self, connection: Connection, limit: int, address: str) -> None:
        scope = f"Address {address}" if address else "This server"
        setting = "max_unauthenticated_bytes_per_peer" if address else "max_unauthenticated_bytes"
        facts: dict[str, Any] = {"scope": scope, "limit": limit, "setting": setting, "value": 2 * limit}
        connection.evict(TooManyBytesError(retry_after_s=5, **facts))

    def refused(self, error: BirthmarkError, connection: Connection) -> None:
        self._on_refused(error, connection.address, connection.peer)

    def _sweep_deadlines(self) -> None:
        now = self._clock.monotonic()
        self._expire_deadlines([c for c in self._connections if c.deadline is not None and c.deadline <= now])

    def _expire_deadlines(self, late: list[Connection]) -> None:
        """Handle expired deadlines for one time slice, and the rest in the next loop iteration."""
        until, loop = work_time() + SLICE_S, asyncio.get_running_loop()
        while late and work_time() < until:
            connection = late.pop()
            if connection.deadline is None or connection.deadline > self._clock.monotonic():
                continue  # moved in between
            try:
                connection.deadline_passed()
            except Exception:  # other deadlines must still be handled
                log.exception("net.bug")
                connection.abort()
        if late:
            self._sweep = loop.call_later(0, self._expire_deadlines, late)
        else:
            self._sweep = loop.call_later(_SWEEP_S, self._sweep_deadlines)


def _unread_owner(connection: Connection) -> str:
    """Return the owner of the unread data's quota; over HTTP a connection itself is never authenticated."""
    return owner_of(connection.peer.leaf, connection.address) if connection.is_unauthenticated else connection.owner


_AMQP_HEADER = 0x41
_PROTOCOLS = {MQTT_CONNECT: "mqtt", _AMQP_HEADER: "amqp"}


class _Port:
    """One listening port, as seen by its connections."""

    def __init__(self, listeners: Listeners, services: Mapping[str, MakeProtocol]) -> None:
        self.limits, self.room, self.backlog = listeners.limits, listeners.room, listeners.backlog
        self._services = services
        self.monotonic = listeners.monotonic
        self.refused = listeners.refused
        self.opened = listeners.admit
        self.established = listeners.established
        self.closed = listeners.dismiss
        self.mark_authenticated = listeners.mark_authenticated
        self.count_unprocessed = listeners.count_unprocessed
        self.mark_processed = listeners.mark_processed
        self.count_unread = listeners.count_unread

    def choose(self, first_byte: int, peer: TlsPeer) -> asyncio.Protocol:
        name = _PROTOCOLS.get(first_byte, "http")
        if name == "amqp" and name not in self._services:  # HTTP methods begin with an A, too
            name = "http"
        make = self._services.get(name)
        if make is None:
            raise NotAllowedHereError(protocol=_PROTOCOLS.get(first_byte, name).upper())
        return make(peer)


def _accept(port: _Port, context: Callable[[], SSL.Context] | None, address: str = "") -> Connection:
    made = ClearConnection(port) if context is None else Connection(port, context())
    made.address = address
    return made


async def bind_sockets(address: str, port: int, *, is_shared: bool = False) -> list[socket.socket]:
    """Return listening sockets for all addresses of a host, or raise `OSError` with nothing left bound.

    With `is_shared`, other processes of this user may bind the same port.
    """
    found = await asyncio.get_running_loop().getaddrinfo(address, port, type=socket.SOCK_STREAM)
    bound: list[socket.socket] = []
    try:
        for family, place in dict.fromkeys((family, place) for family, *_, place in found):
            bound.append(socket.create_server(place, family=family, backlog=QUEUE, reuse_port=is_shared))
    except OSError:
        for one in bound:
            one.close()
        raise
    return bound


def bind_error(error: OSError, address: str, port: int) -> BirthmarkError:
    """Return the user-facing error for a failed bind."""
    facts: dict[str, Any] = {"address": address, "port": port}
    if error.errno == errno.EADDRINUSE:
        return PortTakenError(**facts)
    if error.errno in {errno.EACCES, errno.EPERM}:
        return PortForbiddenError(**facts)
    return AddressMissingError(reason=error.strerror, **facts)
