"""A hub that asks for an answer again and again, and reads none, fills no device's memory."""

import asyncio
import base64
import contextlib
import hashlib
import ipaddress
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from birthmark.clock_and_entropy import SystemClock
from birthmark.device_transports.identity_and_trust import ServerTrust
from birthmark.device_transports.openssl import mqtt
from birthmark.device_transports.openssl.mqtt import OpensslMqtt
from birthmark.iothub.client import connect_hub
from birthmark.pki.certificate_profiles import SERVER
from support.pki.pki_builders import a_ca, a_device

pytestmark = pytest.mark.integration
_ACCEPTS = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_PINGS = (b"\x89\x7d" + b"x" * 125) * 500
_MOST_SENT = 256 * 1024 * 1024


@pytest.fixture
async def asking(tmp_path: Path) -> AsyncIterator[tuple[int, Path]]:
    """Serve who asks and never reads; give its port and its root."""
    now = datetime.now(UTC)
    root = a_ca("Hub", now=now)
    made = a_device(root, "hub", profile=SERVER, now=now, san=(x509.IPAddress(ipaddress.ip_address("127.0.0.1")),))
    (tmp_path / "hub.pem").write_text(made.certificate.pem() + made.key_pem)
    (tmp_path / "root.pem").write_text(root.certificate.pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "hub.pem")

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        key = next(
            line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
        )
        answer = base64.b64encode(hashlib.sha1(key + _ACCEPTS).digest())
        writer.write(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: mqtt\r\n")
        writer.write(b"Sec-WebSocket-Accept: " + answer + b"\r\n\r\n")
        await reader.read(4096)  # CONNECT
        writer.write(b"\x82\x04\x20\x02\x00\x00")  # CONNACK
        with contextlib.suppress(OSError, ssl.SSLError):
            for _ in range(_MOST_SENT // len(_PINGS)):
                writer.write(_PINGS)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context, limit=1024) as server:
        yield server.sockets[0].getsockname()[1], tmp_path / "root.pem"


async def test_who_is_asked_and_not_heard_ends_the_connection(
    asking: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, root = asking
    monkeypatch.setattr(mqtt, "WEBSOCKET_PORT", port)
    client = OpensslMqtt(None, ServerTrust.of([root]), SystemClock())
    hub = await connect_hub(client, "127.0.0.1", "device-1", port=port)
    async with asyncio.timeout(60):
        assert "does not read its responses" in str(await hub.wait_until_lost())
    await hub.close()
