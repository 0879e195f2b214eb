"""Mistakes in the server's configuration: all at once, each with its line, in words."""

from pathlib import Path

import pytest

from birthmark.server.settings import ConfigInvalidError, read_settings

MANY = """\
hots = "x.example"
listen = "127.0.0.1"

[ports]
mqttt = 1
https = "8443"

[aws]
account_id = "12"
"""


def test_every_mistake_is_told_with_its_line_and_key(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(MANY)
    with pytest.raises(ConfigInvalidError) as refused:
        read_settings(file, {})
    told = refused.value.explain_cause()
    for mistake in (
        "line 1: hots is not known; host is",
        "line 2: listen must be a list, not a string",
        "line 5: ports.mqttt is not known; mqtt is",
        "line 6: ports.https must be a whole number, not a string",
        "line 9: aws.account_id does not look like ^[0-9]{12}$",
    ):
        assert mistake in told
    assert "`" not in told


def test_a_key_of_very_many_parts_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("[aws]\n" + ".".join("a" * 28_000) + " = 1\n")
    with pytest.raises(ConfigInvalidError) as refused:
        read_settings(file, {})
    assert "line 2: a key has more than 64 parts" in refused.value.explain_cause()


def test_a_mistake_of_the_environment_has_no_line() -> None:
    with pytest.raises(ConfigInvalidError) as refused:
        read_settings(None, {}, listen=7)
    assert "listen must be a list" in refused.value.explain_cause()
    assert "The options and the environment cannot be used" in refused.value.explain_cause()


def test_a_limit_that_there_is_not_is_told_with_file_line_and_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('[limits]\nmax_unauthenticated = 9\nmax_body_byte = 10\nidle_s = "long"\n')
    with pytest.raises(ConfigInvalidError) as refused:
        read_settings(file, {})
    told = refused.value.explain_cause()
    assert f"The configuration file {file} cannot be used" in told
    assert "line 3: limits.max_body_byte is not known; max_body_bytes is" in told
    assert "line 4: limits.idle_s must be a number, not a string" in told
    assert "`idle_s = 75.0`" in refused.value.explain_fix()


def test_limits_that_there_are_hold(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("[limits]\nmax_unauthenticated = 9\nidle_s = 7.5\n")
    limits = read_settings(file, {}).bounds()
    assert (limits.max_unauthenticated, limits.idle_s, limits.handshake_s) == (9, 7.5, 10.0)


@pytest.mark.parametrize(
    "line",
    [
        "max_connections = 0",
        "max_body_bytes = -1",
        "max_unauthenticated = 1e30",
        "body_s = -1.0",
        "idle_s = nan",
        "header_s = inf",
    ],
)
def test_a_limit_that_limits_nothing_or_everything_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "server.toml"
    file.write_text(f"[limits]\n{line}\n")
    with pytest.raises(ConfigInvalidError) as refused:
        read_settings(file, {})
    assert "line 2: limits." in refused.value.facts["detail"]


def test_a_fraction_of_a_count_is_cut(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("[limits]\nmax_connections = 100.5\n")
    assert read_settings(file, {}).bounds().max_connections == 100


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('bus = "tls://n.example"\nbus_tls.certificate = "a.pem"', "must both be set, or neither"),
        ('bus = "nats://n.example"\nbus_tls.ca = "a.pem"', "tls://"),
        ('bus = "http://n.example"', "nats://HOST:PORT"),
    ],
)
def test_what_cannot_be_meant_of_the_bus_is_told(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text(f'database = "postgresql://db.example/birthmark"\n{text}\n')
    with pytest.raises(ConfigInvalidError) as refused:
        read_settings(file, {})
    assert told in refused.value.explain_cause()
