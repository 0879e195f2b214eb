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
        "line 2: listen must be a list, and is a text",
        "line 5: ports.mqttt is not known; mqtt is",
        "line 6: ports.https must be a whole number, and is a text",
        "line 9: aws.account_id does not look like ^[0-9]{12}$",
    ):
        assert mistake in told
    assert "`" not in told


def test_a_mistake_of_the_environment_has_no_line() -> None:
    with pytest.raises(ConfigInvalidError) as refused:
        read_settings(None, {}, listen=7)
    assert "listen must be a list" in refused.value.explain_cause()
