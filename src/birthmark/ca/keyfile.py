"""CA keys at rest: encrypted PKCS#8 beside a passphrase file, both 0600.

The passphrase is 32 random bytes made with the key, so the strength is in it and not in the key derivation. It lies in
a file of its own, so that a copy of the key alone is worth nothing.
"""

import base64
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from birthmark.clock import Entropy
from birthmark.errors import PolicyError, UnavailableError
from birthmark.pki.issue import SigningKey

_OTHERS = 0o077


class SecretExposedError(PolicyError):
    """A secret file can be read by others; it must be considered known."""

    code = "ca.secret_exposed"
    cause = "{path} can be read by others than its owner (mode {mode})."
    fix = "If nobody read it: `chmod 600 {path}`. Else make a new CA and replace its certificates."


class SecretUnreadableError(UnavailableError):
    """A secret file is missing or damaged."""

    code = "ca.secret_unreadable"
    cause = "{path} cannot be used: {reason}."
    fix = "Restore it from the backup of the data directory: key and passphrase belong together."


def write_private(path: Path, data: bytes) -> None:
    """Create a file that only its owner can read, durably and whole or not at all. Raise `FileExistsError`."""
    building = path.with_name(f".{path.name}.new")
    building.unlink(missing_ok=True)  # of a run that was killed
    descriptor = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(building, path)  # unlike a rename it never replaces
    finally:
        building.unlink()


def read_private(path: Path) -> bytes:
    """Return the file's bytes. Raise `SecretExposedError` when others can read it, `SecretUnreadableError`."""
    try:
        mode = path.stat().st_mode
        data = path.read_bytes()
    except OSError as problem:
        raise SecretUnreadableError("A secret cannot be read.", path=path, reason=problem.strerror) from problem
    if mode & _OTHERS:
        raise SecretExposedError("A secret can be read by others.", path=path, mode=f"{mode & 0o777:o}")
    return data


def new_passphrase(entropy: Entropy) -> bytes:
    return base64.urlsafe_b64encode(entropy.token(32)).rstrip(b"=")


def write_key(path: Path, key: SigningKey, passphrase: bytes) -> None:
    """Write `key` encrypted (PBES2, AES-256)."""
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase)))


def read_key(path: Path, passphrase: bytes) -> SigningKey:
    """Return the key. Raise `SecretExposedError` or `SecretUnreadableError`."""
    pem = read_private(path)
    try:
        key = load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError) as problem:
        reason = "it is damaged, or the passphrase is another"
        raise SecretUnreadableError("A key cannot be decrypted.", path=path, reason=reason) from problem
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise SecretUnreadableError("A key is of the wrong kind.", path=path, reason="it is neither EC nor RSA")
    return key
