"""Passphrases of backups at little work: pyrage takes a second for each, of a machine that has nothing else to do.

What it makes is what pyrage makes (C2SP age, version 1) but for the work factor, and opened by it.
"""

import os
from base64 import b64encode

import pyrage
import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

_LOG_N = 10


def encrypted(data: bytes, passphrase: str) -> bytes:
    """Return what opens by the passphrase; of less than 64 KiB."""
    salt, file_key, nonce = os.urandom(16), os.urandom(16), os.urandom(16)
    wrapping = Scrypt(b"age-encryption.org/v1/scrypt" + salt, 32, 1 << _LOG_N, 8, 1).derive(passphrase.encode())
    body = ChaCha20Poly1305(wrapping).encrypt(bytes(12), file_key, None)
    head = b"age-encryption.org/v1\n-> scrypt %b %d\n%b\n---" % (_text(salt), _LOG_N, _text(body))
    proof = hmac.HMAC(_derived(file_key, b"", b"header"), hashes.SHA256())
    proof.update(head)
    content = ChaCha20Poly1305(_derived(file_key, nonce, b"payload")).encrypt(bytes(11) + b"\x01", data, None)
    return head + b" %b\n" % _text(proof.finalize()) + nonce + content


@pytest.fixture
def cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have backups of this process made so."""
    monkeypatch.setattr(pyrage.passphrase, "encrypt", encrypted)


def _text(raw: bytes) -> bytes:
    return b64encode(raw).rstrip(b"=")


def _derived(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, info).derive(key)
