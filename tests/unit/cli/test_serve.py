"""What `birthmark serve` says about secrets that others may read."""

from pathlib import Path

import pytest

from birthmark.cli.serve import find_password_exposures

OPEN, WITHOUT = "postgresql://birthmark:secret@db/birthmark", "postgresql://birthmark@db/birthmark"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "server.toml"
    file.touch(mode=0o644)
    return file


def test_a_password_on_the_command_line_is_warned_of_and_not_repeated() -> None:
    (warning,) = find_password_exposures(OPEN, None, OPEN)
    assert "BIRTHMARK_DATABASE" in warning
    assert "secret" not in warning


def test_a_password_in_a_file_that_others_may_read_is_warned_of(config: Path) -> None:
    (warning,) = find_password_exposures(None, config, OPEN)
    assert f"`chmod 600 {config}`" in warning
    config.chmod(0o600)
    assert find_password_exposures(None, config, OPEN) == []


@pytest.mark.parametrize("database", [None, WITHOUT, "sqlite:///birthmark.db"])
def test_a_url_without_a_password_is_no_secret(config: Path, database: str | None) -> None:
    assert find_password_exposures(database, config, database) == []


def test_a_password_from_the_environment_is_in_its_place() -> None:
    assert find_password_exposures(None, None, OPEN) == []
