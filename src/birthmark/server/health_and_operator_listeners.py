"""Health over plain HTTP, and the operator interface on loopback."""

import ipaddress
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from starlette.responses import PlainTextResponse

from birthmark import atomic_files
from birthmark.clock_and_entropy import Clock
from birthmark.net.bounded_http import ASGIApp, HttpService, Receive, Scope, Send
from birthmark.net.listener import Listeners, OnRefused
from birthmark.net.listener_limits import Limits
from birthmark.operator_api.cookie_request_guard import is_own_host
from birthmark.operator_api.unix_socket import PORT_ALONE, open_door
from birthmark.server.connection_descriptor_budget import for_health
from birthmark.server.request_body_limits import operator_body_limit
from birthmark.server.settings import Settings
from birthmark.untrusted_json_and_text import reason_of
from birthmark.webconsole.enroll.limits import MAX_DROP_BYTES

log = logging.getLogger(__name__)

Close: TypeAlias = Callable[[float], Awaitable[None]]
"""Closes the listener and waits the given number of seconds for connected clients."""
_WITHOUT_TOKEN = {"/metrics"}
"""Paths that a page in a user's browser must not read without the access token; liveness is not secret."""


def operator_service(app: ASGIApp, bounds: Limits) -> HttpService:
    """Return the operator interface as an HTTP service that accepts device lists larger than other bodies."""
    most = max(bounds.max_body_bytes, MAX_DROP_BYTES)
    return HttpService(app, replace(bounds, max_body_bytes=most), operator_body_limit(bounds.max_body_bytes))


async def serve_unix_socket(
    directory: Path, operator: ASGIApp, limits: Limits, clock: Clock, on_refused: OnRefused
) -> Close:
    """Serve on the Unix domain socket of a directory and return its close function.

    Raise `OSError` if the socket cannot be created.
    """
    door, bounds = Listeners(clock, for_health(limits), on_refused), for_health(limits)
    await door.listen_at(open_door(directory), {"http": operator_service(operator, bounds).protocol})
    return door.close


async def serve_plain(
    probe: ASGIApp, operator: ASGIApp, settings: Settings, limits: Limits, clock: Clock, on_refused: OnRefused
) -> Close:
    """Serve on the health port and on the operator's Unix domain socket, and return the close function.

    Clients that do not connect through loopback get `probe`, whatever address the port is bound to. Their connections
    always count as unauthenticated: when the limit is reached, a new connection replaces the one that has waited
    longest. Thus no client can lock out others. Raise the errors of `listen`.
    """
    bounds = for_health(limits)
    listeners = Listeners(clock, bounds, on_refused, grace_s=0.0)
    service = operator_service(_ByAddress(probe, operator, (settings.host_name, *settings.names)), bounds)
    await listeners.listen(settings.health_addresses, settings.ports.health, None, {"http": service.protocol})
    close_door: Close | None = None
    alone = settings.directory / PORT_ALONE
    alone.unlink(missing_ok=True)  # left by a killed server
    try:
        close_door = await serve_unix_socket(settings.directory, operator, limits, clock, on_refused)
    except OSError as error:  # no socket support: use the port
        log.warning("server.no_operator_door", extra={"data": str(settings.directory), "reason": reason_of(error)})
        atomic_files.put(alone, b"", mode=0o600)

    async def close(drain_s: float) -> None:
        alone.unlink(missing_ok=True)  # before the port is freed
        if close_door is not None:
            await close_door(drain_s)
        await listeners.close(drain_s)

    return close


class _ByAddress:
    """Selects an application by the called address, which the client cannot forge."""

    def __init__(self, probe: ASGIApp, operator: ASGIApp, names: Iterable[str]) -> None:
        self._names = {"localhost", *(name.lower() for name in names)}
        self._probe = probe
        self._operator = operator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        called, caller = scope.get("server"), scope.get("client")
        is_local = all(end is not None and ipaddress.ip_address(end[0]).is_loopback for end in (called, caller))
        if is_local and scope["path"] in _WITHOUT_TOKEN and not self._is_ours(scope):
            await PlainTextResponse("This is not a name of this server.\n", 421)(scope, receive, send)
            return
        await (self._operator if is_local else self._probe)(scope, receive, send)

    def _is_ours(self, scope: Scope) -> bool:
        """Return whether the Host header names this server; protects browsers from DNS rebinding."""
        asked = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1").lower()
        return is_own_host(asked, self._names)
