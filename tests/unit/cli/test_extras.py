"""A command whose packages were not installed says which extra brings them."""

import sys
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from birthmark.cli import app as cli


@pytest.mark.parametrize(("module", "extra"), [("starlette.routing", "server"), ("awscrt", "token")])
def test_a_missing_package_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object, module: str, extra: str
) -> None:
    def without_a_package() -> None:
        raise ModuleNotFoundError(f"No module named '{module}'", name=module)

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(cli, "app", without_a_package)
    monkeypatch.setattr(sys, "argv", ["birthmark", "serve"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 5
    assert f"birthmark[{extra}]" in capsys.readouterr().err


def test_a_ca_of_an_earlier_version_says_what_it_is_that_needs_a_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with tarfile.open(Path(__file__).parents[2] / "upgrade" / "0.2.0.tar.gz") as archive:
        archive.extractall(tmp_path, [one for one in archive if one.name.startswith("ca/")])
    monkeypatch.setitem(sys.modules, "alembic.operations", None)
    shown = CliRunner().invoke(cli.app, ["ca", "show", "--dir", str(tmp_path / "ca")])
    assert shown.exit_code == 5
    assert f"To bring {tmp_path}/ca/inventory.db up to this version requires alembic" in " ".join(shown.stderr.split())


def test_a_package_that_is_no_extra_of_ours_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_a_package() -> None:
        raise ModuleNotFoundError("No module named 'nonsense'", name="nonsense")

    monkeypatch.setattr(cli, "app", without_a_package)
    with pytest.raises(ModuleNotFoundError):
        cli.main()
