"""Bundles of a production line: the file itself, and what a trusted station may have signed."""

import io
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from birthmark.keys.file_key import FileKey
from birthmark.keys.possession import sign_nonce
from birthmark.manifests.bundle import line_format
from birthmark.manifests.bundle.accepted_stations_and_roots import BundleTrust
from birthmark.manifests.bundle.chip_proof_rules import nonce_of, station_name
from birthmark.manifests.bundle.intake_records import BundlePosition, ChipIntake
from birthmark.manifests.bundle.parallel_verifier import verify_all
from birthmark.manifests.errors import ManifestError
from birthmark.pki.certificates import parse_der
from fuzz import corpus
from fuzz.certificates import ISSUING, ROOT, use
from fuzz.manifest import CHIP_CERTIFICATE
from support.fakes import NOON

STATION = parse_der(corpus.one("certificate", "6signer"))
TRUST = BundleTrust((STATION,), (ROOT,))
BUNDLE, CHALLENGE, AT = "ab" * 16, "cd" * 32, line_format.render_time(NOON)
WISH = ChipIntake("B-1", "ann", (CHIP_CERTIFICATE, ISSUING), None)


def _sign(data: bytes) -> bytes:
    return corpus.SIGNER_KEY.sign(data, ec.ECDSA(hashes.SHA256()))


OPENING = line_format.render_line(
    line_format.OpeningLine(
        seq=0,
        at=AT,
        after=None,
        bundle=BUNDLE,
        station=station_name(STATION),
        certificate=line_format.render_certificate(STATION),
    ),
    _sign,
)
_CHIP = line_format.ChipLine(
    seq=1,
    at=AT,
    previous=line_format.digest(OPENING),
    board=WISH.board,
    operator=WISH.operator,
    key=line_format.key_digest(CHIP_CERTIFICATE),
    chain=tuple(line_format.render_certificate(one) for one in WISH.chain),
    root=None,
    challenge=CHALLENGE,
    proof=line_format.base64(
        sign_nonce(FileKey(Path("chip"), corpus.DEVICE_KEY), nonce_of(WISH, BundlePosition(BUNDLE, 1), CHALLENGE))
    ),
)
_CHIP_LINE = line_format.render_line(_CHIP, _sign)
_SEAL = line_format.render_line(
    line_format.SealLine(seq=2, at=AT, previous=line_format.digest(_CHIP_LINE), bundle=BUNDLE, chips=1), _sign
)
WHOLE = b"\n".join((OPENING, _CHIP_LINE, _SEAL)) + b"\n"
SAID = (
    msgspec.json.encode(_CHIP),
    msgspec.json.encode(
        line_format.SealLine(seq=1, at=AT, previous=line_format.digest(OPENING), bundle=BUNDLE, chips=0)
    ),
)


def read_file(data: bytes) -> None:
    """Whatever is in the file: refused lines, or entries whose every field can be used."""
    for entry in verify_all(io.BytesIO(data), TRUST):
        if isinstance(entry, ManifestError):
            assert entry.explain_cause().encode()
        else:
            _ = (entry.device_id, entry.intake)
            assert entry.certificate is not None
            use(entry.certificate)


def signed_line(data: bytes) -> None:
    """A line that a trusted station signed, after a good opening."""
    said = data[:-1] if data.endswith(b"}") else data
    line = said + b',"signature":"' + line_format.base64(_sign(said)).encode() + b'"}'
    read_file(OPENING + b"\n" + line + b"\n")
