"""TLS for listeners: a pyOpenSSL context that requests a client certificate and accepts any.

The handshake proves possession of the private key of the presented certificate. The application decides about its
validity before any application data is processed. Individual enrollment, registration without a CA and just-in-time
registration all need exactly this, and `ssl` cannot do it.

Session resumption is off: a resumed session has no client chain. The session ID context is set nevertheless, because
without it OpenSSL answers a resumption attempt with a fatal alert.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from typing import cast

import cryptography
import OpenSSL
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from OpenSSL import SSL
from OpenSSL._util import lib

from birthmark.net.errors import MAX_CHAIN_BYTES, ChainTooLargeError
from birthmark.net.tls_pipe import TlsPipe, TlsPipeFactory
from birthmark.pki.certificates import Certificate, CertificateInvalidError, parse_der

log = logging.getLogger(__name__)

_RELEASE_BUFFERS = 0x10
_NO_CHAIN = -2  # -1: none is set
_PARTIAL_WRITE: int = lib.SSL_MODE_ENABLE_PARTIAL_WRITE
_TLS12_CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    b"ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
_TLS13_CIPHERS = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

# Used if the client sent a share for it, in this order; no client has to retry for a group that it only supports (one
# tuple, in OpenSSL's syntax). The second list is for a library without ML-KEM (before 3.5).
_GROUPS = (b"X25519MLKEM768:X25519:P-256:P-384", b"X25519:P-256:P-384")

# Major versions tested with `tls_pipe_cffi`.
_TESTED = {"cryptography": "50", "pyopenssl": "26"}

_CACHED = 8192
_MAX_CACHED_BYTES = 4096
# Devices reconnect with the same certificate; parsing it again would cost more than the rest of the look-up.
_parse_again = lru_cache(maxsize=_CACHED)(parse_der)


def choose_implementation() -> TlsPipeFactory:
    """Return the fast implementation if it is known to work, otherwise the public one."""
    found = {"cryptography": cryptography.__version__, "pyopenssl": OpenSSL.__version__}
    if all(found[name].partition(".")[0] == major for name, major in _TESTED.items()):
        return cast("TlsPipeFactory", import_module("birthmark.net.tls_pipe_cffi"))
    log.info("tls.public_way", extra={"found": found, "tested": _TESTED})
    return cast("TlsPipeFactory", import_module("birthmark.net.tls_pipe_pyopenssl"))


WAY = choose_implementation()


@dataclass(slots=True)
class TlsPeer:
    """Handshake result for the peer.

    `leaf` and `chain` are unverified; possession of the leaf's key is proven.
    """

    leaf: Certificate | None
    chain: tuple[Certificate, ...]
    alpn: bytes
    sni: str
    version: str
    _pipe: TlsPipe | None = field(default=None, repr=False)

    @property
    def tls_unique(self) -> bytes | None:
        """The client's Finished message (RFC 5929 section 3), in TLS 1.2 only."""
        if self._pipe is None or self.version != "TLSv1.2":
            return None
        return self._pipe.peer_finished()

    def exported_binding(self) -> bytes | None:
        """Return the `tls-exporter` channel binding (RFC 9266), in TLS 1.3 only."""
        if self._pipe is None or self.version != "TLSv1.3":
            return None
        return self._pipe.channel_binding()


NO_PEER = TlsPeer(None, (), b"", "", "")


def server_context(chain: Sequence[x509.Certificate], key: PrivateKeyTypes, *, asks: bool = True) -> SSL.Context:
    """Return a TLS 1.2 and 1.3 context that serves `chain` (leaf first) with `key`.

    `asks` requests a client certificate. Browsers then prompt the user to select one, so pages for users do not request
    any.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    # Use the server's cipher order; otherwise clients that list AES-256 first get it, and SHA-384 for every handshake.
    context.set_options(
        SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    context.set_cipher_list(_TLS12_CIPHERS)
    context.set_tls13_ciphersuites(_TLS13_CIPHERS)
    _set_groups(context)
    context.use_certificate(chain[0])
    for certificate in chain[1:]:
        context.add_extra_chain_cert(certificate)
    context.use_privatekey(key)  # type: ignore[arg-type] # pyOpenSSL declares fewer key types than cryptography
    context.check_privatekey()
    context.set_session_id(b"birthmark")
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(_RELEASE_BUFFERS)
    # pyOpenSSL's default would end a write at its first fragment, and a client may request small ones.
    context.clear_mode(_PARTIAL_WRITE)
    WAY.configure_context(context)
    if not asks:
        context.set_verify(SSL.VERIFY_NONE)
    # The library's chain verdict is not used (`rules` decide), so it builds none. With a depth of 0 it would take one
    # issuer from the client's chain and compare names with its constraints: 0.3 s for any client.
    context.set_verify_depth(_NO_CHAIN)
    return context


def _set_groups(context: SSL.Context) -> None:
    # pyOpenSSL has no method for it, only the raw function.
    for groups in _GROUPS:
        if lib.SSL_CTX_set1_curves_list(context._context, groups) == 1:  # noqa: SLF001 - no method in pyOpenSSL
            return
        lib.ERR_clear_error()
    raise ValueError("OpenSSL does not know the groups of the key exchange")


def certificate_of(pipe: TlsPipe) -> Certificate | None:
    """Return the client's leaf if it is present and not too large, also during or after a failed handshake."""
    sent = pipe.leaf()
    return None if sent is None or len(sent) > MAX_CHAIN_BYTES else _parse(sent)


def peer_of(pipe: TlsPipe) -> TlsPeer:
    """Return the result of a finished handshake.

    Raise `CertificateInvalidError` for an unreadable leaf, or `ChainTooLargeError`.
    """
    leaf, sent, chain = pipe.leaf(), pipe.chain(), []
    if sum(map(len, sent)) > MAX_CHAIN_BYTES:
        raise ChainTooLargeError(limit=MAX_CHAIN_BYTES)
    for der in sent:
        try:
            if der != leaf:
                chain.append(_parse(der))
        except CertificateInvalidError:
            continue  # an unreadable extra is not an issuer
    known = None if leaf is None else _parse(leaf)
    return TlsPeer(known, tuple(chain), pipe.alpn(), pipe.sni(), pipe.version(), pipe)


def _parse(der: bytes) -> Certificate:
    """Parse a certificate, with a cache for small ones.

    Any client can fill the cache, so its size in bytes is limited. Raise `CertificateInvalidError` for every failure,
    because the data comes from unauthenticated clients.
    """
    try:
        return _parse_again(der) if len(der) <= _MAX_CACHED_BYTES else parse_der(der)
    except CertificateInvalidError:
        raise
    except Exception as error:
        log.warning("tls.certificate_not_understood", extra={"error": type(error).__name__})
        detail = "something in it is not understood"
        raise CertificateInvalidError(detail=detail) from error
