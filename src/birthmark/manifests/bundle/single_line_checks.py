"""Context-free checks of a bundle line: the expensive part, which any process may run.

Input: a line, after the opening of its bundle. Output: `LineFinding`: whether the station signed it, and its
`ManifestEntry` or `ManifestError`. The order of lines is checked by `verify`, which sees them in sequence.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec

from birthmark.manifests.bundle import line_format
from birthmark.manifests.bundle.accepted_stations_and_roots import BundleTrust
from birthmark.manifests.bundle.chip_proof_rules import is_signed, station_key, station_name, verify_chip_line
from birthmark.manifests.bundle.intake_records import ChipIntake, Intake
from birthmark.manifests.errors import MalformedEntryError, ManifestError, SignerNotValidError
from birthmark.manifests.manifest_entry import Judge, ManifestEntry, add_doubts
from birthmark.pki.certificates import Certificate
from birthmark.pki.path_validation import SignatureCache

_MODEL = "chip on a board"


@dataclass(frozen=True, slots=True)
class BundleOpening:
    """Content of an opening that applies to the lines after it."""

    certificate: Certificate
    key: ec.EllipticCurvePublicKey
    name: str
    bundle: str

    def line_key(self, digest: str) -> str:
        """Return the key of a line with this digest under this opening, on which `LineChecker.look` depends."""
        return f"{digest} {self.bundle} {self.certificate.thumbprint.hex()}"


class LineFinding(NamedTuple):
    """Result of checking a chip's line, identified by `about`."""

    about: str
    is_signed: bool
    said: ManifestEntry | ManifestError | None
    """None if the station did not sign it."""


def find_opening(line: line_format.OpeningLine) -> BundleOpening | None:
    """Return the content of an opening; None if no station writes such an opening."""
    try:
        certificate = line_format.parse_certificate(line.certificate)
        line_format.parse_time(line.at)
    except MalformedEntryError:
        return None
    key = station_key(certificate)
    if (
        key is None
        or line.seq
        or line.station != station_name(certificate)
        or not line_format.is_bundle_id(line.bundle)
    ):
        return None
    return BundleOpening(certificate, key, line.station, line.bundle)


@dataclass(slots=True)
class LineChecker:
    """Checks lines; with a `judge`, entries include its doubts."""

    trust: BundleTrust
    judge: Judge | None = None
    _cache: SignatureCache = field(default_factory=SignatureCache)

    def check_line(
        self, signed: line_format.SignedLine, line: line_format.ChipLine, digest: str, opened: BundleOpening
    ) -> LineFinding:
        """Return the result of checking a chip's line."""
        about = opened.line_key(digest)
        if not is_signed(signed, opened.key):
            return LineFinding(about, is_signed=False, said=None)
        try:
            wish, intake = verify_chip_line(line, opened.bundle, opened.name, self.trust, self._cache)
            if not opened.certificate.not_before <= intake.at <= opened.certificate.not_after:
                raise SignerNotValidError(provisioned_at=line.at, signer=opened.name)
        except ManifestError as error:
            return LineFinding(about, is_signed=True, said=error)
        return LineFinding(about, is_signed=True, said=add_doubts(_entry(wish, intake), self.judge))


def _entry(wish: ChipIntake, intake: Intake) -> ManifestEntry:
    return ManifestEntry(
        unique_id=wish.board,
        model=_MODEL,
        part_number=f"intake at {intake.station}",
        group_id=None,
        provisioned_at=intake.at,
        signer=intake.station,
        device_der=wish.chain[0].der,
        common_name=wish.chain[0].subject_cn,
        issuer_der=wish.chain[1].der if wish.chain[1:] else None,
        key_ids=("0",),
        intake=intake,
    )
