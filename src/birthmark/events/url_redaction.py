"""What of a receiver's URL is shown: path and query are often its secret, and are for who administers alone. Pure."""

import html
from urllib.parse import unquote, urlsplit

from birthmark.outbound.mail_config import BEGIN

_LEFT_OUT = "…"
_MIN_SECRET = 6
"""What is shorter is guessed anyway, and may be any word."""


def host_only(url: str) -> str:
    """Return a URL without what may be secret in it: scheme and host; of mail, the address's domain."""
    if url.startswith(BEGIN):
        return f"{BEGIN}{_LEFT_OUT}@{url.rpartition('@')[2]}"
    parts = urlsplit(url)
    more = parts.path.strip("/") or parts.query
    return f"{parts.scheme}://{parts.netloc}/{_LEFT_OUT if more else ''}"


def without_secrets(text: str, url: str) -> str:
    """Return what a receiver answers, without parts of its own URL, which pages of errors like to repeat."""
    parts = urlsplit(url)
    pieces = [parts.path, parts.query, *parts.path.split("/"), *parts.query.replace("&", "=").split("=")]
    forms = {form for one in pieces for form in (one, unquote(one), html.escape(one))}
    for piece in sorted(forms, key=len, reverse=True):
        if len(piece) >= _MIN_SECRET:
            text = text.replace(piece, _LEFT_OUT)
    return text
