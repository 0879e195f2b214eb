"""The operator interface of policies' keys, of provisioning services and of hubs."""

import base64
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from birthmark.auth.policies import Keys, keys_of
from birthmark.auth.rights import Right
from birthmark.console.routing import Asked, Endpoint
from birthmark.dps.service import Instances
from birthmark.dps.service.instances import OWNER
from birthmark.iothub.service import Hubs

HUB_OWNER = "iothubowner"


class Wanted(msgspec.Struct):
    """Of which policy, the owner's without one; and which of its keys is to be another one first."""

    policy: str | None = None
    rotate: Literal["primary", "secondary"] | None = None


def key_endpoints(instances: Instances, hubs: Hubs, https_port: Callable[[], int]) -> Sequence[Endpoint]:
    """Return the routes of `birthmark dps key` and `birthmark hub key`. Secrets are asked for: nobody just looks."""

    async def of_dps(asked: Asked) -> Any:
        name, wanted, policy = asked["name"], asked.body, asked.body.policy or OWNER
        if wanted.rotate is not None:
            await instances.rotate(name, policy, wanted.rotate, actor=asked.actor)
        found = instances.by_name(name)
        keys_of(found.policies, policy, name)
        await instances.note_shown(found, policy, actor=asked.actor)
        return _view(found.name, found.host, https_port(), policy, found.policies)

    async def of_hub(asked: Asked) -> Any:
        name, wanted, policy = asked["name"], asked.body, asked.body.policy or HUB_OWNER
        if wanted.rotate is not None:
            await hubs.rotate(name, policy, wanted.rotate, actor=asked.actor)
        found = hubs.by_name(name)
        keys_of(found.policies, policy, name)
        await hubs.note_shown(found, policy, actor=asked.actor)
        return _view(found.name, found.host, https_port(), policy, found.policies)

    told = "The keys of a policy; one of them made anew first, if that is asked for."
    return [
        Endpoint("POST", "/dps/{name}/keys", Right.ADMINISTER, told, of_dps, Wanted),
        Endpoint("POST", "/hubs/{name}/keys", Right.ADMINISTER, told, of_hub, Wanted),
    ]


def _view(name: str, host: str, https_port: int, policy: str, policies: Keys) -> dict[str, Any]:
    primary, secondary = (base64.b64encode(key).decode() for key in keys_of(policies, policy, name))
    keys = {"primary_key": primary, "secondary_key": secondary}
    return {"name": name, "host": host, "https_port": https_port, "policy": policy, **keys}
