"""Look at the device's certificate and key in files, and at what stands beside them."""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from birthmark.doctor.facts import IdentitySeen, LeafSeen, Setting
from birthmark.doctor.looking import bytes_of, seen
from birthmark.errors import BirthmarkError
from birthmark.keys.file_key import FileKey
from birthmark.keys.handles import uri_in
from birthmark.keys.pin import Pin
from birthmark.keys.reference import MAX_KEY_FILE_BYTES, parse_reference_key, reference_public_key
from birthmark.pki.certificates import MAX_BUNDLE_BYTES, Certificate, is_signed_by, parse_bundle, parse_der

_MAX_BESIDE = 50
_DER = b"\x30"


def look(
    settings: Mapping[str, Setting], environment: Mapping[str, str], data: Path | None, now: datetime
) -> IdentitySeen | None:
    """Return what the files are that the environment names; None where it names none."""
    certificate, key = settings.get("X509_CERT_FILE"), settings.get("X509_KEY_FILE")
    if certificate is None and key is None:
        return None
    facts: dict[str, object] = {"certificate": certificate, "key": key}
    facts["registration_id"] = settings.get("DPS_X509_REGISTRATION_ID")
    chain: tuple[Certificate, ...] = ()
    if certificate is not None:
        chain = _read_certificate(Path(certificate.value), facts, now)
    if key is not None:
        _read_key(Path(key.value), facts, environment)
    public = facts.get("key_public")
    if certificate is not None and public and (not chain or facts["leaf"].public != public):  # type: ignore[attr-defined] # a LeafSeen
        facts["matching_certificate"] = _certificate_of(str(public), _beside(certificate, key))
    if key is not None and chain and not public:
        facts["matching_key"] = _key_of(chain[0], _beside(key, certificate), environment)
    if chain:
        facts |= _above(chain[-1], _beside(certificate, key), data)
    return IdentitySeen(**facts)  # type: ignore[arg-type] # by name


def _read_certificate(path: Path, facts: dict[str, object], now: datetime) -> tuple[Certificate, ...]:
    facts["certificate_file"] = seen(path)
    raw = bytes_of(path, MAX_BUNDLE_BYTES)
    if not raw:
        return ()
    facts["is_key_in_certificate"] = b"PRIVATE KEY-----" in raw and b"BEGIN CERTIFICATE" not in raw
    if raw.startswith(_DER):
        with contextlib.suppress(BirthmarkError):
            parse_der(raw)
            facts["is_der"] = True
            return ()
    try:
        chain = parse_bundle(raw)
    except BirthmarkError as error:
        facts |= {"certificate_code": error.code, "certificate_cause": error.explain_cause()}
        return ()
    leaf = chain[0]
    facts["leaf"] = LeafSeen(
        leaf.subject_text,
        leaf.subject_cn or "",
        _digest_of(leaf.public_key()),
        f"{leaf.not_before:%Y-%m-%d %H:%M}",
        f"{leaf.not_after:%Y-%m-%d %H:%M}",
        is_expired=now > leaf.not_after,
        is_early=now < leaf.not_before,
    )
    return chain


def _read_key(path: Path, facts: dict[str, object], environment: Mapping[str, str]) -> None:
    raw = bytes_of(path, MAX_KEY_FILE_BYTES)
    if raw and uri_in(raw) is not None:
        return  # a key in a token: looked at with the chip
    facts["key_file"] = seen(path)
    facts["is_certificate_in_key"] = b"BEGIN CERTIFICATE" in raw and b"PRIVATE KEY-----" not in raw
    try:
        facts["key_public"] = _digest_of(FileKey.load(path, _passphrase(environment)).public_key)
    except BirthmarkError as error:
        facts |= {"key_code": error.code, "key_cause": error.explain_cause()}
    if (object_id := parse_reference_key(raw)) is not None:
        real = reference_public_key(raw)
        facts |= {"object_id": object_id, "reference_public": "" if real is None else _digest_of(real)}


def _passphrase(environment: Mapping[str, str]) -> Pin | None:
    phrase = environment.get("PASS_PHRASE") or environment.get("X509_PASS_PHRASE")
    return Pin(phrase) if phrase else None


def _digest_of(key: object) -> str:
    der: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined] # any public key
    return hashlib.sha256(der).hexdigest()


def _beside(*settings: Setting | None) -> list[Path]:
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


def _above(last: Certificate, paths: list[Path], data: Path | None) -> dict[str, object]:
    """Return the issuer of a chain's end, where that is no root, and the directory of a CA that has its key."""
    directories = [path for path in {one.parent / "ca" for one in paths} if path.is_dir()]
    directories += [] if data is None else [data / "ca"]
    known = [one for directory in directories for one in sorted(directory.glob("*.pem"))]
    facts: dict[str, object] = {}
    for path, chain in _chains([*paths, *known]):
        if (
            not last.is_self_signed
            and chain[0].is_ca
            and is_signed_by(last, chain[0])
            and chain[0].subject == last.issuer
        ):
            is_root = chain[0].is_self_signed
            facts.setdefault("issuer", "" if is_root else str(path))
            if path.with_suffix(".key").exists():
                facts["ca"] = str(path.parent)
    return facts
