"""PIN of a token, from a protected file, a descriptor or a prompt; never shown, never from a command line."""

import getpass
import os
import shlex
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from birthmark.keys.errors import PinFileError, PinFileMissingError
from birthmark.text_file_encodings import blanks_around, format_conversion_fix, plain_text, without_blanks

MAX_PIN_BYTES = 255
_MAX_BYTES = 2 * MAX_PIN_BYTES + 8  # in UTF-16


class Pin:
    """A PIN; `reveal` is the only way to read it."""

    __slots__ = ("_text", "path")

    def __init__(self, text: str, path: Path | None = None) -> None:
        self._text = text
        self.path = path  # source file, for programs that read it themselves

    def __repr__(self) -> str:
        return "Pin(<hidden>)"

    def __reduce__(self) -> str:
        raise TypeError("a PIN is not pickled")

    def reveal(self) -> str:
        return self._text

    def check_blanks(self) -> None:
        """Raise `PinFileError` if the file has surrounding white space; a wrong PIN costs one attempt."""
        if self.path is not None:
            check_blanks(self._text, self.path)

    @classmethod
    def from_file(cls, path: Path) -> "Pin":
        """Read one line from a file that only its owner can read. Raise `PinFileError`."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            missing = PinFileMissingError(path=path, detail=(error.strerror or "error").lower())
            if isinstance(error, PermissionError):
                missing.quote(fix=f"Check its owner and permissions: `ls -l {shlex.quote(str(path))}`.")
            raise missing from error
        try:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                raise PinFileError(path=path, detail=f"is open to others (mode {stat.S_IMODE(mode):04o})")
            return cls(_read(descriptor, path), path.absolute())
        finally:
            os.close(descriptor)

    @classmethod
    def from_descriptor(cls, descriptor: int) -> "Pin":
        """Read one line from an open descriptor, such as a pipe from a parent process."""
        return cls(_read(descriptor, Path(f"/dev/fd/{descriptor}")))

    @classmethod
    def prompt(cls, token: str, ask: Callable[[str], str] = getpass.getpass) -> "Pin":
        """Prompt at the terminal without echo."""
        return cls(ask(f"PIN of token {token}: "))


def check_blanks(text: str, path: Path) -> None:
    """Raise `PinFileError` if a secret file begins or ends with white space or invisible characters."""
    if not (detail := blanks_around(text)):
        return
    error = PinFileError(path=path, detail=detail)
    with suppress(OSError):  # pipes are read; files may be gone
        error.quote(fix=f"{without_blanks(path, path.read_bytes()[:_MAX_BYTES])}.")
    raise error


def _read(descriptor: int, path: Path) -> str:
    raw = b""
    try:
        while len(raw) <= _MAX_BYTES and (piece := os.read(descriptor, _MAX_BYTES + 1)):
            raw += piece
    except OSError as problem:  # for example a directory
        missing = PinFileMissingError(path=path, detail=(problem.strerror or "error").lower())
        missing.quote(fix="Give a file that holds the PIN or password in one line.")
        raise missing from problem
    line = plain_text(raw).removesuffix(b"\n").removesuffix(b"\r")
    if not 0 < len(line) <= MAX_PIN_BYTES or b"\n" in line or b"\0" in line:
        detail = f"is empty, or holds more than one line of text or {MAX_PIN_BYTES} bytes"
        error = PinFileError(path=path, detail=detail)
        error.quote(fix="Write only the PIN or password to it, in one line.")
        raise error
    try:
        return line.decode()
    except UnicodeDecodeError:
        error = PinFileError(path=path, detail="is not UTF-8 text")
        error.quote(fix=f"{format_conversion_fix(path, raw, is_secret=True)}.")
        raise error from None
