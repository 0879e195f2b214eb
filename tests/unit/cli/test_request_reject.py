"""What is said to who rejects a request of which a certificate was fetched."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from birthmark.cli.app import app
from birthmark.cli.options.server import ServerOptions


class Answering:
    """A server that says of every request the same."""

    def __init__(self, **said: object) -> None:
        self.said = said

    def post(self, path: str, _body: object) -> dict[str, Any]:
        assert path == "/est/requests/1/reject"
        return {"id": "1", "device": "pump 1", "stands": "rejected", **self.said}


def rejected(monkeypatch: pytest.MonkeyPatch, data: Path, **said: object) -> Result:
    monkeypatch.setattr(ServerOptions, "client", Answering(**said))
    result = CliRunner().invoke(app, ["pki", "request", "reject", "1", "--data", str(data)], catch_exceptions=False)
    assert result.exit_code == 0
    return result


def test_a_certificate_that_was_fetched_before_is_said_to_live_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = rejected(monkeypatch, tmp_path, fetched_at="2026-06-01T12:00:00+00:00")
    assert "fetched at 2026-06-01T12:00:00+00:00" in result.stderr
    assert "`birthmark pki revoke --device 'pump 1'`" in result.stderr


def test_nothing_is_said_where_none_was_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert rejected(monkeypatch, tmp_path, fetched_at=None).stderr == ""
