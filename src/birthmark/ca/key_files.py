"""CA keys at rest: encrypted PKCS#8 and a passphrase file, both of mode 0600.

The passphrase is 32 random bytes generated with the key, so security does not depend on the key derivation. It is in a
separate file, so that a copy of the key file alone is useless.
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

from birthmark import atomic_files
from birthmark.ca import pkcs11_keys
from birthmark.clock_and_entropy import Entropy
from birthmark.errors import BirthmarkError, InvalidRequestError, PolicyError, UnavailableError
from birthmark.keys.key_handle import PublicKey
from birthmark.keys.pkcs11_uri_files import uri_in
from birthmark.pki.certificates import parse_pem
from birthmark.pki.issuance import LeafIssuer, SigningKey

MAX_SECRET_BYTES = 1024 * 1024
_OTHERS, _OTHERS_WRITE = 0o077, 0o022


class SecretExposedError(PolicyError):
    """Other users can access a secret."""

    code = "ca.secret_exposed"
    cause = "{path} is accessible to users other than its owner (mode {mode})."
    fix = (
        "If no other user read or changed the file, restrict its permissions: `chmod go= {path}`. Otherwise, create "
        "a new CA and replace the certificates of the old CA."
    )
    mode: str
    path: Path


class SecretForeignError(PolicyError):
    """A secret belongs to another user."""

    code = "ca.secret_foreign"
    cause = "{path} belongs to user ID {owner}, but this program runs as {user}."
    fix = (
        "If the file is genuine, change its owner: `chown {user} {path}`. Otherwise, delete it and check the other "
        "files in that directory."
    )
    owner: int
    path: Path
    user: int


class SecretUnreadableError(UnavailableError):
    """A secret cannot be used."""

    code = "ca.secret_unreadable"
    cause = "{path} cannot be used: {reason}."
    fix = (
        "If you moved the passphrase, set its new location in BIRTHMARK_CA_PASSPHRASE or `ca.passphrase`. Otherwise, "
        "restore the key and its passphrase from the same backup of the data directory."
    )
    for_a_person = "select a backup"
    path: Path
    reason: object


def read_private(path: Path) -> bytes:
    """Return the content of a private file.

    Raise `SecretForeignError`, `SecretExposedError` or `SecretUnreadableError`.
    """
    return read_owned(path, closed_to=_OTHERS)


def read_owned(path: Path, *, closed_to: int = _OTHERS_WRITE) -> bytes:
    """Return a file owned by this user or root.

    `closed_to` has the forbidden mode bits, by default write access.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())  # of the open file, not of what the path meant before
            data = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise SecretUnreadableError(path=path, reason=error.strerror) from error
    if len(data) > MAX_SECRET_BYTES:
        raise SecretUnreadableError(path=path, reason="it is too large")
    _check(path, status, closed_to)
    return data


def check_owned(path: Path) -> None:
    """Raise `SecretForeignError` or `SecretExposedError` for a file that other users own or can access."""
    _check(path, path.stat(), _OTHERS)


def check_directory(path: Path) -> None:
    """Raise `SecretForeignError` or `SecretExposedError` for a directory in which other users could replace files."""
    _check(path, path.stat(), _OTHERS_WRITE)


def _check(path: Path, status: os.stat_result, closed_to: int) -> None:
    if status.st_uid not in {os.geteuid(), 0}:
        raise SecretForeignError(path=path, owner=status.st_uid, user=os.geteuid())
    if status.st_mode & closed_to:
        raise SecretExposedError(path=path, mode=f"{status.st_mode & 0o777:o}")


def new_passphrase(entropy: Entropy) -> bytes:
    return base64.urlsafe_b64encode(entropy.token(32)).rstrip(b"=")


def key_pem(key: SigningKey, passphrase: bytes) -> bytes:
    """Return `key` encrypted (PBES2, AES-256); for a key in a token, its URI only."""
    if (name := pkcs11_keys.render(key)) is not None:
        return name
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase))


def write_key(path: Path, key: SigningKey, passphrase: bytes) -> None:
    """Write `key` encrypted. Raise `FileExistsError`."""
    atomic_files.create(path, key_pem(key, passphrase))


def read_key(path: Path, passphrase: bytes, public_key: PublicKey | None = None) -> SigningKey:
    """Return the private key; the key of `public_key` may be in a token.

    Raise `SecretExposedError` or `SecretUnreadableError`.
    """
    content = read_private(path)
    if public_key is not None and (in_token := pkcs11_keys.parse(content, public_key)) is not None:
        return in_token
    return _key_in(content, path, passphrase)


def is_in_file(path: Path) -> bool:
    """Return whether the file has the key itself instead of a token URI."""
    return uri_in(read_private(path)) is None


def read_pair(path: Path, passphrase: bytes) -> LeafIssuer:
    """Return the key and the certificate of a file. Raise `SecretExposedError` or `SecretUnreadableError`."""
    pem = read_private(path)
    try:
        certificate = parse_pem(pem)
    except InvalidRequestError as error:
        raise SecretUnreadableError(path=path, reason="the certificate cannot be read") from error
    return LeafIssuer(certificate, _key_in(pem, path, passphrase))


def opens(path: Path, passphrase: bytes) -> bool:
    """Return whether a passphrase decrypts the key in a file."""
    try:
        _key_in(read_private(path), path, passphrase)
    except BirthmarkError:
        return False
    return True


def _key_in(pem: bytes, path: Path, passphrase: bytes) -> SigningKey:
    try:
        key = load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError) as error:
        raise SecretUnreadableError(path=path, reason="it is damaged, or the passphrase is another") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise SecretUnreadableError(path=path, reason="it is neither EC nor RSA")
    return key
