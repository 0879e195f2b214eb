"""Kinds of keys and kinds of signatures."""

from enum import StrEnum
from typing import TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_HASHES = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}


class Scheme(StrEnum):
    """How a signature is made. ECDSA signatures are DER, as everywhere outside PKCS#11."""

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
    """Return the usual scheme of a key's kind and strength."""
    if isinstance(public_key, rsa.RSAPublicKey):
        return Scheme.RSA_PKCS1_SHA256
    return {384: Scheme.ECDSA_SHA384, 521: Scheme.ECDSA_SHA512}.get(public_key.curve.key_size, Scheme.ECDSA_SHA256)
