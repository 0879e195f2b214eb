"""Connection errors with a cause and a fix."""

from collections.abc import Callable, Mapping
from typing import ClassVar

from birthmark.errors import BirthmarkError, InvalidRequestError, UnauthenticatedError, UnavailableError

CLOSED_HERE = "it was closed here"
TRY_AGAIN = "Retry; `birthmark agent run` retries automatically."
CHECK_HOST = (
    "that the host is a hub or provisioning service, not another broker. For a Birthmark server: "
    '`eval "$(birthmark env)"` sets it.'
)


class LinkUnreachableError(UnavailableError):
    """The server cannot be reached."""

    code = "links.unreachable"
    cause = "{host} port {port} cannot be reached: {reason}."
    fix = (
        'Check the host, the port, the network and the firewall. For a Birthmark server, `eval "$(birthmark env)"` '
        "sets the host for devices. To show the server's addresses, run this command on its machine: `birthmark "
        "server status`."
    )
    host: str
    port: int
    reason: object = ""


class HostUnknownError(LinkUnreachableError):
    """The host name is unknown."""

    code = "links.host_unknown"
    cause = "The host name {host} cannot be resolved: {reason}."
    fix = (
        'Check the spelling and the DNS settings. For a Birthmark server, `eval "$(birthmark env)"` sets the host name.'
    )


class LinkTimeoutError(LinkUnreachableError):
    """The server did not respond in time."""

    code = "links.timeout"
    cause = "{host} port {port} did not respond within {seconds} s."
    fix = f"Check the network between client and server. {TRY_AGAIN}"
    seconds: str


class TempFileError(UnavailableError):
    """The certificate chain cannot be written for OpenSSL."""

    code = "links.no_room"
    cause = "The certificate chain cannot be written to a temporary file for OpenSSL: {reason}."
    fix = "Free disk space for temporary files, or set TMPDIR to another directory. To show full disks: `df -h`"
    for_a_person = "as the administrator, decide which files to delete"
    reason: str


class LinkLostError(UnavailableError):
    """The connection ended."""

    code = "links.lost"
    message = "The connection ended: {reason}"
    cause = "The connection to {host} ended: {reason}."
    fix = f"{TRY_AGAIN} If it ends immediately each time, show the cause with `birthmark why` on the server."
    host: str
    reason: str


class LinkAnswerError(UnavailableError):
    """The response is not valid."""

    code = "links.answer_invalid"
    cause = "The response of {host} port {port} is not valid: {reason}."
    fix = (
        "Check the port: another service or a proxy may respond there. A Birthmark server serves HTTPS at"
        " `{host}:8443`."
    )
    host: str
    port: int
    reason: str


class ServerUntrustedError(UnauthenticatedError):
    """The server's certificate is not trusted."""

    code = "links.server_untrusted"
    cause = "The certificate of {host} port {port} is not trusted: {reason}."
    fix = (
        'For a Birthmark server, `eval "$(birthmark env)"` sets SSL_CERT_FILE. For other servers, specify the CA '
        "with --ca-file or SSL_CERT_FILE. In an agent's configuration, set `trust_bundle_cert` for DPS and the hub, "
        "and `trusted_certs` under `[cert_issuance.est]` for the EST server."
    )
    host: str
    port: object
    reason: str
    is_about_time: ClassVar[bool] = False
    """True if the certificate would be valid at another time: the clock may be wrong."""


class ServerNameMismatchError(ServerUntrustedError):
    """The server's certificate is for another name."""

    code = "links.server_name_mismatch"
    cause = "The certificate of {host} port {port} is for another name: {reason}."
    fix = (
        'Use a name that the server\'s certificate contains. For a Birthmark server, `eval "$(birthmark env)"` sets '
        "such a name, and `birthmark serve --host NAME` adds another name."
    )


class ClientCertificateRefusedError(UnauthenticatedError):
    """The server ended the TLS handshake."""

    code = "links.client_certificate_refused"
    cause = "{host} port {port} rejected this device's certificate in the TLS handshake ({reason})."
    fix = f"Check that this is the certificate that the server expects, that it knows its CA, and {CHECK_HOST}"
    host: str
    port: str
    reason: str


class TlsFailedError(UnavailableError):
    """The TLS handshake failed."""

    code = "links.tls_failed"
    cause = "The TLS handshake with {host} port {port} failed: {reason}."
    fix = (
        'Usually, the server\'s certificate is not trusted. For a Birthmark server, `eval "$(birthmark env)"` sets '
        "SSL_CERT_FILE. Otherwise, check that the certificate and the key match, and that the port uses TLS."
    )
    host: str
    port: str
    reason: str


class CertificateKeyMismatchError(InvalidRequestError):
    """Certificate and key do not match."""

    code = "links.certificate_key_mismatch"
    cause = "The certificate of '{subject}' does not match the key in {where}."
    fix = (
        "Use the certificate that was issued for this key. To use the files that the environment specifies: "
        '`birthmark device register --cert "$X509_CERT_FILE" --key "$X509_KEY_FILE"`.'
    )
    subject: str
    where: str


class ChainOrderError(CertificateKeyMismatchError):
    """The chain does not start with the device's certificate."""

    code = "links.chain_order"
    cause = "The first certificate is '{subject}', but the key in {where} belongs to a later certificate, '{leaf}'."
    fix = "Put '{leaf}' first, followed by its issuer. Put the root last, or omit the root."
    leaf: str


class MqttRefusedError(UnauthenticatedError):
    """The server rejected the device's connection."""

    code = "links.mqtt_refused"
    cause = "{host} rejected the connection of {client_id} (CONNACK {return_code}: not authorized)."
    fix = "To show the cause, run this command on the server's machine: `birthmark why {client_id}`"
    client_id: str
    host: str
    return_code: str


class AmqpRefusedError(UnauthenticatedError):
    """The server rejected the device's AMQP connection or link."""

    code = "links.amqp_refused"
    cause = "{host} rejected {client_id} over AMQP: {condition}."
    fix = "To show the cause, run this command on the server's machine: `birthmark why {client_id}`"
    for_a_person = "as the administrator of the hub, decide whether the device may connect"
    client_id: str
    condition: str
    host: str


class MqttUnavailableError(UnavailableError):
    """The server is not available."""

    code = "links.mqtt_unavailable"
    cause = "{host} is temporarily unable to serve {client_id} (CONNACK 3)."
    fix = f"The device's settings are correct. {TRY_AGAIN}"
    client_id: str
    host: str


class MqttRejectedError(InvalidRequestError):
    """The server rejected the connection."""

    code = "links.mqtt_rejected"
    cause = "{host} does not accept this client ID or MQTT version (CONNACK {return_code})."
    fix = f"Check the device ID's characters, and {CHECK_HOST}"
    host: str
    return_code: str


class SubscriptionRefusedError(UnauthenticatedError):
    """The server rejected the subscription."""

    code = "links.subscription_refused"
    cause = "{host} rejected the subscription to {topic}."
    fix = f"Check that the topic belongs to this device, and {CHECK_HOST}"
    host: str
    topic: str


CONNACK: Mapping[int, Callable[..., BirthmarkError]] = {
    1: MqttRejectedError,
    2: MqttRejectedError,
    3: MqttUnavailableError,
}
"""Errors by CONNACK return code (MQTT 3.1.1 table 3.1); every other code means `MqttRefusedError`."""
