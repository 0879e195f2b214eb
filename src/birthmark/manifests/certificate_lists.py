"""Unsigned certificate lists: a directory of files, a ZIP of them, or a table (CSV).

Chip manufacturers and readers export such lists. Only the manufacturer's root proves that a certificate is genuine, so
trust in a list is based on roots alone.

The first line of a table names its columns, separated by commas, semicolons or tabs. One of `certificate`, `cert`,
`pem` has the certificate as PEM or base64. One of `uid`, `unique_id`, `serial`, `device` may have a name, as the chip's
UID in an export of EdgeLock 2GO. Templates may use the other columns.

A ZIP is not unpacked to disk, and each file is read only up to the maximum size of a certificate. Directory and ZIP are
read alike: recursively, and by file name; links out of a directory are not followed.
"""

import csv
import itertools
import lzma
import os
import re
import shlex
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple, NoReturn, TextIO

from birthmark.errors import BirthmarkError
from birthmark.manifests.bundle.chip_proof_rules import path_above
from birthmark.manifests.duplicate_chips import DuplicateCheck
from birthmark.manifests.errors import ChainBrokenError, MalformedEntryError, ManifestError
from birthmark.manifests.manifest_entry import UNSIGNED, ManifestEntry
from birthmark.pki.certificates import (
    Certificate,
    CertificateInvalidError,
    CertificateIsPkcs7Error,
    CertificateIsPkcs12Error,
    leaf_first,
    parse_bundle,
)
from birthmark.pki.der import is_der
from birthmark.pki.path_validation import ChainIncompleteError, SignatureCache
from birthmark.text_file_encodings import BLANKS, format_conversion_fix, not_utf_8, plain_text, utf_16_of
from birthmark.untrusted_json_and_text import printable

MAX_FILE_BYTES = 64 * 1024
MAX_ZIP_FILES = 100_000
MAX_DIRECTORY_FILES = 1_000_000
MAX_DEPTH = 16
"""Maximum depth of nested directories."""
MAX_ZIP_DIRECTORY_BYTES = 12 * 1024 * 1024
"""Maximum size of a ZIP's central directory, which is read at once: 100 characters of name per file."""
_SEPARATOR = re.compile(r'"?sep ?= ?([,;\t|])"?\s*$', re.IGNORECASE)
_TYPE = "#TYPE "
"""First line prefix of Windows PowerShell's `Export-Csv`."""
_SUFFIXES = frozenset({".pem", ".crt", ".cer", ".cert", ".der", ".pfx", ".p12", ".p7b", ".p7c"})
"""File suffixes that are read; container formats are refused with the command that unpacks them."""
_TEXT = frozenset({".txt", ".tsv"})
_LISTS = (".json", ".jsonl", ".csv", ".txt", ".tsv")
_CERTIFICATES = ("certificate", "cert", "pem", "device_certificate")
_COLUMN = re.compile(r"[\w ./()#-]{1,40}")
_NAMES = ("uid", "unique_id", "uniqueid", "serial", "device", "device_id", "id")
_LOOKED_AT = 65536
_SEPARATORS = ",;\t"
_MAX_NAME_CHARS, _MAX_HEADER_CHARS = 128, 300
_WORKBOOK = "xl/workbook.xml"
_ZIP = b"PK"
_END, _LOCATOR, _END_64 = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
_END_BYTES, _LOCATOR_BYTES, _END_64_BYTES = 22, 20, 56
_MOST_END = 65_536 + _END_BYTES + _LOCATOR_BYTES + _END_64_BYTES  # comment and preceding records


@dataclass(frozen=True, slots=True)
class ListTrust:
    """Roots and intermediate CAs that a listed certificate must chain to."""

    roots: tuple[Certificate, ...]


class _ListEntry(NamedTuple):
    """A file or row: its display name, the device name, and its bytes or error."""

    name: str | None
    data: bytes | ManifestError
    columns: tuple[tuple[str, str], ...] = ()
    """Other columns of a table row, by name."""
    file: str = ""
    """Path of the entry's file, or its name in a ZIP archive."""
    archive: Path | None = None


def is_list(path: Path, begin: bytes) -> bool:
    """Return whether a directory, or a file by name and beginning, is a certificate list."""
    if path.is_dir() or begin.startswith(_ZIP) or path.suffix.lower() == ".csv":
        return True
    return path.suffix.lower() in _TEXT and is_table(begin)  # Excel calls it "Unicode text"


def is_table(begin: bytes) -> bool:
    """Return whether text with this first line is a table of certificates, whatever its file name."""
    lines = plain_text(begin).decode("latin-1").lstrip().splitlines()
    first = next((line for line in lines if not line.startswith(_TYPE) and not _SEPARATOR.match(line)), "")
    if first.startswith(("[", "{", "-")) or is_der(begin):  # JSON, PEM
        return False
    return "\t" in first or any(_column(cell.strip('"')) in _CERTIFICATES for cell in re.split(r"[,;|]", first))


def _column(name: str) -> str:
    return name.strip(BLANKS).lower().replace(" ", "_")


def find_skipped_files(path: Path) -> list[str]:
    """Return the files of a directory or ZIP that are skipped for their name, or as links out of it."""
    if path.is_dir():
        return _in_directory(path)[1]
    if not _is_zip(path) or _directory_bytes(path) > MAX_ZIP_DIRECTORY_BYTES:
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            return [one.filename for one in archive.infolist() if not (one.is_dir() or _is_looked_at(one.filename))]
    except _ZIP_BROKEN:  # the reader reports it
        return []


def find_manifest(path: Path) -> tuple[str, Path] | None:
    """Return the unpack command of a ZIP (empty for a directory) and the JSON file in it; None if there is none."""
    name = next((one for one in find_skipped_files(path) if one.lower().endswith((".json", ".jsonl"))), None)
    if name is None or path.is_dir():
        return None if name is None else ("", path / name)
    into = path.with_suffix("")
    return f"unzip -n {shlex.quote(str(path))} -d {shlex.quote(str(into))} && ", into / _unpacked(name)


def _is_looked_at(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in _SUFFIXES


def _in_directory(path: Path) -> tuple[list[str], list[str]]:
    """Return the read files and the skipped files, by their names relative to the directory."""
    looked_at, others, inside = list[str](), list[str](), os.path.realpath(path)
    for place, directories, files in os.walk(path, onerror=_refuse):
        here = Path(place)
        is_deepest = len(here.relative_to(path).parts) >= MAX_DEPTH
        others += [
            str((here / one).relative_to(path)) for one in directories if is_deepest or (here / one).is_symlink()
        ]
        directories[:] = [] if is_deepest else directories
        for file in map(here.joinpath, files):
            is_inside = not file.is_symlink() or Path(os.path.realpath(file)).is_relative_to(inside)
            is_good = is_inside and _is_looked_at(file.name) and file.is_file()
            (looked_at if is_good else others).append(str(file.relative_to(path)))
        if len(looked_at) + len(others) > MAX_DIRECTORY_FILES:
            raise MalformedEntryError(place=1, detail=f"the directory has more than {MAX_DIRECTORY_FILES} files")
    return sorted(looked_at), sorted(others)


def _refuse(error: OSError) -> NoReturn:
    raise error


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def count_listed(path: Path) -> int:
    """Return the number of listed certificates, valid or not."""
    return sum(1 for _ in _read(path, str))


def verify_list(
    path: Path, trust: ListTrust, now: datetime, name_of: Callable[[Path], str] = str
) -> Iterator[ManifestEntry | ManifestError]:
    """Yield each certificate as an entry, or its error. Raise if the list itself cannot be read.

    `name_of` returns the display name of a file.
    """
    cache, once = SignatureCache(), DuplicateCheck()
    for place, listed in enumerate(_read(path, name_of), 1):
        try:
            yield once.check(_verify(listed, trust, now, cache), place)
        except ManifestError as error:
            error.add_facts(place=place)
            yield error


def _verify(listed: _ListEntry, trust: ListTrust, now: datetime, cache: SignatureCache) -> ManifestEntry:
    if isinstance(listed.data, ManifestError):
        raise listed.data
    try:
        chain = leaf_first(parse_bundle(listed.data))
    except CertificateInvalidError as error:
        error.add_facts(**({"path": listed.file} if listed.file else {}))
        is_wrapped = isinstance(error, CertificateIsPkcs12Error | CertificateIsPkcs7Error)
        called = listed.name or PurePosixPath(listed.file).name or "it"
        said = f": {error.explain_cause()}".removesuffix(".") if is_wrapped else ""
        hint = f"{_unpacking(listed.archive)}. {error.explain_fix().removesuffix('.')}" if is_wrapped else ""
        raise MalformedEntryError(detail=f"{called} contains no valid certificate{said}", hint=hint) from error
    leaf, others = chain[0], [one for one in chain[1:] if not one.is_ca]
    name = (listed.name or leaf.subject_cn or leaf.thumbprint.hex())[:_MAX_NAME_CHARS]
    if leaf.is_ca:
        raise MalformedEntryError(detail=f"{name} is a CA certificate, not a device certificate")
    if others:
        detail = f"{name} is in the same file as another device, {others[0].subject_text}: use a separate file for each"
        raise MalformedEntryError(detail=detail)
    try:
        path = path_above(chain, trust.roots, now, cache)
    except ChainIncompleteError as error:  # no device name, so that a wrong root is reported once for all
        detail = f"the issuer '{error.issuer}' is not one of the given roots and does not chain to one"
        raise ChainBrokenError(detail=detail, unique_id=name) from error
    except BirthmarkError as error:
        raise ChainBrokenError.by(error, name) from error
    return ManifestEntry(
        unique_id=leaf.subject_cn or name,
        model=UNSIGNED,
        part_number="a list of certificates",
        group_id=None,
        provisioned_at=leaf.not_before,
        signer=f"no one; root {path[-1].subject_cn or path[-1].subject_text}",
        device_der=leaf.der,
        common_name=leaf.subject_cn,
        issuer_der=path[1].der if path[1:] else None,
        key_ids=("0",),
        point=leaf.spki_der,
        columns=listed.columns,
    )


def _unpacked(name: str) -> str:
    """Return the path to which `unzip` extracts a member: never above its directory."""
    return str(PurePosixPath(*(part for part in PurePosixPath(name).parts if part not in {"/", ".."})))


def _unpacking(archive: Path | None) -> str:
    """Return the step that unpacks a ZIP archive before a command; empty without an archive."""
    if archive is None:
        return ""
    into = shlex.quote(str(archive.with_suffix("")))
    return f". Unpack the archive: `unzip -n {shlex.quote(str(archive))} -d {into} && cd {into}`"


def _read(path: Path, name_of: Callable[[Path], str]) -> Iterator[_ListEntry]:
    if path.is_dir():
        return (_of_file(path / name, name_of(path / name)) for name in _in_directory(path)[0])
    return _of_zip(path, Path(name_of(path))) if _is_zip(path) else _of_table(path, name_of(path))


def _of_file(path: Path, called: str) -> _ListEntry:
    with path.open("rb") as file:
        return _ListEntry(None, _bounded(file.read(MAX_FILE_BYTES + 1), PurePath(called).name), file=called)


def _directory_bytes(path: Path) -> int:
    """Return the size of a ZIP's central directory from its end record (APPNOTE 4.3.14 to 4.3.16).

    The record is searched where `zipfile` does.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _MOST_END))
        end = file.read()
    has_no_comment = end[-_END_BYTES:].startswith(_END) and end.endswith(b"\0\0")
    at = len(end) - _END_BYTES if has_no_comment else end.rfind(_END)
    if at < 0:
        return 0
    larger = end[max(0, at - _LOCATOR_BYTES - _END_64_BYTES) : max(0, at - _LOCATOR_BYTES)]
    if end[max(0, at - _LOCATOR_BYTES) : at].startswith(_LOCATOR) and larger.startswith(_END_64):
        return int.from_bytes(larger[40:48], "little")
    return int.from_bytes(end[at + 12 : at + 16], "little")


def _of_zip(path: Path, called: Path) -> Iterator[_ListEntry]:
    try:
        if _directory_bytes(path) > MAX_ZIP_DIRECTORY_BYTES:
            raise MalformedEntryError(place=1, detail=f"the ZIP has more than {MAX_ZIP_FILES} files; unpack it")
        with zipfile.ZipFile(path) as archive:
            files = [one for one in archive.infolist() if _is_looked_at(one.filename) and not one.is_dir()]
            if not files and _WORKBOOK in archive.namelist():
                hint = ', or save the workbook as "CSV UTF-8" and name that'
                raise MalformedEntryError(place=1, detail="the file is an Excel workbook, not a table (CSV)", hint=hint)
            if len(files) > MAX_ZIP_FILES:
                raise MalformedEntryError(place=1, detail=f"the ZIP has more than {MAX_ZIP_FILES} files; unpack it")
            packed = next((one for one in archive.namelist() if one.lower().endswith(_LISTS)), None)
            if not files and packed is not None:
                into = Path(called).with_suffix("")
                unpack = f"`unzip -n {shlex.quote(str(called))} -d {shlex.quote(str(into))}`"
                detail = f"the ZIP holds no certificates, and {printable(packed[:_MAX_NAME_CHARS])}"
                hint = f", or unpack it and name {shlex.quote(str(into / _unpacked(packed)))}: {unpack}"
                raise MalformedEntryError(place=1, detail=detail, hint=hint)
            for one in files:
                with archive.open(one) as file:
                    name = one.filename[:_MAX_NAME_CHARS]
                    data = _bounded(file.read(MAX_FILE_BYTES + 1), name)
                yield _ListEntry(None, data, file=_unpacked(name), archive=called)
    except _ZIP_BROKEN as error:
        raise MalformedEntryError(place=1, detail=f"the ZIP cannot be read: {str(error)[:200]}") from error


# Exceptions of the library for broken archives, and of its compression modules for broken data.
_ZIP_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    NotImplementedError,
    RuntimeError,
    ValueError,
    EOFError,
    OSError,
)


def _bounded(data: bytes, name: str) -> bytes | ManifestError:
    if len(data) <= MAX_FILE_BYTES:
        return data
    return MalformedEntryError(detail=f"{name} is larger than {MAX_FILE_BYTES} bytes")


_MOST_LINES = 1000
"""Maximum number of lines checked per cell; a certificate chain has fewer."""


def _of_table(path: Path, label: str) -> Iterator[_ListEntry]:
    place = 0
    with path.open(encoding=utf_16_of(_begin(path)) or "utf-8-sig", newline="") as file:
        try:
            lines = _bounded_lines(file)
            said_lines = (line for line in lines if line.strip(BLANKS))
            first, separator = next(said_lines, "").lstrip("\ufeff"), None
            if first.startswith(_TYPE):
                first = next(said_lines, "")
            if (said := _SEPARATOR.match(first)) is not None:  # Excel's separator line
                first, separator = next(said_lines, ""), said[1]
            separator = separator or max(_SEPARATORS, key=first.count)
            rows = csv.reader(itertools.chain((first,), lines), delimiter=separator, strict=True)
            columns = [_column(name) for name in next(rows, [])]
            holders = [at for at, name in enumerate(columns) if name in _CERTIFICATES]
            if len(holders) != 1:
                hint = ', or call the one column of certificates "certificate" in its first line'
                raise MalformedEntryError(place=1, detail=_of_header(columns, holders), hint=hint)
            called = next((columns.index(name) for name in _NAMES if name in columns), None)
            once = [(at, name) for at, name in enumerate(columns) if name and columns.count(name) == 1]
            others = [(at, name) for at, name in once if at != holders[0]]
            for place, row in enumerate(rows, 1):
                if any(_has_a_row(cell, separator, len(columns)) for cell in row):
                    detail = "a quotation mark that opens in this row, or one before, is not closed"
                    raise MalformedEntryError(place=place, detail=detail, hint=", or close it, or leave it out")
                if any(cell.strip(BLANKS) for cell in row):
                    says = tuple((name, row[at].strip()) for at, name in others if at < len(row))
                    yield _of_row(row, holders[0], called)._replace(columns=says)
        except UnicodeError as error:
            begin = _begin(path)
            hint = f". {format_conversion_fix(label, begin)}"
            raise MalformedEntryError(place=place + 1, detail=f"the table {not_utf_8(begin)}", hint=hint) from error
        except csv.Error as error:
            detail = f"the table cannot be read, a quotation mark may not be closed: {error}"
            raise MalformedEntryError(place=place + 1, detail=detail) from error


def _has_a_row(cell: str, separator: str, columns: int) -> bool:
    """Return whether a multi-line cell contains complete rows, a sign of an unbalanced quote."""
    _, *more = cell.splitlines()[:_MOST_LINES] or ("",)
    return columns > 1 and any(line.count(separator) >= columns - 1 for line in more)


def _begin(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LOOKED_AT)


def _of_header(columns: list[str], holders: list[int]) -> str:
    if holders:
        named = ", ".join(columns[at] for at in holders)
        return f"the first line of the table names {len(holders)} columns of certificates, {named}"
    if not all(_COLUMN.fullmatch(name) for name in columns if name):  # any other text may be a secret
        return f"the first line of the table is not a header with one of the columns {', '.join(_CERTIFICATES[:3])}"
    said = printable(", ".join(columns))[:_MAX_HEADER_CHARS] or "nothing"
    return f"the header of the table has the columns {said}, but none of {', '.join(_CERTIFICATES[:3])}"


def _of_row(row: list[str], holder: int, named: int | None) -> _ListEntry:
    name = row[named].strip() if named is not None and named < len(row) else ""
    if any("\0" in cell for cell in row):
        called = name.replace("\0", "")[:_MAX_NAME_CHARS] or "the line"
        return _ListEntry(called, MalformedEntryError(detail=f"{called} has a cell with U+0000, which is not text"))
    if holder >= len(row) or not row[holder].strip():
        return _ListEntry(
            name, MalformedEntryError(detail=f"{name[:_MAX_NAME_CHARS] or 'the line'} has no certificate")
        )
    text = row[holder].replace("\\n", "\n").strip()
    return _ListEntry(name or None, _bounded(text.encode(), name[:_MAX_NAME_CHARS] or "the line"))


def _bounded_lines(file: TextIO) -> Iterator[str]:
    while line := file.readline(MAX_FILE_BYTES + 1):
        if len(line) > MAX_FILE_BYTES:
            raise csv.Error(f"a line is longer than {MAX_FILE_BYTES} characters")
        yield line
