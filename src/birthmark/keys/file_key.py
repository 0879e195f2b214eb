"""A private key in a PEM file, with distinct errors for common mistakes in such files."""

import base64
import logging
import os
import re
import shlex
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)

from birthmark.keys.errors import (
    KeyFileExposedError,
    KeyFileInvalidError,
    KeyFileIsCertificateError,
    KeyFileIsPkcs12Error,
    KeyFileMissingError,
    KeyUnsupportedError,
    PassphraseWrongError,
    ReferenceKeyError,
)
from birthmark.keys.key_handle import PrivateKey, PublicKey, Scheme
from birthmark.keys.pin import Pin
from birthmark.keys.se050_reference_keys import MAX_KEY_FILE_BYTES, parse_reference_key
from birthmark.pki.certificates import DECODE_PKCS12
from birthmark.pki.der import has_pkcs12_key, is_der, is_pkcs12, pkcs12_options
from birthmark.pki.pem_armor import PemInvalidError, pem_in, unarmor
from birthmark.text_file_encodings import plain_text, unseen_in_pem

_LONE_CR = re.compile(rb"\r(?!\n)")
_LOOKED_AT = 512


def pem_of_key(raw: bytes) -> bytes:
    """Return the PEM of a key in PEM, DER or base64 of either, whatever its label; other content as plain text."""
    text = pem_in(plain_text(raw))
    if b"PRIVATE KEY-----" in text:
        return _LONE_CR.sub(b"\n", text)
    try:
        der = unarmor(text)
        key = load_der_private_key(der, None)
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    except TypeError:  # passphrase-protected
        body = base64.encodebytes(der)
        return b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n%b-----END ENCRYPTED PRIVATE KEY-----\n" % body
    except (PemInvalidError, ValueError, UnsupportedAlgorithm):
        return text


def find_conversion_command(path: Path) -> str | None:
    """Return the command that converts a key file which OpenSSL cannot read; None if it can."""
    with path.open("rb") as file:
        raw = file.read(_LOOKED_AT)
    if (raw.startswith(b"-----BEGIN") and b"\n" in raw) or is_der(raw):
        return None
    text = f"LC_ALL=C tr -dc '\\r\\n -~' < {shlex.quote(str(path))} | tr -s '\\r' '\\n'"
    is_pem = b"-----BEGIN" in raw.replace(b"\0", b"")
    return f"{text} | openssl pkey" if is_pem else f"{text} | base64 -di | openssl pkey"


def check_no_pkcs12(path: Path, raw: bytes) -> None:
    """Raise `KeyFileIsPkcs12Error` for PKCS#12, also in base64."""
    with suppress(PemInvalidError):
        if is_pkcs12(der := unarmor(raw)):
            error = KeyFileIsPkcs12Error(path=path, options=pkcs12_options(der))
            if der != raw:
                command = DECODE_PKCS12.replace("FILE", shlex.quote(str(path)))
                error.quote(fix=f"Decode it, and give that: `{command}`.")
            elif not has_pkcs12_key(der):
                error.quote(fix="It holds certificates alone: export it again with its private key.")
            raise error


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FileKey:
    """A private key in a PEM file."""

    path: Path
    _private_key: PrivateKey = field(repr=False)

    @classmethod
    def load(cls, path: Path, passphrase: Pin | None = None) -> "FileKey":
        """Read and check the file. Raise `ReferenceKeyError`, `KeyFileExposedError` or another key file error."""
        text, mode = read_key_file(path)
        if (object_id := parse_reference_key(text)) is not None:
            raise ReferenceKeyError(path=path, object_id=f"0x{object_id:08X}")
        text = pem_of_key(text)
        check_no_pkcs12(path, text)
        if b"PRIVATE KEY-----" not in text and b"BEGIN CERTIFICATE-----" in text:
            raise KeyFileIsCertificateError(path=path)
        if mode & 0o007 or mode & 0o020:
            raise KeyFileExposedError(path=path, mode=f"{mode:04o}")
        if mode & 0o040:
            log.warning("key.group_readable", extra={"path": str(path)})
        secret = None if passphrase is None else passphrase.reveal().encode()
        try:
            return cls(path, _load(path, text, secret))
        except PassphraseWrongError as error:
            if (command := find_conversion_command(path)) is not None:
                error.quote(fix=error.explain_fix().replace(f"openssl pkey -in {shlex.quote(str(path))}", command))
            raise

    @property
    def public_key(self) -> PublicKey:
        return self._private_key.public_key()

    def sign(self, data: bytes, scheme: Scheme) -> bytes:
        algorithm = scheme.hash
        if isinstance(self._private_key, ec.EllipticCurvePrivateKey):
            if scheme.is_ec:
                return self._private_key.sign(data, ec.ECDSA(algorithm))
        elif scheme is Scheme.RSA_PSS_SHA256:
            salted = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
            return self._private_key.sign(data, salted, algorithm)
        elif not scheme.is_ec:
            return self._private_key.sign(data, padding.PKCS1v15(), algorithm)
        raise KeyUnsupportedError(where=self.describe(), scheme=scheme)

    def describe(self) -> str:
        return f"file {self.path}"

    def close(self) -> None:
        """Do nothing: a file key holds no open resource."""


def read_key_file(path: Path) -> tuple[bytes, int]:
    """Return content and mode. Raise `KeyFileMissingError` or `KeyFileInvalidError`."""
    try:
        with path.open("rb") as file:
            seen = os.fstat(file.fileno())  # of the open file, whatever the path means a moment later
            if seen.st_uid not in {0, os.geteuid()} and os.geteuid() != 0:
                log.warning("key.of_another_user", extra={"path": str(path), "user": seen.st_uid})
            mode = stat.S_IMODE(seen.st_mode)
            return plain_text(file.read(MAX_KEY_FILE_BYTES + 1)[:MAX_KEY_FILE_BYTES]), mode
    except FileNotFoundError:
        raise KeyFileMissingError(path=path) from None
    except OSError as error:
        unreadable = KeyFileInvalidError(path=path, detail=error.strerror)
        unreadable.quote(
            cause=f"{path} cannot be read: {(error.strerror or 'error').lower()}.",
            fix=f"Check its owner and permissions: `ls -l {shlex.quote(str(path))}`.",
        )
        raise unreadable from error


def _load(path: Path, text: bytes, secret: bytes | None) -> PrivateKey:
    is_encrypted = b"ENCRYPTED" in text
    try:
        # A passphrase for an unencrypted key is common in configurations, and no error.
        key = load_pem_private_key(text, secret if is_encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        seen = unseen_in_pem(text)
        if is_encrypted and not seen:
            raise PassphraseWrongError(path=path) from error
        raise KeyFileInvalidError(path=path, detail=seen or "it cannot be parsed") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise KeyUnsupportedError(where=f"file {path}", scheme="any scheme")
    return key
