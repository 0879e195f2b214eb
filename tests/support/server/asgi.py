"""Call an ASGI application without a socket: the smallest client that tests of routes need."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from birthmark.pki.certificates import Certificate


@dataclass(frozen=True)
class FakePeer:
    """What a handshake would have proved."""

    leaf: Certificate | None = None
    chain: tuple[Certificate, ...] = ()
    tls_unique: bytes | None = None
    exporter: bytes | None = None

    def exported_binding(self) -> bytes | None:
        return self.exporter


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def text(self) -> str:
        return self.body.decode()


async def request(
    app: Any,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    peer: Any = None,
    address: str = "192.0.2.1",
) -> Answer:
    parts = urlsplit(url)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": parts.path,
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "client": (address, 50000),
        "server": ("localhost", 8085),
        "extensions": {"tls": peer or FakePeer()},
    }
    sent: list[dict[str, Any]] = []
    incoming = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        try:
            return next(incoming)
        except StopIteration:
            await asyncio.Event().wait()
            raise

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start = sent[0]
    return Answer(
        start["status"],
        {name.decode().lower(): value.decode() for name, value in start["headers"]},
        b"".join(message.get("body", b"") for message in sent[1:]),
    )
