"""What version 0.2.0 left in SQLite is moved into PostgreSQL, and two workers serve it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server.earlier import (
    alone_at,
    documents_are_what_they_were,
    renewed,
    send,
    the_lost_device_stays_out,
    unpacked,
)
from support.server.servers import RunningServer
from support.services.postgres import a_postgres

pytestmark = pytest.mark.system
_LONG_S = 10**9


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("0.2.0", tmp_path_factory.mktemp("moved"))


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[RunningServer]:
    config = directory / "birthmark.toml"
    config.write_text(f"[telemetry]\nkeep_s = {_LONG_S}\n")
    with alone_at(directory) as address, a_postgres() as url:
        running = RunningServer(directory / "data", address, config)
        running.run("db", "move", "--to", url)
        config.write_text(f'database = "{url}"\nworkers = 2\n[telemetry]\nkeep_s = {_LONG_S}\n')
        running.start()
        yield running
        running.stop()


def test_devices_send_and_what_they_sent_before_is_there(server: RunningServer, directory: Path) -> None:
    for name in ("by-group", "by-itself"):
        send(server, directory, name)
        assert [row["body"] for row in server.rows("hub", "messages", name)] == ["hello", "after the upgrade"]


def test_a_twin_and_a_shadow_are_what_they_were(server: RunningServer) -> None:
    documents_are_what_they_were(server)


def test_a_lost_device_stays_out(server: RunningServer, directory: Path) -> None:
    the_lost_device_stays_out(server, directory)


def test_a_device_renews(server: RunningServer, directory: Path) -> None:
    assert renewed(server, directory, "est-device") == 200


def test_the_record_of_changes_is_whole(server: RunningServer) -> None:
    assert server.attempt("server", "audit", "verify").returncode == 0
