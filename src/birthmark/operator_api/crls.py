"""The operator interface of revocation lists: those of the server's CAs, for brokers and gateways that take a file."""

import asyncio
from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from birthmark.auth.permissions import Right
from birthmark.ca.crls import RevocationList
from birthmark.ca.service import CertificateAuthority
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows
from birthmark.operator_api.name_validation import OperatorRequestError
from birthmark.pki.certificates import Certificate
from birthmark.pki.distribution_points import name_of_key
from birthmark.pki.names import text_of


def list_endpoints(authority: CertificateAuthority) -> Sequence[Endpoint]:
    """Return the routes of `birthmark pki crl`, and of how the list of each CA stands."""

    async def listed(asked: ApiRequest) -> Any:
        made = await authority.lists.named(asked["name"])
        if made is None:
            known = ", ".join(authority.hierarchy.issuers)
            raise OperatorRequestError(detail=f"there is no CRL of a CA '{asked['name']}'; CRLs exist for {known}")
        text = x509.load_der_x509_crl(made.der)
        return {
            "issuer": text_of(text.issuer),
            "number": made.number,
            "revoked": len(text),
            "next_update": made.next_update.isoformat(),
            "crl": text.public_bytes(Encoding.PEM).decode(),
        }

    counted: dict[str, tuple[int, int]] = {}

    async def count(name: str, made: RevocationList) -> int:
        """Return how many are on a list; a long one is read once."""
        known = counted.get(name)
        if known is None or known[0] != made.number:
            known = counted[name] = made.number, await asyncio.to_thread(_count, made)
        return known[1]

    async def listing(_asked: ApiRequest) -> Rows:
        rows = []
        for certificate in dict.fromkeys(one for of in authority.hierarchy.generations for one in of.certificates):
            name = name_of_key(certificate)
            made = await authority.lists.named(name)
            rows.append(_view(authority, certificate, made, 0 if made is None else await count(name, made)))
        return Rows(rows)

    return [
        Endpoint("GET", "/lists", Right.READ, "List the CRL status of each CA.", listing),
        Endpoint("GET", "/lists/{name}", Right.READ, "Return the CRL of a CA.", listed),
    ]


def _count(made: RevocationList) -> int:
    return len(x509.load_der_x509_crl(made.der))


def _view(
    authority: CertificateAuthority, certificate: Certificate, made: RevocationList | None, count: int
) -> dict[str, Any]:
    """Return how a CA is shown; what is said of its list is null where its key is elsewhere and none was installed."""
    places, name = authority.places, name_of_key(certificate)
    purposes = (one for one, issuer in authority.hierarchy.issuers.items() if issuer.certificate == certificate)
    has_key = authority.hierarchy.with_key(certificate) is not None
    return {
        "name": name,
        "purpose": next(purposes, "root" if certificate.is_self_issued else ""),
        "issuer": certificate.subject_text,
        "thumbprint": certificate.thumbprint.hex(),
        "not_after": certificate.not_after.isoformat(),
        "has_key": has_key,
        "number": None if made is None else made.number,
        "made_at": None if made is None else made.made_at.isoformat(),
        "next_update": None if made is None else made.next_update.isoformat(),
        "revoked": None if made is None else count,
        "at": None if places is None else places.crl(certificate),
        "ocsp": None if places is None or not has_key else places.ocsp,
    }
