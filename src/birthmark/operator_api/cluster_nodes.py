"""Operator API of the cluster: its nodes, the join credentials for another node, and the leader."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from birthmark.auth.permission_statements import Right
from birthmark.operator_api.api_router import ApiRequest, Endpoint

Listed = Callable[[], Awaitable[Sequence[Mapping[str, object]]]]
Invite = Callable[[str], Awaitable[Mapping[str, object]]]
Lead = Callable[[str], Awaitable[None]]


def machine_endpoints(listed: Listed, invite: Invite, lead: Lead) -> Sequence[Endpoint]:
    """Return the routes of `birthmark server node`."""

    async def all_of_them(_asked: ApiRequest) -> Any:
        return {"items": list(await listed()), "next": None}

    async def invited(request: ApiRequest) -> Any:
        return await invite(request.actor)

    async def led(request: ApiRequest) -> Any:
        await lead(request.actor)
        return {"items": list(await listed()), "next": None}

    at = "/server/machines"
    return [
        Endpoint("GET", at, Right.READ, "List the nodes of the cluster.", all_of_them),
        Endpoint(
            "POST",
            f"{at}/invite",
            Right.ADMINISTER,
            "Create an invitation for another node. The response is a secret.",
            invited,
        ),
        Endpoint("POST", f"{at}/lead", Right.ADMINISTER, "Make this node the leader.", led),
    ]
