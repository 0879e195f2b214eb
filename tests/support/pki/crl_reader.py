"""Revocation lists of other CAs (RFC 5280 section 6.3), for the conformance suites: no door asks for one."""

import warnings
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from cryptography import x509

from birthmark.pki.certificates import UNREADABLE, Certificate
from birthmark.pki.single_certificate_checks import ChainError

MAX_CRL_BYTES = 16 * 1024 * 1024
_UNREADABLE = (*UNREADABLE, x509.DuplicateExtension)


def parse_crl(data: bytes) -> x509.CertificateRevocationList:
    """Return the list in PEM or DER. Raise `ChainError`."""
    if len(data) > MAX_CRL_BYTES:
        raise ChainError(detail=f"its issuer's revocation list has over {MAX_CRL_BYTES} bytes")
    try:
        load = x509.load_pem_x509_crl if b"-----BEGIN" in data else x509.load_der_x509_crl
        found = load(data)
        # cryptography reads lazily; touch what is asked for later, so that it fails here or never.
        _ = (_issuer_der(found), found.last_update_utc, found.next_update_utc, list(found.extensions))
    except _UNREADABLE as error:
        raise ChainError(detail="its issuer's revocation list cannot be read") from error
    return found


def check_crls(chain: Sequence[Certificate], lists: Sequence[x509.CertificateRevocationList], now: datetime) -> None:
    """Raise `ChainError` for a certificate of `chain` (leaf first) on a list of its issuer.

    A list that breaks the rules is no reason to believe anybody, and is refused too. Lists of others do not count.
    """
    for certificate, issuer in pairwise(chain):
        for one in lists:
            if _issuer_der(one) != issuer.subject_der:
                continue
            try:
                _check_list(one, issuer, now)
                entry = one.get_revoked_certificate_by_serial_number(certificate.serial)
                revoked_at = entry and entry.revocation_date_utc
            except _UNREADABLE as error:  # entries and algorithms are read only when they are asked for
                raise ChainError(detail="something in its issuer's revocation list cannot be read") from error
            if entry is not None:
                raise ChainError(detail=f"it is on its issuer's revocation list since {revoked_at}")


def _issuer_der(one: x509.CertificateRevocationList) -> bytes:
    with warnings.catch_warnings():  # of a name that is too long
        warnings.simplefilter("ignore", UserWarning)
        return one.issuer.public_bytes()


def _check_list(one: x509.CertificateRevocationList, issuer: Certificate, now: datetime) -> None:
    usage = issuer.extensions.key_usage
    numbers = [extension for extension in one.extensions if isinstance(extension.value, x509.CRLNumber)]
    unknown = [extension for extension in one.extensions if extension.critical]
    problems = (
        (usage is not None and "crl_sign" not in usage, "its CA may not sign lists"),
        (len(numbers) != 1, "it has no number"),
        (bool(unknown), "it has a critical extension that is not understood here"),
        (one.last_update_utc > now, "it is of the future"),
        (one.next_update_utc is None or one.next_update_utc < now, "it is out of date"),
        (not one.is_signature_valid(issuer.public_key()), "its CA did not sign it"),  # type: ignore[arg-type]  # a CA has a key that signs
    )
    for is_broken, detail in problems:
        if is_broken:
            raise ChainError(detail=f"its issuer's revocation list: {detail}")
