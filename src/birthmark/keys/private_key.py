"""A `cryptography` private key whose signatures come from a key handle.

With it the library's own builders sign CSRs, certificates, CRLs and CMS by a key in a token: they ask for an EC or RSA
private key and call its `sign`. Everything that would need the private numbers raises `UnsupportedAlgorithm`.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from birthmark.keys.handles import KeyHandle
from birthmark.keys.scheme import PrivateKey, Scheme

_EC: Mapping[str, Scheme] = {
    "sha256": Scheme.ECDSA_SHA256,
    "sha384": Scheme.ECDSA_SHA384,
    "sha512": Scheme.ECDSA_SHA512,
}
_RSA: Mapping[str, Scheme] = {
    "sha256": Scheme.RSA_PKCS1_SHA256,
    "sha384": Scheme.RSA_PKCS1_SHA384,
    "sha512": Scheme.RSA_PKCS1_SHA512,
}


def as_private_key(handle: KeyHandle) -> PrivateKey:
    """Return a private key for `cryptography`'s builders; the handle must stay open while it is used."""
    if isinstance(handle.public_key, ec.EllipticCurvePublicKey):
        return _EllipticCurveKey(handle, handle.public_key)
    return _RsaKey(handle, handle.public_key)


class _EllipticCurveKey(ec.EllipticCurvePrivateKey):
    def __init__(self, handle: KeyHandle, public_key: ec.EllipticCurvePublicKey) -> None:
        self._handle = handle
        self._public_key = public_key

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        name = getattr(signature_algorithm.algorithm, "name", "")
        if isinstance(signature_algorithm.algorithm, Prehashed) or name not in _EC:
            raise UnsupportedAlgorithm("the key handle signs data with SHA-2 only")
        return self._handle.sign(bytes(data), _EC[name])

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public_key

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public_key.curve

    @property
    def key_size(self) -> int:
        return self._public_key.key_size

    def exchange(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise UnsupportedAlgorithm("the key handle only signs")

    def private_numbers(self) -> NoReturn:
        raise UnsupportedAlgorithm("the private key cannot be read")

    def private_bytes(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise UnsupportedAlgorithm("the private key cannot be read")

    def __copy__(self) -> "_EllipticCurveKey":
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> "_EllipticCurveKey":
        return self


class _RsaKey(rsa.RSAPrivateKey):
    def __init__(self, handle: KeyHandle, public_key: rsa.RSAPublicKey) -> None:
        self._handle = handle
        self._public_key = public_key

    def sign(self, data: Any, padding: Any, algorithm: Any) -> bytes:
        return self._handle.sign(bytes(data), _rsa_scheme(padding, algorithm))

    def public_key(self) -> rsa.RSAPublicKey:
        return self._public_key

    @property
    def key_size(self) -> int:
        return self._public_key.key_size

    def decrypt(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise UnsupportedAlgorithm("the key handle only signs")

    def private_numbers(self) -> NoReturn:
        raise UnsupportedAlgorithm("the private key cannot be read")

    def private_bytes(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise UnsupportedAlgorithm("the private key cannot be read")

    def __copy__(self) -> "_RsaKey":
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> "_RsaKey":
        return self


def _rsa_scheme(scheme: Any, algorithm: Any) -> Scheme:
    if isinstance(algorithm, hashes.HashAlgorithm):
        if isinstance(scheme, padding.PKCS1v15) and algorithm.name in _RSA:
            return _RSA[algorithm.name]
        if isinstance(scheme, padding.PSS) and algorithm.name == "sha256":
            return Scheme.RSA_PSS_SHA256
    raise UnsupportedAlgorithm("the key handle signs data with SHA-2 only")
