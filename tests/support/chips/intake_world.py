"""Stations and chips whose keys are plain: the rules of an intake without a token."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from birthmark.keys.file_key import FileKey
from birthmark.keys.possession import sign_nonce
from birthmark.manifests.bundle import line_format
from birthmark.manifests.bundle.accepted_stations_and_roots import BundleTrust
from birthmark.manifests.bundle.intake_records import ChipIntake
from birthmark.manifests.bundle.parallel_verifier import verify_all
from birthmark.manifests.bundle.station import RecordedLine, Station, open_station
from birthmark.manifests.manifest_entry import ManifestEntry
from birthmark.pki import certificate_profiles
from birthmark.pki.certificates import parse_pem
from support.fakes import FakeClock, SeededEntropy
from support.pki.pki_builders import Holder, a_ca, a_device

ROOT = a_ca("Maker Root")
ISSUER = a_ca("Maker Signer", parent=ROOT, profile=certificate_profiles.ISSUING_CA)


def a_chip(name: str = "chip-1", **options: Any) -> Holder:
    return a_device(ISSUER, name, **options)


def handle_of(chip: Holder) -> FileKey:
    return FileKey(Path("chip"), chip.private_key)


def a_wish(chip: Holder, board: str = "B-1", operator: str = "ann", root: str | None = None) -> ChipIntake:
    return ChipIntake(board, operator, (chip.certificate, ISSUER.certificate), root)


@dataclass
class Line:
    """A production line: a station's directory, its clock, and chips that are put in."""

    directory: Path
    clock: FakeClock = field(default_factory=FakeClock)
    entropy: SeededEntropy = field(default_factory=SeededEntropy)

    @contextmanager
    def station(self) -> Iterator[Station]:
        with open_station(self.directory, clock=self.clock, entropy=self.entropy, name=self.directory.name) as one:
            yield one

    def take(self, chip: Holder, board: str = "B-1", *, signer: Holder | None = None) -> RecordedLine:
        """Take a chip in; `signer` is the one that answers in its place."""
        with self.station() as station:
            return take(station, chip, board, signer=signer)

    def seal(self) -> Path:
        with self.station() as station:
            return station.seal()[0]

    @property
    def bundle(self) -> Path:
        return max(self.directory.glob("intake-*.jsonl"))

    @property
    def lines(self) -> list[bytes]:
        return self.bundle.read_bytes().splitlines()

    @property
    def trust(self) -> BundleTrust:
        return BundleTrust((parse_pem((self.directory / "station.pem").read_bytes()),), (ROOT.certificate,))

    def sealed(self, count: int, name: str = "chip") -> Path:
        """Take so many chips in and seal the bundle."""
        with self.station() as station:
            for number in range(count):
                take(station, a_chip(f"{name}-{number}"), f"{name.upper()}-{number}")
            return station.seal()[0]

    def sign(self, line: line_format.Line) -> bytes:
        """Sign a line with the station's key, whatever it says."""
        with self.station() as station:
            return line_format.render_line(line, station.identity.sign)


def take(station: Station, chip: Holder, board: str = "B-1", *, signer: Holder | None = None) -> RecordedLine:
    wish = a_wish(chip, board)
    asked = station.ask(wish)
    return station.take(wish, asked, sign_nonce(handle_of(signer or chip), asked.nonce))


def verified(lines: list[bytes], trust: BundleTrust) -> list[str]:
    """Return of each entry its board, else the code of its refusal."""
    found = verify_all(io.BytesIO(b"".join(line + b"\n" for line in lines)), trust)
    return [one.unique_id if isinstance(one, ManifestEntry) else one.code for one in found]


def chip_line(raw: bytes) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(raw)
    return said
