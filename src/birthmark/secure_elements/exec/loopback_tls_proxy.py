"""TLS proxy on loopback for programs without another method, for the lifetime of the program.

The program connects with TLS to the proxy, through HTTPS_PROXY or a dedicated port (`--server HOST:PORT`). The proxy
connects with TLS to the server, using the element's key. Its own certificates come from a temporary CA in memory.

Access: only processes of the same user, verified with the kernel for each connection; none from the network.
"""

import asyncio
import contextlib
import functools
import importlib.util
import os
import re
import signal
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import DNSName, GeneralName, IPAddress

from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.keys.pkcs11_uri_files import render_uri_pem
from birthmark.pki.certificate_profiles import ROOT, SERVER
from birthmark.pki.certificates import pem_bundle
from birthmark.pki.issuance import LeafIssuer, issue, new_serial, self_signed
from birthmark.pki.names_and_registration_ids import name_of
from birthmark.secure_elements.element_session import Element
from birthmark.secure_elements.errors import ProgramUnsupportedError
from birthmark.secure_elements.exec.program_arguments import in_memory

_LIFETIME = timedelta(days=30)


class ProxyCa:
    """CA for the server names that the program connects to. The keys exist only in memory."""

    def __init__(self) -> None:
        self._entropy, self._now = SystemEntropy(), SystemClock().now()
        root_key, self._key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        name, serial = name_of("birthmark chip exec"), new_serial(self._entropy)
        root = self_signed(ROOT, name, root_key, serial=serial, now=self._now, lifetime=_LIFETIME)
        self._issuer = LeafIssuer(root, root_key)
        self._contexts: dict[str, ssl.SSLContext] = {}

    @property
    def pem(self) -> str:
        return self._issuer.certificate.pem()

    def context_for(self, host: str) -> ssl.SSLContext:
        """Return the context with a certificate for `host` and for the loopback address that serves it."""
        if host not in self._contexts:
            self._contexts[host] = self._made(host)
        return self._contexts[host]

    def _made(self, host: str) -> ssl.SSLContext:
        names: list[GeneralName] = [_named(host), DNSName("localhost"), IPAddress(ip_address("127.0.0.1"))]
        certificate = issue(
            SERVER,
            name_of("birthmark chip exec"),
            self._key.public_key(),
            issuer=self._issuer,
            serial=new_serial(self._entropy),
            now=self._now,
            lifetime=_LIFETIME,
            san=list(dict.fromkeys(names)),
        )
        key = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(in_memory(key + certificate.pem().encode(), "proxy-door"))
        return context


def _named(host: str) -> GeneralName:
    try:
        return IPAddress(ip_address(host))
    except ValueError:
        return DNSName(host)


MAX_CONNECTIONS = 64
_HEAD_BYTES = 8 * 1024
_PIECE_BYTES = 64 * 1024
_HEAD_S = 10.0
_NO_ROOM_S = 0.1
_LOOPBACK = "127.0.0.1"
_CONNECT = re.compile(rb"CONNECT ([A-Za-z0-9.\-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):([0-9]{1,5}) HTTP/1\.[01]\r\n")
_PLACE = re.compile(r"\$\{(BIRTHMARK_PROXY_[A-Z0-9_]+)\}")
_TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "AWS_CA_BUNDLE")
_ESTABLISHED = "01"
Address = tuple[str, int]
_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ProxyUpstream:
    """Client identity of the proxy, and its permitted servers; any if none is named."""

    chain: str
    key: str
    settings: Mapping[str, str]
    trust: str | None
    targets: tuple[Address, ...]

    @classmethod
    def of(
        cls,
        element: Element,
        settings: Mapping[str, str],
        trust: str | None,
        to: Sequence[str],
        selector: str | None = None,
    ) -> "ProxyUpstream":
        """Return the element's identity; `trust` is the file of trusted roots, the system's if None."""
        chain = element.chain(selector)
        key = render_uri_pem(element.key(selector).uri)
        return cls("".join(one.pem() for one in chain), key, dict(settings), trust, tuple(map(parse_target, to)))

    def explain(self) -> str:
        """Return a description of the listening addresses and who can reach them."""
        targets = ", ".join(f"{host}:{port}" for host, port in self.targets) or "any server"
        names = "HTTPS_PROXY, BIRTHMARK_PROXY_HOST and _PORT" if self.targets else "HTTPS_PROXY"
        return (
            f"proxy: on {_LOOPBACK}, to {targets}; only processes of user {os.getuid()} can connect, while the "
            f"program runs. {names} contain its address, SSL_CERT_FILE and BIRTHMARK_PROXY_CA the trusted roots."
        )

    def roots(self) -> str:
        """Return the trusted roots in addition to the system's."""
        return pem_bundle(Path(self.trust).read_bytes()) if self.trust else ""

    def context(self) -> ssl.SSLContext:
        """Return a TLS context that signs with the element. Raise `ProgramUnsupportedError` if this Python cannot."""
        os.environ.update(self.settings)
        _load_hook()
        try:
            context = ssl.create_default_context(cadata=self.roots() or None)
            context.load_cert_chain(in_memory(self.chain.encode(), "chain"), in_memory(self.key.encode(), "key-uri"))
        except OSError as error:
            raise ProgramUnsupportedError(
                program="The proxy",
                detail=f"{error.args[-1]}" + ("" if isinstance(error, ssl.SSLError) else f" ({self.trust})"),
                advice="Find the missing requirements",
                command="birthmark doctor",
            ) from error
        return context


def parse_target(text: str) -> Address:
    """Return host and port of HOST:PORT. Raise ValueError."""
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[A-Za-z0-9.\-]{1,253}", host) or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ValueError(text)
    return host, int(port)


def run_with_proxy(upstream: ProxyUpstream, command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the command together with the proxy and return its exit status."""
    return asyncio.run(_run(upstream, command, environment))


async def _run(upstream: ProxyUpstream, command: Sequence[str], environment: Mapping[str, str]) -> int:
    proxy = TlsProxy(upstream.context(), ProxyCa(), upstream.targets)
    async with contextlib.AsyncExitStack() as stack:
        settings = await proxy.start(stack)
        trusted = proxy.authority.pem + upstream.roots()
        settings["BIRTHMARK_PROXY_CA"] = str(in_memory(trusted.encode(), "proxy-ca"))
        settings |= dict.fromkeys(_TRUST, settings["BIRTHMARK_PROXY_CA"])
        print(f"birthmark: {upstream.explain()}", file=sys.stderr)  # noqa: T201 (keeps the program's output clean)
        filled = [_filled(text, settings) for text in command]
        child = await asyncio.create_subprocess_exec(*filled, env={**environment, **settings})
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # it signals the program, too
        loop.add_signal_handler(signal.SIGTERM, child.terminate)
        code = await child.wait()
    return code if code >= 0 else 128 - code


class TlsProxy:
    """Proxy that listens on loopback and forwards the program's connections."""

    def __init__(self, context: ssl.SSLContext, authority: ProxyCa, targets: Sequence[Address]) -> None:
        self._context = context
        self.authority = authority
        self._targets = tuple(targets)
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self, stack: contextlib.AsyncExitStack) -> dict[str, str]:
        """Open the listening sockets and return the variables that describe them."""
        url = f"http://{_LOOPBACK}:{self._open_door(stack, self._connect)}"
        settings = {"HTTPS_PROXY": url, "https_proxy": url, "NO_PROXY": "", "no_proxy": ""}
        for number, target in enumerate(self._targets, 1):
            serve = functools.partial(self._pass_on, target=target)
            port = self._open_door(stack, serve, self.authority.context_for(target[0]))
            suffix = "" if number == 1 else f"_{number}"
            settings[f"BIRTHMARK_PROXY_HOST{suffix}"] = "localhost"
            settings[f"BIRTHMARK_PROXY_PORT{suffix}"] = str(port)
        return settings

    def _open_door(self, stack: contextlib.AsyncExitStack, serve: _Serve, tls: ssl.SSLContext | None = None) -> int:
        door = stack.enter_context(socket.create_server((_LOOPBACK, 0)))
        door.settimeout(0)
        accepting = asyncio.create_task(self._accept(door, serve, tls))
        stack.callback(accepting.cancel)
        return int(door.getsockname()[1])

    async def _accept(self, listener: socket.socket, serve: _Serve, tls: ssl.SSLContext | None) -> None:
        """Accept a limited number of this user's connections; others are closed before a byte is read."""
        loop, here = asyncio.get_running_loop(), listener.getsockname()
        while True:
            try:
                connection, peer = await loop.sock_accept(listener)
            except OSError:  # out of file descriptors, or the caller has gone: retry
                await asyncio.sleep(_NO_ROOM_S)
                continue
            is_ours = _is_ours(peer, here)
            if not is_ours or len(self._serving) >= MAX_CONNECTIONS:
                connection.close()
                continue
            task = asyncio.create_task(_served(connection, serve, tls))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_HEAD_S):
            head = await reader.readuntil(b"\r\n\r\n")
        found = _CONNECT.match(head)
        target = (found[1].decode().strip("[]"), int(found[2])) if found else None
        if target is None or (self._targets and target not in self._targets):
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.drain()
        await writer.start_tls(self.authority.context_for(target[0]))
        await self._pass_on(reader, writer, target)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Address) -> None:
        far_reader, far_writer = await asyncio.open_connection(*target, ssl=self._context, server_hostname=target[0])
        try:
            out, back = (asyncio.create_task(_pump(*ends)) for ends in ((reader, far_writer), (far_reader, writer)))
            _done, still = await asyncio.wait({out, back}, return_when=asyncio.FIRST_COMPLETED)
            for task in still:
                task.cancel()
            await asyncio.gather(out, back, return_exceptions=True)
        finally:
            far_writer.close()


async def _served(connection: socket.socket, serve: _Serve, tls: ssl.SSLContext | None) -> None:
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(_HEAD_BYTES)
    # A callback marks the protocol as server-side, which a later `start_tls` requires.
    protocol = asyncio.StreamReaderProtocol(reader, lambda _reader, _writer: None)
    try:
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection, ssl=tls)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            await serve(reader, writer)
        finally:
            writer.close()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError) as error:
        print(f"birthmark: proxy: {error}", file=sys.stderr)  # noqa: T201 (keeps the program's output clean)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE_BYTES):
        writer.write(piece)
        await writer.drain()


def owner_of(peer: Address, here: Address, table: str) -> int | None:
    """Return the user ID of the process that connected from `peer` to `here`, from /proc/net/tcp and tcp6.

    Both complete addresses are compared, because the same port of another loopback address may belong to another
    process.
    """
    ends = [(_in_table(*peer, mapped=mapped), _in_table(*here, mapped=mapped)) for mapped in (False, True)]
    for line in table.splitlines():
        fields = line.split()
        if fields[3:4] == [_ESTABLISHED] and (fields[1], fields[2]) in ends:  # an ended one has user 0
            return int(fields[7])
    return None


def _in_table(host: str, port: int, *, mapped: bool) -> str:
    """Return an address as in the tables: 32-bit words in host byte order, mapped for an IPv6 socket."""
    packed = ip_address(f"::ffff:{host}" if mapped else host).packed
    words = (int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4))
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"


def _is_ours(peer: Address, here: Address) -> bool:
    """Return whether this user's process made the connection; False if it cannot be determined."""
    try:
        return peer[0] == _LOOPBACK and owner_of(peer, here, _connections()) == os.getuid()
    except (OSError, ValueError):
        return False


def _filled(text: str, settings: Mapping[str, str]) -> str:
    """Return an argument with ${BIRTHMARK_PROXY_PORT} and similar variables replaced."""
    return _PLACE.sub(lambda found: settings.get(found[1], found[0]), text)


def _connections() -> str:
    tables = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
    return "".join(table.read_text() for table in tables if table.exists())


def _load_hook() -> None:
    """Load the hook that maps key files to the token into this process, as for Python programs."""
    path = Path(__file__).parents[1] / "hook" / "sitecustomize.py"
    spec = importlib.util.spec_from_file_location("birthmark_exec_hook", path)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
