"""A machine without SoftHSM is told which package to install."""

from pathlib import Path

import pytest
import typer

from birthmark.cli.output.command_output import CANNOT_REACH, print_errors
from birthmark.keys.errors import SoftHsmMissingError
from birthmark.keys.pkcs11_library_lifecycle import find_softhsm


def test_a_missing_softhsm_names_the_places_and_the_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(SoftHsmMissingError):
        find_softhsm(tmp_path)
    with pytest.raises(typer.Exit) as ended, print_errors():
        find_softhsm(tmp_path)
    assert ended.value.exit_code == CANNOT_REACH
    told = capsys.readouterr().err
    assert "apt-get install softhsm2" in told
    assert "keys.softhsm_missing" in told
