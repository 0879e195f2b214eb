"""Encryption of files that machines share through the database; database access alone reveals no key.

AES-256-GCM under the key that all machines of an installation share. The ciphertext is bound to the installation and to
its name, so that it cannot be substituted for another.
"""

import base64
import binascii
import re
from collections.abc import Mapping

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from birthmark.errors import UnavailableError

KEY_BYTES = 32
MAX_CHARS = 4 * 1024 * 1024
NONCE_BYTES = 12
_FORMAT = "birthmark-shared-1"
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Files = Mapping[str, bytes]
"""File contents by name."""


class SharedUnreadableError(UnavailableError):
    """Data of another machine cannot be decrypted."""

    code = "server.shared_unreadable"
    cause = "The cluster data '{name}' in this database cannot be decrypted with the key of {data}: {reason}."
    fix = (
        "Create a new invitation on a working machine, copy the file to this machine, and join with it: "
        "`birthmark server node join invitation.json --data {data}.new`."
    )
    data: object = "this machine"
    name: str
    reason: str


def seal(files: Files, name: str, *, installation: str, key: bytes, nonce: bytes) -> str:
    """Return the encrypted text that `unseal` decrypts.

    `nonce` has `NONCE_BYTES`, and must never repeat under one key.
    """
    plain = msgspec.msgpack.encode(dict(sorted(files.items())))
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, plain, _bound_to(installation, name))).decode()


def unseal(text: str, name: str, *, installation: str, key: bytes) -> dict[str, bytes]:
    """Decrypt the files, and return them by name. Raise `SharedUnreadableError`."""
    if len(text) > MAX_CHARS:
        raise SharedUnreadableError(name=name, reason="it is too large")
    try:
        sealed = base64.b64decode(text, validate=True)
        plain = AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _bound_to(installation, name))
    except (binascii.Error, ValueError, InvalidTag) as error:
        raise SharedUnreadableError(name=name, reason="it was encrypted with another key, or is damaged") from error
    return files_in(plain, name)


def files_in(plain: bytes, name: str) -> dict[str, bytes]:
    """Return the files of decrypted content, which another version may have written.

    Names that no file of a CA has, or that leave the directory, are skipped, so that they do not block the other files.

    Raise `SharedUnreadableError`.
    """
    try:
        files = msgspec.msgpack.decode(plain, type=dict[str, bytes])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SharedUnreadableError(name=name, reason="a newer version wrote it") from error
    return {one: content for one, content in files.items() if _FILE.fullmatch(one)}


def _bound_to(installation: str, name: str) -> bytes:
    return f"{_FORMAT}/{installation}/{name}".encode()
