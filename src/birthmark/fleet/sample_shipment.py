"""Simulated shipment for rehearsals: secure elements with certificates, and a signed manifest or bundle.

One entry may belong to a real or simulated secure element, which can then register; the keys of the others are not
stored.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from birthmark import atomic_files
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.keys.file_key import FileKey
from birthmark.keys.possession import sign_nonce
from birthmark.manifests.bundle.intake_records import ChipIntake
from birthmark.manifests.bundle.station import open_station
from birthmark.manifests.writer import ManifestChip, ManifestKey, write_manifest
from birthmark.pki.certificate_profiles import DEVICE, ISSUING_CA, ROOT, CertificateProfile
from birthmark.pki.certificates import Certificate
from birthmark.pki.issuance import LeafIssuer, issue, new_serial, self_signed
from birthmark.pki.names_and_registration_ids import name_of

_KEYS_PER_CHIP = 5
_LIFETIME = timedelta(days=28 * 365)


def make_rehearsal(
    directory: Path,
    count: int,
    clock: Clock,
    entropy: Entropy,
    *,
    first: ManifestChip | None = None,
    first_roots: Sequence[Certificate] = (),
) -> dict[str, Any]:
    """Write a manifest of `count` chips (`first` among them) with its signer's certificate and the roots."""
    directory.mkdir(parents=True, exist_ok=True)
    maker, log_key = _Manufacturer.new(clock, entropy), _new_key()
    log = maker.own(f"Rehearsal Manifest Signer {maker.tag}", log_key)

    def chips() -> Iterator[ManifestChip]:
        if first is not None:
            yield first
        for number in range(count - (first is not None)):
            unique_id, key, device = maker.chip(number)
            others = [_new_key().public_key() for _ in range(_KEYS_PER_CHIP - 1)]
            yield ManifestChip(unique_id, [key.public_key(), *others], (device, maker.issuer.certificate))

    manifest = directory / "manifest.json"
    with manifest.open("x", encoding="ascii") as file:
        entries = write_manifest(file, chips(), ManifestKey(log, log_key), maker.now)
    atomic_files.put(directory / "signer.pem", log.pem().encode())
    roots = (maker.root, *first_roots)
    atomic_files.put(directory / "root.pem", "".join(root.pem() for root in roots).encode())
    return {
        "entries": entries,
        "manifest": str(manifest),
        "signer": str(directory / "signer.pem"),
        "root": str(directory / "root.pem"),
    }


def make_bundle(directory: Path, count: int, clock: Clock, entropy: Entropy) -> dict[str, Any]:
    """Run intake for `count` simulated chips at a new station, seal its bundle, and write the root certificate."""
    maker, station_directory = _Manufacturer.new(clock, entropy), directory / "station"
    above = maker.issuer.certificate
    with open_station(station_directory, clock=clock, entropy=entropy, name="rehearsal") as station:
        for number in range(count):
            _, key, device = maker.chip(number)
            wish = ChipIntake(f"board-{number + 1:06}", "rehearsal", (device, above), maker.root.subject_cn)
            asked = station.ask(wish)
            station.take(wish, asked, sign_nonce(FileKey(station_directory, key), asked.nonce))
        bundle, chips = station.seal()
    atomic_files.put(directory / "root.pem", maker.root.pem().encode())
    return {
        "entries": chips,
        "bundle": str(bundle),
        "station": str(station_directory / "station.pem"),
        "root": str(directory / "root.pem"),
    }


@dataclass(frozen=True, slots=True)
class _Manufacturer:
    """A simulated manufacturer of secure elements, with a root and an issuing CA."""

    tag: str
    root: Certificate
    issuer: LeafIssuer
    now: datetime
    entropy: Entropy

    @classmethod
    def new(cls, clock: Clock, entropy: Entropy) -> "_Manufacturer":
        tag, now = entropy.token(2).hex().upper(), clock.now()
        root_key, issuer_key = _new_key(), _new_key()
        name = name_of(f"Rehearsal Root CA {tag}")
        root = self_signed(ROOT, name, root_key, serial=new_serial(entropy), now=now)
        made = cls(tag, root, LeafIssuer(root, root_key), now, entropy)
        above = made._issued(ISSUING_CA, f"Rehearsal Signer {tag}", issuer_key)
        return replace(made, issuer=LeafIssuer(above, issuer_key))

    def own(self, name: str, key: ec.EllipticCurvePrivateKey) -> Certificate:
        """Return a self-signed certificate."""
        return self_signed(ROOT, name_of(name), key, serial=new_serial(self.entropy), now=self.now)

    def chip(self, number: int) -> tuple[str, ec.EllipticCurvePrivateKey, Certificate]:
        """Return the ID, key and certificate of a secure element."""
        key = _new_key()
        unique_id = f"0123{self.entropy.token(3).hex()}{number & 0xFFFFFF:06x}01"
        return unique_id, key, self._issued(DEVICE, "sn" + unique_id.upper(), key)

    def _issued(self, profile: CertificateProfile, name: str, key: ec.EllipticCurvePrivateKey) -> Certificate:
        given: dict[str, Any] = {"serial": new_serial(self.entropy), "now": self.now, "lifetime": _LIFETIME}
        return issue(profile, name_of(name), key.public_key(), issuer=self.issuer, **given)


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())
