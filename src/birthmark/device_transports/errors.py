"""Why a connection failed, for people."""

from collections.abc import Callable, Mapping
from typing import ClassVar

from birthmark.errors import BirthmarkError, InvalidRequestError, UnauthenticatedError, UnavailableError

CLOSED_HERE = "it was closed here"
TRY_AGAIN = "Try again; `birthmark agent run` does by itself."
CHECK_HOST = (
    "that the host is a hub or provisioning service, not another broker. For a Birthmark server: "
    '`eval "$(birthmark env)"` sets it.'
)


class LinkUnreachableError(UnavailableError):
    """The server cannot be reached."""

    code = "links.unreachable"
    cause = "{host} port {port} cannot be reached: {reason}."
    fix = (
        'Check host and port, the network and the firewall. For a Birthmark server: `eval "$(birthmark env)"` sets the '
        "host that devices are told; `birthmark server status` on its machine says where it answers."
    )
    host: str
    port: int
    reason: object = ""


class HostUnknownError(LinkUnreachableError):
    """The host name is not known."""

    code = "links.host_unknown"
    cause = "The name {host} is not known here: {reason}."
    fix = (
        'Check the spelling and the DNS settings. For a Birthmark server: `eval "$(birthmark env)"` sets the host that '
        "it answers at."
    )


class LinkTimeoutError(LinkUnreachableError):
    """The server takes too long."""

    code = "links.timeout"
    cause = "{host} port {port} did not answer within {seconds} s."
    fix = f"Check the network between here and there. {TRY_AGAIN}"
    seconds: str


class ChainUnplacedError(UnavailableError):
    """The chain cannot be handed to OpenSSL, which takes it as a file."""

    code = "links.no_room"
    cause = "OpenSSL takes the certificate chain as a file, for which there is no room: {reason}."
    fix = "Make room for temporary files, or set TMPDIR; this shows what is full: `df -h`"
    for_a_person = "what may be deleted is for somebody to say"
    reason: str


class LinkLostError(UnavailableError):
    """The connection ended."""

    code = "links.lost"
    message = "The connection ended: {reason}."
    cause = "The connection to {host} ended: {reason}."
    fix = f"{TRY_AGAIN} When it ends at once each time, `birthmark why` on the server says why."
    host: str
    reason: str


class LinkAnswerError(UnavailableError):
    """The answer cannot be used."""

    code = "links.answer_invalid"
    cause = "{host} port {port} answered something that cannot be used: {reason}."
    fix = (
        "Check the port: it may be another service's, or a proxy stands in between. A Birthmark server takes HTTPS at "
        "`{host}:8443`."
    )
    host: str
    port: int
    reason: str


class ServerUntrustedError(UnauthenticatedError):
    """The server's certificate is not trusted."""

    code = "links.server_untrusted"
    cause = "The certificate of {host} port {port} is not trusted: {reason}."
    fix = (
        'For a Birthmark server: `eval "$(birthmark env)"` sets SSL_CERT_FILE. For another, name its CA with '
        "--ca-file or SSL_CERT_FILE. An agent's configuration names it: `trust_bundle_cert` for DPS and hub, "
        "`trusted_certs` of `[cert_issuance.est]` for the EST server."
    )
    host: str
    port: object
    reason: str
    is_about_time: ClassVar[bool] = False
    """Set on one that would be believed at another time: the clock may be wrong."""


class ServerNameMismatchError(ServerUntrustedError):
    """The server's certificate is for another name."""

    code = "links.server_name_mismatch"
    cause = "The certificate of {host} port {port} is for another name: {reason}."
    fix = (
        'Use a name of the server\'s certificate. For a Birthmark server: `eval "$(birthmark env)"` sets it; '
        "`birthmark serve --host NAME` puts another one in."
    )


class ClientCertificateRefusedError(UnauthenticatedError):
    """The server broke off the TLS handshake."""

    code = "links.client_certificate_refused"
    cause = "{host} port {port} refused this device's certificate in the TLS handshake ({reason})."
    fix = f"Check that this is the certificate the server wants, that it knows its CA, and {CHECK_HOST}"
    host: str
    port: str
    reason: str


class TlsFailedError(UnavailableError):
    """The TLS handshake failed."""

    code = "links.tls_failed"
    cause = "The TLS handshake with {host} port {port} failed: {reason}."
    fix = (
        'Most often the server is not trusted: `eval "$(birthmark env)"` sets SSL_CERT_FILE for a Birthmark server. '
        "Else check that certificate and key belong together, and that the port speaks TLS."
    )
    host: str
    port: str
    reason: str


class CertificateKeyMismatchError(InvalidRequestError):
    """Certificate and key are not a pair."""

    code = "links.certificate_key_mismatch"
    cause = "The certificate of '{subject}' does not carry the public half of the key in {where}."
    fix = (
        "Use the certificate that was issued for this key. The files of the environment: "
        '`birthmark device register --cert "$X509_CERT_FILE" --key "$X509_KEY_FILE"`.'
    )
    subject: str
    where: str


class ChainOrderError(CertificateKeyMismatchError):
    """The chain begins with another certificate than the device's."""

    code = "links.chain_order"
    cause = "The first certificate is that of '{subject}', and the key in {where} belongs to a later one, '{leaf}'."
    fix = "Put the certificates in this order: '{leaf}' first, then its issuer, the root last or left out."
    leaf: str


class MqttRefusedError(UnauthenticatedError):
    """The server does not let this device in."""

    code = "links.mqtt_refused"
    cause = "{host} refused the connection of {client_id} (CONNACK {return_code}: not authorized)."
    fix = "The server tells why, on its machine: `birthmark why {client_id}`"
    client_id: str
    host: str
    return_code: str


class MqttUnavailableError(UnavailableError):
    """The server is not available."""

    code = "links.mqtt_unavailable"
    cause = "{host} cannot serve {client_id} now (CONNACK 3)."
    fix = f"Nothing is wrong here. {TRY_AGAIN}"
    client_id: str
    host: str


class MqttRejectedError(InvalidRequestError):
    """The server rejects the connection."""

    code = "links.mqtt_rejected"
    cause = "{host} takes neither this client id nor this version of MQTT (CONNACK {return_code})."
    fix = f"Check the device id's characters, and {CHECK_HOST}"
    host: str
    return_code: str


class SubscriptionRefusedError(UnauthenticatedError):
    """The subscription is refused."""

    code = "links.subscription_refused"
    cause = "{host} refused the subscription to {topic}."
    fix = f"Check that the topic is one of this device's own, and {CHECK_HOST}"
    host: str
    topic: str


CONNACK: Mapping[int, Callable[..., BirthmarkError]] = {
    1: MqttRejectedError,
    2: MqttRejectedError,
    3: MqttUnavailableError,
}
"""What a refusing CONNACK means (MQTT 3.1.1 table 3.1); of every other code, `MqttRefusedError`."""
