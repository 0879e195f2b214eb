"""Columns that hold secrets, sealed before they reach the engine: who reads the database alone has no key.

AES-SIV (RFC 5297) under a key that follows from a secret of the data directory. It is deterministic, so that a
condition on the value that was read holds as it does on any other column; what it shows is that two values are the
same. A database that is opened without a seal, to be copied, has the values as they are kept. Values that an earlier
version kept plainly are read as that; their form is no sealed value's.
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
_SOME = b"="  # the cipher takes nothing that is empty


class SealBrokenError(UnavailableError):
    """A secret in the database cannot be decrypted."""

    code = "store.seal_broken"
    cause = "A key in the database cannot be decrypted with `est.seed` of the data directory: {reason}."
    fix = "Restore `est.seed`. A backup contains it: `birthmark server restore FILE --data restored`."
    reason: str


class ColumnCipher:
    """Seals and opens values; of any thread."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(key)
        self._alone = threading.Lock()  # a cipher of the library's is one thread's at a time

    @classmethod
    def of(cls, secret: bytes) -> Self:
        """Return the seal that follows from a secret."""
        return cls(HKDF(SHA512(), _KEY_BYTES, salt=None, info=_INFO).derive(secret))

    def sealed(self, value: Any) -> Any:
        """Return the value as it is kept: bytes as bytes, text as text, and nothing as that."""
        if value is None:
            return None
        is_text = isinstance(value, str)
        with self._alone:
            closed = self._cipher.encrypt(_SOME + (value.encode() if is_text else bytes(value)), None)
        return TEXT_BEGINS + base64.b64encode(closed).decode() if is_text else BYTES_BEGIN + closed

    def opened(self, value: Any) -> Any:
        """Return what was sealed, or what was kept plainly. Raise `SealBrokenError`."""
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

    def closed(self, names: Iterable[str], params: Mapping[str, Any]) -> dict[str, Any]:
        """Return parameters of which those of these names are sealed."""
        return {**params, **{name: self.sealed(params[name]) for name in names if name in params}}

    def row(self, names: Iterable[str], row: Any) -> dict[str, Any]:
        """Return a row of which the columns of these names are open. Raise `SealBrokenError`."""
        return {**dict(row), **{name: self.opened(row[name]) for name in names}}

    def rows(self, names: Iterable[str], rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Return rows as `row` does."""
        return [self.row(names, one) for one in rows]


def is_sealed(value: Any) -> bool:
    """Say whether a value has the form of a sealed one."""
    if isinstance(value, str):
        return value.startswith(TEXT_BEGINS)
    return value is not None and bytes(value[: len(BYTES_BEGIN)]) == BYTES_BEGIN
