"""What of a line can be known by itself and its opening: the costly part, which any process may do.

In:   a line, after the opening of its bundle.
Out:  `LineFinding`: whether the station signed it, and the `ManifestEntry` that it says, or the `ManifestError`.
Whether it stands where it belongs is for `verify`, which sees the lines in their order.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec

from birthmark.manifests.bundle import wire
from birthmark.manifests.bundle.model import BundleTrust, ChipIntake, Intake
from birthmark.manifests.bundle.rules import believe, is_signed, station_key, station_name
from birthmark.manifests.errors import MalformedEntryError, ManifestError, SignerNotValidError
from birthmark.manifests.model import Judge, ManifestEntry, judged
from birthmark.pki.certificates import Certificate
from birthmark.pki.path_validation import SignatureCache

_MODEL = "chip on a board"


@dataclass(frozen=True, slots=True)
class BundleOpening:
    """What an opening says of the lines after it."""

    certificate: Certificate
    key: ec.EllipticCurvePublicKey
    name: str
    bundle: str

    def about(self, digest: str) -> str:
        """Return what a line with this digest is called under this opening: all that `LineChecker.look` depends on."""
        return f"{digest} {self.bundle} {self.certificate.thumbprint.hex()}"


class LineFinding(NamedTuple):
    """What was found out of one chip's line, which `about` names."""

    about: str
    is_signed: bool
    said: ManifestEntry | ManifestError | None
    """None where the station did not sign it."""


def opened_by(line: wire.OpeningLine) -> BundleOpening | None:
    """Return what an opening says; None for one that no station writes."""
    try:
        certificate = wire.parse_certificate(line.certificate)
        wire.parse_time(line.at)
    except MalformedEntryError:
        return None
    key = station_key(certificate)
    if key is None or line.seq or line.station != station_name(certificate) or not wire.is_bundle_id(line.bundle):
        return None
    return BundleOpening(certificate, key, line.station, line.bundle)


@dataclass(slots=True)
class LineChecker:
    """Looks at lines; with a `judge`, entries have the doubts about them."""

    trust: BundleTrust
    judge: Judge | None = None
    _cache: SignatureCache = field(default_factory=SignatureCache)

    def look(self, signed: wire.SignedLine, line: wire.ChipLine, digest: str, opened: BundleOpening) -> LineFinding:
        """Return what there is to know of a chip's line."""
        about = opened.about(digest)
        if not is_signed(signed, opened.key):
            return LineFinding(about, is_signed=False, said=None)
        try:
            wish, intake = believe(line, opened.bundle, opened.name, self.trust, self._cache)
            if not opened.certificate.not_before <= intake.at <= opened.certificate.not_after:
                raise SignerNotValidError(provisioned_at=line.at, signer=opened.name)
        except ManifestError as error:
            return LineFinding(about, is_signed=True, said=error)
        return LineFinding(about, is_signed=True, said=judged(_entry(wish, intake), self.judge))


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
