"""A server that drips bytes takes no more than the time there is, and no thread beyond it."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

import pytest

from birthmark.device_transports.errors import LinkTimeoutError
from birthmark.device_transports.identity_and_trust import ServerTrust
from birthmark.device_transports.openssl import server_time, trust_probe
from birthmark.device_transports.openssl.https import OpensslHttps

pytestmark = pytest.mark.integration
_RECORD = b"\x16\x03\x03\x3f\xff"  # TLS: a handshake message of 16 KiB begins


@pytest.fixture
async def dripping() -> AsyncIterator[int]:
    over, tasks = asyncio.Event(), list[asyncio.Task[None]]()

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())  # type: ignore[arg-type] # there is one
        with contextlib.suppress(OSError):
            writer.write(_RECORD)
            while not over.is_set():
                writer.write(b"\x00")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        over.set()
        await asyncio.gather(*tasks)


async def no_thread_is_left() -> None:
    async with asyncio.timeout(10):
        await asyncio.get_running_loop().shutdown_default_executor()
    assert not [one for one in threading.enumerate() if one.name.startswith("asyncio_")]


async def test_a_request_ends_in_its_time_and_leaves_no_thread(dripping: int) -> None:
    https = OpensslHttps(None, ServerTrust(), timeout_s=0.3)
    with pytest.raises(LinkTimeoutError):
        await https.request("GET", f"https://localhost:{dripping}/", headers={})
    await no_thread_is_left()


async def test_whoever_is_asked_for_the_time_has_a_time_too(dripping: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_time, "_TIMEOUT_S", 0.3)
    assert await server_time.ask_time(f"https://localhost:{dripping}/", ServerTrust()) is None
    await no_thread_is_left()


async def test_a_probe_ends_in_its_time(dripping: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust_probe, "_PROBE_S", 0.2)
    assert await trust_probe.find_trust_error("localhost", dripping, ServerTrust()) is None
    await no_thread_is_left()
