"""The operator interface of revocation lists: those of the server's CAs, for brokers and gateways that take a file."""

from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from birthmark.auth.rights import Right
from birthmark.ca.service import CertificateAuthority
from birthmark.console.routing import Asked, Endpoint, OperatorRequestError
from birthmark.pki.names import text_of


def list_endpoints(authority: CertificateAuthority) -> Sequence[Endpoint]:
    """Return the route of `birthmark pki crl`."""

    async def listed(asked: Asked) -> Any:
        made = await authority.lists.named(asked["name"])
        if made is None:
            known = ", ".join(authority.hierarchy.issuers)
            raise OperatorRequestError(detail=f"there is no list of a CA '{asked['name']}'; there are {known}")
        text = x509.load_der_x509_crl(made.der)
        return {
            "issuer": text_of(text.issuer),
            "number": made.number,
            "revoked": len(text),
            "next_update": made.next_update.isoformat(),
            "crl": text.public_bytes(Encoding.PEM).decode(),
        }

    return [Endpoint("GET", "/lists/{name}", Right.READ, "The revocation list of a CA.", listed)]
