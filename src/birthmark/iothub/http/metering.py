"""Which of a tier's paces a call of the service interface counts to."""

from starlette.requests import Request

from birthmark.iothub.model import Hub
from birthmark.iothub.rules.tiers import Metered
from birthmark.iothub.service.throttles import Throttles
from birthmark.text import whole_number

_BLOCK, _KIB = 4096, 1024


def kind_of(method: str, path: str) -> Metered | None:
    """Return what a request counts as, None for what no pace is told for."""
    parts = path.strip("/").split("/")
    first, last = parts[0], parts[-1]
    if first == "twins":
        if last == "methods":
            return Metered.METHOD
        return Metered.TWIN_READ if method == "GET" else Metered.TWIN_UPDATE
    if first == "devices":
        if "messages" in parts[2:]:
            return Metered.MAIL
        if last == "applyConfigurationContent":
            return Metered.TWIN_UPDATE
        return None if last == "commands" else Metered.REGISTRY
    return Metered.REGISTRY if first == "statistics" else None


def meter(throttles: Throttles, hub: Hub, request: Request) -> None:
    """Count a call that may be made. Raise `TierThrottledError`, `TierQuotaError`."""
    if throttles.of(hub.name) is None or (what := kind_of(request.method, request.scope["path"])) is None:
        return
    size = whole_number(request.headers.get("content-length", "")) or 0
    throttles.take(hub, what, -(-max(size, 1) // _BLOCK) * (_BLOCK / _KIB) if what is Metered.METHOD else 1)
    if what in {Metered.METHOD, Metered.MAIL}:
        throttles.count(hub, size)
