"""A `cryptography` private key that signs through a key handle.

The library's builders use it to sign CSRs, certificates, CRLs and CMS with a key in a token. They require an EC or RSA
private key and call its `sign`. Operations that need the private numbers raise `UnsupportedAlgorithm`.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Generic, NoReturn, Self, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from birthmark.keys.key_handle import KeyHandle, PrivateKey, PublicKey, Scheme

P = TypeVar("P", bound=PublicKey)
_RSA_KINDS: Mapping[type, str] = {padding.PKCS1v15: "rsa-pkcs1", padding.PSS: "rsa-pss"}


def as_private_key(handle: KeyHandle) -> PrivateKey:
    """Return a private key for `cryptography`'s builders; keep the handle open while it is used."""
    if isinstance(handle.public_key, ec.EllipticCurvePublicKey):
        return _EllipticCurveKey(handle, handle.public_key)
    return _RsaKey(handle, handle.public_key)


class _HandleKey(Generic[P]):
    """Shared base of both key types: a public key, and signatures only."""

    def __init__(self, handle: KeyHandle, public_key: P) -> None:
        self._handle = handle
        self._public_key: P = public_key

    def public_key(self) -> P:
        return self._public_key

    @property
    def key_size(self) -> int:
        return self._public_key.key_size

    def _only_signs(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise UnsupportedAlgorithm("the key handle only signs; the private key cannot be read")

    private_numbers = private_bytes = exchange = decrypt = _only_signs

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        return self


class _EllipticCurveKey(_HandleKey[ec.EllipticCurvePublicKey], ec.EllipticCurvePrivateKey):
    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        return self._handle.sign(bytes(data), _scheme("ecdsa", signature_algorithm.algorithm))

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public_key.curve


class _RsaKey(_HandleKey[rsa.RSAPublicKey], rsa.RSAPrivateKey):
    def sign(self, data: Any, padding: Any, algorithm: Any) -> bytes:
        return self._handle.sign(bytes(data), _scheme(_RSA_KINDS.get(type(padding), ""), algorithm))


def _scheme(kind: str, algorithm: object) -> Scheme:
    """Return the scheme with this hash; prehashed data (`Prehashed`) is not supported."""
    if isinstance(algorithm, hashes.HashAlgorithm):
        with suppress(ValueError):
            return Scheme(f"{kind}-{algorithm.name}")
    raise UnsupportedAlgorithm("the key handle signs data with SHA-2 only")
