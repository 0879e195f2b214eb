"""HTTP proxy: selection from the environment, and the tunnel through it.

`https_proxy`, `all_proxy` and `no_proxy`, in upper or lower case, have the same meaning as for curl. A client requests
a tunnel by CONNECT (RFC 9110 section 9.3.6). TLS runs through it to the server, so a proxy sees only names and sizes.
Few proxies allow ports other than 443, so MQTT then runs over WebSocket.
"""

import base64
import socket
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from birthmark.errors import UnavailableError

_MAX_ANSWER_BYTES = 16 * 1024
_DEFAULT_PORT = 80
_ODD = "only http://HOST:PORT is spoken to, with USER:PASSWORD@ before it, and %2F, %40 and the like for signs in them"


class ProxyFailedError(UnavailableError):
    """The proxy rejected the connection."""

    code = "links.proxy_failed"
    cause = "The proxy {proxy} did not open a tunnel to {host} port {port}: {reason}."
    fix = (
        "Check https_proxy and the proxy's rules. Include the user name and password in the proxy URL: "
        "http://USER:PASSWORD@HOST:PORT. To connect to this server without the proxy: `export no_proxy={host}`"
    )
    proxy: str
    host: str
    port: int
    reason: object


@dataclass(frozen=True, slots=True)
class HttpProxy:
    """An HTTP proxy with its credentials."""

    host: str
    port: int
    user: str | None = None
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def proxy_of(host: str, port: int, proxies: dict[str, str] | None = None) -> HttpProxy | None:
    """Return the proxy for a server, None for a direct connection. Raise `ProxyFailedError` for another kind.

    `proxies` maps schemes to URLs, with `no` for the servers that bypass the proxy; default: the environment's.
    """
    if proxies is None:
        proxies = getproxies_environment()
    url = proxies.get("https") or proxies.get("all")
    if not url or proxy_bypass_environment(host, proxies):
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        name, number = parts.hostname, parts.port
    except ValueError:  # its text may have the password
        raise ProxyFailedError(proxy="of the environment", host=host, port=port, reason=_ODD) from None
    if parts.scheme != "http" or not name or (parts.username is None and "@" in url):
        raise ProxyFailedError(proxy="of the environment", host=host, port=port, reason=_ODD)
    user = None if parts.username is None else unquote(parts.username)
    return HttpProxy(name, number or _DEFAULT_PORT, user, unquote(parts.password or ""))


def tunnel(line: socket.socket, proxy: HttpProxy, host: str, port: int) -> None:
    """Open a tunnel through a connected proxy. Raise `ProxyFailedError`."""
    try:
        line.sendall(request(proxy, host, port))
        answer = b""
        while b"\r\n\r\n" not in answer and len(answer) < _MAX_ANSWER_BYTES:
            if not (part := line.recv(1)):  # later bytes belong to the server
                break
            answer += part
        reason = parse_refusal(answer)
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise ProxyFailedError(proxy=str(proxy), host=host, port=port, reason=reason)


def request(proxy: HttpProxy, host: str, port: int) -> bytes:
    """Return the request for a tunnel."""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    if proxy.user is not None:
        told = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {told}")
    return "\r\n".join([*lines, "", ""]).encode()


def parse_refusal(answer: bytes) -> str:
    """Return the reason why the proxy refused the tunnel; empty for success."""
    if b"\r\n\r\n" not in answer:
        return "it does not respond with HTTP" if answer else "it closed the connection"
    words = answer.partition(b"\r\n")[0].decode("ascii", "replace").split(" ", 2)
    if not words[0].startswith("HTTP/1.") or len(words) == 1:
        return "it does not respond with HTTP"
    if words[1].startswith("2"):
        return ""
    return f"it responded with {' '.join(words[1:])[:100]}"
