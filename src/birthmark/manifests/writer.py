"""Write manifests in Microchip's format, signed with your own key: for tests, demos and your own shipments."""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TextIO

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from birthmark.pki.certificates import Certificate


@dataclass(frozen=True, slots=True)
class ManifestKey:
    """Manifest signer: the key and its self-signed certificate."""

    certificate: Certificate
    private_key: ec.EllipticCurvePrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class ManifestChip:
    """A chip of a manifest. `keys` are the public keys of slots 0, 1 …; the chain is device and signer."""

    unique_id: str
    keys: Sequence[ec.EllipticCurvePublicKey]
    chain: tuple[Certificate, Certificate] | None
    model: str = "ATECC608B"
    part_number: str = "ATECC608B-TNGTLSU"
    group_id: str = "0000000000000000"


def render_entry(chip: ManifestChip, signer: ManifestKey, provisioned_at: datetime) -> dict[str, Any]:
    """Return the JWS object of a chip."""
    organization = {"organizationName": "Birthmark test", "organizationalUnitName": "Manifests"}
    payload: dict[str, Any] = {
        "version": 1,
        "model": chip.model,
        "partNumber": chip.part_number,
        "manufacturer": organization,
        "provisioner": organization,
        "distributor": organization,
        "groupId": chip.group_id,
        "provisioningTimestamp": provisioned_at.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "uniqueId": chip.unique_id,
        "publicKeySet": {"keys": [_jwk(slot, key, chip.chain) for slot, key in enumerate(chip.keys)]},
    }
    key_id = signer.certificate.extensions.subject_key_id or b""
    protected = {
        "alg": "ES256",
        "kid": _base64url(key_id),
        "typ": "JWT",
        "x5t#S256": _base64url(signer.certificate.thumbprint),
    }
    head, body = _base64url(_compact(protected)), _base64url(_compact(payload))
    r, s = decode_dss_signature(signer.private_key.sign(f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256())))
    signature = _base64url(r.to_bytes(32) + s.to_bytes(32))
    return {"payload": body, "protected": head, "header": {"uniqueId": chip.unique_id}, "signature": signature}


def write_manifest(file: TextIO, chips: Iterable[ManifestChip], signer: ManifestKey, provisioned_at: datetime) -> int:
    """Write a manifest and return its number of entries."""
    count = 0
    file.write("[")
    for chip in chips:
        file.write(",\n" if count else "\n")
        json.dump(render_entry(chip, signer, provisioned_at), file)
        count += 1
    file.write("\n]\n")
    return count


def _jwk(slot: int, key: ec.EllipticCurvePublicKey, chain: tuple[Certificate, Certificate] | None) -> dict[str, Any]:
    numbers = key.public_numbers()
    jwk: dict[str, Any] = {
        "kid": str(slot),
        "kty": "EC",
        "crv": "P-256",
        "x": _base64url(numbers.x.to_bytes(32)),
        "y": _base64url(numbers.y.to_bytes(32)),
    }
    if slot == 0 and chain is not None:
        jwk["x5c"] = [base64.b64encode(certificate.der).decode() for certificate in chain]
    return jwk


def _compact(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
