"""Settings as they are shown: each with its text, what differs is told, and nothing that is secret."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from birthmark.server.settings import Settings
from birthmark.server.settings_descriptions import TEXTS
from birthmark.server.settings_view import format_toml_value, redact_url, views_of

REFERENCE = (Path(__file__).parents[3] / "docs" / "reference" / "server-config.md").read_text()


def rows_of(**told: Any) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in views_of(msgspec.convert(told, Settings))}


def test_every_setting_has_a_text_and_every_text_a_setting() -> None:
    several = {
        "est.labels.NAME",
        "est.late_renewal.NAME",
        "ca.profiles.NAME",
        "oidc.NAME",
        "functions.NAME",
        "roles.NAME",
        "servers.NAME",
    }
    assert set(rows_of()) == set(TEXTS) - several
    assert all(text.endswith(".") for text in TEXTS.values())


def test_every_setting_is_in_the_reference_too() -> None:
    for key in rows_of():
        table, _, name = key.rpartition(".")
        said = (f"`{key}`", f"`{key}.", f"`.{name}`", f"`{table}.*`")
        assert any(one in REFERENCE for one in said), key


def test_of_a_server_that_was_told_nothing_everything_is_the_default() -> None:
    assert [row["key"] for row in rows_of().values() if row["is_changed"]] == []


def test_what_was_told_stands_beside_its_default() -> None:
    rows = rows_of(est={"device_lifetime_s": 3600, "labels": {"edge": {"profile": "edge_ca"}}}, limits={"body_s": 5.0})
    lifetime = rows["est.device_lifetime_s"]
    assert (lifetime["value"], lifetime["default"], lifetime["is_changed"]) == ("3600", "86400", True)
    assert rows["est.labels.edge"]["value"].startswith('{ profile = "edge_ca"')
    assert rows["est.labels.edge"]["text"] == TEXTS["est.labels.NAME"]
    assert (rows["limits.body_s"]["value"], rows["limits.body_s"]["default"]) == ("5", "60")


def test_who_signs_in_at_a_database_or_a_bus_is_not_told() -> None:
    rows = rows_of(database="postgresql://me:hunter2@db.example/x?password=other", bus="nats://TOKEN@nats:4222")
    assert rows["database"]["value"] == '"postgresql://…@db.example/x?…"'
    assert rows["bus"]["value"] == '"nats://…@nats:4222"'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("", ""),
        (True, "true"),
        (4.0, "4"),
        (0.5, "0.5"),
        (("a", "b"), '["a", "b"]'),
        ({}, "{}"),
        ({"a": 1, "b": None}, "{ a = 1 }"),
    ],
)
def test_a_value_is_written_as_a_file_says_it(value: Any, text: str) -> None:
    assert format_toml_value(value) == text


def test_what_is_no_address_is_left_as_it_is() -> None:
    assert redact_url("file:/etc/passphrase") == "file:/etc/passphrase"
