"""Parsing of https URLs."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

MAX_ANSWER_BYTES = 1024 * 1024
TIMEOUT_S = 30.0
WEBSOCKET_PORT = 443
"""Port at which hubs accept MQTT over WebSocket, with the following path."""
WEBSOCKET_PATH = "/$iothub/websocket"
_DEFAULT_PORT = 443
_PLAIN = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:\[\]/-]*")


class UrlInvalidError(ValueError):
    """Not an https URL, or one with a password in it; callers with user input raise their own error."""


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """Target of an HTTP request: host without brackets, port, and path with its query."""

    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORT else f"{host}:{self.port}"


def suggest_url(text: str, path: str = "") -> str | None:
    """Return the probable https URL for a bare host or another scheme; None if unclear."""
    rest = text.rpartition("://")[2].rstrip("/")
    if _PLAIN.fullmatch(rest) is None:
        return None
    url = f"https://{rest}" if "/" in rest else f"https://{rest}{path}"
    try:
        parse_url(url)
    except UrlInvalidError:
        return None
    return url


def parse_url(url: str) -> HttpTarget:
    """Return the target of an https URL. Raise `UrlInvalidError`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UrlInvalidError("the URL cannot be read") from None
    is_plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme != "https" or not parts.hostname or parts.username is not None or not is_plain:
        raise UrlInvalidError("not an https URL")
    return HttpTarget(parts.hostname, port or 443, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
