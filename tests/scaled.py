"""Servers of several workers, for the whole suite of real clients: `scripts/test --scaled` says how many.

Each server has a database of its own at one PostgreSQL server, and a NATS server of its own.
"""

import atexit
import contextlib
import os
import subprocess
import uuid
from functools import cache
from pathlib import Path

import pytest

from postgres import a_postgres

ALONE = "looks into the file of SQLite, or counts what each worker counts by itself"
WORKERS = int(os.environ.get("BIRTHMARK_TEST_WORKERS", "1"))

for_one = pytest.mark.skipif(WORKERS > 1, reason=ALONE)
"""A test that is about one process."""


@cache
def _postgres() -> str:
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(a_postgres())


@cache
def database_of(_data: Path) -> str:
    """Return the URL of the database that goes with a data directory, empty at first."""
    name, server = f"s{uuid.uuid4().hex}", _postgres()
    subprocess.run(["psql", "--no-psqlrc", "--quiet", "--command", f"CREATE DATABASE {name}", server], check=True)
    return server.rsplit("/", 1)[0] + f"/{name}"
