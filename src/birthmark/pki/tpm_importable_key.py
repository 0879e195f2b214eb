"""Signing key sealed to one TPM 2.0 (TPM 2.0 Library, part 1, sections 23 and 24).

The key is transferred as an HMAC key to import below the storage root key. It is unwrapped with a credential that only
the TPM with that endorsement key and that storage root key can activate. DPS sends this as `authenticationKey`: six
sized fields, of which the last, separate encrypted text, is empty here.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from birthmark.pki.tpm_public_key import SIGN, TpmPublic, TpmReader, sized

_KEYED_HASH, _HMAC, _SHA256 = b"\x00\x08", b"\x00\x05", b"\x00\x0b"
_USER_WITH_AUTH, _NO_DICTIONARY_ATTACK = 1 << 6, 1 << 10
_WRAP_BYTES = 16  # AES-128-CFB, as the vendors' clients import
_MAX_KEY_BYTES = 64
MAX_SEALED_BYTES = 8 * 1024
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}


class RandomSource(Protocol):
    """Source of unpredictable bytes."""

    def token(self, n: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class SealedKey:
    """Fields of a sealed key in the TPM's format."""

    credential: bytes
    """Inner wrapping key, authenticated and encrypted for the endorsement key."""

    credential_secret: bytes
    duplicate: bytes
    duplicate_secret: bytes
    public: bytes
    """TPMT_PUBLIC of the sealed key."""


def parse_sealed(data: bytes) -> SealedKey:
    """Parse the fields that a provisioning service sent. Raise `TpmKeyInvalidError`.

    Only the TPM can verify them. Real services append a sixth field, which is not used here.
    """
    fields = TpmReader(data, "authentication key", MAX_SEALED_BYTES)
    found = SealedKey(*(fields.sized() for _ in range(5)))
    if not fields.is_at_end:
        fields.sized()
    return found


def seal_hmac_key(key: bytes, endorsement: TpmPublic, storage_root: TpmPublic, chance: RandomSource) -> bytes:
    """Seal `key`, for HMAC-SHA-256, so that only the TPM with both keys can import it."""
    if not 0 < len(key) <= _MAX_KEY_BYTES:
        raise ValueError(len(key))
    wrapping = chance.token(_WRAP_BYTES)
    blinding = chance.token(hashlib.sha256().digest_size)
    public = _hmac_public(hashlib.sha256(blinding + key).digest())
    name = _SHA256 + hashlib.sha256(public).digest()
    sensitive = sized(_KEYED_HASH + sized(b"") + sized(blinding) + sized(key))
    inner = _cfb(wrapping, sized(hashlib.sha256(sensitive + name).digest()) + sensitive)
    credential = _protect(sized(wrapping), endorsement, b"IDENTITY\0", storage_root.name, chance)
    duplicate = _protect(inner, storage_root, b"DUPLICATE\0", name, chance)
    return b"".join(map(sized, (*credential, *duplicate, public, b"")))


def _hmac_public(unique: bytes) -> bytes:
    """Return the TPMT_PUBLIC of an HMAC key."""
    attributes = SIGN | _USER_WITH_AUTH | _NO_DICTIONARY_ATTACK
    no_policy = sized(b"")
    return _KEYED_HASH + _SHA256 + attributes.to_bytes(4, "big") + no_policy + _HMAC + _SHA256 + sized(unique)


def _protect(data: bytes, parent: TpmPublic, label: bytes, name: bytes, chance: RandomSource) -> tuple[bytes, bytes]:
    """Return `data` encrypted and authenticated for `parent`, and the secret that only `parent` can decrypt."""
    seed, secret = _seed(parent, label, chance)
    hash_bits = hashlib.new(parent.hash_name).digest_size * 8
    encrypted = _cfb(_kdfa(parent.hash_name, seed, b"STORAGE\0", name, parent.aes_bits), data)
    integrity = _kdfa(parent.hash_name, seed, b"INTEGRITY\0", b"", hash_bits)
    return sized(hmac.digest(integrity, encrypted + name, parent.hash_name)) + encrypted, secret


def _seed(parent: TpmPublic, label: bytes, chance: RandomSource) -> tuple[bytes, bytes]:
    """Return a seed and its encrypted form for `parent` (part 1, annexes B.10 and C.6)."""
    size = hashlib.new(parent.hash_name).digest_size
    if isinstance(parent.key, rsa.RSAPublicKey):
        algorithm = _HASHES[parent.hash_name]()
        seed = chance.token(size)
        return seed, parent.key.encrypt(seed, padding.OAEP(padding.MGF1(algorithm), algorithm, label))
    once = ec.generate_private_key(parent.key.curve)
    shared = once.exchange(ec.ECDH(), parent.key)
    width = (parent.key.curve.key_size + 7) // 8
    ours, theirs = once.public_key().public_numbers(), parent.key.public_numbers()
    x, y = (coordinate.to_bytes(width, "big") for coordinate in (ours.x, ours.y))
    counter = (1).to_bytes(4, "big")  # one round, as the seed is as long as the hash
    seed = hashlib.new(parent.hash_name, counter + shared + label + x + theirs.x.to_bytes(width, "big")).digest()
    return seed, sized(x) + sized(y)


def _kdfa(hash_name: str, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """Derive key material in counter mode (part 1, section 11.4.10.2).

    One round is sufficient for every key here.
    """
    told = (1).to_bytes(4, "big") + label + context + bits.to_bytes(4, "big")
    return hmac.digest(key, told, hash_name)[: bits // 8]


def _cfb(key: bytes, data: bytes) -> bytes:
    """Return `data` encrypted with a single-use key, so that a zero IV is safe."""
    return Cipher(algorithms.AES(key), CFB(bytes(16))).encryptor().update(data)
