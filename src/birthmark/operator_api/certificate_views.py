"""Names and views of issued certificates, for the operator API and for `birthmark ca` without a server."""

from typing import Any

from birthmark.ca.model import IssuedCertificate
from birthmark.ca.service import CertificateAuthority
from birthmark.operator_api.name_validation import OperatorRequestError
from birthmark.pki.certificates import CertificateInvalidError, Thumbprint, parse_thumbprint


def issuer_of(authority: CertificateAuthority, name: str) -> Thumbprint:
    """Return the CA with a purpose, a key identifier or a thumbprint. Raise `OperatorRequestError`."""
    if (known := authority.hierarchy.named(name)) is not None:
        return known.thumbprint
    try:
        return parse_thumbprint(name)
    except CertificateInvalidError as error:
        there = ", ".join(authority.hierarchy.issuers)
        raise OperatorRequestError(detail=f"the issuer must be one of {there}, or a thumbprint") from error


def inventory_view(issued: IssuedCertificate) -> dict[str, Any]:
    """Return the view of a certificate for display and export."""
    certificate = issued.certificate
    return {
        "device": issued.device_id,
        "profile": issued.profile,
        "issuer": certificate.issuer_text,
        "serial": f"{certificate.serial:x}",
        "thumbprint": certificate.thumbprint.hex(),
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
        "requested_by": issued.requested_by,
        "revoked": None if issued.revoked_at is None else issued.revoked_at.isoformat(),
        "reason": None if issued.revocation_reason is None else issued.revocation_reason.value,
    }
