"""Proof of possession of a private key: a signature over the verifier's nonce.

The signed data begins with a fixed line, so that no handshake or certificate can be signed as a supposed proof.
"""

from cryptography.hazmat.primitives.asymmetric import ec, padding

from birthmark.keys.key_handle import KeyHandle, PublicKey, default_scheme

CONTEXT = b"birthmark proof of possession v1\0"


def sign_nonce(key: KeyHandle, nonce: bytes) -> bytes:
    """Return the signature of the nonce with the default scheme of the key."""
    return key.sign(CONTEXT + nonce, default_scheme(key.public_key))


def check_nonce(public_key: PublicKey, nonce: bytes, signature: bytes) -> None:
    """Raise `InvalidSignature` unless the private half of `public_key` signed the nonce."""
    algorithm = default_scheme(public_key).hash
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        public_key.verify(signature, CONTEXT + nonce, ec.ECDSA(algorithm))
    else:
        public_key.verify(signature, CONTEXT + nonce, padding.PKCS1v15(), algorithm)
