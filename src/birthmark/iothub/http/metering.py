"""Which of a tier's paces a call of the service interface counts to."""

from collections.abc import Mapping

from starlette.requests import Request

from birthmark.iothub.model import Hub
from birthmark.iothub.rules.c2d import MAX_BYTES
from birthmark.iothub.rules.methods import MAX_PAYLOAD_BYTES
from birthmark.iothub.rules.tiers import Metered
from birthmark.iothub.service.throttles import Throttles
from birthmark.text import whole_number

_BLOCK, _KIB = 4096, 1024
_OF_ONE, _OF_ITS_PART, _OF_A_MODULES_PART = 2, 3, 5
_LARGEST = {Metered.METHOD: MAX_PAYLOAD_BYTES, Metered.MAIL: MAX_BYTES}


def kind_of(method: str, path: str) -> Metered | None:
    """Return what a request counts as, None for what no pace is told for.

    What it is of follows from how many segments its path has: a device may be called as any of them.
    """
    parts = path.strip("/").split("/")
    first, count = parts[0], len(parts)
    of_twin = Metered.TWIN_READ if method == "GET" else Metered.TWIN_UPDATE
    if first == "twins":
        return Metered.METHOD if count in {_OF_ITS_PART, _OF_A_MODULES_PART} else of_twin
    if first == "digitaltwins":
        return of_twin if count == _OF_ONE else Metered.METHOD
    if first == "devices":
        if count < _OF_ITS_PART:
            return Metered.REGISTRY
        return _OF_DEVICE.get(parts[2])
    return Metered.REGISTRY if first == "statistics" else None


_OF_DEVICE = {
    "applyConfigurationContent": Metered.TWIN_UPDATE,
    "messages": Metered.MAIL,
    "modules": Metered.REGISTRY,
}


def size_of(headers: Mapping[str, str], what: Metered) -> int:
    """Return how many bytes a request brings; where it does not say so before, the most that such a one may."""
    if "transfer-encoding" in headers:
        return _LARGEST.get(what, 0)
    return whole_number(headers.get("content-length", "")) or 0


def meter(throttles: Throttles, hub: Hub, request: Request) -> None:
    """Count a call that may be made. Raise `TierThrottledError`, `TierQuotaError`."""
    if throttles.of(hub.name) is None or (what := kind_of(request.method, request.scope["path"])) is None:
        return
    size = size_of(request.headers, what)
    throttles.take(hub, what, -(-max(size, 1) // _BLOCK) * (_BLOCK / _KIB) if what is Metered.METHOD else 1)
    if what in {Metered.METHOD, Metered.MAIL}:
        throttles.count(hub, size)
