"""The operator interface of EST: users, CAs whose certificates introduce devices, and what the CA issued."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca.model import Issued
from birthmark.ca.revocation import CertificateRevokedError
from birthmark.ca.service import CertificateAuthority
from birthmark.clock import Clock, Entropy
from birthmark.console.api import ACTOR, OperatorRequestError, answering, body_of
from birthmark.est import users
from birthmark.est.model import BootstrapCa, User
from birthmark.pki.certificates import Thumbprint, parse_any, parse_thumbprint
from birthmark.pki.crl import RevocationReason
from birthmark.store import Database

_OPERATOR = Principal(PrincipalKind.OPERATOR, ACTOR)


class _NewUser(msgspec.Struct):
    name: str
    password: str
    device_id: str | None = None


class _NewCredential(msgspec.Struct):
    device_id: str


class _NewBootstrapCa(msgspec.Struct):
    certificate: str
    any_name: bool = False


def est_routes(database: Database, clock: Clock, entropy: Entropy, seed: bytes) -> list[Route]:
    """Return the routes of `birthmark est`. Passwords of bound credentials follow from `seed`."""

    async def list_users(_request: Request) -> Any:
        return [_user_json(user) for user in await users.list_users(database)]

    async def add_user(request: Request) -> Any:
        asked = await body_of(request, _NewUser)
        made = await users.add_user(
            asked.name,
            asked.password,
            device_id=asked.device_id,
            principal=_OPERATOR,
            database=database,
            clock=clock,
            entropy=entropy,
        )
        return _user_json(made)

    async def remove_user(request: Request) -> Any:
        await users.remove_user(request.path_params["name"], principal=_OPERATOR, database=database)

    async def ensure_credential(request: Request) -> Any:
        asked = await body_of(request, _NewCredential)
        user, password = await users.ensure_credential(
            asked.device_id, seed=seed, principal=_OPERATOR, database=database, clock=clock, entropy=entropy
        )
        return {**_user_json(user), "password": password}

    async def list_cas(_request: Request) -> Any:
        return [_ca_json(ca) for ca in await users.list_bootstrap_cas(database)]

    async def add_ca(request: Request) -> Any:
        asked = await body_of(request, _NewBootstrapCa)
        made = await users.accept_bootstrap_ca(
            parse_any(asked.certificate),
            any_name=asked.any_name,
            principal=_OPERATOR,
            database=database,
            clock=clock,
        )
        return _ca_json(made)

    async def remove_ca(request: Request) -> Any:
        thumbprint = parse_thumbprint(request.path_params["thumbprint"])
        await users.remove_bootstrap_ca(thumbprint, principal=_OPERATOR, database=database)

    return [
        Route("/est/users", answering(list_users), methods=["GET"]),
        Route("/est/users", answering(add_user, 201), methods=["POST"]),
        Route("/est/users/{name}", answering(remove_user), methods=["DELETE"]),
        Route("/est/credentials", answering(ensure_credential), methods=["POST"]),
        Route("/est/bootstrap", answering(list_cas), methods=["GET"]),
        Route("/est/bootstrap", answering(add_ca, 201), methods=["POST"]),
        Route("/est/bootstrap/{thumbprint}", answering(remove_ca), methods=["DELETE"]),
    ]


class _Revocation(msgspec.Struct):
    reason: str = RevocationReason.UNSPECIFIED.value
    certificate: str | None = None


def certificate_routes(
    authority: CertificateAuthority, shown_by: Callable[[str], Awaitable[Iterable[Thumbprint]]]
) -> list[Route]:
    """Return the routes of `birthmark est certificates` and `revoke`.

    `shown_by` returns the certificates by which a device of that name is on record, whoever issued them.
    """

    async def listing(request: Request) -> Any:
        wanted = request.query_params.get("subject")
        found = await authority.search(wanted) if wanted else await authority.latest()
        return [_issued_json(issued) for issued in found]

    async def after(revoked: Sequence[Issued]) -> Any:
        """What is on record of them now."""
        found = [await authority.find(one.certificate.thumbprint) for one in revoked]
        return [_issued_json(one) for one in found if one is not None]

    async def revoke(request: Request) -> Any:
        reason = _reason(await body_of(request, _Revocation))
        thumbprint = parse_thumbprint(request.path_params["thumbprint"])
        return await after(await authority.revoke(thumbprint, _OPERATOR, reason))

    async def revoke_device(request: Request) -> Any:
        reason = _reason(await body_of(request, _Revocation))
        name = request.path_params["name"]
        revoked, others = await authority.revocations.device(name, _OPERATOR, reason, await shown_by(name))
        now = authority.clock.now()
        return [*await after(revoked), *(_other_json(name, one, now, reason) for one in others)]

    async def revoke_key(request: Request) -> Any:
        asked = await body_of(request, _Revocation)
        certificate = parse_any(asked.certificate or "")
        return await after(await authority.revocations.key(certificate, _OPERATOR, _reason(asked)))

    async def check(request: Request) -> Any:
        """Say whether a certificate would be refused as revoked, before it is put on record."""
        asked = await body_of(request, _Revocation)
        try:
            await authority.revocations.check(parse_any(asked.certificate or ""))
        except CertificateRevokedError as error:
            return {"revoked": error.explain_cause()}
        return {"revoked": None}

    async def release(request: Request) -> Any:
        name = request.path_params["name"]
        return {"name": name, "held_by": await authority.release(name, _OPERATOR)}

    return [
        Route("/certificates", answering(listing), methods=["GET"]),
        Route("/certificates/check", answering(check), methods=["POST"]),
        Route("/certificates/{thumbprint}/revoke", answering(revoke), methods=["POST"]),
        Route("/names/{name:path}/revoke", answering(revoke_device), methods=["POST"]),
        Route("/names/{name:path}/release", answering(release), methods=["POST"]),
        Route("/keys/revoke", answering(revoke_key), methods=["POST"]),
    ]


def _reason(asked: _Revocation) -> RevocationReason:
    try:
        return RevocationReason(asked.reason)
    except ValueError as error:
        known = ", ".join(r.value for r in RevocationReason)
        raise OperatorRequestError(detail=f"the reason must be one of {known}") from error


def _issued_json(issued: Issued) -> dict[str, Any]:
    certificate = issued.certificate
    return {
        "device": issued.device_id,
        "profile": issued.profile,
        "requested_by": issued.requested_by,
        "serial": f"{certificate.serial:x}",
        "thumbprint": certificate.thumbprint.hex(),
        "not_after": certificate.not_after.isoformat(),
        "revoked": None if issued.revoked_at is None else issued.revoked_at.isoformat(),
        "reason": None if issued.revocation_reason is None else issued.revocation_reason.value,
    }


def _other_json(name: str, thumbprint: Thumbprint, at: datetime, reason: RevocationReason) -> dict[str, Any]:
    """A certificate of another CA, which was taken back."""
    unknown = dict.fromkeys(("serial", "not_after", "requested_by"))
    known = {"device": name, "profile": "of another CA", "thumbprint": thumbprint.hex(), "revoked": at.isoformat()}
    return unknown | known | {"reason": reason.value}


def _user_json(user: User) -> dict[str, Any]:
    return {"name": user.name, "device": user.device_id, "created": user.created_at.isoformat()}


def _ca_json(ca: BootstrapCa) -> dict[str, Any]:
    return {
        "subject": ca.certificate.subject_text,
        "thumbprint": ca.certificate.thumbprint.hex(),
        "any_name": ca.any_name,
        "not_after": ca.certificate.not_after.isoformat(),
    }
