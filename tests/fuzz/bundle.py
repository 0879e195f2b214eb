"""Bundles of a production line: the file itself, and what a trusted station may have signed."""

import io
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from birthmark.keys.file_key import FileKey
from birthmark.keys.possession import sign_nonce
from birthmark.manifests.bundle import wire
from birthmark.manifests.bundle.intake_records import BundlePosition, BundleTrust, ChipIntake
from birthmark.manifests.bundle.parallel_verifier import verify_all
from birthmark.manifests.bundle.rules import nonce_of, station_name
from birthmark.manifests.errors import ManifestError
from birthmark.pki.certificates import parse_der
from fuzz import corpus
from fuzz.certificates import ISSUING, ROOT, use
from fuzz.manifest import CHIP_CERTIFICATE
from support.fakes import NOON

STATION = parse_der(corpus.one("certificate", "6signer"))
TRUST = BundleTrust((STATION,), (ROOT,))
BUNDLE, CHALLENGE, AT = "ab" * 16, "cd" * 32, wire.render_time(NOON)
WISH = ChipIntake("B-1", "ann", (CHIP_CERTIFICATE, ISSUING), None)


def _sign(data: bytes) -> bytes:
    return corpus.SIGNER_KEY.sign(data, ec.ECDSA(hashes.SHA256()))


OPENING = wire.render_line(
    wire.OpeningLine(
        seq=0,
        at=AT,
        after=None,
        bundle=BUNDLE,
        station=station_name(STATION),
        certificate=wire.render_certificate(STATION),
    ),
    _sign,
)
_CHIP = wire.ChipLine(
    seq=1,
    at=AT,
    previous=wire.digest(OPENING),
    board=WISH.board,
    operator=WISH.operator,
    key=wire.key_digest(CHIP_CERTIFICATE),
    chain=tuple(wire.render_certificate(one) for one in WISH.chain),
    root=None,
    challenge=CHALLENGE,
    proof=wire.base64(
        sign_nonce(FileKey(Path("chip"), corpus.DEVICE_KEY), nonce_of(WISH, BundlePosition(BUNDLE, 1), CHALLENGE))
    ),
)
_CHIP_LINE = wire.render_line(_CHIP, _sign)
_SEAL = wire.render_line(wire.SealLine(seq=2, at=AT, previous=wire.digest(_CHIP_LINE), bundle=BUNDLE, chips=1), _sign)
WHOLE = b"\n".join((OPENING, _CHIP_LINE, _SEAL)) + b"\n"
SAID = (
    msgspec.json.encode(_CHIP),
    msgspec.json.encode(wire.SealLine(seq=1, at=AT, previous=wire.digest(OPENING), bundle=BUNDLE, chips=0)),
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
    line = said + b',"signature":"' + wire.base64(_sign(said)).encode() + b'"}'
    read_file(OPENING + b"\n" + line + b"\n")
