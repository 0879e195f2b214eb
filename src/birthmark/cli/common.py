"""What every command shares: exit codes, how a refusal is shown, how results are printed.

Results go to stdout, as text for people or one JSON object per line; everything else goes to stderr.
"""

import errno
import json
import os
import re
import shlex
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import typer

from birthmark import atomic_files, errors
from birthmark.cli.hints import hint
from birthmark.cli.refusal_log import note
from birthmark.cli.table import text_of, wrapped
from birthmark.text_files import copy_of, encoding_of, in_utf_8, not_utf_8, plain_text, to_utf_8
from birthmark.untrusted_text import printable, reason_of

if TYPE_CHECKING:
    from birthmark.pki.certificates import Certificate  # which loads what no --help needs

FAILED, WRONG_USAGE, NOT_FOUND, NOT_AUTHORIZED, CANNOT_REACH, ACTION_NEEDED, SOME_ROWS_REFUSED = range(1, 8)
_PASSWORD = re.compile(r"(://[^:/@\s]*:)[^@\s]+@")
_CHIP = frozenset({"--module", "--pin-file", "--slot", "--token"})
MAX_FILE_BYTES = 4 * 1024 * 1024
_LIST = b"-----BEGIN X509 CRL-----"
INTERRUPTED = 130  # as shells report Ctrl-C


class UsageError(errors.InvalidRequestError):
    """Options that cannot be combined."""

    code = "cli.usage"


class FileMissingError(errors.NotFoundError):
    """The file cannot be read."""

    code = "cli.file_missing"
    cause = "{path} cannot be read: {reason}."
    fix = 'Check the path and its permissions: `ls -la "$(dirname {path})"`.'
    path: Path
    reason: str


class FileEncodingError(errors.InvalidRequestError):
    """The file has another text encoding."""

    code = "cli.file_encoding"
    cause = "{path} {detail}."
    fix = "If that word is correct, save the file as UTF-8 and use it: `{command}`."
    command: str
    detail: str
    path: Path


class FileUnusableError(errors.BirthmarkError):
    """The file cannot be used."""

    code = "cli.file_unusable"
    cause = "{path} cannot be used: {reason}."
    fix = (
        'Check the path, its permissions (`ls -ld "$(dirname {path})"`) and the free space (`df "$(dirname {path})"`).'
    )
    path: str
    reason: str


class FileExistsAlreadyError(errors.ConflictError):
    """The file exists and is not overwritten."""

    code = "cli.file_exists"
    cause = "{path} exists already."
    fix = "Move it first: `mv -nT {path} {aside}`"
    path: Path

    def __init__(self, **facts: Any) -> None:
        super().__init__(**facts)
        if (here := copy_of(self.path)) != Path(self.path):
            self.quote(fix=f"You may not write to its directory. Use another name, such as {atomic_files.aside(here)}.")

    @property
    def aside(self) -> Path:
        """Where it may go."""
        return atomic_files.aside(self.path)


class ActionNeededError(errors.PolicyError):
    """Nothing was done: confirmation required."""

    code = "cli.action_needed"
    cause = "Confirmation is required, and there is no terminal to ask: {question}"
    fix = "`{again} --yes`"
    again: str = ""
    question: str = ""


EXIT_CODES: Mapping[type[errors.BirthmarkError], int] = {
    errors.BirthmarkError: FAILED,
    UsageError: WRONG_USAGE,
    ActionNeededError: ACTION_NEEDED,
    errors.NotFoundError: NOT_FOUND,
    errors.UnauthenticatedError: NOT_AUTHORIZED,
    errors.ForbiddenError: NOT_AUTHORIZED,
    errors.UnavailableError: CANNOT_REACH,
    errors.ThrottledError: CANNOT_REACH,
}
# Of classes whose rooms a command may not load: a mistake in a configuration is wrong usage.
_BY_CODE = {
    "agent.config_invalid": WRONG_USAGE,
    "agent.config_unsupported": ACTION_NEEDED,
    "server.config_invalid": WRONG_USAGE,
    "swarm.scenario_invalid": WRONG_USAGE,
    "swarm.target_not_named": WRONG_USAGE,
}
_OUTPUT_LOST = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def exit_code_of(error: errors.BirthmarkError) -> int:
    """Return the exit code of the nearest listed ancestor."""
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


@contextmanager
def telling_refusals(*, as_json: bool = False) -> Iterator[None]:
    """Turn a refusal into what a person needs (what, why, what to do) and the fitting exit code."""
    try:
        yield
    except errors.BirthmarkError as error:
        raise typer.Exit(tell(error, as_json=as_json)) from error
    except OSError as problem:
        if (trouble := file_trouble(problem)) is None:
            raise
        raise typer.Exit(tell(trouble, as_json=as_json)) from problem


def again() -> str:
    """Return the command as it was typed, so that a fix can say what to type instead. No password of a URL is said."""
    return _typed(sys.argv[1:])


def _typed(words: Iterable[str]) -> str:
    return shlex.join(["birthmark", *(_PASSWORD.sub(r"\1PASSWORD@", word) for word in words)])


def chosen() -> str:
    """Return the options, as they were typed, that say which chip: a fix works on the same."""
    kept: list[str] = []
    words = iter(sys.argv[1:])
    for word in words:
        if word in _CHIP:
            kept += [word, next(words, "")]
        elif word.partition("=")[0] in _CHIP:
            kept.append(word)
    return "".join(f" {shlex.quote(word)}" for word in kept)


def without(option: str, *, takes_value: bool) -> str:
    """Return the command as it was typed but for `option` and its value."""
    kept: list[str] = []
    words = iter(sys.argv[1:])
    for word in words:
        if word == option:
            _ = next(words, None) if takes_value else None
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return _typed(kept)


def instead(path: Path, other: Path) -> str:
    """Return the command as it was typed with another file in the place of one."""
    return _typed(str(other) if word == str(path) else word for word in sys.argv[1:])


def tell(error: errors.BirthmarkError, *, as_json: bool = False) -> int:
    """Show a refusal on stderr, keep it for `birthmark why`, and return its exit code."""
    error.add_facts(again=again(), options=chosen())
    if (better := hint(error)) is not None:
        error.quote(fix=better)
    note(error)
    others = error.facts.get("others", "").splitlines()  # what else is wrong in the same file
    if as_json:
        view = {"error": error.code, "message": str(error), "cause": error.explain_cause(), "fix": error.explain_fix()}
        typer.echo(json.dumps(view | ({"others": others} if others else {})), err=True)
    else:
        typer.echo(in_words(error), err=True)
        for other in others:
            typer.echo(f"  Also: {printable(other)}", err=True)
    return exit_code_of(error)


def in_words(error: errors.BirthmarkError) -> str:
    """Return what people read of a refusal on stderr: what, why, what to do."""
    told = (str(error), f"  Why: {error.explain_cause()}", f"  Fix: {error.explain_fix()}", f"  Code: {error.code}")
    return "\n".join(wrapped(printable(line), errors=True) for line in told)


def tell_row(error: errors.BirthmarkError, row: Mapping[str, Any], *, as_json: bool) -> None:
    """Show the refusal of one of many rows, which ends nothing, and keep it for `birthmark why`."""
    error.add_facts(again=again(), options=chosen())
    note(error)
    if as_json:
        told = {"error": error.code, "cause": error.explain_cause(), "fix": error.explain_fix()}
        typer.echo(json.dumps({**row, **told}))
    else:
        for line in (f"Refused {error.code}: {error.explain_cause()}", f"  Fix: {error.explain_fix()}"):
            typer.echo(wrapped(printable(line), errors=True), err=True)


def file_trouble(problem: OSError) -> FileUnusableError | None:
    """Return as a refusal what the system refused of a file; None for what is no file's trouble."""
    if problem.filename is None and problem.errno not in _OUTPUT_LOST:
        return None
    path = problem.filename or "standard output"
    return FileUnusableError(path=path, reason=reason_of(problem))


about = errors.about


def open_file(path: Path, missing: type[FileMissingError] = FileMissingError) -> BinaryIO:
    """Open a file for reading. Raise `missing`."""
    try:
        return path.open("rb")
    except OSError as error:
        raise missing(path=path, reason=reason_of(error)) from error


def read_file(path: Path, limit: int = MAX_FILE_BYTES, missing: type[FileMissingError] = FileMissingError) -> bytes:
    """Return at most `limit` bytes and one more, so that the parser sees that it is too long; text as UTF-8."""
    with open_file(path, missing) as file:
        return plain_text(file.read(limit + 1))


def read_text(path: Path) -> str:
    """Return the text of a file. Raise `FileMissingError` or `FileEncodingError`."""
    raw = read_file(path)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        from birthmark.pki.certificates import kind_of

        kind = kind_of(raw)
        detail = f"is not text: {kind}" if kind else not_utf_8(raw)
        refusal = FileEncodingError(path=path, command=to_utf_8(path, encoding_of(raw)), detail=detail)
        refusal.quote(fix=f"{in_utf_8(path, raw)}.")
        raise refusal from error


def read_device_certificate(path: Path) -> "Certificate":
    """Return the device's certificate of a file, in whatever order its chain stands there."""
    from birthmark.pki.certificates import CertificateInvalidError, chain_ends, leaf_first, parse_bundle

    with about(path):
        every = leaf_first(parse_bundle(read_file(path)))
        devices = {one for one in every if not one.is_ca}
        if len(devices or chain_ends(every)) > 1:  # OpenSSL's own signed certificates are of CAs, too
            whose = "devices" if devices else "devices, or of several CAs"
            raise CertificateInvalidError(detail=f"it contains certificates of several {whose}; use one file for each")
        return every[0]


def read_single_certificate(path: Path) -> "Certificate":
    """Return the device's certificate of a file, or a CA's where the file has no other: never one of a chain's CAs."""
    from birthmark.pki.certificates import CertificateInvalidError, parse_bundle

    found = read_device_certificate(path)
    if found.is_ca and len(parse_bundle(read_file(path))) > 1:
        with about(path):
            detail = "it contains certificates of several CAs; put the right one in a separate file"
            raise CertificateInvalidError(detail=detail)
    return found


def read_ca_certificate(path: Path) -> "Certificate":
    """Return the only CA's certificate of a file, also where a device's is first: see `parse_ca`. Say so there."""
    from birthmark.pki.certificates import parse_bundle, parse_ca

    with about(path):
        data = read_file(path)
        found = parse_ca(data)
        if (count := len(parse_bundle(data))) > 1:
            typer.echo(printable(f"{path} has {count} certificates. Used: {found.subject_text}"), err=True)
        return found


@contextmanager
def with_certificate(path: Path) -> Iterator[None]:
    """Let the fix of a refusal name the certificate that was given, and not the one of the environment."""
    try:
        yield
    except errors.BirthmarkError as error:
        error.quote(fix=error.explain_fix().replace('"$X509_CERT_FILE"', shlex.quote(str(path))))
        raise


def emit(as_json: bool, row: Mapping[str, Any]) -> None:
    """Print one result: a JSON object in a line, or `name: value` lines."""
    if as_json:
        typer.echo(json.dumps(row))
        return
    width = max(len(name) for name in row)
    for name, value in row.items():
        if value is not None:
            lines = map(printable, text_of(value).strip().split("\n"))
            typer.echo(f"{name.replace('_', ' '):<{width}}  " + f"\n{'':<{width}}  ".join(lines))


def working(what: str) -> None:
    """Tell a person at a terminal what is about to take some seconds; programs and files are told nothing."""
    if sys.stderr.isatty():
        typer.echo(f"{what} …", err=True)


def say(as_json: bool, row: Mapping[str, Any], line: str) -> None:
    """Print one of several results: a JSON object, or a line for people."""
    typer.echo(json.dumps(row) if as_json else printable(line))


def certificate_row(certificate: "Certificate") -> dict[str, Any]:
    """Return the stable JSON form of a certificate."""
    return {
        "subject": certificate.subject_text,
        "issuer": certificate.issuer_text,
        "serial": f"{certificate.serial:x}",
        "thumbprint": certificate.thumbprint.hex(),
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
    }


def write_result(path: Path | None, text: str, *, keeps: bool = True) -> None:
    """Write to a file, or to stdout when there is none; other content of an earlier file is kept under another name.

    Without `keeps` an earlier revocation list is replaced, which a broker reads and a timer writes; a key never is.
    """
    if path is None:
        typer.echo(text, nl=False)
        return
    data = text.encode("ascii")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.stat().st_size != len(data) or path.read_bytes() != data:
        with replacing(path, keeps=keeps or not _is_list(path)) as file:
            file.write(data)


def _is_list(path: Path) -> bool:
    """Say whether a file holds a revocation list, as it is written here."""
    if not path.is_file():
        return not path.exists()
    with path.open("rb") as file:
        return file.read(len(_LIST)) == _LIST


@contextmanager
def replacing(path: Path, mode: int = 0o666, *, keeps: bool = True) -> Iterator[IO[bytes]]:
    """Write a file bit by bit; it has its place when all of it is on disk, and until then an earlier one has.

    Whose that was, and who may read it, stays; a new one has `mode`. What is no file, such as a pipe, is written as it
    is, and so is a file beside which, or as whose owner, this user writes nothing. With `keeps` the earlier one has
    another name then. Raise `FileExistsAlreadyError` for a private key, for what cannot be kept, and for a link of
    another user.
    """
    target = path.resolve() if path.is_symlink() else path
    seen = target.stat() if target.exists() else None
    is_beside = seen is None or (stat.S_ISREG(seen.st_mode) and _is_ours_to_replace(target, seen))
    mode, kept = mode if seen is None else stat.S_IMODE(seen.st_mode), None
    is_full = seen is not None and stat.S_ISREG(seen.st_mode) and seen.st_size > 0
    is_led = path.is_symlink() and path.lstat().st_uid != os.geteuid()
    if is_led or (is_full and ((keeps and not is_beside) or _is_private_key(target))):
        raise FileExistsAlreadyError(path=path)
    try:
        with written_as(path), atomic_files.replacing(target, mode) if is_beside else path.open("wb") as file:
            if is_beside and seen is not None:
                with suppress(PermissionError):  # of a group that is not ours, or where the file system has no modes
                    os.fchown(file.fileno(), seen.st_uid, seen.st_gid)
                    os.fchmod(file.fileno(), mode)
            yield file
            kept = atomic_files.keep_aside(target) if keeps else None
    except OSError:
        if kept is not None:
            kept.replace(target)
            kept.unlink(missing_ok=True)  # two names of one file, of which the line above changes neither
        raise
    if kept is not None:
        typer.echo(printable(f"The earlier {path.name} is {kept} now."), err=True)


def _is_private_key(path: Path) -> bool:
    """Say whether a file holds a key; one that refers to a chip's key can be written again."""
    from birthmark.keys.reference_keys import parse_reference_key

    with path.open("rb") as file:
        text = plain_text(file.read(MAX_FILE_BYTES))
    return b"PRIVATE KEY-----" in text and parse_reference_key(text) is None


def _is_ours_to_replace(path: Path, seen: os.stat_result) -> bool:
    return os.geteuid() in {0, seen.st_uid} and os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True)


@contextmanager
def written_as(path: Path) -> Iterator[None]:
    """Let the system's refusal of what is written name this file: there is one beside it, until it is whole."""
    try:
        yield
    except OSError as problem:
        beside = Path(str(problem.filename or ""))
        if problem.errno in _OUTPUT_LOST or beside.name.startswith(f".{path.resolve().name}."):
            problem.filename = str(path)
        raise
