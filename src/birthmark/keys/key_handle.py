"""Key handle: the interface of a private key that signs without leaving its store, and the signature schemes."""

from enum import StrEnum
from typing import Protocol, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

_HASHES = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}


PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Scheme(StrEnum):
    """Signature schemes. ECDSA signatures are DER, as everywhere outside PKCS#11."""

    ECDSA_SHA256 = "ecdsa-sha256"
    ECDSA_SHA384 = "ecdsa-sha384"
    ECDSA_SHA512 = "ecdsa-sha512"
    RSA_PKCS1_SHA256 = "rsa-pkcs1-sha256"
    RSA_PKCS1_SHA384 = "rsa-pkcs1-sha384"
    RSA_PKCS1_SHA512 = "rsa-pkcs1-sha512"
    RSA_PSS_SHA256 = "rsa-pss-sha256"

    @property
    def hash(self) -> hashes.HashAlgorithm:
        return _HASHES[self.rsplit("-", 1)[1]]

    @property
    def is_ec(self) -> bool:
        return self.startswith("ecdsa")


def default_scheme(public_key: PublicKey) -> Scheme:
    """Return the default signature scheme of a key's type and strength."""
    if isinstance(public_key, rsa.RSAPublicKey):
        return Scheme.RSA_PKCS1_SHA256
    return {384: Scheme.ECDSA_SHA384, 521: Scheme.ECDSA_SHA512}.get(public_key.curve.key_size, Scheme.ECDSA_SHA256)


class KeyHandle(Protocol):
    """A private key in any storage. Safe to share between threads; close it when done."""

    @property
    def public_key(self) -> PublicKey:
        """The public key."""

    def sign(self, data: bytes, scheme: Scheme) -> bytes:
        """Return the signature of `data`. Raise `KeyUnsupportedError`, or `UnavailableError` when the token fails."""

    def describe(self) -> str:
        """Return the key's location for logs and messages."""

    def close(self) -> None:
        """Release the key. Idempotent."""
