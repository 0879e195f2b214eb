"""Read and verify Microchip's Trust&GO manifests, entry by entry.

Per entry: the JWS signature by an accepted signer (chosen by `x5t#S256`, never by trial), the signer valid when the
chip was provisioned, the unprotected header against the payload, no chip twice, the certificate's name and key
against the entry, device certificate → signer certificate → accepted root. Certificates of real parts hold characters
their string type forbids, so extensions are not looked at here.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
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
from birthmark.pki.certificates import Certificate, CertificateInvalidError, is_signed_by, parse_der

MAX_ENTRY_BYTES = 64 * 1024
_MAX_KEYS = 32
_POINT_BYTES = 32


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
        given = _convert(place, raw, _RawEntry)
        signer = self._check_signature(place, given)
        payload = _decode(place, given.payload, _Payload)
        provisioned_at = _moment(place, payload.provisioning_timestamp)
        if not signer.not_before <= provisioned_at <= signer.not_after:
            raise SignerNotValidError(place=place, provisioned_at=provisioned_at.isoformat(), signer=signer.name)
        if given.header.uniqueId.lower() != payload.unique_id.lower():
            raise UniqueIdChangedError(
                place=place, header_id=given.header.uniqueId[:64] or "nothing", unique_id=payload.unique_id
            )
        self._check_new(place, payload.unique_id)
        keys = payload.public_key_set.keys if payload.public_key_set else []
        if len(keys) > _MAX_KEYS:
            raise MalformedEntryError(place=place, detail=f"over {_MAX_KEYS} keys")
        _check_kinds(place, payload.unique_id, keys)
        certificate, issuer = self._check_certificate(place, payload.unique_id, keys)
        return Entry(
            payload.unique_id.lower(),
            payload.model,
            payload.part_number,
            payload.group_id,
            provisioned_at,
            signer.name,
            certificate,
            issuer,
            tuple(key.kid for key in keys),
        )

    def _check_signature(self, place: int, given: _RawEntry) -> Signer:
        protected = _decode(place, given.protected, _Protected)
        if protected.alg != "ES256":
            raise MalformedEntryError(place=place, detail=f"alg {protected.alg[:20]}")
        thumbprint = _unbase64url(place, protected.x5t_s256)
        signer = self.trust.signers.get(thumbprint)
        if signer is None:
            raise UnknownSignerError(place=place, thumbprint=thumbprint.hex()[:64])
        signature = _unbase64url(place, given.signature)
        signed = f"{given.protected}.{given.payload}".encode()
        try:  # a signature of another length is cut or padded here and does not verify
            r, s = (int.from_bytes(part) for part in (signature[:_POINT_BYTES], signature[_POINT_BYTES:]))
            self._key_of(signer).verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as error:
            raise SignatureBrokenError(
                place=place, unique_id=given.header.uniqueId[:64] or "unnamed", signer=signer.name
            ) from error
        return signer

    def _key_of(self, signer: Signer) -> ec.EllipticCurvePublicKey:
        if (key := self._keys.get(signer.thumbprint)) is None:
            point = b"\x04" + signer.public_point
            key = self._keys[signer.thumbprint] = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        return key

    def _check_new(self, place: int, unique_id: str) -> None:
        mark = hashlib.sha256(unique_id.lower().encode()).digest()
        if mark in self._seen:
            raise DuplicateEntryError(place=place, unique_id=unique_id)
        self._seen.add(mark)

    def _check_certificate(
        self, place: int, unique_id: str, keys: list[_Key]
    ) -> tuple[Certificate | None, Certificate | None]:
        holder = next((key for key in keys if key.x5c), None)
        if holder is None:
            return None, None
        facts: dict[str, Any] = {"place": place, "unique_id": unique_id}
        if len(holder.x5c) < 2:  # noqa: PLR2004 - device and signer
            raise ChainBrokenError(detail="the signer certificate is missing", **facts)
        device = _certificate(place, holder.x5c[0])
        common_name = device.subject_cn or ""
        if common_name.lower() != f"sn{unique_id}".lower():
            raise NameMismatchError(common_name=common_name, **facts)
        if _point_of(device.public_key()) != _unbase64url(place, holder.x) + _unbase64url(place, holder.y):
            raise KeyMismatchError(**facts)
        issuer = self._issuer(place, holder.x5c[1], facts)
        if not is_signed_by(device, issuer):
            raise ChainBrokenError(detail="not signed by x5c[1]", **facts)
        return device, issuer

    def _issuer(self, place: int, text: str, facts: Mapping[str, Any]) -> Certificate:
        """Return the signer certificate of a chip; the same few sign all, so each is checked once."""
        mark = hashlib.sha256(text.encode()).digest()
        if (known := self._issuers.get(mark)) is not None:
            return known
        issuer = _certificate(place, text)
        if not any(_is_below(issuer, root) for root in self.trust.roots):
            detail = f"'{issuer.issuer_text}' is not an accepted root, or did not sign '{issuer.subject_text}'"
            raise ChainBrokenError(detail=detail, **facts)
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
        _point_of(certificate.public_key()),
        certificate.not_before,
        certificate.not_after,
    )


def root_of(certificate: Certificate) -> Root:
    """Return a root certificate as trust."""
    return Root(certificate.subject_cn or certificate.subject_text, _point_of(certificate.public_key()))


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
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + root.public_point)
    parsed = issuer.parsed
    try:
        hashed = parsed.signature_hash_algorithm
        if not isinstance(hashed, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
            return False
        key.verify(parsed.signature, parsed.tbs_certificate_bytes, ec.ECDSA(hashed))
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):  # an algorithm is read only when it is asked for
        return False
    return True


def _check_kinds(place: int, unique_id: str, keys: list[_Key]) -> None:
    """Raise `NotCheckedError` for a key that no certificate can be compared with."""
    for key in keys:
        if (key.kty, key.crv) != ("EC", "P-256"):
            detail = f"key {key.kid[:20]} is of {key.kty[:20]} {key.crv[:20]}"
            raise NotCheckedError(place=place, unique_id=unique_id, detail=detail)
        if any(len(_unbase64url(place, half)) != _POINT_BYTES for half in (key.x, key.y)):
            raise MalformedEntryError(place=place, detail=f"key {key.kid[:20]} is no point")


def _point_of(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return b""
    numbers = key.public_numbers()
    return numbers.x.to_bytes(_POINT_BYTES) + numbers.y.to_bytes(_POINT_BYTES) if key.key_size == 256 else b""  # noqa: PLR2004


def _certificate(place: int, text: str) -> Certificate:
    try:
        return parse_der(base64.b64decode(text, validate=True))
    except (
        ValueError,
        CertificateInvalidError,
    ) as error:  # b64decode is not content with binascii.Error
        raise MalformedEntryError(place=place, detail="x5c cannot be read") from error


def _moment(place: int, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise MalformedEntryError(place=place, detail="provisioningTimestamp is no time") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _unbase64url(place: int, text: str) -> bytes:
    if len(text) > MAX_ENTRY_BYTES:
        raise MalformedEntryError(place=place, detail=f"over {MAX_ENTRY_BYTES} bytes")
    try:
        # urlsafe_b64decode drops what is not in its alphabet without a word; validate after translating.
        raw = text.encode("ascii").translate(_URL_SAFE)
        return base64.b64decode(raw + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedEntryError(place=place, detail="base64url is broken") from error


_URL_SAFE = bytes.maketrans(b"-_+/", b"+/!!")


def _decode(place: int, text: str, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(_unbase64url(place, text), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedEntryError(place=place, detail=str(error)[:200]) from error


def _convert(place: int, raw: Mapping[str, Any], kind: type[Any]) -> Any:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise MalformedEntryError(place=place, detail=str(error)[:200]) from error
