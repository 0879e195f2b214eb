"""Proof of possession of a secure element's private key: a signature over a nonce of the verifier.

The proof is one JSON object; verification needs no element. For the signed data see `keys.possession`.
"""

import base64

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from birthmark.keys.key_handle import KeyHandle, PublicKey, default_scheme
from birthmark.keys.possession import check_nonce, sign_nonce
from birthmark.secure_elements.errors import ElementProofInvalidError

MAX_NONCE_BYTES = 1024
MIN_NONCE_BYTES = 8


class PossessionProof(msgspec.Struct, frozen=True):
    """As it is printed and sent: `nonce` and `signature` are base64, the public key is PEM."""

    nonce: str
    scheme: str
    signature: str
    public_key: str


def prove(key: KeyHandle, nonce: bytes) -> PossessionProof:
    """Return the proof signed by `key`. The verifier chooses the nonce, 8 to 1024 bytes."""
    if not MIN_NONCE_BYTES <= len(nonce) <= MAX_NONCE_BYTES:
        raise ElementProofInvalidError(detail="the nonce must have 8 to 1024 bytes")
    scheme = default_scheme(key.public_key)
    signature = sign_nonce(key, nonce)
    pem = key.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return PossessionProof(base64.b64encode(nonce).decode(), scheme.value, base64.b64encode(signature).decode(), pem)


def check_proof(proof: PossessionProof, nonce: bytes) -> PublicKey:
    """Return the public key of a verified proof. Raise `ElementProofInvalidError`."""
    try:
        if base64.b64decode(proof.nonce, validate=True) != nonce:
            raise ElementProofInvalidError(detail="it is for another nonce")
        signature = base64.b64decode(proof.signature, validate=True)
        public_key = load_pem_public_key(proof.public_key.encode())
        if not isinstance(public_key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise ElementProofInvalidError(detail="the key is not EC or RSA")
        check_nonce(public_key, nonce, signature)
    except ValueError as error:
        raise ElementProofInvalidError(detail="it cannot be read") from error
    except InvalidSignature as error:
        raise ElementProofInvalidError(detail="the signature is not valid") from error
    return public_key
