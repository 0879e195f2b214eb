"""What a printed command writes goes to a directory where this user may write."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from birthmark.cli.output.command_output import FileExistsAlreadyError
from birthmark.errors import about
from birthmark.fleet.enrollment_rollback_journal import FORMAT, JournalChangedError, NoJournalError, _refusal
from birthmark.keys.errors import KeyFileIsPkcs12Error, PassphraseWrongError
from birthmark.pki.certificates import CertificateIsPkcs12Error
from birthmark.text_file_encodings import format_trim_command, to_utf_8

NOBODY = 65534


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A directory of another user."""
    (file := tmp_path / "a file.csv").write_bytes("Gerätehalle \n".encode("cp1252"))
    tmp_path.chmod(0o555)
    user = os.geteuid()
    if not user:
        os.seteuid(NOBODY)
    try:
        yield file
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o755)


def pfx(path: Path) -> str:
    with pytest.raises(CertificateIsPkcs12Error) as refused, about(path):
        raise CertificateIsPkcs12Error
    return refused.value.explain_fix()


def journal(path: Path) -> str:
    refusal = _refusal(path, f'\ufeff{{"format": "{FORMAT}"}}\n{{}}\n'.encode(), "birthmark x")
    assert isinstance(refusal, JournalChangedError)
    return refusal.explain_fix()


TOLD: dict[str, Callable[[Path], str]] = {
    "a table in a code page": lambda path: to_utf_8(path, "CP1252"),
    "a secret with a blank": lambda path: format_trim_command(path, b"pw "),
    "a journal that was edited": journal,
    "no journal": lambda path: NoJournalError(path=path).explain_fix(),
    "a PFX as a key": lambda path: KeyFileIsPkcs12Error(path=path).explain_fix(),
    "a PFX as a certificate": pfx,
    "an encrypted key": lambda path: PassphraseWrongError(path=path).explain_fix(),
    "a file that is there": lambda path: FileExistsAlreadyError(path=path).explain_fix(),
}


@pytest.mark.parametrize("what", TOLD)
def test_no_command_writes_to_a_directory_that_is_closed_to_this_user(closed: Path, what: str) -> None:
    told = TOLD[what](closed).replace("'", "")
    assert f"> {closed.parent}" not in told
    assert f"--journal {closed.parent}" not in told
    assert "mv " not in told


@pytest.mark.parametrize("what", TOLD)
def test_where_this_user_may_write_the_copy_is_in_the_directory_of_its_file(tmp_path: Path, what: str) -> None:
    told = TOLD[what](tmp_path / "a file.csv").replace("'", "")
    assert any(f"{before} {tmp_path}/a file" in told for before in (">", "--journal", ".csv"))


def test_the_command_works_as_it_is_typed_elsewhere(closed: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    command = to_utf_8(closed, "CP1252")
    os.seteuid(os.getuid())
    here = tmp_path_factory.mktemp("here")
    subprocess.run(["sh", "-c", command], cwd=here, check=True)
    assert (here / "a file.utf8.csv").read_text(encoding="utf-8") == "Gerätehalle \n"
