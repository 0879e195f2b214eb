"""Operator API of one certificate: its content, its owner, and the impact of its revocation."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from birthmark.auth.permission_statements import Right
from birthmark.ca.certificate_inventory_queries import CertificateQuery, Inventory
from birthmark.ca.model import IssuedCertificate, key_digest
from birthmark.ca.revocation import CertificateUnknownError
from birthmark.ca.service import CertificateAuthority
from birthmark.operator_api.api_router import ApiRequest, Endpoint
from birthmark.operator_api.certificate_views import inventory_view
from birthmark.pki.certificate_profiles import kind_of_key
from birthmark.pki.certificates import UNREADABLE, Certificate, is_signed_by, parse_thumbprint
from birthmark.pki.extension_parser import ASN1_TROUBLE

MOST_BELOW = 1000
"""Maximum number of certificates below a CA that are counted to show the impact of its revocation."""
_MOST_NAMES = 50


def whole_certificate_endpoints(authority: CertificateAuthority) -> Sequence[Endpoint]:
    """Return the route for certificate details."""
    inventory = Inventory(authority.database, authority.clock)

    async def tell(request: ApiRequest) -> Any:
        thumbprint = parse_thumbprint(request["thumbprint"])
        issued = await authority.find(thumbprint)
        if issued is None:
            raise CertificateUnknownError(wanted=thumbprint.hex())
        certificate = issued.certificate
        others = await authority.revocations.of_key(certificate)
        above = next((one for one in authority.hierarchy.certificates if _issued(one, certificate)), None)
        told = inventory_view(issued) | _facts(certificate)
        told["issuer_thumbprint"] = None if above is None or above == certificate else above.thumbprint.hex()
        told["shown"] = None if issued.parent is None else issued.parent.hex()
        told["same_key"] = [_other(one) for one in others if one.certificate != certificate]
        told["below"] = 0
        if certificate.is_ca:
            wanted = CertificateQuery(issuer=thumbprint, is_unrevoked=True, ends_from=authority.clock.now())
            below = await inventory.page(wanted, limit=MOST_BELOW)
            told["below"] = sum(1 for one in below.items if one.certificate != certificate)
        return told

    summary = "Return a certificate, what depends on its key, and the valid certificates below it, up to 1000."
    return [Endpoint("GET", "/certificates/{thumbprint}", Right.READ, summary, tell)]


def _issued(above: Certificate, below: Certificate) -> bool:
    return above.subject_der == below.issuer_der and is_signed_by(below, above)


def _other(issued: IssuedCertificate) -> dict[str, Any]:
    certificate = issued.certificate
    told = {"device": issued.device_id, "profile": issued.profile, "thumbprint": certificate.thumbprint.hex()}
    return told | {"not_after": certificate.not_after.isoformat()}


def _facts(certificate: Certificate) -> dict[str, Any]:
    usage, extended = certificate.extensions.key_usage, certificate.extensions.extended_key_usage
    return {
        "subject": certificate.subject_text,
        "names": _names_in(certificate),
        "key": _key_of(certificate),
        "key_digest": key_digest(certificate.spki_der).hex(),
        "is_ca": certificate.is_ca,
        "usages": sorted(usage or ()),
        "extended": sorted(extended or ()),
        "pem": certificate.pem(),
    }


def _key_of(certificate: Certificate) -> str:
    with suppress(*UNREADABLE):
        key = certificate.public_key()
        if isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            return kind_of_key(key)
    return "another kind"


def _names_in(certificate: Certificate) -> Sequence[str]:
    """Return the subject alternative names that are readable text."""
    with suppress(*UNREADABLE, *ASN1_TROUBLE, x509.ExtensionNotFound):
        found = certificate.parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return [str(one.value) for one in islice(found, _MOST_NAMES)]
    return []
