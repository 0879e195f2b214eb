"""P11: one entry of a supplier's manifest, verified: its signature, its certificate's, names and keys."""

import io
import json
import time

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from rig import Rig

from birthmark.manifests.manifest_entry import ManifestEntry
from birthmark.manifests.microchip_verifier import root_of, signer_of, trust_of
from birthmark.manifests.parallel_verification import verify_all
from birthmark.manifests.writer import ManifestChip, ManifestKey, render_entry
from birthmark.pki import certificate_profiles
from measures.measure import Measure, Sample
from support.pki.pki_builders import a_ca, a_device, a_key

ENTRIES = 400


class ManifestMeasure(Measure):
    """Beside one verification of P-256 by the library; an entry needs two. Both in this process, CPU time."""

    name, title, peer = "P11", "manifest entry", "one raw verification"
    unit, gate, aim = "us", 3.03, 2.63

    def __init__(self, rig: Rig) -> None:
        root, log = a_ca("Rehearsal Root", now=rig.now), a_ca("Manifest Signer", now=rig.now)
        issuer = a_ca("Signer 0001", parent=root, profile=certificate_profiles.ISSUING_CA, now=rig.now)
        assert isinstance(log.private_key, ec.EllipticCurvePrivateKey)
        signer = ManifestKey(log.certificate, log.private_key)
        self._trust = trust_of([signer_of(log.certificate)], [root_of(root.certificate)])
        entries = []
        for number in range(ENTRIES):
            unique_id, key = f"0123{number:012x}01", a_key()
            device = a_device(issuer, f"sn{unique_id.upper()}", key=key, now=rig.now)
            chip = ManifestChip(
                unique_id, [key.public_key(), a_key().public_key()], (device.certificate, issuer.certificate)
            )
            entries.append(render_entry(chip, signer, rig.now))
        self._manifest = json.dumps(entries).encode()
        self._key = log.private_key

    def round(self) -> Sample:
        began = time.process_time()
        good = sum(isinstance(entry, ManifestEntry) for entry in verify_all(io.BytesIO(self._manifest), self._trust))
        entry_us = (time.process_time() - began) / ENTRIES * 1e6
        assert good == ENTRIES, f"{good} of {ENTRIES} entries were good"
        return Sample(entry_us, self._raw_us())

    def _raw_us(self) -> float:
        data, algorithm = b"x" * 1000, ec.ECDSA(hashes.SHA256())
        signature, public = self._key.sign(data, algorithm), self._key.public_key()
        began = time.process_time()
        for _ in range(ENTRIES):
            public.verify(signature, data, algorithm)
        return (time.process_time() - began) / ENTRIES * 1e6
