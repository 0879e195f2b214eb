"""Lock for calls into a native key library."""

import contextlib
import ssl
import threading


class NativeLock:
    """Serializes calls into a library: chips answer one command at a time, and few libraries are thread-safe.

    A library that shares OpenSSL with Python's `ssl` leaves its errors in the thread's queue. The next read of a
    connection would find them and fail (SSL_get_error(3)). So they are cleared when the lock is released. Reentrant.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_error: object) -> None:
        with contextlib.suppress(ssl.SSLError):
            self._context.set_ciphers("none")  # it fails and calls ERR_clear_error: `ssl` has no other access to it
        self._lock.release()
