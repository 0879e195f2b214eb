"""Sources of the passphrase of a CA's keys outside its directory.

In:   `file:/PATH`, `credential:NAME` (systemd, in $CREDENTIALS_DIRECTORY), `fd:NUMBER`, or `prompt`.
Out:  the passphrase, read once and cached for the process: a descriptor can be read only once, and a user is prompted
      once. A new passphrase at a terminal is prompted for twice, to detect typing errors.

Without a source it is the file `passphrase` in the CA's directory, created with it.
"""

import getpass
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from birthmark.ca.key_files import SecretUnreadableError, opens, read_private
from birthmark.errors import BirthmarkError, InvalidRequestError, UnavailableError
from birthmark.text_file_encodings import (
    blanks_around,
    decode_text,
    foreign_line,
    format_conversion_fix,
    not_utf_8,
    plain_text,
    without_blanks,
)

FORMS = "file:/path, credential:NAME, fd:NUMBER or prompt"
ALONE = "Put only the passphrase in the file, on one line."
BESIDE = "passphrase"
MAX_CHARS = 1024


class PassphraseMissingError(UnavailableError):
    """The passphrase of the CA's keys is not available."""

    code = "ca.passphrase_missing"
    cause = "The passphrase of the keys in {path} is not available: {reason}."
    fix = (
        'Set the source of the passphrase: `export BIRTHMARK_CA_PASSPHRASE="file:$HOME/ca.passphrase"`. Other '
        "sources are prompt, credential:NAME and fd:NUMBER. In a server's configuration, set `ca.passphrase`."
    )
    path: Path
    reason: str


class NewPassphraseError(InvalidRequestError):
    """The new passphrase of the CA's keys is not valid."""

    code = "ca.passphrase_unusable"
    message = "The new passphrase is not valid"
    cause = "The new passphrase from {source} {reason}. The keys in {path} keep their current passphrase."
    fix = (
        "Name a file that does not exist yet; the command writes a generated passphrase to that file: `birthmark ca "
        'passphrase --new "file:$HOME/ca.passphrase" --dir {path}`'
    )
    path: Path
    reason: str
    source: str


class SourceInvalidError(ValueError):
    """The text is not a valid passphrase source."""


@dataclass(slots=True)
class Passphrase:
    """Passphrase of a directory's keys; only `reveal` returns it."""

    directory: Path
    source: str | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    ask: Callable[[str], str] = field(default_factory=lambda: getpass.getpass, repr=False)
    is_new: bool = False
    """Whether it is a new passphrase for existing keys; without keys it is always new."""
    _known: bytes | None = field(default=None, init=False, repr=False)

    @property
    def is_in_key_directory(self) -> bool:
        """Whether the passphrase is stored in the directory of its keys."""
        return self.source is None

    @property
    def is_handed_over(self) -> bool:
        """Whether a user or another process supplies the passphrase, which may take long."""
        return self.source is not None and self.source.partition(":")[0] in {"prompt", "fd"}

    def of(self, directory: Path) -> "Passphrase":
        """Return the passphrase of another directory: the same, unless it is stored in the directory."""
        other = Passphrase(directory, self.source, self.environment, self.ask)
        if not self.is_in_key_directory:
            other._known = self.reveal()
        return other

    def reveal(self) -> bytes:
        """Return the passphrase. Raise `PassphraseMissingError`, `SecretExposedError`, `SecretForeignError`."""
        if self._known is None:
            self._known = self._of_text(self._read())
            if not 0 < len(self._known) <= MAX_CHARS:
                self._known = None
                raise self._unusable(f"is empty, or longer than {MAX_CHARS} bytes", ALONE)
        return self._known

    def _of_text(self, data: bytes) -> bytes:
        """Return the passphrase in UTF-16 text or text with a byte order mark, as editors may write it.

        Releases up to 0.3.0 used the raw bytes; their keys still open that way.
        """
        raw, text = data.strip(), plain_text(data).strip()
        has_lines = any(end in text for end in (b"\n", b"\r"))
        if self._comes_new() and (trouble := _trouble_of(data)):
            is_foreign = foreign_line(plain_text(data)) > 0
            file = Path((self.source or "").removeprefix("file:")).expanduser()
            advice = format_conversion_fix(file, data, is_secret=True) if is_foreign else without_blanks(file, data)
            raise self._unusable(trouble, f"{advice}.")
        if text == raw and not has_lines:
            return text
        if any(opens(key, raw) for key in sorted(self.directory.glob("*.key"))[:1]):
            return raw
        if has_lines:
            raise self._unusable("has more than one line", ALONE)
        return text

    def _read(self) -> bytes:
        if self.source is None:
            path = self.directory / BESIDE
            if not path.exists():
                raise self._missing(f"the file {path} does not exist, so the passphrase was stored elsewhere")
            return read_private(path)
        kind, _, rest = self.source.partition(":")
        try:
            match kind:
                case "file":
                    return read_private(Path(rest).expanduser())
                case "credential":
                    return self._credential(rest)
                case "fd":
                    return _drained(int(rest))
                case _:
                    return self._prompted()
        except SecretUnreadableError as error:
            raise self._missing(error.explain_cause().rstrip(".")) from error
        except OSError as error:
            raise self._missing(f"{self.source}: {(error.strerror or 'error').lower()}") from error

    def _credential(self, name: str) -> bytes:
        """Read a systemd credential; its file mode is not checked, because only this unit's user can read it."""
        folder = self.environment.get("CREDENTIALS_DIRECTORY")
        if not folder:
            raise self._missing("no unit of systemd with credentials runs this (CREDENTIALS_DIRECTORY is not set)")
        return (Path(folder) / name).read_bytes()

    def _prompted(self) -> bytes:
        if not sys.stdin.isatty():
            raise self._missing("standard input is not a terminal")
        typed = self.ask(f"Passphrase of the CA's keys in {self.directory}: ")
        if self._comes_new() and self.ask("Repeat the passphrase: ") != typed:
            raise self._missing("the second entry differs from the first")
        return typed.encode()

    def _comes_new(self) -> bool:
        has_keys = any(True for pattern in ("*.key", "*.pending") for _ in self.directory.glob(pattern))
        return self.is_new or not has_keys

    def _unusable(self, reason: str, advice: str = "") -> BirthmarkError:
        error: BirthmarkError = self._missing(f"it {reason}")
        if self.is_new and self.source is not None:
            error = NewPassphraseError(source=self.source, reason=reason, path=self.directory)
        if advice and self._comes_new() and (self.source or "").startswith("file:"):
            others = f" Or n{error.explain_fix()[1:]}" if self.is_new else ""
            error.quote(fix=f"{advice}{others}")
        return error

    def _missing(self, reason: str) -> PassphraseMissingError:
        return PassphraseMissingError(path=self.directory, reason=reason)


def _trouble_of(data: bytes) -> str:
    """Return why a new passphrase could not be typed again, such as invisible characters added by an editor."""
    try:
        return blanks_around(decode_text(data).rstrip("\r\n"))
    except UnicodeDecodeError:
        return not_utf_8(data, is_shown=False)


def check_source(text: str) -> str:
    """Validate a passphrase source. Raise `SourceInvalidError`, which lists the forms."""
    kind, colon, rest = text.partition(":")
    is_one = {
        "file": bool(rest) and Path(rest).expanduser().is_absolute(),
        "credential": bool(rest) and "/" not in rest and rest not in {".", ".."},
        "fd": rest.isdecimal() and len(rest) < 6,  # noqa: PLR2004 - a descriptor
        "prompt": not colon,
    }.get(kind, False)
    if not is_one:
        raise SourceInvalidError(f"give {FORMS}")
    return text


def _drained(descriptor: int) -> bytes:
    raw = b""
    while len(raw) <= MAX_CHARS and (piece := os.read(descriptor, MAX_CHARS + 1)):
        raw += piece
    return raw
