"""A shipment that never was: chips with certificates and a signed manifest, to rehearse with.

One of them may be a real element's (or a software one's), which can then register; nobody keeps the others' keys.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from birthmark.clock import Clock, Entropy
from birthmark.manifests.writer import Chip, ManifestKey, write_manifest
from birthmark.pki.certificates import Certificate
from birthmark.pki.issue import Issuer, issue, new_serial, self_signed
from birthmark.pki.names import name_of
from birthmark.pki.profiles import DEVICE, ISSUING_CA, ROOT

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
    root_key, issuer_key, log_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    root = self_signed(ROOT, name_of(f"Rehearsal Root CA {tag}"), root_key, serial=new_serial(entropy), now=now)
    issuer = issue(
        ISSUING_CA,
        name_of(f"Rehearsal Signer {tag}"),
        issuer_key.public_key(),
        issuer=Issuer(root, root_key),
        serial=new_serial(entropy),
        now=now,
        lifetime=_LIFETIME,
    )
    log_name = name_of(f"Rehearsal Manifest Signer {tag}")
    log = self_signed(ROOT, log_name, log_key, serial=new_serial(entropy), now=now)

    def chips() -> Iterator[Chip]:
        if first is not None:
            yield first
        for number in range(count - (first is not None)):
            key = ec.generate_private_key(ec.SECP256R1())
            unique_id = f"0123{entropy.token(3).hex()}{number & 0xFFFFFF:06x}01"
            device = issue(
                DEVICE,
                name_of("sn" + unique_id.upper()),
                key.public_key(),
                issuer=Issuer(issuer, issuer_key),
                serial=new_serial(entropy),
                now=now,
                lifetime=_LIFETIME,
            )
            others = [ec.generate_private_key(ec.SECP256R1()).public_key() for _ in range(_KEYS_PER_CHIP - 1)]
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
