"""TLS pipe on OpenSSL's functions as bound by `cryptography`.

`pipe` is the interface and checks the version. This saves the cost of pyOpenSSL's objects, exceptions and Python
callbacks per handshake. Two details of the library: partial writes are off, because a write would otherwise take at
most one fragment. Errors must be removed from the error queue, or the next call of another connection finds them.
"""

import threading
from typing import Any

from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL

from birthmark.net.tls_pipe import (
    ALPN_PROTOCOLS,
    BINDING_BYTES,
    BINDING_LABEL,
    TlsBrokenError,
    TlsEndedError,
    is_burden_to_check,
)

# A pipe holds an `SSL *` of an untyped library.
_lib: Any = Binding.lib
_ffi: Any = Binding.ffi

_ROOM = 65536
_MEMORY = _lib.BIO_s_mem()
_WANT_READ, _ENDED, _SYSCALL = _lib.SSL_ERROR_WANT_READ, _lib.SSL_ERROR_ZERO_RETURN, _lib.SSL_ERROR_SYSCALL
_BIO_write, _BIO_read = _lib.BIO_write, _lib.BIO_read
_BIO_get_mem_data = _lib.BIO_get_mem_data
_SSL_read, _SSL_write, _SSL_get_error = _lib.SSL_read, _lib.SSL_write, _lib.SSL_get_error
_REJECTED = 28  # X509_V_ERR_CERT_REJECTED
_TAKEN, _NOT_TAKEN = 0, 3  # SSL_TLSEXT_ERR_OK and _NOACK


@_ffi.callback("int(int, X509_STORE_CTX *)")  # type: ignore[untyped-decorator] # untyped cffi
def _take(_is_fine: int, store: Any) -> int:
    """Accept any certificate whose key can verify a signature. An exception rejects it: cffi then returns 0."""
    key = _lib.X509_get_pubkey(_lib.X509_STORE_CTX_get0_cert(store))
    try:
        is_burden = key != _ffi.NULL and _lib.EVP_PKEY_id(key) != _lib.EVP_PKEY_EC and is_burden_to_check(_spki(key))
    finally:
        _lib.EVP_PKEY_free(key)
    _lib.X509_STORE_CTX_set_error(store, _REJECTED if is_burden else 0)
    return 0 if is_burden else 1


def _spki(key: Any) -> bytes:
    bio = _ffi.gc(_lib.BIO_new(_MEMORY), _lib.BIO_free)
    _lib.i2d_PUBKEY_bio(bio, key)
    place = _ffi.new("char **")
    size = _BIO_get_mem_data(bio, place)
    return bytes(_ffi.buffer(place[0], size)[:])


@_ffi.callback("int(SSL *, unsigned char **, unsigned char *, unsigned char *, unsigned int, void *)", error=_NOT_TAKEN)  # type: ignore[untyped-decorator] # as above
def _choose_alpn(_ssl: Any, out: Any, out_size: Any, offered: Any, size: int, _data: Any) -> int:
    """Select a protocol by a pointer into the client's list, which outlives the call.

    Each name in the list follows its length.
    """
    text = _ffi.buffer(offered, size)[:]
    places: dict[bytes, int] = {}
    at = 0
    while at < size:
        places.setdefault(text[at + 1 : at + 1 + text[at]], at + 1)
        at += 1 + text[at]
    for name in ALPN_PROTOCOLS:
        if name in places:
            out[0], out_size[0] = offered + places[name], len(name)
            return _TAKEN
    return _NOT_TAKEN


class _ThreadBuffer(threading.local):
    """Per-thread read buffer: a pipe holds none between calls."""

    def __init__(self) -> None:
        self.room = _ffi.new("char[]", _ROOM)
        self.view = _ffi.buffer(self.room)
        self.place = _ffi.new("char **")
        self.scratch = _ffi.gc(_lib.BIO_new(_MEMORY), _lib.BIO_free)


_desk = _ThreadBuffer()


def configure_context(context: SSL.Context) -> None:
    """Implement `TlsPipeFactory.arm`."""
    of_library = context._context  # noqa: SLF001 - not a stable interface
    _lib.SSL_CTX_set_verify(of_library, SSL.VERIFY_PEER, _take)
    _lib.SSL_CTX_set_alpn_select_cb(of_library, _choose_alpn, _ffi.NULL)


def accept(context: SSL.Context) -> "LibraryPipe":
    """Implement `TlsPipeFactory.accept`."""
    return LibraryPipe(context)


class LibraryPipe:
    """`TlsPipe` on the functions of the bundled OpenSSL."""

    __slots__ = (
        "_desk",
        "_has_grown_in",
        "_has_grown_out",
        "_in",
        "_out",
        "_place",
        "_room",
        "_ssl",
        "_view",
        "is_dry",
    )

    def __init__(self, context: SSL.Context) -> None:
        self._room, self._view, self._desk, self._place = _desk.room, _desk.view, _desk.scratch, _desk.place
        ssl = self._ssl = _lib.SSL_new(context._context)  # noqa: SLF001 - as above
        if ssl == _ffi.NULL:
            self._ssl = None
            raise MemoryError
        self._in, self._out = _lib.BIO_new(_MEMORY), _lib.BIO_new(_MEMORY)
        _lib.SSL_set_bio(ssl, self._in, self._out)  # it owns both from now on
        _lib.SSL_set_accept_state(ssl)
        self._has_grown_in = self._has_grown_out = self.is_dry = False

    def feed(self, data: bytes) -> None:
        self.is_dry = False
        _BIO_write(self._in, data, len(data))

    def handshake(self) -> bool:
        result = _lib.SSL_do_handshake(self._ssl)
        if result == 1:
            # Memory BIOs keep their largest size, which the handshake needs; an idle connection does not.
            self._has_grown_in = self._has_grown_out = True
            return True
        if (error := _SSL_get_error(self._ssl, result)) == _WANT_READ:
            return False
        raise _broken(error)

    def read(self) -> bytes:
        result = _SSL_read(self._ssl, self._room, _ROOM)
        if result > 0:
            plain: bytes = self._view[:result]
            self.is_dry = not self._has_grown_in and _BIO_get_mem_data(self._in, self._place) == 0
            return plain
        error = _SSL_get_error(self._ssl, result)
        if error == _WANT_READ:
            if self._has_grown_in:  # and it is all read
                self._has_grown_in = False
                self._in = _lib.BIO_new(_MEMORY)
                _lib.SSL_set_bio(self._ssl, self._in, self._out)  # frees the old one
            return b""
        if error == _ENDED:
            raise TlsEndedError
        raise _broken(error)

    def seal(self, data: bytes | bytearray | memoryview) -> bytes:
        taken = _SSL_write(self._ssl, data if type(data) is bytes else _ffi.from_buffer(data), len(data))
        if taken <= 0:
            raise _broken(_SSL_get_error(self._ssl, taken))
        size = _BIO_read(self._out, self._room, _ROOM)
        if self._has_grown_out or size <= 0 or size == _ROOM:
            return self._drained(size)
        said: bytes = self._view[:size]
        return said

    def drain(self) -> bytes:
        return self._drained(_BIO_read(self._out, self._room, _ROOM))

    def _drained(self, size: int) -> bytes:
        """Return the content of the read buffer and all remaining output."""
        if size <= 0:
            return b""
        said: bytes = self._view[:size]
        if size == _ROOM:
            return said + self.drain()
        if self._has_grown_out:
            self._has_grown_out = False
            self._out = _lib.BIO_new(_MEMORY)
            _lib.SSL_set_bio(self._ssl, self._in, self._out)
        return said

    def shutdown(self) -> None:
        if _lib.SSL_shutdown(self._ssl) < 0:
            _lib.ERR_clear_error()

    def close(self) -> None:
        ssl, self._ssl = self._ssl, None
        if ssl is not None:
            _lib.SSL_free(ssl)

    __del__ = close  # for a pipe without a connection

    def leaf(self) -> bytes | None:
        if self._ssl is None:
            return None
        sent = _lib.SSL_get_peer_certificate(self._ssl)
        if sent == _ffi.NULL:
            return None
        try:
            return self._der_of(sent)
        finally:
            _lib.X509_free(sent)

    def chain(self) -> list[bytes]:
        if self._ssl is None or (sent := _lib.SSL_get_peer_cert_chain(self._ssl)) == _ffi.NULL:
            return []
        return [self._der_of(_lib.sk_X509_value(sent, place)) for place in range(_lib.sk_X509_num(sent))]

    def alpn(self) -> bytes:
        name, size = _ffi.new("unsigned char **"), _ffi.new("unsigned int *")
        _lib.SSL_get0_alpn_selected(self._ssl, name, size)
        chosen: bytes = _ffi.buffer(name[0], size[0])[:] if size[0] else b""
        return chosen

    def sni(self) -> str:
        if self._ssl is None:
            return ""
        name = _lib.SSL_get_servername(self._ssl, _lib.TLSEXT_NAMETYPE_host_name)
        return "" if name == _ffi.NULL else str(_ffi.string(name).decode("ascii", "replace"))

    def version(self) -> str:
        return str(_ffi.string(_lib.SSL_get_version(self._ssl)).decode())

    def group(self) -> str:
        name = _lib.SSL_get0_group_name(self._ssl) if _lib.Cryptography_HAS_SSL_GET0_GROUP_NAME else _ffi.NULL
        return "" if name == _ffi.NULL else str(_ffi.string(name).decode())

    def peer_finished(self) -> bytes | None:
        if self._ssl is None:
            return None
        size = _lib.SSL_get_peer_finished(self._ssl, self._room, _ROOM)
        return self._view[:size] if size else None

    def channel_binding(self) -> bytes | None:
        if self._ssl is None:
            return None
        out, label = _ffi.new("unsigned char[]", BINDING_BYTES), BINDING_LABEL
        done = _lib.SSL_export_keying_material(self._ssl, out, BINDING_BYTES, label, len(label), b"", 0, 1)
        return _ffi.buffer(out, BINDING_BYTES)[:] if done == 1 else None

    def _der_of(self, certificate: Any) -> bytes:
        _lib.i2d_X509_bio(self._desk, certificate)
        der = b""
        while (size := _BIO_read(self._desk, self._room, _ROOM)) > 0:
            der += self._view[:size]
        return der


def _broken(error: int) -> TlsBrokenError:
    queue: list[tuple[str, ...]] = []
    while code := _lib.ERR_get_error():
        parts = (_lib.ERR_lib_error_string(code), _lib.ERR_func_error_string(code), _lib.ERR_reason_error_string(code))
        queue.append(tuple("" if part == _ffi.NULL else _ffi.string(part).decode() for part in parts))
    if not queue and error == _SYSCALL:
        queue.append(("unexpected end",))
    return TlsBrokenError(queue)
