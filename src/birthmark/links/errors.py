"""Why a connection failed, for people."""

from typing import Any

from birthmark.errors import InvalidRequestError, UnauthenticatedError, UnavailableError

CLOSED_HERE = "it was closed here"
TRY_AGAIN = "Try again; `birthmark agent run` does by itself."
CHECK_HOST = (
    "that the host is a hub or provisioning service, not another broker. For a Birthmark server: "
    '`eval "$(birthmark env)"` sets it.'
)


class LinkUnreachableError(UnavailableError):
    """Nothing answers there."""

    code = "links.unreachable"
    message = "The server cannot be reached."
    cause = "{host} port {port} cannot be reached: {reason}."
    fix = (
        'Check host and port, the network and the firewall. For a Birthmark server: `eval "$(birthmark env)"` sets the '
        "host that it answers at."
    )

    host: str
    port: int
    reason: object = ""


class HostUnknownError(LinkUnreachableError):
    """The name does not resolve."""

    code = "links.host_unknown"
    message = "The host name is not known."
    cause = "The name {host} is not known here: {reason}."
    fix = (
        'Check the spelling and the DNS settings. For a Birthmark server: `eval "$(birthmark env)"` sets the host '
        "that it "
        "answers at."
    )


class LinkTimeoutError(LinkUnreachableError):
    """The other side takes too long."""

    code = "links.timeout"
    message = "The server takes too long."
    cause = "{host} port {port} did not answer within {seconds} s."
    fix = f"Check the network between here and there. {TRY_AGAIN}"

    seconds: str


class LinkLostError(UnavailableError):
    """The connection ended."""

    code = "links.lost"
    message = "The connection ended: {reason}."
    cause = "The connection to {host} ended: {reason}."
    fix = f"{TRY_AGAIN} When it ends at once each time, `birthmark why` on the server says why."

    host: str
    reason: str


class LinkAnswerError(UnavailableError):
    """What came back is no HTTP, or too much."""

    code = "links.answer_invalid"
    message = "The answer cannot be used."
    cause = "{host} port {port} answered something that cannot be used: {reason}."
    fix = (
        "Check the port: it may be another service's, or a proxy stands in between. A Birthmark server takes HTTPS at "
        "`{host}:8443`."
    )

    host: str
    port: int
    reason: str


class ServerUntrustedError(UnauthenticatedError):
    """The server's certificate comes from nobody we trust."""

    code = "links.server_untrusted"
    message = "The server's certificate is not trusted."
    cause = "The certificate of {host} port {port} is not trusted: {reason}."
    fix = (
        'For a Birthmark server: `eval "$(birthmark env)"` sets SSL_CERT_FILE. For another, name its CA with '
        "--ca-file or SSL_CERT_FILE. An agent's configuration names it: `trust_bundle_cert` for DPS and hub, "
        "`trusted_certs` of `[cert_issuance.est]` for the EST server."
    )

    host: str
    port: str
    reason: str


class ServerNameMismatchError(ServerUntrustedError):
    """A good certificate, of another server."""

    code = "links.server_name_mismatch"
    message = "The server's certificate is for another name."
    cause = "The certificate of {host} port {port} is for another name: {reason}."
    fix = (
        'Use a name of the server\'s certificate. For a Birthmark server: `eval "$(birthmark env)"` sets it; '
        "`birthmark serve --host NAME` puts another one in."
    )


class ClientCertificateRefusedError(UnauthenticatedError):
    """The server broke off over our certificate."""

    code = "links.client_certificate_refused"
    message = "The server broke off the TLS handshake."
    cause = "{host} port {port} refused this device's certificate in the TLS handshake ({reason})."
    fix = f"Check that this is the certificate the server wants, that it knows its CA, and {CHECK_HOST}"

    host: str
    port: str
    reason: str


class TlsFailedError(UnavailableError):
    """The handshake failed, and the library does not say over what."""

    code = "links.tls_failed"
    message = "The TLS handshake failed."
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
    message = "Certificate and key are not a pair."
    cause = "The certificate of '{subject}' does not carry the public half of the key in {where}."
    fix = (
        "Use the certificate that was issued for this key. The files of the environment: "
        '`birthmark device register --cert "$X509_CERT_FILE" --key "$X509_KEY_FILE"`.'
    )

    subject: str
    where: str


class MqttRefusedError(UnauthenticatedError):
    """CONNACK 4 or 5."""

    code = "links.mqtt_refused"
    message = "The server does not let this device in."
    cause = "{host} refused the connection of {client_id} (CONNACK {return_code}: not authorized)."
    fix = "The server tells why, on its machine: `birthmark why {client_id}`"

    client_id: str
    host: str
    return_code: str


class MqttUnavailableError(UnavailableError):
    """CONNACK 3."""

    code = "links.mqtt_unavailable"
    message = "The server is not available."
    cause = "{host} cannot serve {client_id} now (CONNACK 3)."
    fix = f"Nothing is wrong here. {TRY_AGAIN}"

    client_id: str
    host: str


class MqttRejectedError(InvalidRequestError):
    """CONNACK 1 or 2."""

    code = "links.mqtt_rejected"
    message = "The server rejects the connection."
    cause = "{host} takes neither this client id nor this version of MQTT (CONNACK {return_code})."
    fix = f"Check the device id's characters, and {CHECK_HOST}"

    host: str
    return_code: str


class SubscriptionRefusedError(UnauthenticatedError):
    """SUBACK says no."""

    code = "links.subscription_refused"
    message = "The subscription is refused."
    cause = "{host} refused the subscription to {topic}."
    fix = f"Check that the topic is one of this device's own, and {CHECK_HOST}"

    host: str
    topic: str


def connack_error(
    return_code: int, host: str, client_id: str
) -> MqttRefusedError | MqttUnavailableError | MqttRejectedError:
    """Return what a refusing CONNACK means (MQTT 3.1.1 table 3.1)."""
    facts: dict[str, Any] = {"host": host, "client_id": client_id, "return_code": return_code}
    match return_code:
        case 1 | 2:
            return MqttRejectedError(**facts)
        case 3:
            return MqttUnavailableError(**facts)
        case _:
            return MqttRefusedError(**facts)
