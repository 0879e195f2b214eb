"""A rehearsed shipment is believed as a supplier's own is, by the roots and the signer that are written beside it."""

import io
from pathlib import Path

import pytest

from birthmark.fleet.sample_shipment import make_bundle, make_rehearsal
from birthmark.manifests.bundle import parallel_verifier
from birthmark.manifests.bundle.accepted_stations_and_roots import BundleTrust
from birthmark.manifests.errors import ManifestError
from birthmark.manifests.manifest_entry import ManifestEntry
from birthmark.manifests.microchip_verifier import root_of, signer_of, trust_of
from birthmark.manifests.parallel_verification import verify_all
from birthmark.manifests.writer import ManifestChip
from birthmark.pki.certificates import parse_bundle, parse_pem
from support.fakes import FakeClock, SeededEntropy
from support.pki.pki_builders import a_ca, a_device, a_key


def verified(directory: Path) -> list[ManifestEntry | ManifestError]:
    """Verify a manifest as an operator does, with what lies beside it."""
    signer = signer_of(parse_pem((directory / "signer.pem").read_bytes()))
    roots = [root_of(one) for one in parse_bundle((directory / "root.pem").read_bytes())]
    with (directory / "manifest.json").open("rb") as file:
        return list(verify_all(file, trust_of([signer], roots)))


def test_each_chip_of_a_rehearsal_is_vouched_for_and_of_its_own_name(tmp_path: Path) -> None:
    made = make_rehearsal(tmp_path / "new", 3, FakeClock(), SeededEntropy())
    entries = [one for one in verified(tmp_path / "new") if isinstance(one, ManifestEntry)]
    assert (made["entries"], len(entries)) == (3, 3)
    assert len({entry.device_id for entry in entries}) == 3
    assert [entry.device_id for entry in entries] == [f"sn{entry.unique_id.upper()}" for entry in entries]
    assert {entry.provisioned_at for entry in entries} == {FakeClock().now()}


def test_the_chip_at_hand_is_the_first_and_its_makers_root_is_one_of_the_roots(tmp_path: Path) -> None:
    root, key = a_ca("Maker"), a_key()
    device = a_device(root, "sn0123000000000001ff", key=key)
    chip = ManifestChip("0123000000000001FF", [key.public_key()], (device.certificate, root.certificate))
    made = make_rehearsal(tmp_path, 2, FakeClock(), SeededEntropy(), first=chip, first_roots=[root.certificate])
    first, second = verified(tmp_path)
    assert made["entries"] == 2
    assert isinstance(first, ManifestEntry)
    assert isinstance(second, ManifestEntry)
    assert first.certificate == device.certificate


def test_no_manifest_is_written_over_another(tmp_path: Path) -> None:
    make_rehearsal(tmp_path, 1, FakeClock(), SeededEntropy())
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(FileExistsError):
        make_rehearsal(tmp_path, 1, FakeClock(), SeededEntropy(1))
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_a_rehearsed_bundle_holds_a_proof_of_each_chip(tmp_path: Path) -> None:
    made = make_bundle(tmp_path, 2, FakeClock(), SeededEntropy())
    station, roots = (parse_bundle(Path(made[name]).read_bytes()) for name in ("station", "root"))
    found = list(
        parallel_verifier.verify_all(io.BytesIO(Path(made["bundle"]).read_bytes()), BundleTrust(station, roots))
    )
    entries = [one for one in found if isinstance(one, ManifestEntry)]
    assert made["entries"] == len(entries) == len(found) == 2
    assert [entry.intake.board for entry in entries if entry.intake is not None] == ["board-000001", "board-000002"]
    assert all(entry.intake is not None and entry.intake.checked_now for entry in entries)
