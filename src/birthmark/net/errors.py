"""Refusals of the transport itself: handshakes that fail, peers that are too slow, too large or too many."""

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
from birthmark.net.limits import Limits
from birthmark.pki.certificates import Certificate
from birthmark.pki.names import SEND_LESS

A_RIGHT_REQUEST = (
    "A request that is right is answered: "
    '`curl -sSfo /dev/null --cacert "$SSL_CERT_FILE" "https://$PROVISIONING_HOST:8085/.well-known/est/cacerts"`'
)


CONFIGURE = "`limits.{setting} = {value}`, a line above its tables (docs/reference/limits.md)."
"""Twice the limit that was met; the line of the configuration file that sets it."""
MAX_CHAIN_BYTES = 32 * 1024

MAX_FIELDS = 256
"""Of a request's headers and query together: each costs, however short it is."""


class KeyNotProvenError(UnauthenticatedError):
    """The handshake signature is not by the presented certificate's key."""

    code = "tls.key_not_proven"
    cause = (
        "The client showed the certificate {subject}, but the handshake signature was not made with that certificate's "
        "key. The usual reason is a reference key used without the chip: the key file only names a key in a secure "
        "element, and the program signed with the file's placeholder."
    )
    fix = (
        "Put `birthmark chip exec --` in front of the program's command line, so that it signs with the chip's key, "
        "or load the vendor's OpenSSL engine or provider before it starts. If the key is an ordinary file, it belongs "
        "to another certificate."
    )
    subject: str


class ServerNotTrustedError(UnauthenticatedError):
    """The client does not trust this server."""

    code = "tls.server_not_trusted"
    message = "The client ended the TLS handshake"
    cause = "The client ended the TLS handshake: {reason}."
    fix = (
        'If the client does not trust this server, give it the root: `eval "$(birthmark env)"` sets SSL_CERT_FILE, '
        "REQUESTS_CA_BUNDLE and NODE_EXTRA_CA_CERTS for its shell. The host name it uses must be in the server's "
        "certificate, and its clock within the certificate's dates."
    )
    reason: str
    sni: str


class ClientClockWrongError(ServerNotTrustedError):
    """The client takes this server's certificate for expired."""

    code = "tls.client_clock_wrong"
    cause = "The client says that this server's certificate has expired ({reason}): if it has not, its clock is ahead."
    fix = (
        "Set the client's clock by the time here: `date -u`. If the certificate has ended, `birthmark doctor` says so."
    )


class ChainTooLargeError(InvalidRequestError):
    """Too many certificates were sent."""

    code = "tls.chain_too_large"
    cause = "The client showed certificates of more than {limit} bytes in all."
    fix = SEND_LESS
    limit: int


class HandshakeFailedError(UnauthenticatedError):
    """The TLS handshake failed."""

    code = "tls.handshake_failed"
    cause = "The TLS handshake failed: {reason}."
    fix = (
        "Check the client's TLS settings: the server speaks TLS 1.2 and 1.3 with ECDHE and AES-GCM or ChaCha20. A "
        "client certificate and its key must be a pair, for which these print the same: "
        '`openssl x509 -in "$X509_CERT_FILE" -noout -pubkey` and `openssl pkey -in "$X509_KEY_FILE" -pubout`'
    )
    reason: str


class NoSharedCipherError(HandshakeFailedError):
    """Client and server have no cipher suite or signature algorithm in common."""

    code = "tls.no_shared_cipher"
    cause = (
        "The client offers no cipher suite of this server ({reason}). The server has ECDHE with AES-GCM or ChaCha20, "
        "and ECDSA suites alone unless its own certificate is RSA; IoT Hub and AWS IoT Core have RSA, too."
    )
    fix = (
        "Let the client offer ECDHE-ECDSA-AES128-GCM-SHA256. For firmware with RSA suites alone give the server an RSA "
        "certificate in `[server] certificate` (docs/reference/server-config.md). See what a client negotiates: "
        '`openssl s_client -brief -tls1_2 -connect "$PROVISIONING_HOST:8443" < /dev/null`'
    )


class NotTlsError(InvalidRequestError):
    """Plain text on a TLS port."""

    code = "tls.plain_text"
    cause = "The client spoke {reason} on a TLS port."
    fix = f"Use https:// or MQTT over TLS on this port. {A_RIGHT_REQUEST}"
    reason: str


class TooSlowError(InvalidRequestError):
    """The peer did not finish in time."""

    code = "net.too_slow"
    message = "Too slow: {phase}"
    cause = "The client did not finish {phase} within {limit_s} seconds."
    fix = (
        "Check the network between the client and this server. If its clients are as slow as that, give them time in "
        f"the configuration file: {CONFIGURE}"
    )
    limit_s: str
    phase: str
    setting: str
    value: object


class SlowReaderError(PolicyError):
    """The peer does not read what is sent to it."""

    code = "net.slow_reader"
    message = "Too much waits to be read"
    cause = (
        "The client does not read, or does not finish what it sends: more than {limit} bytes were kept for it, and its "
        "connection was closed."
    )
    fix = (
        "Let the client read sooner, subscribe to less, or send smaller messages. If it needs all and is only late at "
        f"times, give it room in the configuration file: {CONFIGURE}"
    )
    limit: int
    setting: str
    value: object


def slow(phase: str, setting: str, limits: Limits) -> dict[str, Any]:
    """Return the facts of a peer that took longer than a setting allows."""
    limit = getattr(limits, setting)
    return {"phase": phase, "limit_s": limit, "setting": setting, "value": 2 * limit}


class TooManyConnectionsError(ThrottledError):
    """Too many connections."""

    code = "net.too_many_connections"
    cause = "{scope} holds {limit} connections already."
    fix = (
        "Close connections that are not needed. If all are, as where many devices share one address, give them room in "
        f"the configuration file: {CONFIGURE}"
    )
    limit: str
    scope: str
    setting: str
    value: object


class TooManyBytesError(ThrottledError):
    """Too many bytes wait."""

    code = "net.too_many_bytes"
    cause = "{scope} sent {limit} bytes that wait, unfinished, from clients that are not authenticated yet."
    fix = f"If many devices share that address, give them room in the configuration file: {CONFIGURE}"
    limit: str
    scope: str
    setting: str
    value: object


class HeadersTooLargeError(InvalidRequestError):
    """More bytes or fields of headers and query than any client needs."""

    code = "http.headers_too_large"
    message = "The request's headers are larger than {limit} bytes, or too many."
    cause = "The request line and headers have more than {limit} bytes, or with the query more than {most} fields."
    fix = (
        "Send fewer or shorter headers, or raise limits.max_header_bytes; docs/reference/limits.md says how. "
        f"{A_RIGHT_REQUEST}"
    )
    limit: int
    most: int = MAX_FIELDS


class BodyTooLargeError(InvalidRequestError):
    """More bytes of body than this path takes."""

    code = "http.body_too_large"
    message = "The request body is larger than {limit} bytes."
    cause = "The body has more than the {limit} bytes that this path takes."
    fix = f"Send less at once; docs/reference/limits.md has the size for each path. {A_RIGHT_REQUEST}"
    limit: int


class HttpBrokenError(InvalidRequestError):
    """The request is not valid HTTP."""

    code = "http.malformed"
    cause = (
        "The client sent what is not valid HTTP/1.1: a broken request line, header, or chunk, or many requests at once "
        "without waiting for an answer."
    )
    fix = f"Check the client's HTTP library, and that it speaks HTTP/1.1 on this port. {A_RIGHT_REQUEST}"


class RequestCutOffError(InvalidRequestError):
    """The client hung up in the middle of its request."""

    code = "http.cut_off"
    cause = "The client closed the connection before its request was complete."
    fix = f"Check the network and the client's timeouts; sending the request again is safe. {A_RIGHT_REQUEST}"


class NotAllowedHereError(InvalidRequestError):
    """This port does not serve that protocol."""

    code = "net.protocol_not_served"
    message = "This port does not serve {protocol}"
    cause = "This port does not serve {protocol}."
    fix = f"MQTT is on 8883 (and 443), HTTPS on 8443 (and 443), EST on 8085 and 8443. {A_RIGHT_REQUEST}"
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
        return ServerNotTrustedError(**(facts | {"reason": f"it refused this server's certificate ({reason})"}))
    if presented is not None and any(text in low for text in _BAD_SIGNATURE):
        return KeyNotProvenError(**facts)
    return (NoSharedCipherError if any(text in low for text in _NOTHING_SHARED) else HandshakeFailedError)(**facts)


class WebSocketPathError(NotFoundError):
    """There is no WebSocket here."""

    code = "net.websocket_path_unknown"
    cause = "There is no WebSocket at {path}."
    fix = "Connect to `/$iothub/websocket` for IoT Hub and DPS, to `/mqtt` for AWS IoT."
    path: str


class WebSocketSubprotocolError(InvalidRequestError):
    """The client offers no subprotocol of MQTT."""

    code = "net.websocket_subprotocol"
    message = "No offered WebSocket subprotocol is served"
    cause = "The WebSocket upgrade offers the subprotocols {offered}; the server speaks MQTT over WebSocket."
    fix = (
        "Offer the subprotocol mqtt and send MQTT; AMQP is not served. List the server's endpoints: "
        "`birthmark env --format json`"
    )
    offered: str
