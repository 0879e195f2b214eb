"""A TLS server of a test's own, for clients that must survive what it says."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from birthmark.device_transports.identity_and_trust import ServerTrust
from birthmark.pki import certificate_profiles
from birthmark.swarm.links.low_memory_tls_stream import Dialer
from support.pki.pki_builders import a_ca, a_device

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def a_target(serve: Serve, directory: Path) -> AsyncIterator[tuple[Dialer, int]]:
    """A TLS server that does as `serve` says, and who believes it."""
    now = datetime.now(UTC)
    ca = a_ca(now=now)
    leaf = a_device(ca, "localhost", profile=certificate_profiles.SERVER, now=now)
    pem = directory / "server.pem"
    pem.write_text(leaf.key_pem + leaf.certificate.pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await serve(reader, writer)
        writer.close()

    listening = socket.create_server(("localhost", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # what is not read is soon felt
    server = await asyncio.start_server(served, sock=listening, ssl=context)
    async with server, asyncio.timeout(30):
        yield Dialer(ServerTrust(ca.certificate.pem())), server.sockets[0].getsockname()[1]
