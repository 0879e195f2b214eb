"""Inspection of the device's certificate and key files, and of adjacent files."""

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

from birthmark.ca.root_generation_directories import directories_of
from birthmark.doctor.facts import IdentityFacts, LeafFacts
from birthmark.doctor.file_inspection import bytes_of, inspect_file
from birthmark.doctor.setting_sources import SourcedSetting
from birthmark.errors import BirthmarkError
from birthmark.keys.errors import KeyFileInvalidError
from birthmark.keys.file_key import FileKey, pem_of_key
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_uri_files import uri_in
from birthmark.keys.se050_reference_keys import MAX_KEY_FILE_BYTES, parse_reference_key, reference_public_key
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


def inspect_identity(
    settings: Mapping[str, SourcedSetting], environment: Mapping[str, str], data: Path | None, now: datetime
) -> IdentityFacts | None:
    """Return the facts of the files that the environment names; None if it names none."""
    certificate, key = settings.get("X509_CERT_FILE"), settings.get("X509_KEY_FILE")
    if certificate is None and key is None:
        return None
    found = IdentityFacts(certificate, key, registration_id=settings.get("DPS_X509_REGISTRATION_ID"))
    chain: tuple[Certificate, ...] = ()
    if certificate is not None:
        found, chain = _with_certificate(found, Path(certificate.value), now)
    if key is not None:
        found = _with_key(found, Path(key.value), environment)
    return _with_adjacent_files(found, chain, environment, data)


def _with_adjacent_files(
    facts: IdentityFacts, chain: tuple[Certificate, ...], environment: Mapping[str, str], data: Path | None
) -> IdentityFacts:
    paths = _list_adjacent_files(facts.certificate, facts.key)
    if facts.key_public and (facts.leaf is None or facts.leaf.public != facts.key_public):
        facts = replace(facts, matching_certificate=_certificate_of(facts.key_public, paths))
    if chain and not facts.key_public:
        facts = replace(facts, matching_key=_key_of(chain[0], paths, environment))
    if chain:
        issuer, ca = _find_issuer_file(chain[-1], paths, data)
        facts = replace(facts, issuer=issuer, ca=ca)
    return facts


def _with_certificate(facts: IdentityFacts, path: Path, now: datetime) -> tuple[IdentityFacts, tuple[Certificate, ...]]:
    facts = replace(facts, certificate_file=inspect_file(path))
    raw = bytes_of(path, MAX_BUNDLE_BYTES)
    if not raw:
        return facts, ()
    facts = replace(facts, is_key_in_certificate=b"PRIVATE KEY-----" in raw and b"BEGIN CERTIFICATE" not in raw)
    if raw.startswith(_DER):
        with contextlib.suppress(BirthmarkError):
            parse_der(raw)
            return replace(facts, is_der=True), ()
    try:
        chain = parse_bundle(raw)
    except BirthmarkError as error:
        return replace(facts, certificate_code=error.code, certificate_cause=error.explain_cause()), ()
    if chain[0].der not in map(base64.b64decode, _PEM.findall(raw)):
        cause = f"{path} is not PEM, the format that programs read."
        return replace(facts, certificate_code=CertificateInvalidError.code, certificate_cause=cause), ()
    return replace(facts, leaf=_leaf(chain[0], now)), chain


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


def _with_key(facts: IdentityFacts, path: Path, environment: Mapping[str, str]) -> IdentityFacts:
    if path.is_fifo():
        return replace(facts, key_file=inspect_file(path))
    raw = bytes_of(path, MAX_KEY_FILE_BYTES)
    if raw and uri_in(raw) is not None:
        return facts  # a token key: checked with the chip
    given, raw = raw, pem_of_key(raw)
    is_certificate = b"BEGIN CERTIFICATE" in raw and b"PRIVATE KEY-----" not in raw
    facts = replace(facts, key_file=inspect_file(path), is_certificate_in_key=is_certificate)
    if (object_id := parse_reference_key(raw)) is not None:
        real = reference_public_key(raw)
        facts = replace(facts, object_id=object_id, reference_public="" if real is None else _digest_of(real))
    try:
        public = _digest_of(FileKey.load(path, _passphrase(environment)).public_key)
    except BirthmarkError as error:
        return replace(facts, key_code=error.code, key_cause=error.explain_cause())
    if raw != given:
        cause = f"{path} is not PEM, the format that programs read."
        return replace(facts, key_public=public, key_code=KeyFileInvalidError.code, key_cause=cause)
    return replace(facts, key_public=public)


def _passphrase(environment: Mapping[str, str]) -> Pin | None:
    phrase = environment.get("PASS_PHRASE") or environment.get("X509_PASS_PHRASE")
    return Pin(phrase) if phrase else None


def _digest_of(key: CertificatePublicKeyTypes) -> str:
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _list_adjacent_files(*settings: SourcedSetting | None) -> list[Path]:
    """Return the files in the directories of these settings, nearest first."""
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


def _find_issuer_file(last: Certificate, paths: list[Path], data: Path | None) -> tuple[str, str]:
    """Return the file of a chain's issuer unless it is a root, and the CA directory that holds its key."""
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
