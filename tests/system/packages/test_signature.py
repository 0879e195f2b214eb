"""A signed release, verified by another OpenPGP program, and installed from an index of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import birthmark

pytestmark = pytest.mark.system
TOP = Path(__file__).parents[3]
MAINTAINER = "release@birthmark.example"


@pytest.fixture(scope="module")
def signed(release: Path, keyring: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a release with its signature, and the maintainer's public key in a file."""
    place = tmp_path_factory.mktemp("signed") / "dist"
    shutil.copytree(release, place)
    done = sign(keyring, place)
    assert done.returncode == 0, done.stderr
    export = ["gpg", "--export", MAINTAINER]
    key = subprocess.run(export, env=keyring, check=True, capture_output=True).stdout
    (place.parent / "maintainer.pgp").write_bytes(key)
    return place


def sign(keyring: dict[str, str], place: Path) -> subprocess.CompletedProcess[str]:
    command = [str(TOP / "scripts/sign"), MAINTAINER, str(place)]
    return subprocess.run(command, env=keyring, capture_output=True, text=True, check=False)


def is_valid(place: Path) -> bool:
    """Return what Sequoia's verifier says of the signature."""
    keyring = ["--keyring", str(place.parent / "maintainer.pgp")]
    command = ["sqv", *keyring, str(place / "SHA256SUMS.asc"), str(place / "SHA256SUMS")]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def are_digests_right(place: Path) -> bool:
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    return subprocess.run(command, cwd=place, capture_output=True, check=False).returncode == 0


def test_another_program_verifies_the_signature(signed: Path) -> None:
    assert is_valid(signed)
    assert are_digests_right(signed)


def test_a_changed_digest_invalidates_the_signature(signed: Path, tmp_path: Path) -> None:
    shutil.copytree(signed.parent, tmp_path / "changed")
    sums = tmp_path / "changed/dist/SHA256SUMS"
    sums.write_text(sums.read_text().replace("0", "1", 1))
    assert not is_valid(sums.parent)


@pytest.mark.parametrize("ending", [".whl", ".provenance.json", ".cdx.json"])
def test_a_changed_file_is_not_signed(signed: Path, keyring: dict[str, str], tmp_path: Path, ending: str) -> None:
    place = tmp_path / "dist"
    shutil.copytree(signed, place)
    (changed,) = place.glob(f"*{ending}")
    changed.write_bytes(changed.read_bytes() + b"\n")
    assert not are_digests_right(place)
    assert sign(keyring, place).returncode == 1


def test_a_directory_without_a_release_is_not_signed(keyring: dict[str, str], tmp_path: Path) -> None:
    done = sign(keyring, tmp_path)
    assert (done.returncode, "scripts/package" in done.stderr) == (1, True)


@pytest.mark.parametrize("form", ["--only-binary", "--no-binary"])
def test_pip_installs_the_release_from_a_local_index(signed: Path, tmp_path: Path, form: str) -> None:
    index = tmp_path / "simple" / "birthmark"
    index.mkdir(parents=True)
    files = sorted(path for path in signed.iterdir() if path.suffix in {".whl", ".gz"})
    for file in files:
        shutil.copy(file, index)
    (index / "index.html").write_text("".join(f'<a href="{file.name}">{file.name}</a>' for file in files))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
    target = tmp_path / "installed"
    of_index = ["--index-url", f"file://{tmp_path}/simple", form, "birthmark"]
    command = [*pip, *of_index, "--target", str(target), "birthmark"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    show = [sys.executable, "-c", "import birthmark; print(birthmark.__version__, birthmark.__file__)"]
    environment = os.environ | {"PYTHONPATH": str(target)}
    told = subprocess.run(show, env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.split() == [birthmark.__version__, str(target / "birthmark/__init__.py")]
