"""A command whose packages were not installed says which extra brings them."""

import sys

import pytest

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


def test_a_package_that_is_no_extra_of_ours_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_a_package() -> None:
        raise ModuleNotFoundError("No module named 'nonsense'", name="nonsense")

    monkeypatch.setattr(cli, "app", without_a_package)
    with pytest.raises(ModuleNotFoundError):
        cli.main()
