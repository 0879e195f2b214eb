"""A `cryptography` private key that signs through a key handle.

The library's builders use it to sign CSRs, certificates, CRLs and CMS with a key in a token. They require an EC or RSA
private key and call its `sign`. Operations that need the private numbers raise `UnsupportedAlgorithm`.
"""

from base64 import b64decode
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Any, Generic, NoReturn, Protocol, Self, TypeAlias, TypeVar

from asn1crypto import core, pem
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from birthmark.keys.pkcs11_uri import MAX_URI_CHARS, Pkcs11Uri, find_pkcs11_uri

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_HASHES = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}


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


def uri_in(content: bytes) -> str | None:
    """Return the URI in a file, as text or as pkcs11-provider's PEM block; None for other files."""
    if (uri := find_pkcs11_uri(content[: 2 * MAX_URI_CHARS].decode("ascii", "replace"))) is not None:
        return uri
    if b"-----BEGIN PKCS#11 PROVIDER URI-----" not in content:
        return None
    body = content.split(b"-----BEGIN PKCS#11 PROVIDER URI-----", 1)[1].split(b"-----END", 1)[0]
    try:
        return str(core.SequenceOf.load(b64decode(body), spec=core.Any)[1].parse(core.UTF8String).native)
    except (ValueError, TypeError, IndexError):
        return None


def render_uri_pem(uri: Pkcs11Uri) -> str:
    """Return the PEM block in which pkcs11-provider and `chip exec` find the URI; it contains no secret."""
    body = core.SequenceOf([core.VisibleString("PKCS#11 Provider URI v1.0"), core.UTF8String(str(uri))], spec=core.Any)
    return bytes(pem.armor("PKCS#11 PROVIDER URI", body.dump())).decode()


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
