"""May this registration be issued a certificate, or has it one already? Pure."""

from datetime import datetime, timedelta

from birthmark.dps.model import Enrollment, Registration
from birthmark.errors import InvalidRequestError, PolicyError
from birthmark.pki.csr import CertificateRequest
from birthmark.pki.names import MAKE_REQUEST, fold

REPEATED_WITHIN = timedelta(hours=1)
"""How long a registration that is made again with the same key is the same operation: its answer may have been lost."""


class NoIssuingPolicyError(PolicyError):
    """The enrollment issues no certificates."""

    code = "dps.no_issuing_policy"
    cause = "{registration_id} registered with a certificate request, and its enrollment {enrollment} has no policy."
    fix = (
        'Give its enrollment one: `birthmark device enroll --cert "$X509_CERT_FILE" --issue device --update{options}`; '
        "a group's the same way, with `birthmark device enroll-group --help`. Or let the device register without csr."
    )
    enrollment: str
    options: str = ""
    registration_id: str


class CsrNameError(InvalidRequestError):
    """The request is for another name."""

    code = "dps.csr_name"
    message = "The certificate request is for '{asked}', not for {registration_id}"
    cause = "{registration_id} registered with a certificate request whose common name is '{asked}'."
    fix = f"Make the common name the registration id, {{registration_id}}. {MAKE_REQUEST}"
    asked: str
    registration_id: str


def check_csr(enrollment: Enrollment, registration_id: str, csr: CertificateRequest) -> str:
    """Return the policy by which the request is granted. Raise `NoIssuingPolicyError` or `CsrNameError`."""
    if enrollment.policy is None:
        raise NoIssuingPolicyError(enrollment=enrollment.id, registration_id=registration_id)
    if csr.subject_cn is None or fold(csr.subject_cn) != fold(registration_id):
        raise CsrNameError(registration_id=registration_id, asked=csr.subject_cn or csr.subject_text)
    return enrollment.policy


def is_repeated(
    present: Registration | None, enrollment: Enrollment, key_digest: bytes, not_after: datetime, now: datetime
) -> bool:
    """Say whether a request was answered before by the same operation, whose certificate ends at `not_after`.

    The key tells: a device that starts again signs its request anew, and is to get what was made for it.
    """
    if present is None or present.issued_at is None or present.issued_key != key_digest:
        return False
    lives = not_after - present.issued_at
    within = min(REPEATED_WITHIN, lives / 10)
    return present.issued_by == enrollment.policy and now - present.issued_at <= within
