"""Shared functions of all commands: exit codes, error output, result output.

Results go to stdout, as text or as one JSON object per line; everything else goes to stderr.
"""

import json
import os
import re
import shlex
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import typer

from birthmark import atomic_files, errors
from birthmark.cli.input_files import MAX_FILE_BYTES, OUTPUT_LOST, file_trouble
from birthmark.cli.output.command_refusal_journal import log_refusal
from birthmark.cli.output.machine_specific_hints import hint
from birthmark.cli.output.table import text_of, wrap_to_terminal
from birthmark.text_file_encodings import copy_of, plain_text
from birthmark.untrusted_json_and_text import printable

if TYPE_CHECKING:
    from birthmark.pki.certificates import Certificate  # imports more than --help needs

FAILED, WRONG_USAGE, NOT_FOUND, NOT_AUTHORIZED, CANNOT_REACH, ACTION_NEEDED, SOME_ROWS_REFUSED = range(1, 8)
_PASSWORD = re.compile(r"(://[^:/@\s]*:)[^@\s]+@")
_CHIP = frozenset({"--module", "--pin-file", "--slot", "--token"})
_LIST = b"-----BEGIN X509 CRL-----"
INTERRUPTED = 130  # the shells' Ctrl-C code


class UsageError(errors.InvalidRequestError):
    """Options that cannot be combined."""

    code = "cli.usage"


class FileExistsAlreadyError(errors.ConflictError):
    """The file exists and is not overwritten."""

    code = "cli.file_exists"
    cause = "{path} already exists."
    fix = "Move the existing file first: `mv -nT {path} {aside}`"
    path: Path

    def __init__(self, **facts: Any) -> None:
        super().__init__(**facts)
        if (here := copy_of(self.path)) != Path(self.path):
            self.quote(
                fix=f"You may not write to its directory. Use another name, such as {atomic_files.backup_path(here)}."
            )

    @property
    def aside(self) -> Path:
        """New name for the existing file."""
        return atomic_files.backup_path(self.path)


class ActionNeededError(errors.PolicyError):
    """Nothing was done: confirmation required."""

    code = "cli.action_needed"
    cause = "Confirmation is required, but no terminal is available for the question: {question}"
    fix = "To confirm: `{again} --yes`"
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
# Classes by code, as a command may not load their modules: a configuration error is wrong usage.
_BY_CODE = {
    "agent.config_invalid": WRONG_USAGE,
    "agent.config_unsupported": ACTION_NEEDED,
    "server.config_invalid": WRONG_USAGE,
    "swarm.scenario_invalid": WRONG_USAGE,
    "swarm.target_not_named": WRONG_USAGE,
}


def exit_code_of(error: errors.BirthmarkError) -> int:
    """Return the exit code of the error's nearest listed base class."""
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


@contextmanager
def print_errors(*, as_json: bool = False) -> Iterator[None]:
    """Print an error as message, cause and fix, and exit with its code."""
    try:
        yield
    except errors.BirthmarkError as error:
        raise typer.Exit(tell(error, as_json=as_json)) from error
    except OSError as problem:
        if (trouble := file_trouble(problem)) is None:
            raise
        raise typer.Exit(tell(trouble, as_json=as_json)) from problem


def again() -> str:
    """Return the command line as typed, for use in a fix; passwords in URLs are masked."""
    return _typed(sys.argv[1:])


def _typed(words: Iterable[str]) -> str:
    return shlex.join(["birthmark", *(_PASSWORD.sub(r"\1PASSWORD@", word) for word in words)])


def chip_options_typed() -> str:
    """Return the typed options that select a secure element, so that a fix applies to the same one."""
    kept: list[str] = []
    words = iter(sys.argv[1:])
    for word in words:
        if word in _CHIP:
            kept += [word, next(words, "")]
        elif word.partition("=")[0] in _CHIP:
            kept.append(word)
    return "".join(f" {shlex.quote(word)}" for word in kept)


def without(option: str, *, takes_value: bool) -> str:
    """Return the typed command without `option` and its value."""
    kept: list[str] = []
    words = iter(sys.argv[1:])
    for word in words:
        if word == option:
            _ = next(words, None) if takes_value else None
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return _typed(kept)


def typed_command_with(path: Path, other: Path) -> str:
    """Return the command line as typed, with one file replaced by another."""
    return _typed(str(other) if word == str(path) else word for word in sys.argv[1:])


def tell(error: errors.BirthmarkError, *, as_json: bool = False) -> int:
    """Print an error on stderr, store it for `birthmark why`, and return its exit code."""
    error.add_facts(again=again(), options=chip_options_typed())
    if (better := hint(error)) is not None:
        error.quote(fix=better)
    log_refusal(error)
    others = error.facts.get("others", "").splitlines()  # further errors in the same file
    if as_json:
        view = {"error": error.code, "message": str(error), "cause": error.explain_cause(), "fix": error.explain_fix()}
        typer.echo(json.dumps(view | ({"others": others} if others else {})), err=True)
    else:
        typer.echo(format_error(error), err=True)
        for other in others:
            typer.echo(f"  Also: {printable(other)}", err=True)
    return exit_code_of(error)


def format_error(error: errors.BirthmarkError) -> str:
    """Format an error for stderr: message, cause, fix and code."""
    told = (str(error), f"  Why: {error.explain_cause()}", f"  Fix: {error.explain_fix()}", f"  Code: {error.code}")
    return "\n".join(wrap_to_terminal(printable(line), errors=True) for line in told)


def print_row_error(error: errors.BirthmarkError, row: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the error of one of many rows without ending the run, and store it for `birthmark why`."""
    error.add_facts(again=again(), options=chip_options_typed())
    log_refusal(error)
    if as_json:
        told = {"error": error.code, "cause": error.explain_cause(), "fix": error.explain_fix()}
        typer.echo(json.dumps({**row, **told}))
    else:
        for line in (f"Refused {error.code}: {error.explain_cause()}", f"  Fix: {error.explain_fix()}"):
            typer.echo(wrap_to_terminal(printable(line), errors=True), err=True)


def emit(as_json: bool, row: Mapping[str, Any]) -> None:
    """Print one result: a JSON object on one line, or `name: value` lines."""
    if as_json:
        typer.echo(json.dumps(row))
        return
    width = max(len(name) for name in row)
    for name, value in row.items():
        if value is not None:
            lines = map(printable, text_of(value).strip().split("\n"))
            typer.echo(f"{name.replace('_', ' '):<{width}}  " + f"\n{'':<{width}}  ".join(lines))


def working(subject: str) -> None:
    """Print a progress message for a slow operation, on a terminal only."""
    if sys.stderr.isatty():
        typer.echo(f"{subject} …", err=True)


def say(as_json: bool, row: Mapping[str, Any], line: str) -> None:
    """Print one of several results: a JSON object, or a text line."""
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
    """Write to a file, or to stdout without one; an existing file with different content is renamed.

    Without `keeps` an existing CRL is replaced, for a timer that writes it and a broker that reads it. A private key is
    never replaced.
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
    """Return whether a file holds a CRL in the format written here."""
    if not path.is_file():
        return not path.exists()
    with path.open("rb") as file:
        return file.read(len(_LIST)) == _LIST


@contextmanager
def replacing(path: Path, mode: int = 0o666, *, keeps: bool = True) -> Iterator[IO[bytes]]:
    """Write a file in parts and replace the target atomically once it is complete on disk.

    Owner and permissions of the target are preserved; a new file has `mode`. The target is written in place if it is
    not a regular file, such as a pipe. This also applies if this user cannot create a file in its directory or restore
    its owner. With `keeps` the previous file is renamed. Raise `FileExistsAlreadyError` for a private key, for a file
    that cannot be renamed, and for a link of another user.
    """
    target = path.resolve() if path.is_symlink() else path
    seen = target.stat() if target.exists() else None
    is_in_key_directory = seen is None or (stat.S_ISREG(seen.st_mode) and _is_ours_to_replace(target, seen))
    mode, kept = mode if seen is None else stat.S_IMODE(seen.st_mode), None
    is_full = seen is not None and stat.S_ISREG(seen.st_mode) and seen.st_size > 0
    is_led = path.is_symlink() and path.lstat().st_uid != os.geteuid()
    if is_led or (is_full and ((keeps and not is_in_key_directory) or _is_private_key(target))):
        raise FileExistsAlreadyError(path=path)
    try:
        with (
            written_as(path),
            atomic_files.replace_incrementally(target, mode) if is_in_key_directory else path.open("wb") as file,
        ):
            if is_in_key_directory and seen is not None:
                with suppress(PermissionError):  # foreign group, or a file system without modes
                    os.fchown(file.fileno(), seen.st_uid, seen.st_gid)
                    os.fchmod(file.fileno(), mode)
            yield file
            kept = atomic_files.link_backup(target) if keeps else None
    except OSError:
        if kept is not None:
            kept.replace(target)
            kept.unlink(missing_ok=True)  # two names of one file, neither changed by the line above
        raise
    if kept is not None:
        typer.echo(printable(f"The previous {path.name} was kept as {kept}."), err=True)


def _is_private_key(path: Path) -> bool:
    """Return whether a file holds a private key; a reference to a secure element's key may be overwritten."""
    from birthmark.keys.se050_reference_keys import parse_reference_key

    with path.open("rb") as file:
        text = plain_text(file.read(MAX_FILE_BYTES))
    return b"PRIVATE KEY-----" in text and parse_reference_key(text) is None


def _is_ours_to_replace(path: Path, status: os.stat_result) -> bool:
    return os.geteuid() in {0, status.st_uid} and os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True)


@contextmanager
def written_as(path: Path) -> Iterator[None]:
    """Replace the temporary file's name in a system error by the target's."""
    try:
        yield
    except OSError as problem:
        beside = Path(str(problem.filename or ""))
        if problem.errno in OUTPUT_LOST or beside.name.startswith(f".{path.resolve().name}."):
            problem.filename = str(path)
        raise
