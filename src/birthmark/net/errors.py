"""Refusals by the transport: failed handshakes, and peers that are too slow, too large or too many."""

from collections.abc import Sequence
from typing import Any

from birthmark.errors import (
    BirthmarkError,
    InvalidRequestError,
    NotFoundError,
    PolicyError,
    ThrottledError,
    UnauthenticatedError,
)
from birthmark.net.listener_limits import Limits
from birthmark.pki.certificates import Certificate
from birthmark.pki.names_and_registration_ids import SEND_LESS

A_RIGHT_REQUEST = (
    "A valid request for comparison: "
    '`curl -sSfo /dev/null --cacert "$SSL_CERT_FILE" "https://$PROVISIONING_HOST:8085/.well-known/est/cacerts"`'
)


CONFIGURE = "`limits.{setting} = {value}`, a line above its tables (docs/reference/limits.md)."
"""Fix text with the configuration line that sets the limit to twice its value."""
MAX_CHAIN_BYTES = 32 * 1024

MAX_FIELDS = 256
"""Maximum number of header fields and query parameters of a request; each has a cost, however short it is."""


class KeyNotProvenError(UnauthenticatedError):
    """The handshake signature does not match the certificate's key."""

    code = "tls.key_not_proven"
    cause = (
        "The client presented the certificate {subject}, but did not sign the handshake with that certificate's key. "
        "The usual cause is a reference key used without the chip. Such a key file only identifies a key in a secure "
        "element, so the program signed with the placeholder in the file."
    )
    fix = (
        "Put `birthmark chip exec --` in front of the program's command line, so that the program signs with the "
        "chip's key. Alternatively, load the vendor's OpenSSL engine or provider first. If the key file contains an "
        "ordinary key, that key belongs to another certificate."
    )
    subject: str


class ServerNotTrustedError(UnauthenticatedError):
    """The client does not trust this server."""

    code = "tls.server_not_trusted"
    message = "The client ended the TLS handshake"
    cause = "The client ended the TLS handshake: {reason}."
    fix = (
        'If the client does not trust this server, run `eval "$(birthmark env)"` in the client\'s shell to set '
        "SSL_CERT_FILE, REQUESTS_CA_BUNDLE and NODE_EXTRA_CA_CERTS to the root certificates. azure-eventhub for Python "
        'does not read these variables: pass `connection_verify=os.environ["SSL_CERT_FILE"]` to its client. The '
        "server's certificate must contain the host name that the client uses, and the client's clock must be within "
        "the certificate's validity period."
    )
    reason: str
    sni: str


class ClientClockWrongError(ServerNotTrustedError):
    """The client considers this server's certificate expired."""

    code = "tls.client_clock_wrong"
    cause = (
        "The client rejected this server's certificate as expired ({reason}). If the certificate has not "
        "expired, the client's clock is ahead."
    )
    fix = (
        "Set the client's clock to the server's time, which `date -u` prints here. To check when the certificate "
        "expires: `birthmark doctor`."
    )


class ChainTooLargeError(InvalidRequestError):
    """Too many certificates were sent."""

    code = "tls.chain_too_large"
    cause = "The client presented certificates of more than {limit} bytes in total."
    fix = SEND_LESS
    limit: int


class HandshakeFailedError(UnauthenticatedError):
    """The TLS handshake failed."""

    code = "tls.handshake_failed"
    cause = "The TLS handshake failed: {reason}."
    fix = (
        "Check the client's TLS settings: the server supports TLS 1.2 and 1.3 with ECDHE and AES-GCM or ChaCha20. A "
        "client certificate must match its key; if they match, these commands print the same public key: `openssl "
        'x509 -in "$X509_CERT_FILE" -noout -pubkey` and `openssl pkey -in "$X509_KEY_FILE" -pubout`'
    )
    reason: str


class NoSharedCipherError(HandshakeFailedError):
    """Client and server have no cipher suite or signature algorithm in common."""

    code = "tls.no_shared_cipher"
    cause = (
        "The client offers no cipher suite that this server supports ({reason}). The server supports ECDHE with "
        "AES-GCM or ChaCha20. Unless the server's certificate is RSA, the server supports only ECDSA suites. IoT Hub "
        "and AWS IoT Core also support RSA."
    )
    fix = (
        "Configure the client to offer ECDHE-ECDSA-AES128-GCM-SHA256. For firmware that supports only RSA suites, "
        "set an RSA certificate in `[server] certificate` (docs/reference/server-config.md). To show what a client "
        'negotiates: `openssl s_client -brief -tls1_2 -connect "$PROVISIONING_HOST:8443" < /dev/null`'
    )


class NotTlsError(InvalidRequestError):
    """Plain text on a TLS port."""

    code = "tls.plain_text"
    cause = "The client sent {reason} on a TLS port."
    fix = f"Use https:// or MQTT over TLS on this port. {A_RIGHT_REQUEST}"
    reason: str


class TooSlowError(InvalidRequestError):
    """The client did not finish in time."""

    code = "net.too_slow"
    message = "The client did not finish {phase} in time"
    cause = "The client did not finish {phase} within {limit_s} seconds."
    fix = (
        "Check the network between the client and this server. If your clients are slow, increase the "
        f"time limit in the configuration file: {CONFIGURE}"
    )
    limit_s: str
    phase: str
    setting: str
    value: object


class SlowReaderError(PolicyError):
    """The client does not read its data."""

    code = "net.slow_reader"
    message = "The client has too much unread data"
    cause = (
        "The client does not read its data, or does not finish its messages. The server closed the connection "
        "because more than {limit} bytes were queued for the client."
    )
    fix = (
        "Make the client read faster, subscribe to less, or send smaller messages. If it needs all the "
        f"data and is only late at times, increase the limit in the configuration file: {CONFIGURE}"
    )
    limit: int
    setting: str
    value: object


def slow_peer_facts(phase: str, setting: str, limits: Limits) -> dict[str, Any]:
    """Return the error details of a peer that exceeded a time limit."""
    limit = getattr(limits, setting)
    return {"phase": phase, "limit_s": limit, "setting": setting, "value": 2 * limit}


class TooManyConnectionsError(ThrottledError):
    """Too many connections."""

    code = "net.too_many_connections"
    cause = "{scope} already has {limit} connections."
    fix = (
        "Close unused connections. If all are needed, for example because many devices share one address,"
        f" increase the limit in the configuration file: {CONFIGURE}"
    )
    limit: str
    scope: str
    setting: str
    value: object


class TooManyBytesError(ThrottledError):
    """Too many incomplete bytes."""

    code = "net.too_many_bytes"
    cause = "{scope} reached the limit of {limit} bytes of incomplete data from clients that are not authenticated yet."
    fix = f"If many devices share that address, increase the limit in the configuration file: {CONFIGURE}"
    limit: str
    scope: str
    setting: str
    value: object


class HeadersTooLargeError(InvalidRequestError):
    """The headers and query are too large."""

    code = "http.headers_too_large"
    message = "The request headers exceed {limit} bytes, or are too many"
    cause = (
        "The request line and headers exceed {limit} bytes, or the headers and query parameters exceed {most} fields."
    )
    fix = (
        "Send fewer or shorter headers, or increase limits.max_header_bytes, see "
        f"docs/reference/limits.md. {A_RIGHT_REQUEST}"
    )
    limit: int
    most: int = MAX_FIELDS


class BodyTooLargeError(InvalidRequestError):
    """The request body is too large."""

    code = "http.body_too_large"
    message = "The request body exceeds {limit} bytes"
    cause = "The request body exceeds {limit} bytes, the limit for this path."
    fix = f"Send smaller bodies; docs/reference/limits.md lists the size limit of each path. {A_RIGHT_REQUEST}"
    limit: int


class HttpBrokenError(InvalidRequestError):
    """The request is not valid HTTP."""

    code = "http.malformed"
    cause = (
        "The client sent invalid HTTP/1.1: a malformed request line, header or chunk, or many requests "
        "without waiting for a response."
    )
    fix = f"Check the client's HTTP library, and that it uses HTTP/1.1 on this port. {A_RIGHT_REQUEST}"


class RequestCutOffError(InvalidRequestError):
    """The client disconnected before its request was complete."""

    code = "http.cut_off"
    cause = "The client closed the connection before its request was complete."
    fix = f"Check the network and the client's timeouts. It is safe to send the request again. {A_RIGHT_REQUEST}"


class NotAllowedHereError(InvalidRequestError):
    """The port does not support the protocol."""

    code = "net.protocol_not_served"
    message = "This port does not support {protocol}"
    cause = "This port does not support {protocol}."
    fix = f"MQTT is on 8883 (and 443), AMQP on 5671, HTTPS on 8443 (and 443), EST on 8085 and 8443. {A_RIGHT_REQUEST}"
    protocol: str


_ALERTS_AGAINST_US = ("unknown ca", "certificate unknown", "bad certificate")
_BAD_SIGNATURE = ("bad signature", "digest check failed", "wrong signature", "bad ecc", "signature", "block type")
_NOTHING_SHARED = ("no shared cipher", "no suitable signature algorithm", "no shared signature algorithms")


def explain_handshake(errors: Sequence[Sequence[str]], presented: Certificate | None, sni: str) -> BirthmarkError:
    """Return the refusal for OpenSSL's error queue of a failed server handshake."""
    reason = "; ".join(error[-1] for error in errors if error and error[-1]) or "the client closed the connection"
    low = reason.lower()
    facts: dict[str, Any] = {"reason": reason, "sni": sni}
    if presented is not None:
        facts |= {
            "subject": presented.subject_text,
            "common_name": presented.subject_cn or "",
            "thumbprint": presented.thumbprint.hex(),
        }
    if "http request" in low or "wrong version number" in low:
        return NotTlsError(**(facts | {"reason": "plain text"}))
    if "excessive message size" in low:
        return ChainTooLargeError(limit=MAX_CHAIN_BYTES, **facts)
    if "alert" in low and "certificate expired" in low:
        return ClientClockWrongError(**facts)
    if "alert" in low and any(text in low for text in _ALERTS_AGAINST_US):
        return ServerNotTrustedError(**(facts | {"reason": f"it rejected this server's certificate ({reason})"}))
    if presented is not None and any(text in low for text in _BAD_SIGNATURE):
        return KeyNotProvenError(**facts)
    return (NoSharedCipherError if any(text in low for text in _NOTHING_SHARED) else HandshakeFailedError)(**facts)


class WebSocketPathError(NotFoundError):
    """No WebSocket at this path."""

    code = "net.websocket_path_unknown"
    cause = "The path {path} does not accept WebSocket connections."
    fix = "Connect to `/$iothub/websocket` for IoT Hub and DPS, or to `/mqtt` for AWS IoT."
    path: str


class WebSocketSubprotocolError(InvalidRequestError):
    """The client offers no subprotocol of MQTT or AMQP."""

    code = "net.websocket_subprotocol"
    message = "The server supports none of the offered WebSocket subprotocols"
    cause = "The WebSocket upgrade offers the subprotocols {offered}, but this path supports only MQTT."
    fix = (
        "Offer the subprotocol mqtt and send MQTT. For AMQP, use the path `/$iothub/websocket` or "
        "`/$servicebus/websocket` of an IoT hub. List the server's endpoints: `birthmark env --format json`"
    )
    offered: str
