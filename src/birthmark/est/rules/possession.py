"""Did the sender of the request make it? Proof of possession linked to the connection (RFC 7030 section 3.5)."""

import base64
import hmac

from birthmark.errors import UnauthenticatedError
from birthmark.est.model import Peer
from birthmark.pki.csr import CertificateRequest


class ChannelBindingError(UnauthenticatedError):
    """The challengePassword does not belong to this connection."""

    code = "est.channel_binding_mismatch"
    cause = "The request's challengePassword is not the channel binding of this TLS connection."
    fix = (
        "Make the request again without challengePassword: "
        "`(set -C; openssl req -new -key device.key -subj /CN={common_name} > new.csr)`. Or make it on each "
        "connection, with base64 of tls-unique (TLS 1.2) or of the tls-exporter (TLS 1.3, RFC 9266)."
    )
    common_name: str


def check_channel_binding(request: CertificateRequest, peer: Peer) -> None:
    """Raise `ChannelBindingError` unless the request has no challengePassword or the right one; never overlook one."""
    if request.challenge_password is None:
        return
    presented = request.challenge_password.encode()
    for binding in (peer.tls_unique, peer.exported_binding()):
        if binding and hmac.compare_digest(base64.b64encode(binding), presented):
            return
    raise ChannelBindingError(common_name=request.subject_cn or "device-1")
