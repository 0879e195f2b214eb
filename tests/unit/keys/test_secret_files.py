"""What a file of a secret has around it, which nobody sees, and one that cannot be opened."""

from pathlib import Path

import pytest

from birthmark.cli.backup import PassphraseOptions
from birthmark.keys.errors import PinFileError, PinFileMissingError
from birthmark.keys.pin import Pin, check_blanks


@pytest.mark.parametrize("text", ["words ", " words", "words\u00a0", "\u3000words"])
def test_white_space_around_a_secret_is_refused_when_it_is_set(tmp_path: Path, text: str) -> None:
    (file := tmp_path / "secret").touch(0o600)
    file.write_text(text)
    with pytest.raises(PinFileError):
        check_blanks(text, file)
    with pytest.raises(PinFileError):
        PassphraseOptions(passphrase_file=file).read(is_new=True)
    assert PassphraseOptions(passphrase_file=file).read(is_new=False) == text


def test_a_file_that_may_not_be_opened_is_told_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", closed)
    with pytest.raises(PinFileMissingError) as refused:
        Pin.from_file(tmp_path / "pin")
    assert "ls -l" in refused.value.explain_fix()
    assert "cat >" not in refused.value.explain_fix()


def test_a_directory_in_the_place_of_a_secret_is_told_as_that(tmp_path: Path) -> None:
    (place := tmp_path / "pin").mkdir(0o700)
    with pytest.raises(PinFileMissingError) as refused:
        Pin.from_file(place)
    assert "is a directory" in refused.value.explain_cause()
    assert "cat >" not in refused.value.explain_fix()
