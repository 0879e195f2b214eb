"""File download by URLs in job documents: GET and HEAD, complete or one range (RFC 9110 section 14)."""

import os
import re
from contextlib import ExitStack
from email.utils import formatdate
from typing import BinaryIO
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from birthmark.awsiot.rules.job_document_placeholders import FILES
from birthmark.awsiot.service.job_documents_and_s3_files import JobFiles
from birthmark.net.file_range_response import FileRangeResponse

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_METHODS = ("GET", "HEAD")


def is_file(path: str) -> bool:
    """Return whether a path is that of a file."""
    return path.startswith(f"/{FILES}/")


async def file_of(files: JobFiles, request: Request, path: str) -> Response:
    """Return the response to a valid file URL. Raise the errors of `JobFiles`."""
    if request.method not in _METHODS:
        return Response(status_code=405, headers={"allow": ", ".join(_METHODS)})
    thing = await files.reader(path, request.query_params)
    _, _, bucket, key = path.split("/", 3)
    with ExitStack() as held:
        held.enter_context(files.reading(thing))
        file = held.enter_context(await files.open_file(unquote(bucket), unquote(key)))
        return _response(file, request, held.pop_all())


def _response(file: BinaryIO, request: Request, stack: ExitStack) -> Response:
    """Return the response with a file, or a range of it."""
    known = os.fstat(file.fileno())
    headers = {
        "accept-ranges": "bytes",
        "etag": f'"{known.st_mtime_ns:x}-{known.st_size:x}-{known.st_ino:x}"',
        "last-modified": formatdate(known.st_mtime, usegmt=True),
    }
    wanted = range_of(request, known.st_size, headers["etag"], headers["last-modified"])
    status = 200 if wanted is None else 206
    if wanted == range(0):
        status = 416
        headers["content-range"] = f"bytes */{known.st_size}"
    elif wanted is not None:
        headers["content-range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{known.st_size}"
    wanted = range(known.st_size) if wanted is None else wanted
    return FileRangeResponse(file, wanted, stack, status=status, headers=headers)


def range_of(request: Request, size: int, etag: str, modified: str) -> range | None:
    """Return the requested range of a file: None for all of it, an empty one if it cannot be satisfied.

    Several ranges, invalid ranges, and ranges of an outdated file select the complete file.
    """
    found = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if request.method != "GET" or found is None or found[0] == "bytes=-":
        return None
    if (known := request.headers.get("if-range")) is not None and known.strip() not in {etag, modified}:
        return None
    first, last = found[1], found[2]
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < start:
            return None
    return range(start, stop) if start < stop else range(0)
