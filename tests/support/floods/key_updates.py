"""A TLS 1.3 client that changes its keys when it likes (RFC 8446 section 4.6.3), by the system's OpenSSL."""

import ctypes
import socket
from typing import Any, Self

_ROOM = 1 << 16
_REQUESTED = 1  # that the server changes its own, too


def _typed(library: ctypes.CDLL, **functions: Any) -> ctypes.CDLL:
    for name, result in functions.items():
        getattr(library, name).restype = result
    return library


_ssl = _typed(
    ctypes.CDLL("libssl.so.3"), TLS_client_method=ctypes.c_void_p, SSL_CTX_new=ctypes.c_void_p, SSL_new=ctypes.c_void_p
)
_crypto = _typed(ctypes.CDLL("libcrypto.so.3"), BIO_new=ctypes.c_void_p, BIO_s_mem=ctypes.c_void_p)


def _pointer(value: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(value)


class Updater:
    """One connection, without a certificate."""

    def __init__(self, address: str, port: int) -> None:
        context = _pointer(_ssl.SSL_CTX_new(_pointer(_ssl.TLS_client_method())))
        self._tls = _pointer(_ssl.SSL_new(context))
        memory = _pointer(_crypto.BIO_s_mem())
        self._in, self._out = _pointer(_crypto.BIO_new(memory)), _pointer(_crypto.BIO_new(memory))
        _ssl.SSL_set_bio(self._tls, self._in, self._out)
        _ssl.SSL_set_connect_state(self._tls)
        self._room = ctypes.create_string_buffer(_ROOM)
        self.raw = socket.create_connection((address, port), 20)
        while _ssl.SSL_do_handshake(self._tls) != 1:
            self.raw.sendall(self._said())
            self._take(self.raw.recv(_ROOM))
        self.raw.sendall(self._said())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.raw.close()

    def _said(self) -> bytes:
        size = _crypto.BIO_read(self._out, self._room, _ROOM)
        return self._room.raw[:size] if size > 0 else b""

    def _take(self, data: bytes) -> None:
        assert data
        _crypto.BIO_write(self._in, data, len(data))

    def updates(self, count: int) -> bytes:
        """Return the records of so many updates in a row."""
        records = b""
        for _ in range(count):
            assert _ssl.SSL_key_update(self._tls, _REQUESTED) == 1
            _ssl.SSL_do_handshake(self._tls)
            records += self._said()
        return records

    def sealed(self, data: bytes) -> bytes:
        assert _ssl.SSL_write(self._tls, data, len(data)) == len(data)
        return self._said()

    def read(self) -> bytes:
        """Return what the server says, when it says something."""
        while (size := _ssl.SSL_read(self._tls, self._room, _ROOM)) <= 0:
            self._take(self.raw.recv(_ROOM))
        return self._room.raw[:size]

    def answers(self) -> int:
        """Return how many bytes of TLS the server still sends, until it ends the connection."""
        size = 0
        while data := self.raw.recv(_ROOM):
            size += len(data)
        return size
