"""Streaming parser of multipart forms: fields in memory, files in a directory, each with a size limit.

Uploads that no page of this server requested are discarded: the form's token precedes its files.
"""

import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from birthmark.errors import InvalidRequestError
from birthmark.supervised_tasks import run_in_thread
from birthmark.webconsole.enroll.limits import (
    MAX_FIELD_BYTES,
    MAX_FIELDS,
    MAX_FILES,
    MAX_FILES_BYTES,
    MAX_TRUST_BYTES,
)

LIST, TRUST, SIGNERS = "files", "roots", "signers"
_MOST = {LIST: MAX_FILES_BYTES, TRUST: MAX_TRUST_BYTES, SIGNERS: MAX_TRUST_BYTES}
_MAX_NAME_CHARS = 200
_MAX_HEADER_CHARS, _MAX_HEADERS = 2048, 16
_PARAMETER = re.compile(r';\s*+([A-Za-z0-9-]++)=(?:"((?:[^"\\]|\\.)*+)"|([^\s;"]*+))', re.DOTALL)
_SPACE = re.compile(r"\s*+")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def parse_header(text: str) -> tuple[str, dict[str, str]]:
    """Return the value of a header and its parameters (RFC 9110, 5.6.6), in time linear in its length.

    A header that is too long is ignored, as is everything after an invalid part.
    """
    found: dict[str, str] = {}
    at = text.find(";")
    if len(text) > _MAX_HEADER_CHARS or at < 0:
        return text[:_MAX_NAME_CHARS].strip().lower(), found
    value = text[:at].strip().lower()
    while (one := _PARAMETER.match(text, at)) is not None:
        quoted, plain = one[2], one[3]
        found.setdefault(one[1].lower(), plain if quoted is None else _ESCAPED.sub(r"\1", quoted))
        at = _SPACE.match(text, one.end()).end()  # type: ignore[union-attr] # matches empty, too
    return value, found


class DropRefusedError(InvalidRequestError):
    """The upload is rejected."""

    code = "console.drop_refused"
    message = "The uploaded files were rejected: {detail}"
    cause = "The uploaded files are not valid: {detail}."
    fix = "Choose other files. For larger lists, use the command line: `birthmark device enroll-list --help`"
    for_a_person = "the files are on the user's machine"
    detail: str


def _bounded(header: bytes) -> bytes:
    if len(header) > _MAX_HEADER_CHARS:
        raise DropRefusedError(detail="its form cannot be read")
    return header


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """An uploaded file: its name is untrusted text, its path is set by the server."""

    kind: str
    name: str
    path: Path


@dataclass(slots=True)
class Receiver:
    """Receives the body of a form in chunks.

    `check` raises if the fields before the files are not from this server's page.
    """

    directory: Path
    check: Callable[[dict[str, str]], None]
    fields: dict[str, str] = field(default_factory=dict)
    files: list[UploadedFile] = field(default_factory=list)
    _parser: MultipartParser = field(init=False)
    _headers: dict[str, bytes] = field(default_factory=dict, init=False)
    _name: bytes = field(default=b"", init=False)
    _value: bytes = field(default=b"", init=False)
    _field: str | None = field(default=None, init=False)
    _data: bytearray = field(default_factory=bytearray, init=False)
    _file: BinaryIO | None = field(default=None, init=False)
    _sizes: dict[str, int] = field(default_factory=dict, init=False)
    _count: int = field(default=0, init=False)
    _is_checked: bool = field(default=False, init=False)
    is_whole: bool = field(default=False, init=False)

    def begin(self, content_type: str) -> None:
        """Start with the content type of the request. Raise `DropRefusedError`."""
        kind, told = parse_header(content_type)
        boundary = told.get("boundary")
        if kind != "multipart/form-data" or not boundary:
            raise DropRefusedError(detail="the request does not come from the form of this page")
        self._parser = MultipartParser(
            boundary.encode("latin-1", "replace"),
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._on_name,
                "on_header_value": self._on_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._on_data,
                "on_part_end": self._end_part,
                "on_end": self._on_end,
            },
        )

    def take(self, data: bytes) -> None:
        """Process a chunk, and write file content. Raise `DropRefusedError`, and the errors of `check`."""
        try:
            self._parser.write(data)
        except MultipartParseError as error:
            raise DropRefusedError(detail="its form cannot be read") from error

    def close(self) -> None:
        """Close open files."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin_part(self) -> None:
        self._headers.clear()
        self._name = self._value = b""
        self._data.clear()
        self._count += 1
        if self._count > MAX_FIELDS + MAX_FILES:
            raise DropRefusedError(detail=f"there are more than {MAX_FILES} files; upload them as a ZIP file")

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name = _bounded(self._name + data[start:end])

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value = _bounded(self._value + data[start:end])

    def _end_header(self) -> None:
        if len(self._headers) >= _MAX_HEADERS:
            raise DropRefusedError(detail="its form cannot be read")
        self._headers[self._name.decode("latin-1").lower()] = self._value
        self._name = self._value = b""

    def _end_headers(self) -> None:
        _, told = parse_header(self._headers.get("content-disposition", b"").decode("utf-8", "replace"))
        name, file_name = told.get("name"), told.get("filename")
        if name is None:
            raise DropRefusedError(detail="its form cannot be read")
        self._field = name
        if file_name is None:
            return
        if not self._is_checked:
            self.check(self.fields)
            self._is_checked = True
        if name not in _MOST:
            raise DropRefusedError(detail="the request does not come from the form of this page")
        if not file_name:  # no selection
            return
        path = self.directory / f"{len(self.files):04d}"
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(opened, "wb")
        self.files.append(UploadedFile(name, file_name[:_MAX_NAME_CHARS], path))

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is None:
            self._data += data[start:end]
            if len(self._data) > MAX_FIELD_BYTES:
                raise DropRefusedError(detail="its form cannot be read")
            return
        kind = self.files[-1].kind
        size = self._sizes[kind] = self._sizes.get(kind, 0) + end - start
        if size > _MOST[kind]:
            raise DropRefusedError(detail=f"they are larger than {_MOST[kind] // 1024**2} MiB together")
        self._file.write(data[start:end])

    def _end_part(self) -> None:
        if self._file is not None:
            self.close()
        elif self._field is not None and len(self.fields) < MAX_FIELDS:
            self.fields[self._field] = self._data.decode("utf-8", "replace")
        self._field = None

    def _on_end(self) -> None:
        self.is_whole = True


async def receive(
    content_type: str, body: AsyncIterator[bytes], directory: Path, check: Callable[[dict[str, str]], None]
) -> Receiver:
    """Return the fields and files of a form. Raise `DropRefusedError`, the errors of `check`, and `OSError`."""
    receiver = Receiver(directory, check)
    receiver.begin(content_type)
    try:
        async for piece in body:
            if piece:
                await run_in_thread(lambda piece=piece: receiver.take(piece))  # type: ignore[misc] # bind now
    finally:
        with suppress(OSError):
            receiver.close()
    if not receiver.is_whole:
        raise DropRefusedError(detail="the upload was interrupted")
    if not receiver._is_checked:  # noqa: SLF001 - a form without a file
        check(receiver.fields)
    return receiver
