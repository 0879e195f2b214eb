"""Identity that a client certificate proves (RFC 7030 sections 3.3.2 and 4.2.1)."""

from collections.abc import Sequence
from datetime import datetime

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca.model import IssuedCertificate
from birthmark.errors import ForbiddenError, UnauthenticatedError
from birthmark.est.model import BootstrapCa, RegistrationAuthority
from birthmark.pki.certificates import Certificate
from birthmark.pki.extension_parser import CMC_RA
from birthmark.pki.path_validation import ChainIncompleteError, SignatureCache, Signatures, build_chain, check_dates
from birthmark.pki.single_certificate_checks import check_client, check_purpose


class ClientCertificateUnknownError(UnauthenticatedError):
    """The client certificate is unknown."""

    code = "est.client_certificate_unknown"
    cause = (
        "Neither this server nor an accepted bootstrap CA issued the client certificate '{subject}' (issuer: "
        "'{issuer}')."
    )
    fix = (
        "Configure a user name and password, or register the manufacturer CA: `birthmark pki manufacturer create "
        "CA.pem`"
    )
    issuer: str
    subject: str


class ClientCertificateRevokedError(ForbiddenError):
    """The client certificate was revoked."""

    code = "est.client_certificate_revoked"
    cause = "The certificate of '{device_id}' was revoked at {revoked_at}."
    fix = (
        "If you trust the device again, create its own password, with which the device can enroll a new key: "
        "`birthmark env --format aziot --registration-id {device_id}`. An agent enrolls when it applies this "
        "configuration."
    )
    device_id: str
    revoked_at: object


def identify_issued(issued: IssuedCertificate) -> Principal:
    """Return the principal of a certificate issued here, without a check of its dates. Raise if revoked.

    A certificate found in the inventory by its thumbprint is exactly the one that this CA signed, so no chain is
    needed.
    """
    if issued.is_revoked:
        raise ClientCertificateRevokedError(device_id=issued.device_id, revoked_at=issued.revoked_at)
    return Principal(PrincipalKind.DEVICE, issued.device_id, issued.device_id, issued.certificate.thumbprint)


def identify_authority(leaf: Certificate, authority: RegistrationAuthority, now: datetime) -> Principal:
    """Return the principal of a listed registration authority.

    Raise if its certificate does not identify it as a registration authority.
    """
    check_client(leaf)
    check_purpose(leaf, CMC_RA)
    check_dates(leaf, now)
    name = leaf.subject_cn or leaf.thumbprint.hex()
    return Principal(PrincipalKind.AUTHORITY, name, None, leaf.thumbprint, names=authority.names)


def identify_introduced(
    leaf: Certificate,
    bag: Sequence[Certificate],
    bootstrap_cas: Sequence[BootstrapCa],
    now: datetime,
    cache: SignatureCache | Signatures | None = None,
) -> tuple[Principal, BootstrapCa]:
    """Return the principal that a manufacturer's certificate proves, and its CA.

    Raise `ClientCertificateUnknownError` if it proves none.
    """
    check_client(leaf)
    issuers = {one.issuer_der for one in (leaf, *bag)}
    if not any(ca.certificate.subject_der in issuers or ca.certificate == leaf for ca in bootstrap_cas):
        # Avoids needless signature checks.
        raise ClientCertificateUnknownError(subject=leaf.subject_text, issuer=leaf.issuer_text)
    try:
        chain = build_chain(
            leaf, bag, [known.certificate for known in bootstrap_cas], now, allow_partial=True, cache=cache
        )
    except ChainIncompleteError as error:
        raise ClientCertificateUnknownError(subject=leaf.subject_text, issuer=leaf.issuer_text) from error
    name = leaf.subject_cn or leaf.thumbprint.hex()
    by = next(known for known in bootstrap_cas if known.certificate == chain[-1])
    return Principal(PrincipalKind.BOOTSTRAP, name, None if by.any_name else name, leaf.thumbprint), by
