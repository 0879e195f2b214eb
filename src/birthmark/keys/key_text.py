"""A private key's PEM out of any form in which Windows and key stores write it."""

import base64
import re
import shlex
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from birthmark.keys.errors import KeyFileIsPkcs12Error
from birthmark.pki.certificates import DECODE_PKCS12
from birthmark.pki.der import has_pkcs12_key, is_der, is_pkcs12, pkcs12_options
from birthmark.pki.pem import PemInvalidError, pem_in, unarmor
from birthmark.text_files import plain_text

_LONE_CR = re.compile(rb"\r(?!\n)")
_LOOKED_AT = 512


def pem_of_key(raw: bytes) -> bytes:
    """Return the PEM of a key in PEM, DER or base64 of either, whatever its label; anything else as plain text."""
    text = pem_in(plain_text(raw))
    if b"PRIVATE KEY-----" in text:
        return _LONE_CR.sub(b"\n", text)
    try:
        der = unarmor(text)
        key = load_der_private_key(der, None)
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    except TypeError:  # a passphrase protects it
        body = base64.encodebytes(der)
        return b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n%b-----END ENCRYPTED PRIVATE KEY-----\n" % body
    except (PemInvalidError, ValueError, UnsupportedAlgorithm):
        return text


def as_openssl_reads(path: Path) -> str | None:
    """Return the command that reads a key whose file OpenSSL cannot read as it is; None where it can."""
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
