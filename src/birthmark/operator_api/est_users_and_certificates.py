"""Operator API of EST: users, bootstrap CAs, and issued certificates."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Annotated, Any

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.ca.model import IssuedCertificate
from birthmark.ca.revocation import CertificateRevokedError
from birthmark.ca.service import CertificateAuthority
from birthmark.est.model import BootstrapCa, EstUser, RegistrationAuthority, WaitingRequest
from birthmark.est.service import EnrollmentApprovals, EstCredentials, RegistrationAuthorities, TokenIssuer
from birthmark.iam.model import SERVER
from birthmark.operator_api.api_router import ApiRequest, Endpoint, PageQuery, Rows, Seconds
from birthmark.operator_api.devices import reason_of
from birthmark.pki.certificates import Thumbprint, parse_any, parse_ca, parse_thumbprint
from birthmark.pki.crl_encoder import RevocationReason
from birthmark.pki.csr import parse_csr


class NewUser(msgspec.Struct):
    """An EST user, optionally limited to one device."""

    name: str
    password: str
    device_id: str | None = None


class NewCredential(msgspec.Struct):
    """Device of the requested credential."""

    device_id: str


class NewToken(msgspec.Struct):
    """Device and lifetime of a token."""

    device_id: str
    lifetime_s: Seconds = 86400


class NewRegistrationAuthority(msgspec.Struct):
    """A registration authority's certificate, and a pattern of the device IDs it may request."""

    certificate: str
    names: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] = "*"


class NewBootstrapCa(msgspec.Struct):
    """A CA whose certificates authenticate an initial enrollment."""

    certificate: str
    any_name: bool = False


def est_endpoints(credentials: EstCredentials, seed: bytes) -> Sequence[Endpoint]:
    """Return the routes of `birthmark pki`. Passwords of bound credentials are derived from `seed`."""

    async def list_users(request: ApiRequest) -> Rows:
        query: PageQuery = request.query
        found = await credentials.users(query.after, query.limit)
        return Rows([_user_view(user) for user in found], found[-1].name if len(found) == query.limit else None)

    async def add_user(request: ApiRequest) -> Any:
        body: NewUser = request.body
        made = await credentials.add_user(body.name, body.password, device_id=body.device_id, actor=request.actor)
        return _user_view(made)

    async def remove_user(request: ApiRequest) -> None:
        await credentials.remove_user(request["name"], actor=request.actor)

    async def ensure_credential(request: ApiRequest) -> Any:
        body: NewCredential = request.body
        user, password = await credentials.ensure_user(body.device_id, seed=seed, actor=request.actor)
        return {**_user_view(user), "password": password}

    async def list_cas(_asked: ApiRequest) -> Rows:
        return Rows([_ca_view(ca) for ca in await credentials.bootstrap_cas()])

    async def add_ca(request: ApiRequest) -> Any:
        body: NewBootstrapCa = request.body
        maker = parse_ca(body.certificate)
        return _ca_view(await credentials.accept_ca(maker, any_name=body.any_name, actor=request.actor))

    async def remove_ca(request: ApiRequest) -> None:
        await credentials.remove_ca(parse_thumbprint(request["thumbprint"]), actor=request.actor)

    add, trust, view = Right.ENROLL, Right.TRUST, Right.READ
    return [
        Endpoint("GET", "/est/users", view, "List EST users.", list_users, query=PageQuery),
        Endpoint("POST", "/est/users", add, "Create an EST user.", add_user, NewUser, status=201),
        Endpoint("DELETE", "/est/users/{name:path}", add, "Delete an EST user.", remove_user, status=204),
        Endpoint(
            "POST", "/est/credentials", add, "Return the EST credential of a device.", ensure_credential, NewCredential
        ),
        Endpoint("GET", "/est/bootstrap", view, "List the CAs accepted for bootstrapping.", list_cas),
        Endpoint("POST", "/est/bootstrap", trust, "Accept a CA for bootstrapping.", add_ca, NewBootstrapCa, status=201),
        Endpoint(
            "DELETE",
            "/est/bootstrap/{thumbprint}",
            trust,
            "Stop accepting a CA for bootstrapping.",
            remove_ca,
            status=204,
        ),
    ]


def door_endpoints(
    tokens: TokenIssuer, authorities: RegistrationAuthorities, approvals: EnrollmentApprovals
) -> Sequence[Endpoint]:
    """Return the routes of `birthmark pki token`, `authority` and `request`."""

    async def add_token(request: ApiRequest) -> Any:
        body: NewToken = request.body
        lifetime = timedelta(seconds=body.lifetime_s)
        made, password = await tokens.add(body.device_id, lifetime, actor=request.actor)
        return {**_user_view(made), "password": password}

    async def list_authorities(_asked: ApiRequest) -> Rows:
        return Rows([_authority_view(one) for one in await authorities.all()])

    async def add_authority(request: ApiRequest) -> Any:
        body: NewRegistrationAuthority = request.body
        certificate = parse_any(body.certificate)
        return _authority_view(await authorities.add(certificate, body.names, actor=request.actor))

    async def remove_authority(request: ApiRequest) -> None:
        await authorities.remove(parse_thumbprint(request["thumbprint"]), actor=request.actor)

    async def list_requests(request: ApiRequest) -> Rows:
        query: PageQuery = request.query
        found = await approvals.page(query.after, query.limit)
        return Rows([_request_view(one) for one in found], found[-1].id if len(found) == query.limit else None)

    async def approve(request: ApiRequest) -> Any:
        return _request_view(await approvals.decide(request["id"], is_approved=True, actor=request.actor))

    async def reject(request: ApiRequest) -> Any:
        rejected = await approvals.decide(request["id"], is_approved=False, actor=request.actor)
        fetched = None if rejected.fetched_at is None else rejected.fetched_at.isoformat()
        return {**_request_view(rejected), "fetched_at": fetched}

    add, trust, view = Right.ENROLL, Right.TRUST, Right.READ
    at = "/est/requests/{id}"
    return [
        Endpoint("POST", "/est/tokens", add, "Create a one-time enrollment token.", add_token, NewToken, status=201),
        Endpoint("GET", "/est/authorities", view, "List registration authorities.", list_authorities),
        Endpoint(
            "POST",
            "/est/authorities",
            trust,
            "Add a registration authority.",
            add_authority,
            NewRegistrationAuthority,
            status=201,
        ),
        Endpoint(
            "DELETE",
            "/est/authorities/{thumbprint}",
            trust,
            "Delete a registration authority.",
            remove_authority,
            status=204,
        ),
        Endpoint("GET", "/est/requests", view, "List pending requests.", list_requests, query=PageQuery),
        Endpoint("POST", f"{at}/approve", add, "Approve a request.", approve),
        Endpoint("POST", f"{at}/reject", add, "Reject a request.", reject),
    ]


class IssuedQuery(msgspec.Struct, forbid_unknown_fields=True):
    """A device ID, thumbprint or serial number; without one, the certificates with the latest expiry."""

    subject: str | None = None


class RevocationQuestion(msgspec.Struct):
    """Revocation reason, and the certificate if the path names none."""

    reason: str = RevocationReason.UNSPECIFIED.value
    certificate: str | None = None


async def _is_of_ca(authority: CertificateAuthority, request: ApiRequest) -> bool:
    found = await authority.find(parse_thumbprint(request["thumbprint"]))
    return found is not None and found.certificate.is_ca


async def _is_key_of_ca(authority: CertificateAuthority, request: ApiRequest) -> bool:
    """Return whether the key belongs to a CA; a certificate from another issuer may have a CA's key."""
    certificate = parse_any(request.body.certificate or "")
    ours = {one.spki_der for one in authority.hierarchy.certificates}
    return certificate.is_ca or certificate.spki_der in ours


async def _release(authority: CertificateAuthority, request: ApiRequest) -> Any:
    """Release a name. If it was revoked with its device, the caller also needs that right."""
    name = request["name"]
    if await authority.revocations.is_lost(name):
        request.require_permission(Right.REVOKE, SERVER)
    return {"name": name, "held_by": await authority.release(name, request.principal)}


def certificate_endpoints(
    authority: CertificateAuthority, presented_by: Callable[[str], Awaitable[Iterable[Thumbprint]]]
) -> Sequence[Endpoint]:
    """Return the routes of `birthmark pki ls` and `revoke`.

    `presented_by` returns the certificates with which a device of that name is registered, from any issuer.
    """

    async def listing(request: ApiRequest) -> Rows:
        wanted = request.query.subject
        found = await authority.search(wanted) if wanted else await authority.latest()
        views = [_issued_view(issued) for issued in found]
        known = {one.certificate.thumbprint for one in found}
        if wanted is None:
            return Rows(views)
        others = set(await presented_by(wanted)) - known
        over = await authority.revocations.taken_back(wanted, others)
        alive = sorted(others - {one.thumbprint for one in over})
        views += [_registered_view(wanted, one) for one in alive]
        return Rows([*views, *[_other_view(wanted, one.thumbprint, one.at, one.reason) for one in over]])

    async def after(revoked: Sequence[IssuedCertificate]) -> Any:
        """Return the current records of revoked certificates."""
        found = [await authority.find(one.certificate.thumbprint) for one in revoked]
        return [_issued_view(one) for one in found if one is not None]

    async def revoke(request: ApiRequest) -> Any:
        reason = reason_of(request.body.reason)
        thumbprint = parse_thumbprint(request["thumbprint"])
        return await after(await authority.revocations.certificate(thumbprint, request.principal, reason))

    async def revoke_device(request: ApiRequest) -> Any:
        reason = reason_of(request.body.reason)
        name = request["name"]
        revoked, others = await authority.revocations.device(name, request.principal, reason, await presented_by(name))
        now = authority.clock.now()
        return [*await after(revoked), *(_other_view(name, one, now, reason) for one in others)]

    async def revoke_key(request: ApiRequest) -> Any:
        body: RevocationQuestion = request.body
        certificate = parse_any(body.certificate or "")
        return await after(await authority.revocations.key(certificate, request.principal, reason_of(body.reason)))

    async def check(request: ApiRequest) -> Any:
        """Check whether a certificate would be refused as revoked, before it is registered."""
        body: RevocationQuestion = request.body
        try:
            await authority.revocations.check(parse_any(body.certificate or ""))
        except CertificateRevokedError as error:
            return {"revoked": error.explain_cause()}
        return {"revoked": None}

    told = "Release a name; a revoked name also requires the permission `revoke`."
    take_back, asked_for, one = Right.REVOKE, RevocationQuestion, "/certificates/{thumbprint}/revoke"
    return [
        Endpoint("GET", "/certificates", Right.READ, "List issued certificates.", listing, query=IssuedQuery),
        Endpoint(
            "POST", "/certificates/check", None, "Return the revocation status of certificates.", check, asked_for
        ),
        Endpoint(
            "POST", one, take_back, "Revoke a certificate.", revoke, asked_for, is_final=partial(_is_of_ca, authority)
        ),
        Endpoint(
            "POST",
            "/names/{name:path}/revoke",
            take_back,
            "Revoke all certificates of a device.",
            revoke_device,
            asked_for,
        ),
        Endpoint("POST", "/names/{name:path}/release", Right.ENROLL, told, partial(_release, authority)),
        Endpoint(
            "POST",
            "/keys/revoke",
            take_back,
            "Revoke a key.",
            revoke_key,
            asked_for,
            is_final=partial(_is_key_of_ca, authority),
        ),
    ]


def _issued_view(issued: IssuedCertificate) -> dict[str, Any]:
    certificate = issued.certificate
    return {
        "device": issued.device_id,
        "profile": issued.profile,
        "requested_by": issued.requested_by,
        "serial": f"{certificate.serial:x}",
        "thumbprint": certificate.thumbprint.hex(),
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
        "revoked": None if issued.revoked_at is None else issued.revoked_at.isoformat(),
        "reason": None if issued.revocation_reason is None else issued.revocation_reason.value,
        "shown": None if issued.parent is None else issued.parent.hex(),
    }


def _other_view(name: str, thumbprint: Thumbprint, timestamp: datetime, reason: RevocationReason) -> dict[str, Any]:
    """Return the view of a revoked certificate from another CA."""
    unknown = dict.fromkeys(("serial", "not_before", "not_after", "requested_by", "shown"))
    known = {
        "device": name,
        "profile": "of another CA",
        "thumbprint": thumbprint.hex(),
        "revoked": timestamp.isoformat(),
    }
    return unknown | known | {"reason": reason.value}


def _registered_view(name: str, thumbprint: Thumbprint) -> dict[str, Any]:
    """Return the view of a registered certificate from another CA: only its thumbprint is known."""
    unknown = dict.fromkeys(("serial", "not_before", "not_after", "requested_by", "revoked", "reason", "shown"))
    return {"device": name, "profile": "of another CA", "thumbprint": thumbprint.hex()} | unknown


def _user_view(user: EstUser) -> dict[str, Any]:
    return {
        "name": user.name,
        "device": user.device_id,
        "created": user.created_at.isoformat(),
        "expires": None if user.expires_at is None else user.expires_at.isoformat(),
        "is_used": user.used_by is not None if user.is_one_time else None,
    }


def _authority_view(authority: RegistrationAuthority) -> dict[str, Any]:
    return {
        "subject": authority.certificate.subject_text,
        "thumbprint": authority.certificate.thumbprint.hex(),
        "names": authority.names,
        "not_after": authority.certificate.not_after.isoformat(),
    }


def _request_view(request: WaitingRequest) -> dict[str, Any]:
    stands = {None: "waiting", True: "approved", False: "rejected"}[request.is_approved]
    return {
        "id": request.id,
        "device": request.name,
        "stands": stands,
        "profile": request.profile,
        "asked_by": request.actor,
        "address": request.address,
        "asked_at": request.asked_at.isoformat(),
        "key": sha256(parse_csr(request.csr).spki_der).hexdigest(),
    }


def _ca_view(ca: BootstrapCa) -> dict[str, Any]:
    return {
        "subject": ca.certificate.subject_text,
        "thumbprint": ca.certificate.thumbprint.hex(),
        "any_name": ca.any_name,
        "not_after": ca.certificate.not_after.isoformat(),
    }
