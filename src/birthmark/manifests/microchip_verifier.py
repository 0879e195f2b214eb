"""Verify Microchip's Trust&GO manifests, entry by entry.

Checks per entry:

- the JWS signature by an accepted signer (chosen by `x5t#S256`, never by trial)
- the signer's validity when the chip was provisioned
- the unprotected header against the payload
- the certificate's name and key against the entry
- device certificate → signer certificate → accepted root

Certificates of real parts contain characters that their string type forbids, so extensions are mostly ignored here.
Duplicate chips and keys are detected by `verification`, which sees all entries.
"""

import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, NamedTuple, TypeAlias

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from birthmark.manifests.errors import (
    ChainBrokenError,
    KeyMismatchError,
    MalformedEntryError,
    ManifestError,
    NameMismatchError,
    NotCheckedError,
    SignatureBrokenError,
    SignerNotValidError,
    UniqueIdChangedError,
    UnknownSignerError,
)
from birthmark.manifests.manifest_chunks import MAX_ENTRY_BYTES, TOO_LARGE
from birthmark.manifests.manifest_entry import ManifestEntry, ManifestSigner, Root
from birthmark.pki.certificates import Certificate, CertificateInvalidError, is_signed_by, parse_der
from birthmark.pki.fast_certificate_parser import P256_SPKI, ParsedLeaf, is_signed_with, parse_leaf
from birthmark.untrusted_json_and_text import read_json

_MAX_KEYS = 32
_POINT_BYTES = 32
_COORDINATE = re.compile("[A-Za-z0-9_-]{43}=?")  # 32 bytes in base64url
_MAX_ISSUERS = 1000
_Name: TypeAlias = Annotated[str, msgspec.Meta(max_length=128)]
"""Names are used in reports and file names; Microchip's longest name has 36 characters."""
_ES256 = ec.ECDSA(hashes.SHA256())


class _Header(msgspec.Struct, frozen=True):
    uniqueId: str = ""  # noqa: N815 - wire name


class _RawEntry(msgspec.Struct):
    payload: str
    protected: str
    signature: str
    header: _Header = _Header()


class _ProtectedHeader(msgspec.Struct):
    alg: str
    x5t_s256: str = msgspec.field(name="x5t#S256")


class _Key(msgspec.Struct):
    kid: _Name
    kty: _Name
    crv: _Name
    x: str
    y: str
    x5c: list[str] = []


class _KeySet(msgspec.Struct):
    keys: list[_Key]


class _Payload(msgspec.Struct, rename="camel"):
    unique_id: _Name
    model: _Name
    part_number: _Name
    provisioning_timestamp: _Name
    group_id: _Name | None = None
    public_key_set: _KeySet | None = None


class _ChipSigner(NamedTuple):
    """A CA below an accepted root, with its key ready for use."""

    certificate: Certificate
    key: ec.EllipticCurvePublicKey | None


class _Device(NamedTuple):
    """A chip's certificate: `seen` are the extracted fields, `parsed` is the library's object."""

    der: bytes
    common_name: str
    point: bytes
    seen: ParsedLeaf | None
    parsed: Certificate | None

    def is_signed_by(self, issuer: _ChipSigner) -> bool:
        if self.seen is not None and issuer.key is not None:
            is_named = self.seen.issuer_der == issuer.certificate.subject_der
            return is_named and is_signed_with(self.seen, issuer.key)
        return is_signed_by(self.parsed or _parse(self.der), issuer.certificate)


@dataclass(frozen=True, slots=True)
class ManifestTrust:
    """Trusted manifest signers and certificate roots."""

    signers: Mapping[bytes, ManifestSigner]
    roots: tuple[Root, ...]


@dataclass(frozen=True, slots=True)
class ManifestVerifier:
    """Verifies entries independently, in any order and several threads; results of the few signers are cached."""

    trust: ManifestTrust
    _keys: dict[bytes, ec.EllipticCurvePublicKey] = field(default_factory=dict)
    _issuers: dict[str, _ChipSigner] = field(default_factory=dict)

    def verify(self, position: int, raw: bytes) -> ManifestEntry:
        """Return the verified entry number `position` (from 1). Raise its `ManifestError`."""
        try:
            if len(raw) > MAX_ENTRY_BYTES:
                raise MalformedEntryError(detail=TOO_LARGE)
            return self._verify(read_json(raw, _RawEntry, MalformedEntryError))
        except ManifestError as error:
            error.add_facts(place=position)
            raise

    def _verify(self, entry: _RawEntry) -> ManifestEntry:
        signer = self._check_signature(entry)
        payload = read_json(_unbase64url(entry.payload), _Payload, MalformedEntryError)
        unique_id = payload.unique_id
        provisioned_at = _moment(payload.provisioning_timestamp)
        if not signer.not_before <= provisioned_at <= signer.not_after:
            raise SignerNotValidError(provisioned_at=provisioned_at.isoformat(), signer=signer.name)
        if entry.header.uniqueId.lower() != unique_id.lower():
            raise UniqueIdChangedError(header_id=entry.header.uniqueId[:64] or "nothing", unique_id=unique_id)
        keys = payload.public_key_set.keys if payload.public_key_set else []
        if len(keys) > _MAX_KEYS:
            raise MalformedEntryError(detail=f"it has more than {_MAX_KEYS} keys")
        for key in keys:
            _check_point(unique_id, key)
        holder = next((key for key in keys if key.x5c), None)
        main = holder or next(iter(keys), None)
        point = None if main is None else _unbase64url(main.x) + _unbase64url(main.y)
        device, name, issuer = None, None, None
        if holder is not None and point is not None:
            device, name, issuer = self._check_certificate(unique_id, holder.x5c, point)
        return ManifestEntry(
            unique_id.lower(),
            payload.model,
            payload.part_number,
            payload.group_id,
            provisioned_at,
            signer.name,
            device,
            name,
            issuer,
            tuple([key.kid for key in keys]),
            point,
        )

    def _check_signature(self, entry: _RawEntry) -> ManifestSigner:
        protected = _protected(entry.protected)
        if protected.alg != "ES256":
            raise MalformedEntryError(detail=f"alg {protected.alg[:20]}")
        thumbprint = _unbase64url(protected.x5t_s256)
        signer = self.trust.signers.get(thumbprint)
        if signer is None:
            raise UnknownSignerError(thumbprint=thumbprint.hex()[:64])
        signature = _unbase64url(entry.signature)
        signed = (
            f"{entry.protected.rstrip('=')}.{entry.payload.rstrip('=')}".encode()
        )  # padding is not signed (RFC 7515)
        try:  # a signature of wrong length is cut or padded, and then fails
            r, s = int.from_bytes(signature[:_POINT_BYTES]), int.from_bytes(signature[_POINT_BYTES:])
            self._key_of(signer).verify(encode_dss_signature(r, s), signed, _ES256)
        except InvalidSignature as error:
            unique_id = entry.header.uniqueId[:64] or "unnamed"
            raise SignatureBrokenError(unique_id=unique_id, signer=signer.name) from error
        return signer

    def _key_of(self, signer: ManifestSigner) -> ec.EllipticCurvePublicKey:
        if (key := self._keys.get(signer.thumbprint)) is None:
            key = self._keys[signer.thumbprint] = _key_at(signer.public_point)
        return key

    def _check_certificate(self, unique_id: str, x5c: list[str], point: bytes) -> tuple[bytes, str, bytes]:
        """Return the device's certificate, its common name, and its issuer's certificate, both as DER."""
        if len(x5c) < 2:  # noqa: PLR2004 - device and signer
            raise ChainBrokenError(detail="the signer certificate is missing", unique_id=unique_id)
        device = _device(_unbase64(x5c[0]))
        if device.common_name.lower() != f"sn{unique_id}".lower():
            raise NameMismatchError(common_name=device.common_name, unique_id=unique_id)
        if device.point != point:
            raise KeyMismatchError(unique_id=unique_id)
        issuer = self._issuer(x5c[1], unique_id)
        if not device.is_signed_by(issuer):
            raise ChainBrokenError(detail="not signed by x5c[1]", unique_id=unique_id)
        return device.der, device.common_name, issuer.certificate.der

    def _issuer(self, text: str, unique_id: str) -> _ChipSigner:
        """Return the signer certificate of a chip, cached: a few sign all chips."""
        if (known := self._issuers.get(text)) is not None:
            return known
        issuer = _parse(_unbase64(text))
        if not any(_is_below(issuer, root) for root in self.trust.roots):
            detail = f"'{issuer.issuer_text}' is not an accepted root, or did not sign '{issuer.subject_text}'"
            raise ChainBrokenError(detail=detail, unique_id=unique_id)
        if not issuer.is_ca:  # a device under the root must not sign
            raise ChainBrokenError(detail=f"'{issuer.subject_text}' is not a CA", unique_id=unique_id)
        key = issuer.public_key()
        found = _ChipSigner(issuer, key if isinstance(key, ec.EllipticCurvePublicKey) else None)
        if len(self._issuers) < _MAX_ISSUERS:
            self._issuers[text] = found
        return found


def signer_of(certificate: Certificate) -> ManifestSigner:
    """Return a trusted signer from its certificate."""
    return ManifestSigner(
        certificate.subject_text,
        certificate.thumbprint,
        _point_of(certificate),
        certificate.not_before,
        certificate.not_after,
    )


def root_of(certificate: Certificate) -> Root:
    """Return a trusted root from its certificate."""
    return Root(certificate.subject_cn or certificate.subject_text, _point_of(certificate))


def trust_of(signers: Iterable[ManifestSigner], roots: Iterable[Root]) -> ManifestTrust:
    """Return a trust configuration of these signers and roots."""
    return ManifestTrust({signer.thumbprint: signer for signer in signers}, tuple(roots))


def _is_below(issuer: Certificate, root: Root) -> bool:
    parsed = issuer.parsed
    try:
        hashed = parsed.signature_hash_algorithm
        if not isinstance(hashed, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
            return False
        _key_at(root.public_point).verify(parsed.signature, parsed.tbs_certificate_bytes, ec.ECDSA(hashed))
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):  # algorithms are only parsed on access
        return False
    return True


def _check_point(unique_id: str, key: _Key) -> None:
    """Raise `NotCheckedError` for a key that cannot be compared with a certificate."""
    if key.kty != "EC" or key.crv != "P-256":
        detail = f"key {key.kid[:20]} is of {key.kty[:20]} {key.crv[:20]}"
        raise NotCheckedError(unique_id=unique_id, detail=detail)
    if not (_COORDINATE.fullmatch(key.x) and _COORDINATE.fullmatch(key.y)):
        raise MalformedEntryError(detail=f"key {key.kid[:20]} is not a point on the curve")


def _key_at(point: bytes) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + point)


def _point_of(certificate: Certificate) -> bytes:
    """Return X and Y of a P-256 key; empty for other keys."""
    prefix, point = certificate.spki_der[: -2 * _POINT_BYTES], certificate.spki_der[-2 * _POINT_BYTES :]
    return point if prefix == P256_SPKI else b""


def _device(der: bytes) -> _Device:
    seen = parse_leaf(der)
    if seen is not None:
        return _Device(der, seen.common_name, seen.point, seen, None)
    parsed = _parse(der)
    if parsed.is_ca:
        raise MalformedEntryError(detail="its device certificate is a CA certificate")
    return _Device(der, parsed.subject_cn or "", _point_of(parsed), None, parsed)


def _unbase64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:  # also for non-ASCII text
        raise MalformedEntryError(detail="x5c cannot be read") from error


def _parse(der: bytes) -> Certificate:
    try:
        return parse_der(der)
    except CertificateInvalidError as error:
        raise MalformedEntryError(detail="x5c cannot be read") from error


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise MalformedEntryError(detail="provisioningTimestamp is not a time") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _unbase64url(text: str) -> bytes:
    if len(text) > MAX_ENTRY_BYTES:
        raise MalformedEntryError(detail=f"it has more than {MAX_ENTRY_BYTES} bytes")
    text = text.rstrip("=")
    try:
        # the library's urlsafe_b64decode silently drops characters outside its alphabet
        return binascii.a2b_base64(
            text.encode("ascii").translate(_URL_SAFE) + b"=" * (-len(text) % 4), strict_mode=True
        )
    except ValueError as error:
        raise MalformedEntryError(detail="the base64url is not valid") from error


_URL_SAFE = bytes.maketrans(b"-_+/", b"+/!!")


@lru_cache(maxsize=16)
def _protected(text: str) -> _ProtectedHeader:
    """Parse a protected header, cached: one signer writes the same into every entry."""
    return read_json(_unbase64url(text), _ProtectedHeader, MalformedEntryError)
