"""Look at the device's certificate and key in files, and at what stands beside them."""

import base64
import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from birthmark.ca.generations import directories_of
from birthmark.doctor.facts import IdentityFacts, LeafFacts
from birthmark.doctor.file_inspection import bytes_of, seen
from birthmark.doctor.setting_sources import SourcedSetting
from birthmark.errors import BirthmarkError
from birthmark.keys.errors import KeyFileInvalidError
from birthmark.keys.file_key import FileKey, pem_of_key
from birthmark.keys.pin import Pin
from birthmark.keys.private_key import uri_in
from birthmark.keys.reference_keys import MAX_KEY_FILE_BYTES, parse_reference_key, reference_public_key
from birthmark.pki.certificates import (
    MAX_BUNDLE_BYTES,
    Certificate,
    CertificateInvalidError,
    is_signed_by,
    parse_bundle,
    parse_der,
)

_MAX_BESIDE = 50
_DER = b"\x30"
_LABEL = rb"(?:X509 |TRUSTED )?CERTIFICATE"
_PEM = re.compile(rb"^-----BEGIN %b-----\r?\n([A-Za-z0-9+/=\s]*)-----END %b-----" % (_LABEL, _LABEL), re.MULTILINE)


def look(
    settings: Mapping[str, SourcedSetting], environment: Mapping[str, str], data: Path | None, now: datetime
) -> IdentityFacts | None:
    """Return what the files are that the environment names; None where it names none."""
    certificate, key = settings.get("X509_CERT_FILE"), settings.get("X509_KEY_FILE")
    if certificate is None and key is None:
        return None
    found = IdentityFacts(certificate, key, registration_id=settings.get("DPS_X509_REGISTRATION_ID"))
    chain: tuple[Certificate, ...] = ()
    if certificate is not None:
        found, chain = _with_certificate(found, Path(certificate.value), now)
    if key is not None:
        found = _with_key(found, Path(key.value), environment)
    return _with_what_is_beside(found, chain, environment, data)


def _with_what_is_beside(
    found: IdentityFacts, chain: tuple[Certificate, ...], environment: Mapping[str, str], data: Path | None
) -> IdentityFacts:
    paths = _beside(found.certificate, found.key)
    if found.key_public and (found.leaf is None or found.leaf.public != found.key_public):
        found = replace(found, matching_certificate=_certificate_of(found.key_public, paths))
    if chain and not found.key_public:
        found = replace(found, matching_key=_key_of(chain[0], paths, environment))
    if chain:
        issuer, ca = _above(chain[-1], paths, data)
        found = replace(found, issuer=issuer, ca=ca)
    return found


def _with_certificate(found: IdentityFacts, path: Path, now: datetime) -> tuple[IdentityFacts, tuple[Certificate, ...]]:
    found = replace(found, certificate_file=seen(path))
    raw = bytes_of(path, MAX_BUNDLE_BYTES)
    if not raw:
        return found, ()
    found = replace(found, is_key_in_certificate=b"PRIVATE KEY-----" in raw and b"BEGIN CERTIFICATE" not in raw)
    if raw.startswith(_DER):
        with contextlib.suppress(BirthmarkError):
            parse_der(raw)
            return replace(found, is_der=True), ()
    try:
        chain = parse_bundle(raw)
    except BirthmarkError as error:
        return replace(found, certificate_code=error.code, certificate_cause=error.explain_cause()), ()
    if chain[0].der not in map(base64.b64decode, _PEM.findall(raw)):
        cause = f"{path} is not PEM, the format that programs read."
        return replace(found, certificate_code=CertificateInvalidError.code, certificate_cause=cause), ()
    return replace(found, leaf=_leaf(chain[0], now)), chain


def _leaf(leaf: Certificate, now: datetime) -> LeafFacts:
    return LeafFacts(
        leaf.subject_text,
        leaf.subject_cn or "",
        _digest_of(leaf.public_key()),
        f"{leaf.not_before:%Y-%m-%d %H:%M}",
        f"{leaf.not_after:%Y-%m-%d %H:%M}",
        is_expired=now > leaf.not_after,
        is_early=now < leaf.not_before,
    )


def _with_key(found: IdentityFacts, path: Path, environment: Mapping[str, str]) -> IdentityFacts:
    if path.is_fifo():
        return replace(found, key_file=seen(path))
    raw = bytes_of(path, MAX_KEY_FILE_BYTES)
    if raw and uri_in(raw) is not None:
        return found  # a key in a token: looked at with the chip
    given, raw = raw, pem_of_key(raw)
    is_certificate = b"BEGIN CERTIFICATE" in raw and b"PRIVATE KEY-----" not in raw
    found = replace(found, key_file=seen(path), is_certificate_in_key=is_certificate)
    if (object_id := parse_reference_key(raw)) is not None:
        real = reference_public_key(raw)
        found = replace(found, object_id=object_id, reference_public="" if real is None else _digest_of(real))
    try:
        public = _digest_of(FileKey.load(path, _passphrase(environment)).public_key)
    except BirthmarkError as error:
        return replace(found, key_code=error.code, key_cause=error.explain_cause())
    if raw != given:
        cause = f"{path} is not PEM, the format that programs read."
        return replace(found, key_public=public, key_code=KeyFileInvalidError.code, key_cause=cause)
    return replace(found, key_public=public)


def _passphrase(environment: Mapping[str, str]) -> Pin | None:
    phrase = environment.get("PASS_PHRASE") or environment.get("X509_PASS_PHRASE")
    return Pin(phrase) if phrase else None


def _digest_of(key: CertificatePublicKeyTypes) -> str:
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _beside(*settings: SourcedSetting | None) -> list[Path]:
    """Return the files in the directories of these, the nearest first."""
    directories = dict.fromkeys(Path(one.value).absolute().parent for one in settings if one is not None)
    found = [path for directory in directories for path in sorted(directory.glob("*")) if path.is_file()]
    return found[:_MAX_BESIDE]


def _chains(paths: list[Path]) -> Iterator[tuple[Path, tuple[Certificate, ...]]]:
    for path in paths:
        with contextlib.suppress(BirthmarkError):
            yield path, parse_bundle(bytes_of(path, MAX_BUNDLE_BYTES))


def _certificate_of(public: str, paths: list[Path]) -> str:
    return next((str(path) for path, chain in _chains(paths) if _digest_of(chain[0].public_key()) == public), "")


def _key_of(leaf: Certificate, paths: list[Path], environment: Mapping[str, str]) -> str:
    for path in paths:
        with contextlib.suppress(BirthmarkError):
            if FileKey.load(path, _passphrase(environment)).public_key == leaf.public_key():
                return str(path)
    return ""


def _above(last: Certificate, paths: list[Path], data: Path | None) -> tuple[str, str]:
    """Return the file of a chain's issuer, where that is no root, and the directory of the CA where its key is too."""
    if last.is_self_signed:
        return "", ""
    directories = [path for path in {one.parent / "ca" for one in paths} if path.is_dir()]
    directories += [] if data is None else directories_of(data)
    known = [one for directory in directories for one in sorted(directory.glob("*.pem"))]
    for path, chain in _chains([*paths, *known]):
        above = chain[0]
        if above.is_ca and above.subject == last.issuer and is_signed_by(last, above):
            ca = str(path.parent) if path.with_suffix(".key").exists() else ""
            return "" if above.is_self_signed else str(path), ca
    return "", ""
