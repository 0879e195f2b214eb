"""A release of the commit that is checked out, built once for these tests, and a maintainer's key."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server.debian_root import NOT_COMMITTED

TOP = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `scripts/package` makes."""
    if not (TOP / ".git").exists():
        pytest.skip("a release is made of a commit, and this is no repository")
    out = tmp_path_factory.mktemp("release") / "dist"
    build = [sys.executable, str(TOP / "tools/release_build.py"), "--out", str(out)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Those for Debian, by name, of a repository in which somebody is at work."""
    if not (TOP / ".git").exists():
        pytest.skip("a release is made of a commit, and this is no repository")
    place = tmp_path_factory.mktemp("debs")
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(TOP), str(place / "here")], check=True)
    for name in ("deploy/debian/birthmark.postinst", "src/birthmark/cli/systemd_units.py", "CHANGELOG.md"):
        with (place / "here" / name).open("a") as file:
            file.write(NOT_COMMITTED)
    build = [sys.executable, "here/tools/release_build.py", "--out", "made", "--deb", "amd64"]
    done = subprocess.run(build, cwd=place, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    return {path.name.partition("_")[0]: path for path in (place / "made").glob("*.deb")}


@pytest.fixture(scope="module")
def keyring() -> Iterator[dict[str, str]]:
    """The environment of a maintainer with an OpenPGP key."""
    home = Path(tempfile.mkdtemp(prefix="gpg-"))  # a path of the agent's socket is short
    environment = os.environ | {"GNUPGHOME": str(home)}
    name = "release@birthmark.example"
    make = ["gpg", "--batch", "--passphrase", "", "--quick-generate-key", name, "ed25519", "sign", "1d"]
    subprocess.run(make, env=environment, check=True, capture_output=True)
    yield environment
    subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=True)
    shutil.rmtree(home)
