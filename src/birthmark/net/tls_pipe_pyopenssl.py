"""TLS pipe on pyOpenSSL's public objects (`pipe` is the port)."""

import contextlib
from typing import Any

from OpenSSL import SSL, crypto
from OpenSSL.crypto import FILETYPE_ASN1, dump_publickey

from birthmark.net.tls_pipe import (
    ALPN_PROTOCOLS,
    BINDING_BYTES,
    BINDING_LABEL,
    TlsBrokenError,
    TlsEndedError,
    is_burden_to_check,
)

_CHUNK = 65536


def configure_context(context: SSL.Context) -> None:
    """Implement `TlsPipeFactory.arm`."""
    context.set_verify(SSL.VERIFY_PEER, _take)
    context.set_alpn_select_callback(_choose_alpn)


def accept(context: SSL.Context) -> "PublicPipe":
    """Implement `TlsPipeFactory.accept`."""
    return PublicPipe(context)


def _take(_connection: SSL.Connection, certificate: crypto.X509, _error: int, depth: int, _is_fine: int) -> bool:
    """Accept any certificate whose key can verify a signature."""
    return depth > 0 or not is_burden_to_check(dump_publickey(FILETYPE_ASN1, certificate.get_pubkey()))


def _choose_alpn(_connection: SSL.Connection, offered: list[bytes]) -> Any:
    return next((name for name in ALPN_PROTOCOLS if name in offered), SSL.NO_OVERLAPPING_PROTOCOLS)


class PublicPipe:
    """`TlsPipe` on pyOpenSSL's objects."""

    __slots__ = ("_tls",)

    def __init__(self, context: SSL.Context) -> None:
        self._tls = SSL.Connection(context, None)
        self._tls.set_accept_state()

    def feed(self, data: bytes) -> None:
        self._tls.bio_write(data)

    def handshake(self) -> bool:
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            raise _broken(error) from error
        return True

    def read(self) -> bytes:
        try:
            return self._tls.recv(_CHUNK)
        except SSL.WantReadError:
            return b""
        except SSL.ZeroReturnError:
            raise TlsEndedError from None
        except SSL.Error as error:
            raise _broken(error) from error

    @property
    def is_dry(self) -> bool:
        return False

    def seal(self, data: bytes | bytearray | memoryview) -> bytes:
        try:
            self._tls.send(data)
        except SSL.Error as error:
            raise _broken(error) from error
        return self.drain()

    def drain(self) -> bytes:
        said = []
        with contextlib.suppress(SSL.WantReadError):
            while True:
                said.append(self._tls.bio_read(_CHUNK))
        return b"".join(said)

    def shutdown(self) -> None:
        with contextlib.suppress(SSL.Error):
            self._tls.shutdown()

    def close(self) -> None:
        pass  # the destructor frees it

    def leaf(self) -> bytes | None:
        sent = self._tls.get_peer_certificate()
        return None if sent is None else _der_of(sent)

    def chain(self) -> list[bytes]:
        return [_der_of(sent) for sent in self._tls.get_peer_cert_chain() or ()]

    def alpn(self) -> bytes:
        return self._tls.get_alpn_proto_negotiated()

    def sni(self) -> str:
        return (self._tls.get_servername() or b"").decode("ascii", "replace")

    def version(self) -> str:
        return self._tls.get_protocol_version_name()

    def group(self) -> str:
        return self._tls.get_group_name() or ""

    def peer_finished(self) -> bytes | None:
        return self._tls.get_peer_finished()

    def channel_binding(self) -> bytes | None:
        return self._tls.export_keying_material(BINDING_LABEL, BINDING_BYTES, b"")


def _broken(error: SSL.Error) -> TlsBrokenError:
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else [(str(error),)]
    return TlsBrokenError(queue)


def _der_of(sent: crypto.X509) -> bytes:
    """Return the original bytes: OpenSSL accepts certificates that `cryptography` cannot load."""
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, sent)
