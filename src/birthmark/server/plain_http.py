"""Health over plain HTTP, and on loopback the operator interface."""

import ipaddress
from collections.abc import Awaitable, Callable

from birthmark.clock import Clock
from birthmark.net.http import ASGIApp, HttpService, Receive, Scope, Send
from birthmark.net.limits import Limits
from birthmark.net.listener import Listeners, OnRefused
from birthmark.server.body_limits import body_limit
from birthmark.server.descriptors import for_health
from birthmark.server.settings import Settings


async def serve_plain(
    probe: ASGIApp, operator: ASGIApp, settings: Settings, limits: Limits, clock: Clock, on_refused: OnRefused
) -> Callable[[], Awaitable[None]]:
    """Serve on the health port and return what ends it. Raise what `Listeners.listen` raises.

    Whoever does not come by loopback gets `probe`, whatever the port is bound to.
    """
    bounds = for_health(limits)
    listeners = Listeners(clock, bounds, on_refused)
    service = HttpService(_ByAddress(probe, operator), bounds, body_limit)
    await listeners.listen(settings.health_addresses, settings.ports.health, None, {"http": service.protocol})
    return listeners.close


class _ByAddress:
    """Chooses by the address that was called, which the caller cannot invent."""

    def __init__(self, probe: ASGIApp, operator: ASGIApp) -> None:
        self._probe = probe
        self._operator = operator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        called, caller = scope.get("server"), scope.get("client")
        is_local = all(end is not None and ipaddress.ip_address(end[0]).is_loopback for end in (called, caller))
        await (self._operator if is_local else self._probe)(scope, receive, send)
