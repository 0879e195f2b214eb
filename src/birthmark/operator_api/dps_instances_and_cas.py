"""Operator API of DPS: provisioning services, registered CAs, and registrations."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.dps.model import IdScope, Instance
from birthmark.dps.service import Authorities, Enrollments, Instances, Registrations
from birthmark.dps.service.instances_and_authorization import OWNER
from birthmark.iothub.service import Hubs
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows
from birthmark.operator_api.name_validation import parse_host, parse_name
from birthmark.pki.certificates import parse_any, parse_ca
from birthmark.pki.registered_ca_certificate import CaCertificate


class NewInstance(msgspec.Struct):
    """A provisioning service to create; without a host, it uses the server's host."""

    name: str
    host: str | None = None


class HubLinkBody(msgspec.Struct):
    """A hub by its name."""

    hub: str


class DpsTier(msgspec.Struct):
    """Service tier, of which only S1 exists; null for none."""

    tier: Literal["S1"] | None


class NewAuthority(msgspec.Struct):
    """A CA by its certificate, or the CAs of an enrollment group."""

    name: str
    certificate: str | None = None
    group: str | None = None
    verified: bool = False


class Verification(msgspec.Struct):
    """Verification certificate as proof of possession; without it, the operator confirms the CA."""

    certificate: str | None = None


def endpoints(instances: Instances, registrations: Registrations, hubs: Hubs, default_host: str) -> Sequence[Endpoint]:
    """Return the routes of `birthmark dps`; a service without its own host uses `default_host`."""

    async def listing(_asked: ApiRequest) -> Rows:
        return Rows([_instance_view(instance) for instance in instances.all()])

    async def create(request: ApiRequest) -> Any:
        body: NewInstance = request.body
        return _instance_view(
            await instances.create(
                parse_name(body.name), parse_host(body.host or default_host, body.name, "dps"), actor=request.actor
            )
        )

    async def link(request: ApiRequest) -> Any:
        hub = hubs.by_name(request.body.hub)
        request.require_permission(Right.OPERATE, f"hub/{hub.name}")
        return _instance_view(await instances.link(request["name"], hub.host, actor=request.actor))

    async def set_tier(request: ApiRequest) -> Any:
        return _instance_view(await instances.set_tier(request["name"], request.body.tier, actor=request.actor))

    async def release(request: ApiRequest) -> Any:
        instance = instances.by_name(request["name"])
        found = await registrations.release(instance, request["id"], actor=request.actor)
        return {"registration_id": found.registration_id, "device": found.device_id, "hub": found.hub}

    async def is_there(request: ApiRequest) -> bool:
        return instances.by_name(request["name"]) is not None

    async def delete(request: ApiRequest) -> None:
        await instances.delete(request["name"], actor=request.actor)

    one, rule = "/dps/{name}", Right.ADMINISTER
    return [
        Endpoint(
            "DELETE", one, Right.ADMINISTER, "Delete a provisioning service.", delete, status=204, is_final=is_there
        ),
        Endpoint("PUT", f"{one}/tier", rule, "Set the tier.", set_tier, DpsTier),
        Endpoint("GET", "/dps", Right.READ, "List provisioning services.", listing, rows_at="dps/{name}"),
        Endpoint("POST", "/dps", rule, "Create a provisioning service.", create, NewInstance, status=201),
        Endpoint("POST", f"{one}/link", Right.OPERATE, "Link a hub.", link, HubLinkBody),
        Endpoint("POST", f"{one}/registrations/{{id}}/release", Right.ENROLL, "Release a name.", release),
    ]


def show_endpoints(instances: Instances, authorities: Authorities) -> Sequence[Endpoint]:
    """Return the route of `birthmark dps show`."""

    async def show(request: ApiRequest) -> Any:
        instance = instances.by_name(request["name"])
        cas = await authorities.all(instance.id_scope)
        told = {"cas": len(cas), "verified_cas": sum(one.is_verified for one in cas)}
        return _instance_view(instance) | {"policies": list(instance.policies)} | told

    return [Endpoint("GET", "/dps/{name}", Right.READ, "Return a provisioning service.", show)]


def ca_endpoints(instances: Instances, authorities: Authorities, enrollments: Enrollments) -> Sequence[Endpoint]:
    """Return the routes of `birthmark dps ca`."""

    def scope_of(request: ApiRequest) -> IdScope:
        return instances.by_name(request["name"]).id_scope

    async def list_cas(request: ApiRequest) -> Rows:
        return Rows([authority_view(authority) for authority in await authorities.all(scope_of(request))])

    async def add_ca(request: ApiRequest) -> Any:
        body: NewAuthority = request.body
        scope, name = scope_of(request), parse_name(body.name)
        if body.group is None:
            wanted = {name: parse_ca(body.certificate or "")}
        else:
            carried = await enrollments.group_certificates(scope, body.group)
            wanted = dict(zip((name, f"{name}-2"), carried, strict=False))
        made = [
            await authorities.add(scope, each, certificate, is_verified=body.verified, actor=request.actor)
            for each, certificate in wanted.items()
        ]
        return authority_view(made[0]) if body.group is None else [authority_view(one) for one in made]

    async def remove_ca(request: ApiRequest) -> None:
        await authorities.remove(scope_of(request), request["ca"], actor=request.actor)

    async def code(request: ApiRequest) -> Any:
        made = await authorities.new_code(scope_of(request), request["ca"], actor=request.actor)
        return {"code": made.verification_code}

    async def verify(request: ApiRequest) -> Any:
        """Mark a CA as verified by proof of possession, or by the operator's confirmation."""
        scope, name, proof = scope_of(request), request["ca"], request.body.certificate
        if proof is not None:
            return authority_view(await authorities.verify(scope, name, parse_any(proof), actor=request.actor))
        present = await authorities.get(scope, name)
        return authority_view(
            await authorities.add(scope, name, present.certificate, is_verified=True, actor=request.actor)
        )

    ca = "/dps/{name}/cas/{ca}"
    return [
        Endpoint("GET", "/dps/{name}/cas", Right.READ, "List CA certificates.", list_cas),
        Endpoint("POST", "/dps/{name}/cas", Right.TRUST, "Add a CA certificate.", add_ca, NewAuthority, status=201),
        Endpoint("DELETE", ca, Right.TRUST, "Delete a CA certificate.", remove_ca, status=204),
        Endpoint("POST", f"{ca}/code", Right.TRUST, "Create a verification code.", code),
        Endpoint(
            "POST",
            f"{ca}/verify",
            Right.TRUST,
            "Verify a CA certificate with a proof of possession.",
            verify,
            Verification,
        ),
    ]


def _instance_view(instance: Instance) -> dict[str, Any]:
    return {
        "name": instance.name,
        "id_scope": instance.id_scope,
        "host": instance.host,
        "linked_hubs": list(instance.hubs),
        "policy": OWNER,
        "tier": instance.tier,
    }


def authority_view(authority: CaCertificate) -> dict[str, Any]:
    """Return the view of a registered CA certificate."""
    return {
        "name": authority.name,
        "subject": authority.certificate.subject_text,
        "thumbprint": authority.certificate.thumbprint.hex(),
        "verified": authority.is_verified,
        "not_after": authority.certificate.not_after.isoformat(),
    }
