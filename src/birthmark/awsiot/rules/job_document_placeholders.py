"""Placeholders in job documents: parameters, and presigned URLs of files for a thing.

`${aws:iot:parameter:NAME}` is replaced by the value from the job's creator. `${aws:iot:s3-presigned-url:URL}`, also
with `-v2`, becomes a new URL for each delivery to a thing (developer guide, "Create and manage jobs", "Presigned
URLs"). The URL is signed with the server's own key, for GET of one path, one thing, and a limited time.
"""

import base64
import hmac
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from urllib.parse import quote, unquote

from birthmark.awsiot.wire import BodyInvalidError
from birthmark.awsiot.wire.jobs import MAX_DOCUMENT_BYTES, parse_document
from birthmark.awsiot.wire.managed_job_templates import OPTIONAL
from birthmark.errors import ForbiddenError

FILES = "job-files"
"""First segment of the paths of job files."""
MAX_FILES = 16
"""Maximum number of URLs per document."""
LIFETIME_S = 3600
MAX_PARAMETER_CHARS = 30_720
_PARAMETER = re.compile(r"\$\{aws:iot:parameter:([a-zA-Z0-9_-]{1,128})\}")
_FILE = re.compile(r'\$\{aws:iot:s3-presigned-url(?:-v2)?:([^}"]{1,1400})\}')
_OBJECT = re.compile(
    r"(?:s3://(?P<named>[^/?#]+)"
    r"|https?://(?:(?P<hosted>[a-zA-Z0-9._-]{3,255})\.)?s3(?:[.-][a-z0-9.-]{1,60})?\.amazonaws\.com(?:\.cn)?)"
    r"/(?P<path>[^?#]+)"
)


class FileLinkError(ForbiddenError):
    """The file's URL has expired or was not issued by this server."""

    code = "awsiot.file_link"
    message = "The file URL {why}"
    cause = "{who} requested a file with a URL that {why}."
    fix = "Have the thing fetch the job document again; each copy contains new URLs. List jobs: `birthmark aws job ls`"
    who: str = "A client"
    why: str


def parse_object_url(url: str) -> tuple[str, str]:
    """Return the bucket and the key that a URL of Amazon S3 names. Raise `BodyInvalidError`."""
    found = _OBJECT.fullmatch(url)
    if found is None:
        raise BodyInvalidError(
            detail=f"{url[:200]!r} is not the URL of an object such as https://s3.us-east-1.amazonaws.com/BUCKET/KEY"
        )
    bucket, path = found["named"] or found["hosted"], unquote(found["path"])
    if bucket is None:
        bucket, _, path = path.partition("/")
    return bucket, path


def parameters_in(document: str) -> set[str]:
    """Return the names of the parameters in a job document."""
    return set(_PARAMETER.findall(document))


def substitute_parameters(document: str, parameters: Mapping[str, str]) -> str:
    """Return a document with its parameters; missing ones are empty."""
    written = {name: json.dumps(value)[1:-1] for name, value in parameters.items()}
    return _PARAMETER.sub(lambda found: written.get(found[1], ""), document)


def _resolved_chars(document: str, parameters: Mapping[str, str]) -> int:
    """Return the maximum length of the resolved document."""
    counts = Counter(_PARAMETER.findall(document))
    return len(document) + sum(count * len(json.dumps(parameters.get(name, ""))) for name, count in counts.items())


def parse_parameters(values: Mapping[str, str], document: str) -> Mapping[str, str]:
    """Return the parameters of a document. Raise `BodyInvalidError` for missing or unknown ones."""
    named = parameters_in(document)
    for name, value in values.items():
        if name not in named:
            raise BodyInvalidError(detail=f"documentParameters has {name[:128]!r}, and the document does not")
        if not 1 <= len(value) <= MAX_PARAMETER_CHARS or not value.isprintable():
            raise BodyInvalidError(
                detail=f"documentParameters {name} has 1 to {MAX_PARAMETER_CHARS} printable characters"
            )
    if missing := sorted(named - values.keys() - {*OPTIONAL}):
        raise BodyInvalidError(detail=f"documentParameters is without {missing[0]}, which the document has")
    if _resolved_chars(document, values) > MAX_DOCUMENT_BYTES:
        raise BodyInvalidError(detail=f"document has more than {MAX_DOCUMENT_BYTES} bytes with its parameters")
    parse_document(substitute_parameters(document, values))
    return values


def may_have_files(document: str) -> bool:
    """Return whether a document may contain URL placeholders."""
    return "${aws:iot:s3-presigned-url" in document


def files_in(document: str) -> Iterator[tuple[str, str]]:
    """Yield the bucket and key of each file URL in a job document. Raise `BodyInvalidError`."""
    for number, found in enumerate(_FILE.finditer(document), start=1):
        if number > MAX_FILES:
            raise BodyInvalidError(detail=f"document has more than {MAX_FILES} presigned URLs")
        yield parse_object_url(_plain(found[1]))


def substitute_urls(document: str, url_of: Callable[[str, str], str]) -> str:
    """Return a document with its URLs; `url_of` creates one from bucket and key."""
    return _FILE.sub(lambda found: url_of(*parse_object_url(_plain(found[1]))), document)


def _plain(text: str) -> str:
    return text.replace("\\/", "/")  # some JSON encoders escape a slash


def path_of(bucket: str, key: str) -> str:
    """Return the URL path of a file."""
    return f"/{FILES}/{quote(bucket)}/{quote(key)}"


def query_of(master: bytes, path: str, thing: str, expires: int) -> str:
    """Return the query that lets a thing download a path until `expires`, in seconds since 1970."""
    return f"thing={quote(thing)}&expires={expires}&signature={_signature(master, path, thing, expires)}"


def check_link(master: bytes, path: str, query: Mapping[str, str], now: datetime) -> str:
    """Return the thing of a presigned URL. Raise `FileLinkError`."""
    thing, expires, signature = (query.get(name, "") for name in ("thing", "expires", "signature"))
    wanted = _signature(master, path, thing, expires)
    if not hmac.compare_digest(signature.encode(), wanted.encode()):
        raise FileLinkError(why="was not issued by this server, or was changed")  # so the recipient is unknown
    if now.timestamp() >= int(expires):
        error = FileLinkError(who=thing, why="has expired")
        error.add_facts(thing=thing)
        raise error
    return thing


def _signature(master: bytes, path: str, thing: str, expires: int | str) -> str:
    mac = hmac.digest(master, f"file\0GET\0{path}\0{thing}\0{expires}".encode(), "sha256")
    return base64.urlsafe_b64encode(mac).decode().rstrip("=")
