"""Fixtures shared by all tests. Real services are started on loopback and stopped at the end of the run."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from postgres import a_postgres, free_port

__all__ = ["free_port"]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL server of this run's own; yields the URL of its maintenance database."""
    with a_postgres() as url:
        yield url


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
