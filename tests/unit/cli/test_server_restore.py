"""What `server restore` says last: how the server that it made is started."""

from pathlib import Path

import pytest

from birthmark.cli.server_restore import format_start_command
from birthmark.server.cluster.node_identity_and_invitation import made, note


def test_the_database_is_named_where_it_is_none_of_the_directory(tmp_path: Path) -> None:
    told = format_start_command(tmp_path, "postgresql://birthmark@localhost/birthmark")
    assert f"`birthmark serve --data {tmp_path} --database postgresql://birthmark@localhost/birthmark &`" in told
    assert format_start_command(tmp_path, None) == f"Start it: `birthmark serve --data {tmp_path} &`."


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@localhost:5433/x", "postgresql://me:PASSWORD@localhost:5433/x"),
        (
            "postgresql://me@localhost/x?password=secret&ssl=on",
            "'postgresql://me@localhost/x?password=PASSWORD&ssl=on'",
        ),
    ],
)
def test_a_password_is_asked_for_and_never_shown(tmp_path: Path, url: str, shown: str) -> None:
    told = format_start_command(tmp_path, url)
    assert f"`export BIRTHMARK_DATABASE={shown}`" in told
    assert f"`birthmark serve --data {tmp_path} &`" in told
    assert "secret" not in told


def test_the_bus_is_named_where_the_server_is_one_of_several_machines(tmp_path: Path) -> None:
    note(tmp_path, made("0f" * 12, bytes(32), "m1"))
    told = format_start_command(tmp_path, "postgresql://localhost/x")
    assert told.index("`export BIRTHMARK_BUS=") < told.index(f"`birthmark serve --data {tmp_path} --database ")
