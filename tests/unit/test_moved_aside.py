"""What a fix moves aside gets a name of its own: typed again, it is put in the place of nothing and into nothing."""

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from test_errors import every_class

from birthmark.agent.config.toml_tables import ConfigMisnamedError
from birthmark.agent.identity_lifecycle import PayloadInvalidError
from birthmark.cli.chip import ProofUnreadableError
from birthmark.cli.output.command_output import FileExistsAlreadyError
from birthmark.errors import BirthmarkError
from birthmark.manifests.bundle.chip_intake_errors import BundleDamagedError, StationUnusableError
from birthmark.operator_api.client.saved_login import LoginDamagedError
from birthmark.secure_elements.errors import ElementExistsError, ElementProofInvalidError
from birthmark.swarm.errors import DirectoryForeignError

Refusal = Callable[[Path], BirthmarkError]
OF_FILES: list[Refusal] = [
    lambda path: FileExistsAlreadyError(path=path),
    lambda path: BundleDamagedError(bundle=path, detail="cut", line=1),
]
OF_DIRECTORIES: list[Refusal] = [
    lambda path: ElementExistsError(directory=path),
    lambda path: DirectoryForeignError(directory=path, found="est", wanted="dps"),
    lambda path: StationUnusableError(directory=path, detail="station.key is missing"),
]


def typed(refusal: BirthmarkError) -> str:
    """Type the command of its fix, and return it."""
    (command,) = re.findall(r"`(mv [^`]+)`", refusal.explain_fix())
    subprocess.run(["/bin/sh", "-c", command], check=True)
    return str(command)


@pytest.mark.parametrize("refused", OF_FILES)
def test_each_file_that_is_moved_aside_stays(tmp_path: Path, refused: Refusal) -> None:
    path = tmp_path / "gate way.key.pem"
    for content in ("first", "second", "third"):
        path.write_text(content)
        command = typed(refused(path))
        assert not path.exists()
        assert shlex.quote(str(path)) in command
    assert sorted(one.read_text() for one in tmp_path.iterdir()) == ["first", "second", "third"]


@pytest.mark.parametrize("refused", OF_DIRECTORIES)
def test_no_directory_goes_into_an_earlier_one(tmp_path: Path, refused: Refusal) -> None:
    path = tmp_path / "chip"
    for content in ("first", "second"):
        path.mkdir()
        (path / "kept").write_text(content)
        typed(refused(path))
    assert sorted(str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*")) == [
        *("chip.old", "chip.old-2", "chip.old-2/kept", "chip.old/kept"),
    ]


@pytest.mark.parametrize("refused", [*OF_FILES, *OF_DIRECTORIES])
def test_one_command_that_was_printed_twice_takes_nothing_the_second_time(tmp_path: Path, refused: Refusal) -> None:
    path = tmp_path / "x"
    path.write_text("first")
    command = typed(refused(path))
    path.write_text("second")
    subprocess.run(["/bin/sh", "-c", command], check=False)
    assert sorted(one.read_text() for one in tmp_path.iterdir()) == ["first", "second"]


def test_every_fix_that_moves_something_aside_is_one_of_them() -> None:
    of_files, of_directories = (FileExistsAlreadyError, BundleDamagedError), (ElementExistsError, DirectoryForeignError)
    and_written_anew = (ElementProofInvalidError, PayloadInvalidError, ProofUnreadableError)  # typed again: both stay
    known = {
        *of_files,
        *of_directories,
        StationUnusableError,
        *and_written_anew,
        ConfigMisnamedError,
        LoginDamagedError,
    }
    assert {cls for cls in every_class() if "`mv " in cls.fix} == known
