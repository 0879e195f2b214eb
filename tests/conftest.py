"""Fixtures shared by all tests. Real services are started on loopback and stopped at the end of the run."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as s:
        s.bind((host, 0))
        return int(s.getsockname()[1])


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL server of this run's own; yields the URL of its maintenance database."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    assert binaries, "PostgreSQL is missing: run scripts/test, which installs it"
    home = Path(tempfile.mkdtemp(prefix="birthmark-pg-"))
    port = free_port()
    as_user: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        account = pwd.getpwnam("postgres")
        os.chown(home, account.pw_uid, account.pw_gid)
        as_user = ["runuser", "-u", "postgres", "--"]
    data = home / "data"
    run = [*as_user, str(binaries[-1] / "initdb"), "-D", str(data), "-A", "trust", "-U", "birthmark", "--no-sync"]
    subprocess.run(run, check=True, capture_output=True, cwd=home)
    control = [*as_user, str(binaries[-1] / "pg_ctl"), "-D", str(data), "-l", str(home / "log"), "-w"]
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {home}"
    subprocess.run([*control, "-o", options, "start"], check=True, capture_output=True, cwd=home)
    try:
        yield f"postgresql://birthmark@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, capture_output=True, cwd=home)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """An empty database."""
    import asyncio

    import asyncpg

    name = f"t{uuid.uuid4().hex}"

    async def create() -> None:
        connection = await asyncpg.connect(postgres_server)
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()

    asyncio.run(create())
    return postgres_server.rsplit("/", 1)[0] + f"/{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database on each engine in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'birthmark.db'}"
    return str(request.getfixturevalue("postgres_url"))
