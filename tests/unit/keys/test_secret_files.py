"""What a file of a secret has around it, which nobody sees, and one that cannot be opened."""

import subprocess
from pathlib import Path

import pytest

from birthmark.cli.server_backup import PassphraseOptions
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


def test_a_secret_that_is_too_long_is_refused_and_never_cut(tmp_path: Path) -> None:
    for codec in ("utf-8", "utf-16"):
        (file := tmp_path / codec).touch(0o600)
        file.write_bytes(("a" * 255 + "\r\n").encode(codec))
        assert Pin.from_file(file).reveal() == "a" * 255
        file.write_bytes(("a" * 256).encode(codec))
        with pytest.raises(PinFileError):
            Pin.from_file(file)


def test_the_command_that_takes_white_space_away_makes_a_file_that_is_accepted(tmp_path: Path) -> None:
    (file := tmp_path / "secret").touch(0o600)
    for text in ("four words \x1a", " four words\r\n\x1a", "four words \r\n", "\u3000four words"):
        for codec in ("utf-8", "utf-8-sig", "utf-16"):
            file.write_bytes(text.encode(codec))
            with pytest.raises(PinFileError) as refused:
                Pin.from_file(file).check_blanks()
            subprocess.run(["sh", "-c", refused.value.explain_fix().split("`")[1]], check=True)
            (made,) = set(tmp_path.iterdir()) - {file}
            Pin.from_file(made).check_blanks()
            assert Pin.from_file(made).reveal() == "four words"
            made.unlink()


def test_a_directory_in_the_place_of_a_secret_is_told_as_that(tmp_path: Path) -> None:
    (place := tmp_path / "pin").mkdir(0o700)
    with pytest.raises(PinFileMissingError) as refused:
        Pin.from_file(place)
    assert "is a directory" in refused.value.explain_cause()
    assert "cat >" not in refused.value.explain_fix()
