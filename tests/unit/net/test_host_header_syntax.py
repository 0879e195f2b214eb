"""A Host header is an authority or the request goes nowhere."""

from typing import Any

import pytest

from birthmark.errors import BirthmarkError
from birthmark.net.host_header_syntax import HostInvalidError, RequireAuthority
from support.server.asgi import request

refused: list[BirthmarkError] = []


async def application(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


async def status_for(host: str | None) -> int:
    refused.clear()
    guarded = RequireAuthority(application, lambda error, _address, _peer: refused.append(error))
    headers = {} if host is None else {"Host": host}
    return (await request(guarded, "GET", "/enrollments/b", headers=headers)).status


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8443", "127.0.0.2:443", "[::1]", "[::1]:8443", "hub_1.example"]
)
async def test_a_host_with_or_without_a_port_is_let_through(host: str) -> None:
    assert (await status_for(host)) == 204


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "localhost/enrollments/a",
        "localhost/enrollments/a?",
        "a@b",
        "local host",
        "localhost:",
        "localhost:123456",
        "a" * 300,
    ],
)
async def test_anything_else_is_refused_and_recorded(host: str | None) -> None:
    assert (await status_for(host)) == 400
    assert [type(error) for error in refused] == [HostInvalidError]


async def test_two_hosts_are_refused() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": [(b"host", b"a"), (b"host", b"a")]}
    await RequireAuthority(application)(scope, None, send)  # type: ignore[arg-type]  # channels that are not used
    assert sent[0]["status"] == 400


async def test_a_websocket_with_a_bad_host_is_not_accepted() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await RequireAuthority(application)({"type": "websocket", "headers": []}, None, send)  # type: ignore[arg-type]  # channels that are not used
    assert sent[0]["type"] == "websocket.close"
