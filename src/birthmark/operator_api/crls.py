"""Operator API of CRLs of the server's CAs, for brokers and gateways that read a file."""

import asyncio
from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from birthmark.auth.permission_statements import Right
from birthmark.ca.crls import RevocationList
from birthmark.ca.service import CertificateAuthority
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows
from birthmark.operator_api.name_validation import OperatorRequestError
from birthmark.pki.certificates import Certificate
from birthmark.pki.names_and_registration_ids import text_of
from birthmark.pki.revocation_urls import name_of_key


def list_endpoints(authority: CertificateAuthority) -> Sequence[Endpoint]:
    """Return the routes of `birthmark pki crl` and of the CRL status of each CA."""

    async def listed(request: ApiRequest) -> Any:
        made = await authority.lists.named(request["name"])
        if made is None:
            known = ", ".join(authority.hierarchy.issuers)
            raise OperatorRequestError(detail=f"CA '{request['name']}' has no CRL; CRLs exist for {known}")
        text = x509.load_der_x509_crl(made.der)
        return {
            "issuer": text_of(text.issuer),
            "number": made.number,
            "revoked": len(text),
            "next_update": made.next_update.isoformat(),
            "crl": text.public_bytes(Encoding.PEM).decode(),
        }

    counted: dict[str, tuple[int, int]] = {}

    async def count(name: str, crl: RevocationList) -> int:
        """Return the number of entries of a CRL; each CRL is parsed only once."""
        known = counted.get(name)
        if known is None or known[0] != crl.number:
            known = counted[name] = crl.number, await asyncio.to_thread(_count, crl)
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


def _count(crl: RevocationList) -> int:
    return len(x509.load_der_x509_crl(crl.der))


def _view(
    authority: CertificateAuthority, certificate: Certificate, crl: RevocationList | None, count: int
) -> dict[str, Any]:
    """Return the view of a CA; its CRL fields are null if its key is offline and no CRL was installed."""
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
        "number": None if crl is None else crl.number,
        "made_at": None if crl is None else crl.made_at.isoformat(),
        "next_update": None if crl is None else crl.next_update.isoformat(),
        "revoked": None if crl is None else count,
        "at": None if places is None else places.crl(certificate),
        "ocsp": None if places is None or not has_key else places.ocsp,
    }
