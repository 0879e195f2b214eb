"""How long `birthmark env --wait` waits."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from birthmark.cli import env
from birthmark.cli.app import app
from birthmark.operator_api.client import server_discovery_and_api_client


def test_where_no_server_is_starting_nobody_waits_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_discovery_and_api_client, "is_server_starting", lambda _: False)
    monkeypatch.setattr(env, "_GRACE_S", 0.1)
    done = CliRunner().invoke(app, ["env", "--wait", "600", "--data", str(tmp_path)])
    assert done.exit_code != 0
    assert "operator.server_not_running" in done.stderr
