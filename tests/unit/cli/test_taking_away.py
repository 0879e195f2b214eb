"""What takes something away says nothing that would take it away elsewhere, where its place cannot be used."""

from pathlib import Path

import pytest

from birthmark.cli import app

PROFILES = '[plant.aws]\nregion = "eu-central-1"\n[office.aws]\n[office.azure]\n'
LINES = [
    "device revoke pump-1 --yes --to aws:prod",
    "device revoke pump-1 --yes --to azure",
    "device rm pump-1 --yes --to aws:prod",
    "device rm pump-1 --yes --to aws --profile prod",
    "device disable pump-1 --yes --to azure:prod",
    "device move plant.json --yes --from aws:prod --to azure:local",
    "device enroll-list plant.json --yes --to aws:prod --undo --journal plant.json",
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without profiles; a directory with a list."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("BIRTHMARK_DATA", "XDG_STATE_HOME", "PROVISIONING_CONNECTION_STRING"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "plant.json").write_text("[]")
    (tmp_path / "home/.config/birthmark").mkdir(parents=True)
    return tmp_path / "home"


def told(line: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> str:
    """Return what a refused command says."""
    monkeypatch.setattr("sys.argv", ["birthmark", *line.split()])
    with pytest.raises(SystemExit) as left:
        app.main()
    assert left.value.code
    return "".join(capfd.readouterr())


@pytest.mark.parametrize("line", LINES)
def test_no_other_place_is_offered(
    line: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = told(line, monkeypatch, capfd)
    assert "cannot be used" in text
    assert "`birthmark " not in text
    assert "profiles.toml; no profile is defined for " in text


def test_the_profiles_that_there_are_are_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (home / ".config/birthmark/profiles.toml").write_text(PROFILES)
    assert "profiles.toml; defined for aws: office, plant" in told(LINES[0], monkeypatch, capfd)
    assert "profiles.toml; defined for azure: office" in told(LINES[1], monkeypatch, capfd)


@pytest.mark.parametrize("content", ["[plant", "plant = 1\n"])
def test_a_file_of_profiles_that_cannot_be_read_names_none(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], content: str
) -> None:
    (home / ".config/birthmark/profiles.toml").write_text(content)
    text = told(LINES[0], monkeypatch, capfd)
    assert "cannot be used" in text
    assert "for aws" not in text


def test_what_takes_nothing_away_is_offered_at_the_local_server(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "`birthmark device ls --to aws:local`" in told("device ls --to aws:prod", monkeypatch, capfd)
    assert "`birthmark device enable pump-1 --to azure:local`" in told(
        "device enable pump-1 --to azure:prod", monkeypatch, capfd
    )
