"""Redaction of a receiver's URL: path and query are often secret, so only administrators may see them. Pure."""

import html
from urllib.parse import unquote, urlsplit

from birthmark.outbound.mail_config import BEGIN

_LEFT_OUT = "…"
_MIN_SECRET = 6
"""Minimum length of a secret; a shorter text is easy to guess and may be any word."""


def host_only(url: str) -> str:
    """Return a URL without possible secrets: scheme and host; for email, the domain of the address."""
    if url.startswith(BEGIN):
        return f"{BEGIN}{_LEFT_OUT}@{url.rpartition('@')[2]}"
    parts = urlsplit(url)
    more = parts.path.strip("/") or parts.query
    return f"{parts.scheme}://{parts.netloc}/{_LEFT_OUT if more else ''}"


def without_secrets(text: str, url: str) -> str:
    """Return a receiver's response without parts of its own URL, which error pages often repeat."""
    parts = urlsplit(url)
    pieces = [parts.path, parts.query, *parts.path.split("/"), *parts.query.replace("&", "=").split("=")]
    forms = {form for one in pieces for form in (one, unquote(one), html.escape(one))}
    for piece in sorted(forms, key=len, reverse=True):
        if len(piece) >= _MIN_SECRET:
            text = text.replace(piece, _LEFT_OUT)
    return text
