"""Commands that say a value otherwise, where it was said."""

import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birthmark.doctor.setting_sources import SettingSource, SourcedSetting, replacing

WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20)


def test_a_variable_is_exported() -> None:
    assert (
        SourcedSetting(SettingSource.VARIABLE, "BIRTHMARK_TOKEN", "x").set_command("a b")
        == "export BIRTHMARK_TOKEN='a b'"
    )


def test_an_option_stands_once_in_the_command_as_it_was_typed() -> None:
    typed = ("birthmark", "doctor", "--token", "x", "--offline")
    assert (
        SourcedSetting(SettingSource.OPTION, "--token", "x", typed).set_command("y")
        == "birthmark doctor --offline --token y"
    )


def test_an_option_with_an_equals_sign_is_replaced_too() -> None:
    typed = ("birthmark", "doctor", "--token=x")
    assert SourcedSetting(SettingSource.OPTION, "--token", "x", typed).set_command("y") == "birthmark doctor --token y"


@given(value=WORDS)
def test_what_a_chip_or_a_server_calls_itself_is_one_word(value: str) -> None:
    assert shlex.split(SourcedSetting(SettingSource.VARIABLE, "NAME", "x").set_command(value)) == [
        "export",
        f"NAME={value}",
    ]


@settings(max_examples=40, deadline=None)
@given(old=WORDS, new=WORDS)
def test_what_is_replaced_in_a_file_is_the_text_itself(
    tmp_path_factory: pytest.TempPathFactory, old: str, new: str
) -> None:
    path: Path = tmp_path_factory.mktemp("file") / "config.toml"
    path.write_text(f"key = {old}\n")
    subprocess.run(["bash", "-c", replacing(str(path), f"key = {old}", f"key = {new}")], check=True)
    assert path.read_text() == f"key = {new}\n"
