"""The commands of the page for a release, in a clone of the repository and with a key of the test."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import birthmark
from support.server.page_scripts import run_script, script_of

pytestmark = pytest.mark.system
TOP = Path(__file__).parents[3]
PAGE = (TOP / "docs/contributing/publish.md").read_text()
NEW = "0.4.0"
AUTHOR = "release@birthmark.example"
BUILD = "scripts/package --deb amd64 --deb arm64"
"""It installs packages; test_deb builds Debian's."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone of the commit that is checked out."""
    if not (TOP / ".git").exists():
        pytest.skip("a release is made of a commit, and this is no repository")
    place = tmp_path_factory.mktemp("publish") / "birthmark"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(TOP), str(place)], check=True)
    return place


@pytest.fixture(scope="module")
def told(clone: Path, keyring: dict[str, str]) -> str:
    """Return what the commands of the page print."""
    script = script_of(PAGE, "publish.md")
    assert script.count(BUILD) == 1
    names = [f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = keyring | dict.fromkeys(names, AUTHOR) | {"PATH": path}
    return run_script(script.replace(BUILD, "python tools/release_build.py"), clone, environment)


def test_pip_installs_both_forms_of_the_release(told: str) -> None:
    assert re.findall(rf"^installed: {NEW} .*/build/([a-z-]+)/birthmark/", told, re.MULTILINE) == [
        "only-binary",
        "no-binary",
    ]


def test_the_signature_and_the_digests_are_valid(told: str) -> None:
    assert "Good signature" in told
    assert f"birthmark-{NEW}-py3-none-any.whl: OK" in told


def test_the_tags_name_the_commit_of_the_version(clone: Path, told: str) -> None:
    assert told
    for tag in (f"v{NEW}", f"kits/go/v{NEW}"):
        show = ["git", "-C", str(clone), "show", f"{tag}:src/birthmark/__init__.py"]
        assert f'__version__ = "{NEW}"' in subprocess.run(show, capture_output=True, text=True, check=True).stdout


def test_every_place_of_the_version_is_changed(clone: Path, told: str) -> None:
    assert told
    checks = ["tests/unit/test_kits.py", "tests/unit/test_deploy.py", "tests/unit/test_compatibility_page.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *checks]
    environment = os.environ | {"PYTHONPATH": str(clone / "src")}
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.parametrize(
    ("version", "reason"), [(birthmark.__version__, "not newer"), ("0.2.9", "not newer"), ("1.0", "not a version")]
)
def test_a_version_that_is_not_next_changes_nothing(tmp_path: Path, version: str, reason: str) -> None:
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(TOP), str(tmp_path / "clone")], check=True)
    command = [sys.executable, "tools/set_version.py", version]
    done = subprocess.run(command, cwd=tmp_path / "clone", capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert reason in done.stderr
    status = ["git", "-C", str(tmp_path / "clone"), "status", "--porcelain"]
    assert subprocess.run(status, capture_output=True, text=True, check=True).stdout == ""
