"""Certificates of a chip: the device's in slot 10, its signer's in 12, the signer's key in 11.

Microchip's factory certificates have numbered templates. For your own CA, example certificates serve as templates,
named by BIRTHMARK_ATECC_TEMPLATE (PEM: a device's, then its signer's).
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from birthmark.keys.errors import TokenFailedError
from birthmark.pki.certificates import Certificate, CertificateInvalidError, parse_bundle, parse_der
from birthmark.secure_elements.atecc.certificate_rebuild import (
    BY_PRODUCT,
    POINT_BYTES,
    ROOT_KEY_ID,
    SIGNER,
    TEMPLATES,
    ChipCertificateTemplate,
    TemplateSubject,
    key_id,
    whole,
)
from birthmark.secure_elements.atecc.chip import AteccChip
from birthmark.secure_elements.atecc.compressed_certificate import (
    CompressedCertificate,
    build_compressed,
    parse_compressed,
)
from birthmark.untrusted_json_and_text import reason_of

VARIABLE = "BIRTHMARK_ATECC_TEMPLATE"
_MAX_BYTES = 64 * 1024
DEVICE_SLOT, SIGNER_KEY_SLOT, SIGNER_SLOT, EUI_SLOT = 10, 11, 12, 5
_IDENTITY = 0
_EUI_CHARS = 12
_SERIAL = re.compile(r"01[0-9A-F]{16}")
_SIGNER_ID = re.compile(r"[0-9A-F]{4}$")
_OTHER_ID = 2


@dataclass(frozen=True, slots=True)
class ChipCertificates:
    """Reads complete certificates, and writes those of your own CA."""

    chip: AteccChip

    def device(self) -> bytes:
        """Return the device certificate in DER. Raise `CertificateInvalidError` if it cannot be reconstructed."""
        short = parse_compressed(self.chip.read_slot(DEVICE_SLOT))
        subject = TemplateSubject(self.chip.point(_IDENTITY), self.chip.serial(), self._eui48())
        issuer = self._signer_point()
        return _verify_signature(whole(self._template(short, 0), short, subject, key_id(issuer)), issuer)

    def signer(self) -> bytes:
        """Return the signer certificate in DER; its signature can be verified only with its own CA."""
        short = parse_compressed(self.chip.read_slot(SIGNER_SLOT))
        template, above = self._template(short, 1), _issuer_key_id()
        return whole(template, short, TemplateSubject(self._signer_point(), self.chip.serial()), above)

    def write(self, label: str, der: bytes) -> None:
        """Write certificate `device` or `signer` of your own CA.

        Raise `TokenFailedError` if there is no slot for it.
        """
        certificate = parse_der(der)
        slot = DEVICE_SLOT if label == "device" else SIGNER_SLOT
        short, point = compress_certificate(certificate, like=self._held(slot)), _point(certificate)
        if label == "device":
            template = self._template(short, 0)
            subject = TemplateSubject(self.chip.point(_IDENTITY), self.chip.serial(), self._eui48())
            rebuilt = whole(template, short, subject, key_id(self._signer_point()))
        elif label == "signer":
            rebuilt = whole(
                self._template(short, 1), short, TemplateSubject(point, self.chip.serial()), _issuer_key_id()
            )
        else:
            raise TokenFailedError(detail=f"an ATECC608 has certificates device and signer, but not '{label}'")
        if rebuilt != der:
            raise TokenFailedError(
                detail=f"this certificate cannot be reproduced; {VARIABLE} must refer to a similar one"
            )
        if label == "signer" and point != self._signer_point():
            self.chip.write_slot(SIGNER_KEY_SLOT, padded_point(point))
        if short != self._held(slot):
            self.chip.write_slot(slot, short.render())

    def _held(self, slot: int) -> CompressedCertificate | None:
        try:
            return parse_compressed(self.chip.read_slot(slot))
        except CertificateInvalidError:
            return None

    def _template(self, short: CompressedCertificate, position: int) -> ChipCertificateTemplate:
        """Return your own CA's template if configured, otherwise the factory's with this number."""
        named = os.environ.get(VARIABLE)
        if named:
            return template_of(_examples(named)[position])
        if position == 1:
            return SIGNER
        if short.template not in TEMPLATES:
            raise CertificateInvalidError(
                detail=f"template {short.template} is unknown; for your own CA, set {VARIABLE}"
            )
        return BY_PRODUCT.get(self.chip.product_code()) or TEMPLATES[short.template]

    def _signer_point(self) -> bytes:
        raw = self.chip.read_slot(SIGNER_KEY_SLOT)
        return raw[4:36] + raw[40:72]

    def _eui48(self) -> str:
        return self.chip.read_slot(EUI_SLOT)[:_EUI_CHARS].decode("ascii", "replace")


def padded_point(point: bytes) -> bytes:
    """Return a public key in the format of a slot: four zero bytes before each half."""
    return bytes(4) + point[: POINT_BYTES // 2] + bytes(4) + point[POINT_BYTES // 2 :]


def compress_certificate(
    certificate: Certificate, *, like: CompressedCertificate | None = None
) -> CompressedCertificate:
    """Return the compressed form, with the template and chain numbers of `like`.

    Raise `CertificateInvalidError` for dates and names that do not fit.
    """
    template, chain = (0, 0) if like is None else (like.template, like.chain)
    parsed = x509.load_der_x509_certificate(certificate.der)
    try:
        r, s = decode_dss_signature(parsed.signature)
        signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    except (ValueError, OverflowError) as error:
        raise CertificateInvalidError(detail="its signature is not ECDSA with P-256") from error
    years = certificate.not_after.year - certificate.not_before.year
    years = 0 if certificate.not_after.year == 9999 else years  # noqa: PLR2004 (RFC 5280: no end)
    signer = _SIGNER_ID.search(_common_name(parsed.issuer)) or _SIGNER_ID.search(_common_name(parsed.subject))
    signer_id = bytes.fromhex(signer[0]) if signer else bytes(_OTHER_ID)
    return build_compressed(signature, certificate.not_before, years, signer_id, template=template, chain=chain)


def template_of(example: Certificate) -> ChipCertificateTemplate:
    """Return the template from an example, with placeholders for its serial number and signer ID."""
    parsed = x509.load_der_x509_certificate(example.der)
    subject, issuer = _common_name(parsed.subject), _common_name(parsed.issuer)
    is_ca = example.is_ca
    subject = _SIGNER_ID.sub("{signer}", subject) if is_ca else _SERIAL.sub("{serial}", subject)
    issuer = issuer if is_ca else _SIGNER_ID.sub("{signer}", issuer)
    organization = parsed.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
    name = str(organization[0].value) if organization else ""
    return ChipCertificateTemplate(subject, issuer, is_ca, b"eui48_" in example.der, name)


def _examples(path: str) -> tuple[Certificate, ...]:
    """Load the example certificates of a device and its signer.

    Raise `TokenFailedError`, as both are required.
    """
    try:
        with Path(path).open("rb") as file:
            found = parse_bundle(file.read(_MAX_BYTES))
    except OSError as error:
        raise TokenFailedError(detail=f"{VARIABLE} refers to {path}: {reason_of(error)}") from error
    except CertificateInvalidError as error:
        raise TokenFailedError(detail=f"{VARIABLE} refers to {path}, which contains no PEM certificates") from error
    if len(found) < 2:  # noqa: PLR2004 (device and signer)
        detail = f"{VARIABLE} names {path}, which has to hold a device's certificate and its signer's"
        raise TokenFailedError(detail=detail)
    return found


def _issuer_key_id() -> bytes:
    named = os.environ.get(VARIABLE)
    if not named:
        return ROOT_KEY_ID
    signer = x509.load_der_x509_certificate(_examples(named)[1].der)
    try:
        found = signer.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        detail = f"{named}: the signer's certificate has no valid authority key identifier"
        raise CertificateInvalidError(detail=detail) from error
    return found or b""


def _verify_signature(der: bytes, signer_point: bytes) -> bytes:
    """Return the certificate if its signature matches the signer's key in the chip.

    Otherwise the template is wrong, and an error is raised.
    """
    parsed = x509.load_der_x509_certificate(der)
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + signer_point)
        key.verify(parsed.signature, parsed.tbs_certificate_bytes, ec.ECDSA(parsed.signature_hash_algorithm))  # type: ignore[arg-type] # it is ECDSA with SHA-256 by our own template
    except (ValueError, InvalidSignature) as error:
        raise CertificateInvalidError(
            detail=f"its signature does not match; for your own CA, set {VARIABLE}"
        ) from error
    return der


def _point(certificate: Certificate) -> bytes:
    key = certificate.public_key()
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""
