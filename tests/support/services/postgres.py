"""A PostgreSQL server of a test's own, on loopback."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as s:
        s.bind((host, 0))
        return int(s.getsockname()[1])


@dataclass(frozen=True)
class PostgresServer:
    """A server that runs; `url` is that of its maintenance database."""

    url: str
    home: Path
    control: list[str]

    def restart(self, mode: str) -> None:
        """Stop it as `mode` says (fast, immediate) and start it again."""
        self.stop(mode)
        self.start()

    def stop(self, mode: str) -> None:
        subprocess.run([*self.control, "-m", mode, "stop"], check=True, capture_output=True, cwd=self.home)

    @property
    def pid(self) -> int:
        """Its first process."""
        return int((self.home / "data" / "postmaster.pid").read_text().split()[0])

    def kill(self) -> None:
        """End its first process with SIGKILL; the others see that, and end."""
        os.kill(self.pid, signal.SIGKILL)

    def start(self) -> None:
        """Start it; what a killed one has left may be in the way for a moment."""
        deadline = time.monotonic() + 20
        while (done := self._start()).returncode:
            assert time.monotonic() < deadline, done.stdout
            time.sleep(0.1)

    def _start(self) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run([*self.control, "start"], check=False, capture_output=True, cwd=self.home)


@contextlib.contextmanager
def a_postgres() -> Iterator[str]:
    """Run one; yields the URL of its maintenance database."""
    with a_postgres_server() as server:
        yield server.url


@contextlib.contextmanager
def a_postgres_server(disk: Path | None = None) -> Iterator[PostgresServer]:
    """Run one; with its data on a disk whose power is cut, it syncs them."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    assert binaries, "PostgreSQL is missing: run scripts/test, which installs it"
    home = Path(tempfile.mkdtemp(prefix="birthmark-pg-", dir=disk))
    address = f"127.8.0.{1 + int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0').removeprefix('gw'))}"
    port = free_port(address)  # on an address of this worker's own, so that no other takes it
    as_user: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        account = pwd.getpwnam("postgres")
        os.chown(home, account.pw_uid, account.pw_gid)
        as_user = ["runuser", "-u", "postgres", "--"]
    data = home / "data"
    run = [*as_user, str(binaries[-1] / "initdb"), "-D", str(data), "-A", "trust", "-U", "birthmark"]
    subprocess.run([*run, *(["--no-sync"] if disk is None else [])], check=True, capture_output=True, cwd=home)
    control = [*as_user, str(binaries[-1] / "pg_ctl"), "-D", str(data), "-l", str(home / "log"), "-w"]
    # What a killed server wrote is in the memory of a system that goes on: no disk has to be waited for.
    syncs = "-c fsync=off" if disk is None else "-c checkpoint_timeout=30s"
    options = f"-c listen_addresses={address} -p {port} -k {home} {syncs}"
    url = f"postgresql://birthmark@{address}:{port}/postgres"
    server = PostgresServer(url, home, [*control, "-o", options])
    server.start()
    try:
        yield server
    finally:
        server.stop("immediate")
        shutil.rmtree(home, ignore_errors=True)
