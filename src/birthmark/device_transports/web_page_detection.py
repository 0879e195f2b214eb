"""Detection of web pages in place of a service's response: a blocking proxy, or a captive portal."""

import html
import re
from collections.abc import Mapping
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from birthmark.errors import UnavailableError
from birthmark.untrusted_json_and_text import printable

_LOOKED_AT, _MAX_TITLE = 64 * 1024, 80
_PAGE = re.compile(
    rb"\s{0,256}(?:<!--.{0,256}?-->\s{0,256})?<(?:!doctype\s+html|html|head|title)\b", re.IGNORECASE | re.DOTALL
)
_TITLE = re.compile(rb"<title[^>]{0,256}>([^<]{0,1024})", re.IGNORECASE)


class _Answer(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...


A = TypeVar("A", bound=_Answer)


class WebPageError(UnavailableError):
    """A web page was returned instead of the service's response."""

    code = "links.web_page"
    cause = "{host} returned {status} with a web page, '{title}', which is not a response of {service}."
    fix = "Allow {host} in the proxy or portal, or set NO_PROXY. Then retry."
    host: str
    service: str
    status: int
    title: str


def check_answer(answer: A, url: str, service: str) -> A:
    """Return the response of a service. Raise `WebPageError` for an HTML page, whatever its status."""
    start = answer.body[:_LOOKED_AT]
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (kind == "text/html" and start) and _PAGE.match(start) is None:
        return answer
    found = _TITLE.search(start)
    words = "" if found is None else html.unescape(found[1].decode("utf-8", "replace"))
    title = printable(" ".join(words.split()))[:_MAX_TITLE] or "without a title"
    raise WebPageError(host=urlsplit(url).netloc, status=answer.status, title=title, service=service)
