"""The operator interface of one device, whole."""

from collections.abc import Awaitable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from birthmark.auth.rights import Right
from birthmark.console.routing import Asked, Endpoint


@dataclass(frozen=True, slots=True)
class Part:
    """What one place has of a device; its fields are the stable JSON form."""

    place: str
    what: str
    id: str
    state: str
    detail: str = ""


class TellWhole(Protocol):
    """Tells one device whole."""

    def __call__(self, name: str) -> Awaitable[Sequence[Part]]: ...


def device_endpoints(whole: TellWhole) -> Sequence[Endpoint]:
    """Return the route of `birthmark device show`."""

    async def tell(asked: Asked) -> Any:
        return [asdict(one) for one in await whole(asked["name"])]

    return [Endpoint("GET", "/devices/{name:path}", Right.READ, "One device, whole.", tell)]
