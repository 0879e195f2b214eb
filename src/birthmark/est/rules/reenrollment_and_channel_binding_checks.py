"""Reenrollment keeps the identity (RFC 7030 section 4.2.2), and channel binding of a request (section 3.5)."""

import base64
import hmac

from birthmark.ca.rules.certificate_name_policy import granted_subject
from birthmark.errors import ForbiddenError, UnauthenticatedError
from birthmark.est.model import EstPeer
from birthmark.pki.certificates import Certificate
from birthmark.pki.csr import CertificateRequest


class ChannelBindingError(UnauthenticatedError):
    """The challengePassword does not match this connection."""

    code = "est.channel_binding_mismatch"
    cause = "The request's challengePassword is not the channel binding of this TLS connection."
    fix = (
        "Create the request without challengePassword: `(set -C; openssl req -new -key device.key -subj "
        "/CN={common_name} > new.csr)`. Alternatively, create a request for each connection, with the base64 of "
        "tls-unique (TLS 1.2) or tls-exporter (TLS 1.3, RFC 9266) as challengePassword."
    )
    common_name: str


def check_channel_binding(request: CertificateRequest, peer: EstPeer) -> None:
    """Raise `ChannelBindingError` unless challengePassword is absent or correct; it is never ignored."""
    if request.challenge_password is None:
        return
    presented = request.challenge_password.encode()
    for binding in (peer.tls_unique, peer.exported_binding()):
        if binding and hmac.compare_digest(base64.b64encode(binding), presented):
            return
    raise ChannelBindingError(common_name=request.subject_cn or "device-1")


class ReenrollWithoutCertificateError(ForbiddenError):
    """Renewal requires the current certificate."""

    code = "est.reenroll_without_certificate"
    cause = (
        "Renewal (simplereenroll) requires the current certificate as the TLS client certificate, but the client "
        "presented none."
    )
    fix = (
        "Connect with the current certificate and its key (in curl, with `--cert device.pem --key device.key`), or "
        "use simpleenroll with other credentials."
    )


class ReenrollIdentityChangedError(ForbiddenError):
    """A renewal cannot change the identity."""

    code = "est.reenroll_identity_changed"
    message = "The {part} cannot change in a renewal"
    cause = (
        "The request's {part} differs from that of the certificate '{subject}'. Renewal can change the key, not the "
        "identity."
    )
    fix = (
        "Copy the subject and subjectAltName from the current certificate, byte for byte: `(set -C; openssl x509 "
        "-x509toreq -copy_extensions copyall -in device.pem -key device.key > new.csr)`"
    )
    part: str
    subject: str


def check_same_identity(request: CertificateRequest, current: Certificate | None) -> Certificate:
    """Return the certificate to renew. Raise `ForbiddenError` without one, or if the request changes the identity."""
    if current is None:
        raise ReenrollWithoutCertificateError
    changed = None
    if request.change_subject_name is not None:
        changed = "ChangeSubjectName"
    # Only granted parts count: a client repeats requests for parts that its certificate never got.
    elif request.subject_der != current.subject_der and not _is_granted_same(request, current):
        changed = "subject"
    elif request.subject_alt_name != current.extensions.subject_alt_name:
        changed = "subjectAltName"
    if changed is not None:
        raise ReenrollIdentityChangedError(part=changed, subject=current.subject_text)
    return current


def _is_granted_same(request: CertificateRequest, current: Certificate) -> bool:
    return granted_subject(request.subject).public_bytes() == granted_subject(current.subject).public_bytes()
