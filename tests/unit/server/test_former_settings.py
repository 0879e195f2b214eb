"""Settings keep their former names as aliases."""

from pathlib import Path
from typing import Any

import pytest

from birthmark.server.settings import RENAMED, ConfigInvalidError, Settings, read_settings

VALUES = {"est.late_renewal": '{ device = { window = "1h" } }'}


def settings(tmp_path: Path, *lines: str) -> Settings:
    path = tmp_path / "server.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return read_settings(path, {})


def value(settings: Settings, name: str) -> Any:
    table, _, key = name.partition(".")
    return getattr(settings.bounds() if table == "limits" else getattr(settings, table), key)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_former_name_sets_the_current_setting(tmp_path: Path, old: str, new: str) -> None:
    written = VALUES.get(new, "77")
    assert value(settings(tmp_path, f"{old} = {written}"), new) == value(settings(tmp_path, f"{new} = {written}"), new)
    assert value(settings(tmp_path, f"{old} = {written}"), new) != value(Settings(), new)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_both_names_are_rejected(tmp_path: Path, old: str, new: str) -> None:
    written = VALUES.get(new, "77")
    with pytest.raises(ConfigInvalidError) as raised:
        settings(tmp_path, f"{old} = {written}", f"{new} = {written}")
    assert f"{old} is the former name of {new}" in raised.value.explain_cause()


def test_a_former_table_keeps_its_own_tables(tmp_path: Path) -> None:
    read = settings(tmp_path, "[est.comeback.device]", 'window = "30d"')
    assert read.est.late_renewal["device"].window == "30d"
