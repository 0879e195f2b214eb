"""Server-side TLS connection without a socket: ciphertext through memory, and the handshake result.

There are two implementations. `tls_pipe_cffi` calls the library bundled with `cryptography` through an interface that
is not guaranteed. `tls_pipe_pyopenssl` uses pyOpenSSL's objects and serves versions that the other was not tested with.
Both pass the same contract suite. Measurements: docs/adr/0013.
"""

from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from OpenSSL import SSL

from birthmark.pki.single_certificate_checks import MAX_EXPONENT_BITS, MAX_RSA_BITS

RECORD_BYTES = 16384
# ALPN values of our clouds' clients; others (h2) are ignored, never rejected: a handshake must not fail because of
# ALPN.
ALPN_PROTOCOLS = (b"x-amzn-mqtt-ca", b"mqtt", b"x-amzn-http-ca", b"http/1.1")
BINDING_LABEL = b"EXPORTER-Channel-Binding"
BINDING_BYTES = 32


class TlsBrokenError(Exception):
    """Failed handshake or record.

    `queue` is OpenSSL's error queue: library, function and reason of each entry.
    """

    def __init__(self, queue: list[tuple[str, ...]]) -> None:
        super().__init__("; ".join(error[-1] for error in queue))
        self.queue = queue


class TlsEndedError(Exception):
    """The peer sent close_notify."""


class TlsPipe(Protocol):
    """TLS connection in memory: call `feed`, then `handshake` or `read`, then `drain`. One thread per pipe."""

    def feed(self, data: bytes) -> None:
        """Add ciphertext, at most one record at a time: the buffer keeps its largest size."""
        ...

    def handshake(self) -> bool:
        """Continue the handshake and return whether it is complete. Raise `TlsBrokenError`."""
        ...

    def read(self) -> bytes:
        """Return plaintext, empty if more ciphertext is needed. Raise `TlsEndedError`, `TlsBrokenError`."""
        ...

    @property
    def is_dry(self) -> bool:
        """Whether `read` would return nothing until more is fed. False if unknown."""
        ...

    def seal(self, data: bytes | bytearray | memoryview) -> bytes:
        """Encrypt plaintext of at most one record; return the pending ciphertext. Raise `TlsBrokenError`."""
        ...

    def drain(self) -> bytes:
        """Return the pending ciphertext, or nothing."""
        ...

    def shutdown(self) -> None:
        """Send close_notify, ignoring errors."""
        ...

    def close(self) -> None:
        """Free the memory; the handshake result stays available."""
        ...

    def leaf(self) -> bytes | None:
        """Return the DER of the peer's certificate, also during or after a failed handshake."""
        ...

    def chain(self) -> list[bytes]:
        """Return the other certificates in the order received, possibly including the leaf."""
        ...

    def alpn(self) -> bytes: ...

    def sni(self) -> str: ...

    def version(self) -> str:
        """Return the protocol's version as OpenSSL writes it: TLSv1.2, TLSv1.3."""
        ...

    def group(self) -> str:
        """Return OpenSSL's name of the key exchange group; empty if unknown."""
        ...

    def peer_finished(self) -> bytes | None:
        """Return the peer's Finished message (RFC 5929 section 3)."""
        ...

    def channel_binding(self) -> bytes | None:
        """Return the `tls-exporter` channel binding (RFC 9266)."""
        ...


_QUICK = (ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)


def is_burden_to_check(spki: bytes) -> bool:
    """Return whether verification with a client's key (DER) is far more expensive than with any device's key.

    DSA keys of 10,000 bits are an example; devices do not use them.
    """
    key = load_der_public_key(spki)
    if not isinstance(key, rsa.RSAPublicKey):
        return not isinstance(key, _QUICK)
    return key.key_size > MAX_RSA_BITS or key.public_numbers().e.bit_length() > MAX_EXPONENT_BITS


class TlsPipeFactory(Protocol):
    """Module that implements pipes."""

    def configure_context(self, context: SSL.Context) -> None:
        """Configure `context` to request a client certificate, accept any, and select from `ALPN_PROTOCOLS`."""
        ...

    def accept(self, context: SSL.Context) -> TlsPipe:
        """Return the server side of a new connection."""
        ...
