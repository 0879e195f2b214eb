"""Rules: the nonce that a chip signs, intake checks, and verification of a chip's line."""

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from birthmark.keys.possession import check_nonce
from birthmark.manifests.bundle.accepted_stations_and_roots import BundleTrust
from birthmark.manifests.bundle.chip_intake_errors import NameUnusableError
from birthmark.manifests.bundle.intake_records import BundlePosition, ChipIntake, Intake
from birthmark.manifests.bundle.line_format import (
    FORMAT,
    MAX_CHAIN,
    ChipLine,
    SignedLine,
    is_digest,
    is_name,
    key_digest,
    parse_certificate,
    parse_issuer,
    parse_time,
    unbase64,
)
from birthmark.manifests.errors import ChainBrokenError, KeyMismatchError, MalformedEntryError
from birthmark.pki.certificates import Certificate
from birthmark.pki.fast_certificate_parser import P256_SPKI
from birthmark.pki.path_validation import SignatureCache, build_chain
from birthmark.pki.single_certificate_checks import ChainError

ES256 = ec.ECDSA(hashes.SHA256())


def nonce_of(intake: ChipIntake, position: BundlePosition, challenge: str) -> bytes:
    """Return the nonce for the chip to sign: valid once, for this chip, board, operator and line."""
    thumbprint = intake.chain[0].thumbprint.hex()
    said = (FORMAT, position.bundle, str(position.seq), challenge, thumbprint, intake.board, intake.operator)
    return "\n".join(said).encode()


def check_names(**names: str) -> None:
    """Raise `NameUnusableError` for the first invalid name."""
    for what, text in names.items():
        if not is_name(text):
            raise NameUnusableError(what=what, text=text)


def check_proof(intake: ChipIntake, nonce: bytes, proof: bytes) -> bool:
    """Return whether the key of the chip's certificate signed the nonce."""
    key = intake.chain[0].public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        return False
    try:
        check_nonce(key, nonce, proof)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def station_key(certificate: Certificate) -> ec.EllipticCurvePublicKey | None:
    """Return the P-256 key of a station's certificate; None for other key types."""
    key = certificate.public_key()
    is_p256 = certificate.spki_der.startswith(P256_SPKI)
    return key if is_p256 and isinstance(key, ec.EllipticCurvePublicKey) else None


def station_name(certificate: Certificate) -> str:
    """Return a station's name from its certificate."""
    return certificate.subject_cn or certificate.thumbprint.hex()


def is_signed(signed: SignedLine, key: ec.EllipticCurvePublicKey | None) -> bool:
    """Return whether the station's key signed the line."""
    try:
        if key is None:
            return False
        key.verify(signed.signature, signed.signed, ES256)
    except (InvalidSignature, ValueError):
        return False
    return True


def path_above(
    chain: Sequence[Certificate], roots: Sequence[Certificate], timestamp: datetime, cache: SignatureCache
) -> tuple[Certificate, ...]:
    """Return the chain up to one of the roots, which may include intermediate CAs. Raise a `ChainError`."""
    anchors, between = _split_roots(tuple(roots))
    return build_chain(chain[0], [*chain[1:], *between], anchors, timestamp, allow_partial=True, cache=cache)


@lru_cache(maxsize=4)
def _split_roots(roots: tuple[Certificate, ...]) -> tuple[tuple[Certificate, ...], tuple[Certificate, ...]]:
    """Return trust anchors and intermediate CAs; without a self-signed one, each may be a trust anchor."""
    tops = tuple([one for one in roots if one.is_self_signed])
    return (tops, tuple([one for one in roots if one not in tops])) if tops else (roots, ())


def root_name(path: Sequence[Certificate]) -> str:
    """Return the display name of the end of a path."""
    return path[-1].subject_cn or path[-1].subject_text


def verify_chip_line(
    chip: ChipLine, bundle: str, station: str, trust: BundleTrust, cache: SignatureCache
) -> tuple[ChipIntake, Intake]:
    """Verify the chip's part of a line that its station signed, and return the chip and its intake data.

    Raise `MalformedEntryError`, `KeyMismatchError` if the chip did not prove possession of the certificate's key, or
    `ChainBrokenError`.
    """
    if not (is_name(chip.board) and is_name(chip.operator) and is_digest(chip.challenge)):
        raise MalformedEntryError(detail="board, operator or challenge is not valid")
    if not 1 <= len(chip.chain) <= MAX_CHAIN:
        raise MalformedEntryError(detail=f"{len(chip.chain)} certificates")
    at = parse_time(chip.at)
    chain = (parse_certificate(chip.chain[0]), *map(parse_issuer, chip.chain[1:]))
    wish, place = ChipIntake(chip.board, chip.operator, chain, chip.root), BundlePosition(bundle, chip.seq)
    is_proven = check_proof(wish, nonce_of(wish, place, chip.challenge), unbase64(chip.proof))
    if not is_proven or key_digest(chain[0]) != chip.key:
        raise KeyMismatchError(unique_id=chip.board, of="that the chip proved to have")
    try:
        root = root_name(path_above(chain, trust.roots, at, cache)) if trust.roots else None
    except ChainError as error:
        raise ChainBrokenError.by(error, chip.board) from error
    return wish, Intake(chip.board, chip.operator, station, at, place, chip.root, root)
