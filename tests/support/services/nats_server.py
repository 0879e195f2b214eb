"""A NATS server for tests, on a port of its own."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from support.server.servers import free_address
from support.services.postgres import free_port

PROGRAM = Path(sys.executable).with_name("nats-server")


@contextlib.asynccontextmanager
async def a_nats_server(*options: str) -> AsyncIterator[str]:
    """Start one and return its URL when it listens."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        str(PROGRAM), "-a", "127.0.0.1", "-p", str(port), *options, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        said = b""
        while b"Server is ready" not in said:
            line = await process.stderr.readline()
            assert line, said.decode()
            said += line
        silent = asyncio.create_task(_forget(process.stderr))
        yield f"nats://127.0.0.1:{port}"
        silent.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@contextlib.contextmanager
def a_nats() -> Iterator[str]:
    """Run one on an address of its own; who connects waits until it listens."""
    address = free_address()
    port = free_port(address)
    process = subprocess.Popen([PROGRAM, "-a", address, "-p", str(port)], stderr=subprocess.DEVNULL)
    try:
        yield f"nats://{address}:{port}"
    finally:
        process.terminate()
        process.wait()


async def _forget(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass
