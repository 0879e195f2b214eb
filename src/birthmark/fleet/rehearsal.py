"""A shipment that never was: chips with certificates and a signed manifest, to rehearse with.

One of them may be a real element's (or a software one's), which can then register; nobody keeps the others' keys.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from birthmark.clock import Clock, Entropy
from birthmark.manifests.writer import Chip, ManifestKey, write_manifest
from birthmark.pki.certificates import Certificate
from birthmark.pki.issue import Issuer, issue, new_serial, self_signed
from birthmark.pki.names import name_of
from birthmark.pki.profiles import DEVICE, ISSUING_CA, ROOT, Profile

_KEYS_PER_CHIP = 5
_LIFETIME = timedelta(days=28 * 365)


def make_rehearsal(
    directory: Path,
    count: int,
    clock: Clock,
    entropy: Entropy,
    *,
    first: Chip | None = None,
    first_roots: Sequence[Certificate] = (),
) -> dict[str, Any]:
    """Write a manifest of `count` chips (`first` among them) with its signer's certificate and the roots."""
    directory.mkdir(parents=True, exist_ok=True)
    now = clock.now()
    tag = entropy.token(2).hex().upper()
    root_key, issuer_key, log_key = (_new_key() for _ in range(3))
    serial = partial(new_serial, entropy)
    root = self_signed(ROOT, name_of(f"Rehearsal Root CA {tag}"), root_key, serial=serial(), now=now)
    log = self_signed(ROOT, name_of(f"Rehearsal Manifest Signer {tag}"), log_key, serial=serial(), now=now)

    def issued(profile: Profile, name: str, key: ec.EllipticCurvePrivateKey, by: Issuer) -> Certificate:
        subject, public_key = name_of(name), key.public_key()
        return issue(profile, subject, public_key, issuer=by, serial=serial(), now=now, lifetime=_LIFETIME)

    issuer = issued(ISSUING_CA, f"Rehearsal Signer {tag}", issuer_key, Issuer(root, root_key))

    def chips() -> Iterator[Chip]:
        if first is not None:
            yield first
        for number in range(count - (first is not None)):
            key = _new_key()
            unique_id = f"0123{entropy.token(3).hex()}{number & 0xFFFFFF:06x}01"
            device = issued(DEVICE, "sn" + unique_id.upper(), key, Issuer(issuer, issuer_key))
            others = [_new_key().public_key() for _ in range(_KEYS_PER_CHIP - 1)]
            yield Chip(unique_id, [key.public_key(), *others], (device, issuer))

    manifest = directory / "manifest.json"
    with manifest.open("w", encoding="ascii") as file:
        entries = write_manifest(file, chips(), ManifestKey(log, log_key), now)
    (directory / "signer.pem").write_text(log.pem(), encoding="ascii")
    (directory / "root.pem").write_text("".join(c.pem() for c in (root, *first_roots)), encoding="ascii")
    return {
        "entries": entries,
        "manifest": str(manifest),
        "signer": str(directory / "signer.pem"),
        "root": str(directory / "root.pem"),
    }


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())
