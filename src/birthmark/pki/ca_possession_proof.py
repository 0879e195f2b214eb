"""Proof of possession of a CA's private key: a certificate for a code, signed by that CA.

Azure DPS calls the code verification code, AWS IoT registration code; both require it as the common name of a
certificate that the CA has signed. The code is public, the signature is the proof.
"""

import hmac
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from birthmark.errors import ForbiddenError
from birthmark.pki.certificate_profiles import VERIFICATION
from birthmark.pki.certificates import Certificate, is_signed_by
from birthmark.pki.issuance import LeafIssuer, issue
from birthmark.pki.names_and_registration_ids import name_of
from birthmark.pki.path_validation import check_dates
from birthmark.untrusted_json_and_text import printable

PROVE = "`birthmark ca verify-possession {wanted}{options} --dir ca --out proof.pem`"


class PossessionNotProvenError(ForbiddenError):
    """The verification certificate does not prove possession of the CA's key."""

    code = "pki.possession_not_proven"


class PossessionCodeMismatchError(PossessionNotProvenError):
    """The common name is not the verification code."""

    code = "pki.possession_code_mismatch"
    cause = "The verification certificate's common name is '{found}', not the latest verification code."
    fix = f"Use the latest code; each new code replaces the previous one: {PROVE}"
    found: str
    wanted: str
    options: str = ""


class PossessionSignatureError(PossessionNotProvenError):
    """The CA's key did not sign this certificate."""

    code = "pki.possession_signature_invalid"
    cause = "The verification certificate was not signed by the key of '{ca}'."
    fix = f"Sign it with that CA's key, which is in the CA's directory: {PROVE}"
    ca: str
    wanted: str
    options: str = ""


def which(ca: Certificate) -> str:
    """Return the option of `birthmark ca verify-possession` for a CA that is not a root; empty for a root."""
    return "" if ca.is_self_signed else " --with issuing"


def check_possession(verification: Certificate, ca: Certificate, code: str, now: datetime) -> None:
    """Raise `PossessionNotProvenError` or a date error unless `verification` proves possession of `ca`'s key."""
    found = verification.subject_cn or ""
    code = code.strip()
    if not hmac.compare_digest(found.encode(), code.encode()):
        raise PossessionCodeMismatchError(found=printable(found), wanted=code, options=which(ca))
    if not is_signed_by(verification, ca):
        raise PossessionSignatureError(ca=ca.subject_text, wanted=code, options=which(ca))
    check_dates(verification, now)


def prove_possession(
    code: str,
    issuer: LeafIssuer,
    public_key: CertificatePublicKeyTypes,
    *,
    serial: int,
    now: datetime,
    lifetime: timedelta,
) -> Certificate:
    """Return the verification certificate for `code`. `public_key` may belong to any temporary key."""
    return issue(
        VERIFICATION, name_of(code.strip()), public_key, issuer=issuer, serial=serial, now=now, lifetime=lifetime
    )
