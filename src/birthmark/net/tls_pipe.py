"""One server-side TLS connection without a socket: ciphertext in and out by memory, and what the handshake proved.

Two ways behind one port: `tls_pipe_cffi` calls the library that `cryptography` carries, by an interface that is not
promised; `tls_pipe_pyopenssl` goes through pyOpenSSL's objects, and is the choice for versions that the other was not
tested with. Both pass the same contract suite. Numbers: docs/adr/0013.
"""

from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from OpenSSL import SSL

from birthmark.pki.certificate_checks import MAX_EXPONENT_BITS, MAX_RSA_BITS

RECORD_BYTES = 16384
# What clients of our clouds offer; others (h2) are ignored, never refused: a handshake must not fail for ALPN.
ALPN_PROTOCOLS = (b"x-amzn-mqtt-ca", b"mqtt", b"x-amzn-http-ca", b"http/1.1")
BINDING_LABEL = b"EXPORTER-Channel-Binding"
BINDING_BYTES = 32


class TlsBrokenError(Exception):
    """The handshake or a record is wrong. `queue` is OpenSSL's error queue: library, function, reason of each."""

    def __init__(self, queue: list[tuple[str, ...]]) -> None:
        super().__init__("; ".join(error[-1] for error in queue))
        self.queue = queue


class TlsEndedError(Exception):
    """The peer sent close_notify."""


class TlsPipe(Protocol):
    """Feed, then hand-shake or read; drain after whatever may have something to say. One thread a pipe."""

    def feed(self, data: bytes) -> None:
        """Take ciphertext, at most a record at a time: the room of the largest filling is kept."""
        ...

    def handshake(self) -> bool:
        """Go on, and say whether the handshake is finished. Raise `TlsBrokenError`."""
        ...

    def read(self) -> bytes:
        """Return plaintext, or nothing when more ciphertext is needed. Raise `TlsEndedError`, `TlsBrokenError`."""
        ...

    @property
    def is_dry(self) -> bool:
        """`read` would find nothing before something is fed. False where that is not known."""
        ...

    def seal(self, data: bytes | bytearray | memoryview) -> bytes:
        """Take plaintext, a record at most; return the ciphertext that waits to be sent. Raise `TlsBrokenError`."""
        ...

    def drain(self) -> bytes:
        """Return the ciphertext that waits to be sent, or nothing."""
        ...

    def shutdown(self) -> None:
        """Say close_notify; what cannot be said is left out."""
        ...

    def close(self) -> None:
        """Give the memory back; the pipe is not used any more, but may still be asked what was proved."""
        ...

    def leaf(self) -> bytes | None:
        """Return the DER of the certificate the peer sent, also while or after the handshake failed."""
        ...

    def chain(self) -> list[bytes]:
        """Return what came with the leaf, in the order it came, the leaf perhaps among it."""
        ...

    def alpn(self) -> bytes: ...

    def sni(self) -> str: ...

    def version(self) -> str:
        """Return the protocol's version as OpenSSL writes it: TLSv1.2, TLSv1.3."""
        ...

    def group(self) -> str:
        """Return the key exchange that the handshake took, as OpenSSL names it; empty where it does not tell."""
        ...

    def peer_finished(self) -> bytes | None:
        """Return the peer's Finished message (RFC 5929 section 3)."""
        ...

    def channel_binding(self) -> bytes | None:
        """Return what `tls-exporter` exports (RFC 9266)."""
        ...


_QUICK = (ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)


def is_burden_to_check(spki: bytes) -> bool:
    """Say whether a stranger's key (DER) makes the server work far longer for a signature than any device's does.

    So may a DSA key, of ten thousand bits, and no device has one.
    """
    key = load_der_public_key(spki)
    if not isinstance(key, rsa.RSAPublicKey):
        return not isinstance(key, _QUICK)
    return key.key_size > MAX_RSA_BITS or key.public_numbers().e.bit_length() > MAX_EXPONENT_BITS


class TlsWay(Protocol):
    """A module that makes pipes."""

    def arm(self, context: SSL.Context) -> None:
        """Have `context` ask for a client certificate and take any, and choose of `ALPN_PROTOCOLS`."""
        ...

    def accept(self, context: SSL.Context) -> TlsPipe:
        """Return the server's side of a connection that begins."""
        ...
