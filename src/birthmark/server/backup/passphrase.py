"""What a passphrase encrypts, in the age format (C2SP age, version 1), opened whatever the machine's speed.

pyrage takes as much work as the machine does in a second, and refuses what it reckons to take sixteen: a backup of a
fast machine could not be restored on a slow one, nor at times on a busy one. What it refuses for that is opened here.
"""

import re
from base64 import b64decode

import pyrage
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

MAX_LOG_N = 22
"""Four gigabytes of memory; a machine that does as much in a second is not built yet."""
_EXCESSIVE = "xcessive work"
_B64 = rb"[A-Za-z0-9+/]"
_HEADER = re.compile(
    rb"age-encryption\.org/v1\n"
    rb"-> scrypt (" + _B64 + rb"{22}) ([1-9][0-9]?)\n"
    rb"(" + _B64 + rb"{43})\n"
    rb"--- (" + _B64 + rb"{43})\n"
)
_NONCE_BYTES, _FILE_KEY_BYTES = 16, 16
_LAST_CHUNK = bytes(11) + b"\x01"


def decrypted(data: bytes, passphrase: str) -> bytes:
    """Return what is in it, at most 64 KiB. Raise `pyrage.DecryptError`, or `ValueError` for what is no such thing."""
    try:
        return bytes(pyrage.passphrase.decrypt(data, passphrase))
    except pyrage.DecryptError as error:
        if _EXCESSIVE not in str(error):
            raise
        try:
            return _by_hand(data, passphrase.encode())
        except InvalidTag:
            raise error from None


def _by_hand(data: bytes, passphrase: bytes) -> bytes:
    if (header := _HEADER.match(data)) is None or (log_n := int(header[2])) > MAX_LOG_N:
        raise ValueError("it takes far more work than any backup")
    salt, body, mac = (b64decode(header[part] + b"=" * (-len(header[part]) % 4)) for part in (1, 3, 4))
    wrapping = Scrypt(b"age-encryption.org/v1/scrypt" + salt, 32, 1 << log_n, 8, 1).derive(passphrase)
    file_key = ChaCha20Poly1305(wrapping).decrypt(bytes(12), body, None)
    proof = hmac.HMAC(_derived(file_key, b"", b"header"), hashes.SHA256())
    proof.update(data[: header.start(4) - 1])
    if len(file_key) != _FILE_KEY_BYTES or proof.finalize() != mac:
        raise InvalidTag
    nonce, chunk = data[header.end() :][:_NONCE_BYTES], data[header.end() + _NONCE_BYTES :]
    return ChaCha20Poly1305(_derived(file_key, nonce, b"payload")).decrypt(_LAST_CHUNK, chunk, None)


def _derived(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, info).derive(key)
