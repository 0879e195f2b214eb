"""A private NATS server for workers on one machine: on loopback, with token authentication."""

import asyncio
import json
import logging
import os
import shutil
import sys
from pathlib import Path

from birthmark import atomic_files
from birthmark.bus import BusAwayError
from birthmark.clock_and_entropy import Entropy
from birthmark.supervised_tasks import cancel_and_wait, start_supervised

log = logging.getLogger(__name__)

_READY_S = 10.0
_PAUSE_S = 0.05
_STOP_S = 5.0
_MAX_PAYLOAD_BYTES = 8 * 1024 * 1024


class NatsServer:
    """A supervised NATS server below a data directory, until `stop`; its port does not change."""

    def __init__(self, directory: Path, entropy: Entropy) -> None:
        self._directory = directory / "nats"
        self._token = entropy.token(24).hex()
        self._port = -1  # any free port
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"nats://{self._token}@127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Start NATS, and wait until it listens.

        Raise `ModuleNotFoundError`, `BusAwayError`, or `OSError` for its files.
        """
        beside = Path(sys.executable).with_name("nats-server")
        program = str(beside) if beside.exists() else shutil.which("nats-server")
        if program is None:
            raise ModuleNotFoundError("nats-server is not installed", name="nats_server")  # the error names the extra
        self._directory.mkdir(mode=0o700, exist_ok=True)
        await self._run(program)
        self._keeping = start_supervised("the NATS server", lambda: self._keep(program))

    async def stop(self) -> None:
        await cancel_and_wait(self._keeping)
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(_STOP_S):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)  # its token is no longer valid

    async def _keep(self, program: str) -> None:
        while True:
            if self._process is not None:
                log.error("nats.ended", extra={"status": await self._process.wait()})
            await self._run(program)

    async def _run(self, program: str) -> None:
        for stale in self._directory.glob("*.ports"):
            stale.unlink()
        settings = {
            "host": "127.0.0.1",
            "port": self._port,
            "authorization": {"token": self._token},
            "ports_file_dir": str(self._directory),
            "max_payload": _MAX_PAYLOAD_BYTES,
        }
        atomic_files.replace(self._directory / "nats.conf", json.dumps(settings).encode(), 0o600)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "birthmark.server.workers.process_control",
            str(os.getpid()),
            program,
            "-c",
            str(self._directory / "nats.conf"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # the parent handles Ctrl-C, and ends the workers first
        )
        self._port = await self._listens(self._process)

    async def _listens(self, process: asyncio.subprocess.Process) -> int:
        until = asyncio.get_running_loop().time() + _READY_S
        while asyncio.get_running_loop().time() < until and process.returncode is None:
            for told in self._directory.glob("*.ports"):
                urls = json.loads(told.read_bytes() or b"{}").get("nats", [])
                if urls:
                    return int(urls[0].rpartition(":")[2])
            await asyncio.sleep(_PAUSE_S)
        raise BusAwayError(where="127.0.0.1", reason="the NATS server did not start in time")
