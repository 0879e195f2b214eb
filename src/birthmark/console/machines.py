"""The operator interface of the machines that serve as one: which there are, what another joins by, which leads."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from birthmark.console.names import OPERATOR
from birthmark.console.routing import Asked, Endpoint, Role

Listed = Callable[[], Awaitable[Sequence[Mapping[str, object]]]]
Invite = Callable[[str], Awaitable[Mapping[str, object]]]
Lead = Callable[[str], Awaitable[None]]


def machine_endpoints(listed: Listed, invite: Invite, lead: Lead) -> Sequence[Endpoint]:
    """Return the routes of `birthmark server machine`."""

    async def all_of_them(_asked: Asked) -> Any:
        return {"items": list(await listed()), "next": None}

    async def invited(_asked: Asked) -> Any:
        return await invite(OPERATOR.actor)

    async def led(_asked: Asked) -> Any:
        await lead(OPERATOR.actor)
        return {"items": list(await listed()), "next": None}

    at = "/server/machines"
    return [
        Endpoint("GET", at, Role.VIEWER, "The machines that serve as one.", all_of_them),
        Endpoint("POST", f"{at}/invite", Role.ADMIN, "Return what another machine joins by: a secret.", invited),
        Endpoint("POST", f"{at}/lead", Role.ADMIN, "Make this machine the one that makes CAs and roots.", led),
    ]
