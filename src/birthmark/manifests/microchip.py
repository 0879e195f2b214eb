"""Read and verify Microchip's Trust&GO manifests, entry by entry.

Per entry: the JWS signature by an accepted signer (chosen by `x5t#S256`, never by trial), the signer valid when the
chip was provisioned, the unprotected header against the payload, no chip twice, the certificate's name and key
against the entry, device certificate → signer certificate → accepted root. Certificates of real parts hold characters
their string type forbids, so extensions are not looked at here.
"""

import binascii
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, BinaryIO

import ijson
import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from birthmark.manifests.errors import (
    ChainBrokenError,
    DuplicateEntryError,
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
from birthmark.manifests.model import Entry, Root, Signer
from birthmark.pki.certificates import P256_SPKI, Certificate, CertificateInvalidError, is_signed_by, parse_der
from birthmark.text import read_json

MAX_ENTRY_BYTES = 64 * 1024
_MAX_KEYS = 32
_POINT_BYTES = 32
_ES256 = ec.ECDSA(hashes.SHA256())


class _Header(msgspec.Struct, frozen=True):
    uniqueId: str = ""  # noqa: N815 - the wire's name


class _RawEntry(msgspec.Struct):
    payload: str
    protected: str
    signature: str
    header: _Header = _Header()


class _Protected(msgspec.Struct):
    alg: str
    x5t_s256: str = msgspec.field(name="x5t#S256")


class _Key(msgspec.Struct):
    kid: str
    kty: str
    crv: str
    x: str
    y: str
    x5c: list[str] = []


class _KeySet(msgspec.Struct):
    keys: list[_Key]


class _Payload(msgspec.Struct, rename="camel"):
    unique_id: str
    model: str
    part_number: str
    provisioning_timestamp: str
    group_id: str | None = None
    public_key_set: _KeySet | None = None


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose manifests and whose chips are believed."""

    signers: Mapping[bytes, Signer]
    roots: tuple[Root, ...]


@dataclass(slots=True)
class Verifier:
    """Checks entries one after the other; remembers which chips it has seen (32 bytes each)."""

    trust: Trust
    _seen: set[bytes] = field(default_factory=set)
    _keys: dict[bytes, ec.EllipticCurvePublicKey] = field(default_factory=dict)
    _issuers: dict[bytes, Certificate] = field(default_factory=dict)

    def verify(self, place: int, raw: Mapping[str, Any]) -> Entry:
        """Return what entry number `place` (1 is the first) says, or raise the `ManifestError` that says why not."""
        try:
            return self._verify(raw)
        except ManifestError as error:
            error.add_facts(place=place)
            raise

    def _verify(self, raw: Mapping[str, Any]) -> Entry:
        given = _convert(raw, _RawEntry)
        signer = self._check_signature(given)
        payload = read_json(_unbase64url(given.payload), _Payload, MalformedEntryError)
        unique_id = payload.unique_id
        provisioned_at = _moment(payload.provisioning_timestamp)
        if not signer.not_before <= provisioned_at <= signer.not_after:
            raise SignerNotValidError(provisioned_at=provisioned_at.isoformat(), signer=signer.name)
        if given.header.uniqueId.lower() != unique_id.lower():
            raise UniqueIdChangedError(header_id=given.header.uniqueId[:64] or "nothing", unique_id=unique_id)
        self._check_new(unique_id)
        keys = payload.public_key_set.keys if payload.public_key_set else []
        if len(keys) > _MAX_KEYS:
            raise MalformedEntryError(detail=f"over {_MAX_KEYS} keys")
        points = [_point_in(unique_id, key) for key in keys]
        holder = next((number for number, key in enumerate(keys) if key.x5c), None)
        certificate, issuer = None, None
        if holder is not None:
            certificate, issuer = self._check_certificate(unique_id, keys[holder].x5c, points[holder])
        return Entry(
            unique_id.lower(),
            payload.model,
            payload.part_number,
            payload.group_id,
            provisioned_at,
            signer.name,
            certificate,
            issuer,
            tuple([key.kid for key in keys]),
        )

    def _check_signature(self, given: _RawEntry) -> Signer:
        protected = _protected(given.protected)
        if protected.alg != "ES256":
            raise MalformedEntryError(detail=f"alg {protected.alg[:20]}")
        thumbprint = _unbase64url(protected.x5t_s256)
        signer = self.trust.signers.get(thumbprint)
        if signer is None:
            raise UnknownSignerError(thumbprint=thumbprint.hex()[:64])
        signature = _unbase64url(given.signature)
        signed = f"{given.protected}.{given.payload}".encode()
        try:  # a signature of another length is cut or padded here and does not verify
            r, s = int.from_bytes(signature[:_POINT_BYTES]), int.from_bytes(signature[_POINT_BYTES:])
            self._key_of(signer).verify(encode_dss_signature(r, s), signed, _ES256)
        except InvalidSignature as error:
            unique_id = given.header.uniqueId[:64] or "unnamed"
            raise SignatureBrokenError(unique_id=unique_id, signer=signer.name) from error
        return signer

    def _key_of(self, signer: Signer) -> ec.EllipticCurvePublicKey:
        if (key := self._keys.get(signer.thumbprint)) is None:
            key = self._keys[signer.thumbprint] = _key_at(signer.public_point)
        return key

    def _check_new(self, unique_id: str) -> None:
        mark = hashlib.sha256(unique_id.lower().encode()).digest()
        if mark in self._seen:
            raise DuplicateEntryError(unique_id=unique_id)
        self._seen.add(mark)

    def _check_certificate(self, unique_id: str, x5c: list[str], point: bytes) -> tuple[Certificate, Certificate]:
        if len(x5c) < 2:  # noqa: PLR2004 - device and signer
            raise ChainBrokenError(detail="the signer certificate is missing", unique_id=unique_id)
        device = _certificate(x5c[0])
        common_name = device.subject_cn or ""
        if common_name.lower() != f"sn{unique_id}".lower():
            raise NameMismatchError(common_name=common_name, unique_id=unique_id)
        if _point_of(device) != point:
            raise KeyMismatchError(unique_id=unique_id)
        issuer = self._issuer(x5c[1], unique_id)
        if not is_signed_by(device, issuer):
            raise ChainBrokenError(detail="not signed by x5c[1]", unique_id=unique_id)
        return device, issuer

    def _issuer(self, text: str, unique_id: str) -> Certificate:
        """Return the signer certificate of a chip; the same few sign all, so each is checked once."""
        mark = hashlib.sha256(text.encode()).digest()
        if (known := self._issuers.get(mark)) is not None:
            return known
        issuer = _certificate(text)
        if not any(_is_below(issuer, root) for root in self.trust.roots):
            detail = f"'{issuer.issuer_text}' is not an accepted root, or did not sign '{issuer.subject_text}'"
            raise ChainBrokenError(detail=detail, unique_id=unique_id)
        self._issuers[mark] = issuer
        return issuer


def raw_entries(file: BinaryIO) -> Iterator[Mapping[str, Any]]:
    """Yield the entries of a manifest as parsed JSON. Raise `MalformedEntryError` where the file stops being one."""
    bounded = _Bounded(file)
    place = 0
    try:
        for place, raw in enumerate(ijson.items(bounded, "item", use_float=True), 1):
            bounded.next_entry()
            if not isinstance(raw, dict):
                raise MalformedEntryError(place=place, detail="it is not an object")
            yield raw
    except (ijson.JSONError, UnicodeDecodeError, ValueError) as error:
        at = place + 1
        raise MalformedEntryError(place=at, detail=_first_line(error)) from error


def _first_line(error: Exception) -> str:
    """Return what the JSON parser says, without the piece of the file that it quotes."""
    told = error.args[0] if error.args else ""
    text = told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told)
    return (text.splitlines() or ["not JSON"])[0].strip()[:200]


def verify_all(file: BinaryIO, trust: Trust) -> Iterator[Entry | ManifestError]:
    """Yield each entry verified, or what is wrong with it. Raise only where the file itself ends to be readable."""
    verifier = Verifier(trust)
    for place, raw in enumerate(raw_entries(file), 1):
        try:
            yield verifier.verify(place, raw)
        except ManifestError as error:
            yield error


def signer_of(certificate: Certificate) -> Signer:
    """Return a signer's certificate as trust."""
    return Signer(
        certificate.subject_text,
        certificate.thumbprint,
        _point_of(certificate),
        certificate.not_before,
        certificate.not_after,
    )


def root_of(certificate: Certificate) -> Root:
    """Return a root certificate as trust."""
    return Root(certificate.subject_cn or certificate.subject_text, _point_of(certificate))


def trust_of(signers: Iterable[Signer], roots: Iterable[Root]) -> Trust:
    """Return trust in these."""
    return Trust({signer.thumbprint: signer for signer in signers}, tuple(roots))


class _Bounded:
    """A file that refuses to be read on when one entry is too large."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._since = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(MAX_ENTRY_BYTES if size < 0 else min(size, MAX_ENTRY_BYTES))
        self._since += len(data)
        if self._since > 4 * MAX_ENTRY_BYTES:  # the parser reads ahead by up to one chunk
            raise ValueError(f"an entry is larger than {MAX_ENTRY_BYTES} bytes")
        return data

    def next_entry(self) -> None:
        self._since = 0


def _is_below(issuer: Certificate, root: Root) -> bool:
    parsed = issuer.parsed
    try:
        hashed = parsed.signature_hash_algorithm
        if not isinstance(hashed, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
            return False
        _key_at(root.public_point).verify(parsed.signature, parsed.tbs_certificate_bytes, ec.ECDSA(hashed))
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):  # an algorithm is read only when it is asked for
        return False
    return True


def _point_in(unique_id: str, key: _Key) -> bytes:
    """Return X and Y of a key. Raise `NotCheckedError` for one that no certificate can be compared with."""
    if key.kty != "EC" or key.crv != "P-256":
        detail = f"key {key.kid[:20]} is of {key.kty[:20]} {key.crv[:20]}"
        raise NotCheckedError(unique_id=unique_id, detail=detail)
    x, y = _unbase64url(key.x), _unbase64url(key.y)
    if len(x) != _POINT_BYTES or len(y) != _POINT_BYTES:
        raise MalformedEntryError(detail=f"key {key.kid[:20]} is no point")
    return x + y


def _key_at(point: bytes) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + point)


def _point_of(certificate: Certificate) -> bytes:
    """Return X and Y of a P-256 key; nothing of another."""
    prefix, point = certificate.spki_der[: -2 * _POINT_BYTES], certificate.spki_der[-2 * _POINT_BYTES :]
    return point if prefix == P256_SPKI else b""


def _certificate(text: str) -> Certificate:
    try:
        return parse_der(binascii.a2b_base64(text, strict_mode=True))
    except (ValueError, CertificateInvalidError) as error:  # also for what is no ASCII
        raise MalformedEntryError(detail="x5c cannot be read") from error


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise MalformedEntryError(detail="provisioningTimestamp is no time") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _unbase64url(text: str) -> bytes:
    if len(text) > MAX_ENTRY_BYTES:
        raise MalformedEntryError(detail=f"over {MAX_ENTRY_BYTES} bytes")
    try:
        # the library's urlsafe_b64decode drops what is not in its alphabet without a word
        return binascii.a2b_base64(
            text.encode("ascii").translate(_URL_SAFE) + b"=" * (-len(text) % 4), strict_mode=True
        )
    except ValueError as error:
        raise MalformedEntryError(detail="base64url is broken") from error


_URL_SAFE = bytes.maketrans(b"-_+/", b"+/!!")


@lru_cache(maxsize=16)
def _protected(text: str) -> _Protected:
    """Return a protected header; one signer writes the same into every entry."""
    return read_json(_unbase64url(text), _Protected, MalformedEntryError)


def _convert(raw: Mapping[str, Any], kind: type[Any]) -> Any:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise MalformedEntryError(detail=str(error)[:200]) from error
