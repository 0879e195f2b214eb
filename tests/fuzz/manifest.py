"""Supplier manifests: the file itself, and what a trusted signer may have signed."""

import base64
import io
import json
from contextlib import suppress
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from birthmark.manifests.errors import ManifestError
from birthmark.manifests.microchip_verifier import root_of, signer_of, trust_of
from birthmark.manifests.parallel_verification import verify_all
from birthmark.manifests.writer import ManifestChip, ManifestKey, render_entry
from birthmark.pki.certificates import CertificateInvalidError, parse_der
from fuzz import corpus
from fuzz.certificates import ISSUING, ROOT, first_of, signed, use
from fuzz.mutate import read_der, tlv
from support.fakes import NOON

SIGNER = ManifestKey(parse_der(corpus.one("certificate", "6signer")), corpus.SIGNER_KEY)
CHIP_CERTIFICATE = parse_der(corpus.one("certificate", "5chip"))
CHIP = ManifestChip("0123aabbccddeeff01", [corpus.DEVICE_KEY.public_key()], (CHIP_CERTIFICATE, ISSUING))
TRUST = trust_of([signer_of(SIGNER.certificate)], [root_of(ROOT)])


def _entry() -> dict[str, Any]:
    return render_entry(CHIP, SIGNER, NOON)


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


PAYLOAD = _decoded(_entry()["payload"])


def file_seeds() -> tuple[bytes, ...]:
    bare = render_entry(ManifestChip("0123aabbccddeeff02", [], None), SIGNER, NOON)
    return json.dumps([_entry()]).encode(), json.dumps([bare, _entry()]).encode()


def read_file(data: bytes) -> None:
    """Whatever is in the file: refused rows, or the one error that says where it ends."""
    for entry in verify_all(io.BytesIO(data), TRUST):
        if not isinstance(entry, ManifestError):
            _ = (entry.device_id, entry.key_ids)
            with suppress(CertificateInvalidError):  # its issuer signed what nobody reads
                if (certificate := entry.certificate) is not None:
                    use(certificate)
        else:
            assert entry.explain_cause().encode()


def _signed(payload: bytes) -> bytes:
    entry = _entry()
    body = base64.urlsafe_b64encode(payload).rstrip(b"=").decode()
    made = corpus.SIGNER_KEY.sign(f"{entry['protected']}.{body}".encode(), ec.ECDSA(hashes.SHA256()))
    r, s = decode_dss_signature(made)
    signature = base64.urlsafe_b64encode(r.to_bytes(32) + s.to_bytes(32)).rstrip(b"=").decode()
    return json.dumps([entry | {"payload": body, "signature": signature}]).encode()


def signed_payload(data: bytes) -> None:
    """A payload that a trusted signer signed."""
    read_file(_signed(data))


def signed_certificates(data: bytes) -> None:
    """Device and issuer in one SEQUENCE, in an entry that a trusted signer signed."""
    payload = json.loads(PAYLOAD)
    try:
        (_, parts), *_ = read_der(data)
        device, issuer = (tlv(*part) for part in parts[:2])
    except (ValueError, TypeError):
        device, issuer = data[:400], data[400:]
    issuer = signed(first_of(issuer), corpus.ROOT_KEY) if len(data) % 2 else issuer
    payload["publicKeySet"]["keys"][0]["x5c"] = [base64.b64encode(one).decode() for one in (device, issuer)]
    read_file(_signed(json.dumps(payload).encode()))
