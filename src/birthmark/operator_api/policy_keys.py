"""The operator interface of policy keys of provisioning services and hubs."""

import base64
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.auth.shared_access_policy_keys import Keys, keys_of, rights_of
from birthmark.dps.service import Instances
from birthmark.dps.service.instances_and_authorization import OWNER
from birthmark.errors import ConflictError
from birthmark.iothub.model import Identity, Module
from birthmark.iothub.service import IotHub
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows

HUB_OWNER = "iothubowner"


class NoKeysError(ConflictError):
    """A device or module without keys."""

    code = "iothub.no_keys"
    message = "{name} has no keys"
    cause = "{name} in hub {hub} authenticates with a certificate ({proof}) and has no keys."
    fix = "To show the authentication of the hub's devices: `birthmark hub device ls --hub {hub} --json`"
    hub: str
    name: str
    proof: str


class PolicyKeyRequest(msgspec.Struct):
    """Shared access policy (default: the owner's), and which of its keys to rotate first."""

    policy: str | None = None
    rotate: Literal["primary", "secondary"] | None = None


def key_endpoints(instances: Instances, iothub: IotHub, https_port: Callable[[], int]) -> Sequence[Endpoint]:
    """Return the routes of `birthmark dps key` and `birthmark hub key`. Secrets require an explicit request."""
    hubs = iothub.hubs

    async def of_dps(request: ApiRequest) -> Any:
        name, wanted, policy = request["name"], request.body, request.body.policy or OWNER
        if wanted.rotate is not None:
            await instances.rotate(name, policy, wanted.rotate, actor=request.actor)
        found = instances.by_name(name)
        keys_of(found.policies, policy, name)
        await instances.audit_key_display(found, policy, actor=request.actor)
        return _view(found.name, found.host, https_port(), policy, found.policies)

    async def of_hub(request: ApiRequest) -> Any:
        name, wanted, policy = request["name"], request.body, request.body.policy or HUB_OWNER
        if wanted.rotate is not None:
            await hubs.rotate(name, policy, wanted.rotate, actor=request.actor)
        found = hubs.by_name(name)
        keys_of(found.policies, policy, name)
        await hubs.audit_key_display(found, policy, actor=request.actor)
        return _view(found.name, found.host, https_port(), policy, found.policies)

    async def policies_of_dps(request: ApiRequest) -> Rows:
        return _policies(instances.by_name(request["name"]).policies)

    async def policies_of_hub(request: ApiRequest) -> Rows:
        return _policies(hubs.by_name(request["name"]).policies)

    async def of_identity(request: ApiRequest) -> Any:
        hub = hubs.by_name(request["name"])
        found = await iothub.registry.identity(hub, request["identity"])
        if found.authentication.primary_key is None or found.authentication.secondary_key is None:
            raise NoKeysError(name=found.name, hub=hub.name, proof=found.authentication.type.value)
        await iothub.registry.audit_key_display(hub, [found], actor=request.actor)
        pair = found.authentication.primary_key, found.authentication.secondary_key
        return _identity_view(found, hub.host, pair)

    told = "Return the keys of a policy; optionally rotate one first."
    return [
        Endpoint("POST", "/dps/{name}/keys", Right.ADMINISTER, told, of_dps, PolicyKeyRequest),
        Endpoint("POST", "/hubs/{name}/keys", Right.ADMINISTER, told, of_hub, PolicyKeyRequest),
        Endpoint("GET", "/dps/{name}/policies", Right.READ, "List shared access policies.", policies_of_dps),
        Endpoint("GET", "/hubs/{name}/policies", Right.READ, "List shared access policies.", policies_of_hub),
        Endpoint(
            "POST",
            "/hubs/{name}/identity-keys/{identity:path}",
            Right.ENROLL,
            "Return the keys of a device, or of a module as DEVICE/MODULE.",
            of_identity,
        ),
    ]


def _policies(policies: Keys) -> Rows:
    return Rows([{"policy": name, "rights": rights_of(name)} for name in policies])


def _identity_view(identity: Identity, host: str, pair: tuple[bytes, bytes]) -> dict[str, Any]:
    primary, secondary = (base64.b64encode(key).decode() for key in pair)
    module = {"module": identity.module_id} if isinstance(identity, Module) else {}
    keys = {"primary_key": primary, "secondary_key": secondary}
    return {"device": identity.device_id, **module, "host": host, **keys}


def _view(name: str, host: str, https_port: int, policy: str, policies: Keys) -> dict[str, Any]:
    primary, secondary = (base64.b64encode(key).decode() for key in keys_of(policies, policy, name))
    keys = {"primary_key": primary, "secondary_key": secondary}
    return {"name": name, "host": host, "https_port": https_port, "policy": policy, **keys}
