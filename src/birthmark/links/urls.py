"""Where an https URL points."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from birthmark.links.errors import UrlInvalidError

MAX_URL_CHARS = 2048
MAX_ANSWER_BYTES = 1024 * 1024
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Target:
    """Host without brackets, port, and path with its query."""

    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """What belongs into the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 443 else f"{host}:{self.port}"  # noqa: PLR2004 (the default port)


def parse_url(url: str) -> Target:
    """Return where `url` points. Raise `UrlInvalidError`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UrlInvalidError("Not a usable URL.", url=url[:200]) from None
    is_plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme != "https" or not parts.hostname or parts.username or len(url) > MAX_URL_CHARS or not is_plain:
        raise UrlInvalidError("Not a usable URL.", url=url[:200].partition("@")[2] or url[:200])
    return Target(parts.hostname, port or 443, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
