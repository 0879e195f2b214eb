"""Columns with secrets, encrypted before they reach the engine: database access alone reveals no key.

AES-SIV (RFC 5297) under a key derived from a secret of the data directory. It is deterministic, so that conditions on a
stored value work as on any other column; it reveals only equal values. A database that is opened without a cipher, to
be copied, returns stored values unchanged. Plaintext of an earlier version is returned as it is; it never has the form
of an encrypted value.
"""

import base64
import binascii
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from birthmark.errors import UnavailableError

BYTES_BEGIN, TEXT_BEGINS = b"\0birthmark-sealed-1\0", "birthmark-sealed-1:"
_INFO = b"birthmark: columns of the database, 1"
_KEY_BYTES = 64
_SOME = b"="  # the cipher rejects empty data


class SealBrokenError(UnavailableError):
    """A secret in the database cannot be decrypted."""

    code = "store.seal_broken"
    cause = "A key in the database cannot be decrypted with the file `est.seed` of the data directory: {reason}."
    fix = "Restore the file `est.seed`. To get the file from a backup: `birthmark server restore FILE --data restored`."
    reason: str


class ColumnCipher:
    """Encrypts and decrypts values; thread-safe."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(key)
        self._alone = threading.Lock()  # cipher objects are not thread-safe

    @classmethod
    def of(cls, secret: bytes) -> Self:
        """Return the cipher whose key is derived from a secret."""
        return cls(HKDF(SHA512(), _KEY_BYTES, salt=None, info=_INFO).derive(secret))

    def encrypt_value(self, value: Any) -> Any:
        """Return the value in encrypted form: bytes, text, None as None."""
        if value is None:
            return None
        is_text = isinstance(value, str)
        with self._alone:
            closed = self._cipher.encrypt(_SOME + (value.encode() if is_text else bytes(value)), None)
        return TEXT_BEGINS + base64.b64encode(closed).decode() if is_text else BYTES_BEGIN + closed

    def decrypt_value(self, value: Any) -> Any:
        """Return the decrypted value, or stored plaintext unchanged. Raise `SealBrokenError`."""
        if not is_sealed(value):
            return value
        try:
            if is_text := isinstance(value, str):
                closed = base64.b64decode(value[len(TEXT_BEGINS) :], validate=True)
            else:
                closed = bytes(value[len(BYTES_BEGIN) :])
            with self._alone:
                plain = self._cipher.decrypt(closed, None)[len(_SOME) :]
            return plain.decode() if is_text else plain
        except (binascii.Error, ValueError, InvalidTag) as error:
            raise SealBrokenError(reason="it was encrypted with another key, or is damaged") from error

    def encrypt_parameters(self, names: Iterable[str], params: Mapping[str, Any]) -> dict[str, Any]:
        """Return parameters with the named ones encrypted."""
        return {**params, **{name: self.encrypt_value(params[name]) for name in names if name in params}}

    def row(self, names: Iterable[str], row: Any) -> dict[str, Any]:
        """Return a row with the named columns decrypted. Raise `SealBrokenError`."""
        return {**dict(row), **{name: self.decrypt_value(row[name]) for name in names}}

    def rows(self, names: Iterable[str], rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Return several rows with the named columns decrypted; see `row`."""
        return [self.row(names, one) for one in rows]


def is_sealed(value: Any) -> bool:
    """Return whether a value has the form of an encrypted one."""
    if isinstance(value, str):
        return value.startswith(TEXT_BEGINS)
    return value is not None and bytes(value[: len(BYTES_BEGIN)]) == BYTES_BEGIN
