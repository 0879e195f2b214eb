"""Files and certificates that are arguments of commands, read with errors for people."""

import errno
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import typer

from birthmark import errors
from birthmark.text_file_encodings import encoding_of, format_conversion_fix, not_utf_8, plain_text, to_utf_8
from birthmark.untrusted_json_and_text import printable, reason_of

if TYPE_CHECKING:
    from birthmark.pki.certificates import Certificate  # imports more than --help needs


MAX_FILE_BYTES = 4 * 1024 * 1024


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
    fix = "If the word quoted above is correct, save the file as UTF-8 and use the new file: `{command}`."
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


def file_trouble(problem: OSError) -> FileUnusableError | None:
    """Return the error for a file operation rejected by the system; None if it does not concern a file."""
    if problem.filename is None and problem.errno not in OUTPUT_LOST:
        return None
    path = problem.filename or "standard output"
    return FileUnusableError(path=path, reason=reason_of(problem))


def open_file(path: Path, missing: type[FileMissingError] = FileMissingError) -> BinaryIO:
    """Open a file for reading. Raise `missing`."""
    try:
        return path.open("rb")
    except OSError as error:
        raise missing(path=path, reason=reason_of(error)) from error


def read_file(path: Path, limit: int = MAX_FILE_BYTES, missing: type[FileMissingError] = FileMissingError) -> bytes:
    """Return up to `limit` bytes and one more, so that the parser detects an oversized file; text as UTF-8."""
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
        refusal.quote(fix=f"{format_conversion_fix(path, raw)}.")
        raise refusal from error


def read_device_certificate(path: Path) -> "Certificate":
    """Return the device certificate in a file, in any order of its chain."""
    from birthmark.pki.certificates import CertificateInvalidError, chain_ends, leaf_first, parse_bundle

    with about(path):
        every = leaf_first(parse_bundle(read_file(path)))
        devices = {one for one in every if not one.is_ca}
        if len(devices or chain_ends(every)) > 1:  # OpenSSL's self-signed certificates are CAs, too
            whose = "devices" if devices else "devices, or of several CAs"
            raise CertificateInvalidError(detail=f"it contains certificates of several {whose}; use one file for each")
        return every[0]


def read_single_certificate(path: Path) -> "Certificate":
    """Return the device certificate in a file; without one, its CA certificate, but never a CA of a chain."""
    from birthmark.pki.certificates import CertificateInvalidError, parse_bundle

    found = read_device_certificate(path)
    if found.is_ca and len(parse_bundle(read_file(path))) > 1:
        with about(path):
            detail = "it contains certificates of several CAs; put the right one in a separate file"
            raise CertificateInvalidError(detail=detail)
    return found


def read_ca_certificate(path: Path) -> "Certificate":
    """Return the only CA certificate in a file, even after a device certificate: see `parse_ca`.

    Report that case.
    """
    from birthmark.pki.certificates import parse_bundle, parse_ca

    with about(path):
        data = read_file(path)
        found = parse_ca(data)
        if (count := len(parse_bundle(data))) > 1:
            typer.echo(printable(f"{path} has {count} certificates. Used: {found.subject_text}"), err=True)
        return found


@contextmanager
def with_certificate(path: Path) -> Iterator[None]:
    """Replace the certificate variable in an error's fix by the given file."""
    try:
        yield
    except errors.BirthmarkError as error:
        error.quote(fix=error.explain_fix().replace('"$X509_CERT_FILE"', shlex.quote(str(path))))
        raise


OUTPUT_LOST = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


about = errors.about
