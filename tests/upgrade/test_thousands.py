"""Thousands of devices of an earlier release: the upgrade takes all of them along, and says so."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.server.earlier import alone_at, send, started, unpacked
from support.server.servers import RunningServer

pytestmark = pytest.mark.system
MANY = int(os.environ.get("BIRTHMARK_UPGRADE_DEVICES", "1000"))
"""`scripts/soak upgrade` has ten thousand."""
TABLES = {"hub_devices": "device_id", "dps_registrations": "registration_id"}


def multiply(database: Path) -> None:
    """Put the device `by-group` on record so many times more, as each release has its rows."""
    with closing(sqlite3.connect(database)) as connection, connection:
        for table, key in TABLES.items():
            columns = [str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")]
            named = {key, "device_id"} & set(columns)
            values = ", ".join("'pump-' || n" if one in named else one for one in columns)
            connection.execute(
                f"WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {MANY}) "
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table}, counted "
                f"WHERE {table}.{key} = 'by-group'"
            )


@pytest.fixture(scope="module", params=["0.1.0", "0.2.0"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = unpacked(request.param, tmp_path_factory.mktemp("many"))
    multiply(directory / "data/birthmark.db")
    return directory


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[RunningServer]:
    with alone_at(directory):
        running = started(directory)
        yield running
        running.stop()


def test_all_of_them_are_there(server: RunningServer) -> None:
    listed = {row["name"] for row in server.rows("device", "ls")}
    assert {f"pump-{number}" for number in range(1, MANY + 1)} <= listed
    assert "by-group" in listed


def test_they_are_counted_and_found(server: RunningServer) -> None:
    assert server.rows("server", "figures", "--prove") == [{"is_proven": True, "differs": []}]
    last = f"pump-{MANY}"
    assert [row["name"] for row in server.rows("device", "find", last)][:1] == [last]


def test_those_that_were_there_go_on(server: RunningServer, directory: Path) -> None:
    send(server, directory, "by-group")
