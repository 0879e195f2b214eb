"""Page rendering: escaping templates, static files by digest, and the content security policy.

The policy allows no inline script or style, no external request and no frame (CSP 3). This server's scripts have a
nonce, as does each element that htmx may act on (extension hx-csp). Only htmx creates nodes from text.
"""

import base64
import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.operator_api.cookie_request_guard import path_of
from birthmark.untrusted_json_and_text import printable
from birthmark.webconsole import i18n
from birthmark.webconsole.event_labels import word_of
from birthmark.webconsole.i18n import PageLocale, reader

FILES = {
    "style.css": "text/css",
    "charts.css": "text/css",
    "htmx.min.js": "text/javascript",
    "hx-csp.min.js": "text/javascript",
    "enroll.js": "text/javascript",
    "live.js": "text/javascript",
    "stream.js": "text/javascript",
    "uplot.min.js": "text/javascript",
    "uplot.min.css": "text/css",
    "rates.js": "text/javascript",
    "mark.svg": "image/svg+xml",
}
_FOREVER = "public, max-age=31536000, immutable"
_DIGEST_CHARS, _NONCE_BYTES = 16, 16
_LEAST_TO_PACK = 1024
_LEVEL = 5
LANGUAGE_COOKIE, ZONE_COOKIE = "birthmark-language", "birthmark-zone"
_HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "vary": "accept-encoding, accept-language, cookie, hx-request",
}


@dataclass(frozen=True, slots=True)
class File:
    """A file of the package, plain and compressed."""

    content: bytes
    packed: bytes
    media_type: str
    digest: str


@cache
def file(name: str) -> File:
    """Return a static file of the pages."""
    content = files(__package__).joinpath("files", name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:_DIGEST_CHARS]
    return File(content, gzip.compress(content, 9, mtime=0), FILES[name], digest)


def address_of(name: str) -> str:
    """Return the URL of a static file by its digest; it can be cached permanently."""
    return f"/files/{file(name).digest}/{name}"


def file_route() -> Route:
    """Return the route of static files, which requires no sign-in."""

    async def answer(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in FILES or file(name).digest != request.path_params["digest"]:
            return Response(status_code=404, headers=_HEADERS)
        found = file(name)
        headers = {"cache-control": _FOREVER, "x-content-type-options": "nosniff", "vary": "accept-encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(found.packed, headers=headers | {"content-encoding": "gzip"}, media_type=found.media_type)
        return Response(found.content, headers=headers, media_type=found.media_type)

    return Route("/files/{digest}/{name}", answer)


def policy(nonce: str) -> str:
    """Return the Content-Security-Policy of a page."""
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; worker-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types htmx birthmark"
    )


class TemplateRenderer:
    """Renders templates as pages."""

    def __init__(self, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._entropy = entropy
        environment = Environment(
            loader=PackageLoader("birthmark.webconsole"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.i18n"],
            auto_reload=False,
        )
        environment.install_gettext_callables(i18n.translate, i18n.count_of, newstyle=True)  # type: ignore[attr-defined]
        environment.globals |= {"file": address_of, "languages": i18n.LANGUAGES, "call": _call, "scrolls": _scrolls}
        environment.filters |= {
            "number": i18n.number,
            "share": i18n.share,
            "time": self._time,
            "until": self._until,
            "timed": self._timed,
            "word": word_of,
            "typed": typed,
            "plain": plain,
            "short": short,
            "block": block,
        }
        self._environment = environment

    def page(self, request: Request, template: str, values: Mapping[str, Any], status: int = 200) -> Response:
        """Return a page, or the part of it that an htmx request targets."""
        nonce = base64.urlsafe_b64encode(self._entropy.token(_NONCE_BYTES)).decode().rstrip("=")
        given = {
            **values,
            "nonce": nonce,
            "now": self._clock.now(),
            "reader": reader.get(),
            "path": path_of(request),
            "once": self._entropy.token(_NONCE_BYTES).hex(),
        }
        text = self._environment.get_template(template).render(given).encode("utf-8", "backslashreplace")
        headers = _HEADERS | {"content-security-policy": policy(nonce)}
        if len(text) >= _LEAST_TO_PACK and "gzip" in request.headers.get("accept-encoding", ""):
            text, headers = gzip.compress(text, _LEVEL, mtime=0), headers | {"content-encoding": "gzip"}
        return Response(text, status, headers, "text/html")

    def download(self, name: str, text: str, media_type: str) -> Response:
        """Return a file as a download that browsers do not render."""
        headers = _HEADERS | {"content-disposition": f'attachment; filename="{name}"'}
        return Response(
            text, headers=headers | {"content-security-policy": "default-src 'none'"}, media_type=media_type
        )

    def _time(self, at: datetime | str) -> Markup:
        """Return a short time, with the exact one for hovering or copying."""
        when = datetime.fromisoformat(at) if isinstance(at, str) else at
        said = (when.isoformat(), i18n.exact(when), i18n.moment(when, self._clock.now()))
        return Markup('<time datetime="{}" title="{}">{}</time>').format(*said)

    def _timed(self, text: str) -> Markup:
        """Return untrusted text with its times in the user's format."""
        parts = _UTC.split(text)
        return Markup("").join(self._moment(part) if at % 2 else plain(part) for at, part in enumerate(parts))

    def _moment(self, text: str) -> Markup:
        """Return text that looks like a time as one; invalid times, such as of a 13th month, are unchanged."""
        try:
            return self._time(datetime.fromisoformat(f"{text}Z"))
        except ValueError:
            return plain(f"{text} UTC")

    def _until(self, at: datetime | str) -> Markup:
        """Return the distance to a time, with the exact time."""
        when = datetime.fromisoformat(at) if isinstance(at, str) else at
        apart = when - self._clock.now()
        words = i18n.translate("in {time}") if apart > timedelta() else i18n.translate("{time} ago")
        said = (when.isoformat(), i18n.exact(when), words.format(time=i18n.span(abs(apart))))
        return Markup('<time datetime="{}" title="{}">{}</time>').format(*said)


def reader_of(request: Request) -> PageLocale:
    """Return the locale of a request."""
    cookies = request.cookies
    found = i18n.language_of(request.headers.get("accept-language", ""), cookies.get(LANGUAGE_COOKIE, ""))
    return PageLocale(found, *i18n.zone_of(cookies.get(ZONE_COOKIE, "").replace("%2F", "/")))


def plain(text: object) -> Markup:
    """Return untrusted text: printable characters only, with an isolated text direction."""
    return Markup("<bdi>{}</bdi>").format(printable(str(text)))


def block(text: object) -> Markup:
    """Return untrusted text of several lines for `pre`."""
    return Markup("<bdi>{}</bdi>").format("\n".join(map(printable, str(text).split("\n"))))


def typed(text: str) -> Markup:
    """Return a command that breaks only between words, if they are short."""
    whole = Markup('<span class="w">{}</span>')
    words = (
        word
        if word in {" ", "\n"}
        else whole.format(printable(word))
        if len(word) <= _MAX_UNBROKEN
        else printable(word)
        for word in re.split(r"([ \n])", text)
    )
    return Markup("").join(words)


def short(text: object, limit: int = 64) -> Markup:
    """Return untrusted text with its middle shortened; the full text appears on hover."""
    whole = printable(str(text))
    if len(whole) <= limit:
        return Markup("<bdi>{}</bdi>").format(whole)
    half = limit // 2
    return Markup('<bdi title="{}">{}…{}</bdi>').format(whole[:_MAX_TITLE], whole[:half], whole[-(half - 1) :])


_MAX_TITLE, _MAX_UNBROKEN = 512, 30
_UTC = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?) UTC")


def _scrolls() -> Markup:
    """Return the attributes of an element that scrolls horizontally if the window is narrow.

    It also scrolls by keyboard (WCAG 2.1.1).
    """
    return Markup('tabindex="0" role="group" aria-label="{}"').format(i18n.translate("Table"))


def _call(nonce: str, **more: str) -> Markup:
    """Return the htmx attributes of an element, with the nonce that they require."""
    said = {"hx_nonce": nonce} | more
    pairs = (Markup('{}="{}"').format(name.replace("__", ":").replace("_", "-"), value) for name, value in said.items())
    return Markup(" ").join(pairs)
