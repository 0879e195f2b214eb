"""A certificate as a value, parsed from DER, PEM or base64.

In: bytes from a file, a handshake or a request, at most MAX_CERTIFICATE_BYTES for one certificate.

Out: a `Certificate` whose names, dates, serial number and extensions are readable. Raises `CertificateInvalidError`; a
private key or a request has its own class, because these files are often confused.

Not here: the content of extensions (`extensions`), trust (`path_validation`).
"""

import base64
import binascii
import hashlib
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import NewType

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, pkcs7

from birthmark.errors import InvalidRequestError
from birthmark.pki.der import (
    EXPLICIT_0,
    INTEGER,
    SEQUENCE,
    element,
    has_pkcs12_key,
    is_der,
    is_pkcs7,
    is_pkcs12,
    pkcs12_options,
)
from birthmark.pki.extension_parser import Extensions, read_extensions
from birthmark.pki.fast_certificate_parser import (
    ALGORITHM_BYTES,
    ECDSA,
    MAX_CERTIFICATE_BYTES,
    MAX_NAME_BYTES,
    common_names_of,
    is_p256,
    parse_plain,
    text_of_plain,
)
from birthmark.pki.names_and_registration_ids import MAKE_CERTIFICATE, common_name_of, text_of
from birthmark.text_file_encodings import copy_of, plain_text, unseen_in_pem

Thumbprint = NewType("Thumbprint", bytes)
"""SHA-256 thumbprint of the DER certificate: 32 raw bytes; hex only in interfaces."""

MAX_BUNDLE_BYTES = 4 * 1024 * 1024
MAX_BUNDLE_CERTIFICATES = 2000
_THUMBPRINT_BYTES = 32
_KEPT = 256
_PEM_COLUMNS = 64
_LOOKED_AT = 512
MAX_KEPT_BYTES = 4096
_OF_CERTIFICATES = rb"(?:X509 |TRUSTED )?CERTIFICATE|PKCS7|PKCS #7 SIGNED DATA|CMS"
_BLOCK = re.compile(
    rb"-----BEGIN (?:%b)-----([A-Za-z0-9+/=\s]*)-----END (?:%b)-----" % (_OF_CERTIFICATES, _OF_CERTIFICATES)
)
_ANY_BLOCK = re.compile(rb"-----BEGIN [A-Z0-9# ]{1,40}-----([A-Za-z0-9+/=\s]*)-----END ")
_OTHERS = (
    (re.compile(rb"\Z"), "it is empty"),
    (re.compile(rb"pk\x03\x04"), "it is a ZIP archive"),
    (re.compile(rb"<!doctype html|<html"), "it is an HTML page"),
    (re.compile(rb"age-encryption\.org/"), "it is a backup, or another file that age encrypted"),
    (re.compile(rb"-----begin x509 crl-----"), "it is a CRL"),
    (re.compile(rb"-----begin public key-----"), "it is a public key"),
    (re.compile(rb"\{\\rtf"), "it is a text of a text processor (RTF)"),
    (re.compile(rb"\[zonetransfer\]"), "it is a Zone.Identifier file of Windows Explorer"),
    (re.compile(rb"\[internetshortcut\]"), "it is a link to a page (.url)"),
    (re.compile(rb"[{\[]"), "it is JSON"),
    (re.compile(rb"[\w ./#\"-]{1,60}+[,;\t][^\n\r]{0,400}+[\n\r]"), "it is a table (CSV)"),
)
"""Signatures of other file types, in lower case."""
_OF_TEXT = frozenset({"it is empty", "it is JSON", "it is a table (CSV)"})
_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9# ]{1,40})-----")
_SEND_CERTIFICATE = "Send the certificate alone, in PEM or DER form."
DECODE_PKCS12 = "(umask 077; set -C; tr -d '\\0' < FILE | tr '\\r' '\\n' | sed /-----/d | base64 -di > device.pfx)"
"""Shell command that decodes any form of base64: UTF-16, with or without a label, with any line ending."""
UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class CertificateInvalidError(InvalidRequestError):
    """The data is not a certificate."""

    code = "pki.certificate_invalid"
    message = "Not a certificate: {detail}."
    fix = f"Provide one certificate in PEM or DER form. {MAKE_CERTIFICATE}"
    detail: str = ""


class CertificateTooLargeError(CertificateInvalidError):
    """The data is too large for a certificate chain."""

    code = "pki.certificate_too_large"
    message = "The data is larger than {limit}."
    fix = f"Provide only the required certificates. {MAKE_CERTIFICATE}"
    limit: str


class CertificateKeySwappedError(CertificateInvalidError):
    """This is a private key, not a certificate."""

    code = "pki.certificate_key_swapped"
    cause = "The file contains a private key instead of a certificate."
    fix = (
        "Use the certificate file. If the two variables are swapped, correct them: `export "
        'X509_CERT_FILE="$X509_KEY_FILE" X509_KEY_FILE="$X509_CERT_FILE"`. In config.toml, swap identity_cert and '
        "identity_pk."
    )


class CertificateIsRequestError(CertificateInvalidError):
    """This is a certificate signing request, not a certificate."""

    code = "pki.certificate_is_request"
    cause = "The data is a certificate signing request (CSR), not a certificate."
    fix = "Have a CA sign it first: `birthmark ca sign {path} --dir ca --out device.pem`, or use EST."
    path: object = "device.csr"


class CertificateIsPkcs12Error(CertificateInvalidError):
    """This is PKCS#12, not a certificate in PEM or DER."""

    code = "pki.certificate_is_pkcs12"
    cause = "The data is PKCS#12 (PFX): a password-protected file that contains both the certificate and its key."
    fix = (
        "Extract the certificate: `(set -C; made=$(openssl pkcs12{options} -in {path} -nokeys) && printf '%s\\n' "
        '"$made" > {copy}.pem)`. If you need the key: `(umask 077; set -C; made=$(openssl pkcs12{options} -in {path} '
        "-nocerts -noenc) && printf '%s\\n' \"$made\" > {copy}.key)`."
    )
    options: str = ""
    path: object = ""

    @property
    def copy(self) -> object:
        """Return the output path for extracted data, without suffix; empty for data from a request."""
        path = self._added.get("path", self.path)
        return path and copy_of(str(path))

    def explain_fix(self) -> str:
        """Return `fix`, without file commands for data from a request."""
        return super().explain_fix() if self.facts.get("path") else _SEND_CERTIFICATE

    def explain_for_display(self) -> tuple[str, str]:
        cause, fix = super().explain_for_display()
        return cause, fix if self.facts.get("path") else _SEND_CERTIFICATE


class CertificateIsPkcs12WithoutKeyError(CertificateIsPkcs12Error):
    """This is PKCS#12 without a key, not a certificate in PEM or DER."""

    code = "pki.certificate_is_pkcs12_without_key"
    cause = "The data is PKCS#12 (PFX): a password-protected file that contains only certificates."
    fix = (
        "Extract the certificates: `(set -C; made=$(openssl pkcs12{options} -in {path} -nokeys) && printf '%s\\n' "
        '"$made" > {copy}.pem)`.'
    )


class CertificateIsPkcs12TextError(CertificateIsPkcs12Error):
    """This is PKCS#12 in base64, not a certificate in PEM or DER."""

    code = "pki.certificate_is_pkcs12_text"
    cause = (
        "The data is base64-encoded PKCS#12 (PFX): a password-protected file that contains both the certificate and "
        "its key."
    )
    fix = f"Decode it and use the result: `{DECODE_PKCS12.replace('FILE', '{path}')}`."


class CertificateIsPkcs7Error(CertificateInvalidError):
    """This is PKCS#7 without a readable certificate."""

    code = "pki.certificate_is_pkcs7"
    cause = "The data is PKCS#7 (P7B) without a readable certificate."
    fix = f"Export it again, or provide one certificate in PEM or DER form. {MAKE_CERTIFICATE}"


@dataclass(frozen=True, slots=True)
class Certificate:
    """One X.509 certificate; equal if the bytes are equal.

    Created by the parsers of this module and by `issue`.
    """

    der: bytes = field(repr=False)
    thumbprint: Thumbprint
    extensions: Extensions = field(repr=False, compare=False)
    subject_der: bytes = field(repr=False, compare=False)
    issuer_der: bytes = field(repr=False, compare=False)
    """The issuer name in DER, as used for comparison. Stored because chain building reads it often."""
    spki_der: bytes = field(repr=False, compare=False)
    """The public key as canonical SubjectPublicKeyInfo."""
    serial: int = field(repr=False, compare=False)
    not_before: datetime = field(repr=False, compare=False)
    not_after: datetime = field(repr=False, compare=False)

    @property
    def parsed(self) -> x509.Certificate:
        """The library's object: ten times the size of the bytes, so only the latest few are cached."""
        return _load(self.der)

    @property
    def x5t_sha1(self) -> bytes:
        """The SHA-1 digest (20 bytes) that old interfaces show as the certificate's name; never a proof."""
        return hashlib.sha1(self.der, usedforsecurity=False).digest()

    @property
    def subject(self) -> x509.Name:
        return self.parsed.subject

    @property
    def issuer(self) -> x509.Name:
        return self.parsed.issuer

    @property
    def subject_cn(self) -> str | None:
        if (names := common_names_of(self.subject_der)) is None:
            return common_name_of(self.parsed.subject)
        return names[0] if len(names) == 1 else None

    @property
    def subject_text(self) -> str:
        return text_of_plain(self.subject_der) or text_of(self.parsed.subject)

    @property
    def issuer_text(self) -> str:
        return text_of_plain(self.issuer_der) or text_of(self.parsed.issuer)

    @property
    def version(self) -> int:
        """Certificate version, 1 or 3."""
        version, _ = element(self.der, _parts_of(self.der)[0])
        return self.der[element(self.der, version)[1] - 1] + 1 if self.der[version] == EXPLICIT_0 else 1

    @property
    def is_ca(self) -> bool:
        return self.extensions.is_ca

    @property
    def is_self_issued(self) -> bool:
        return self.subject_der == self.issuer_der

    @property
    def is_self_signed(self) -> bool:
        """Whether subject equals issuer and the certificate's own key made the signature."""
        return self.is_self_issued and is_signed_by(self, self)

    def public_key(self) -> CertificatePublicKeyTypes:
        return self.parsed.public_key()

    def pem(self) -> str:
        return pem_of(self.der)


def parse_der(der: bytes) -> Certificate:
    """Parse a certificate from exactly these bytes. Raise `CertificateInvalidError`."""
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise CertificateTooLargeError(limit=f"{MAX_CERTIFICATE_BYTES} bytes")
    plain = parse_plain(der)
    return parse_with_library(der) if plain is None else Certificate(der, thumbprint_of(der), *plain)


def parse_with_library(der: bytes) -> Certificate:
    """Parse any certificate of at most MAX_CERTIFICATE_BYTES. Raise `CertificateInvalidError`."""
    _check_form(der)
    try:
        # cryptography parses lazily; read each promised field, so that errors occur here or never.
        parsed = _load(der)
        subject, issuer, spki = _cut(der)
        dates = parsed.not_valid_before_utc, parsed.not_valid_after_utc
        _ = parsed.version
        if not is_p256(spki):
            spki = parsed.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        extensions = read_extensions(der, parsed)
    except UNREADABLE as error:
        raise _identify_content(der, error) from error
    return Certificate(der, thumbprint_of(der), extensions, subject, issuer, spki, parsed.serial_number, *dates)


def _check_form(der: bytes) -> None:
    """Reject oversized names before the library creates an object for each part.

    Also reject a signature with unused bits: it would be the same signature in a certificate with other bytes.
    """
    try:
        signed, _, signed_until = _parts_of(der)
        if der[signed] != SEQUENCE:  # a key, whose bytes may look arbitrary at the position of a signature
            return
        subject, issuer, _ = _cut(der)
        bits, _ = element(der, element(der, signed_until)[1])
        has_unused_bits = der[bits] != 0
    except IndexError:  # not a certificate; the library gives a reason
        return
    if has_unused_bits:
        raise CertificateInvalidError(detail="its signature is not a multiple of 8 bits")
    if max(len(subject), len(issuer)) > MAX_NAME_BYTES:
        raise CertificateTooLargeError(limit=f"{MAX_NAME_BYTES} bytes in a name")


def _cut(der: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the DER of subject, issuer and public key of a certificate that the library has parsed."""
    _, issuer_at, _ = _parts_of(der)
    issuer_at = element(der, issuer_at)[1]
    validity_at = element(der, issuer_at)[1]
    subject_at = element(der, validity_at)[1]
    spki_at = element(der, subject_at)[1]
    return der[subject_at:spki_at], der[issuer_at:validity_at], der[spki_at : element(der, spki_at)[1]]


def _load(der: bytes) -> x509.Certificate:
    """Return the library's object; large ones are not cached, as any client may send them."""
    return _keep(der) if len(der) <= MAX_KEPT_BYTES else _parse(der)


def _parse(der: bytes) -> x509.Certificate:
    with warnings.catch_warnings():  # for long names and odd serial numbers, issued once per object
        warnings.simplefilter("ignore", UserWarning)
        parsed = x509.load_der_x509_certificate(der)
        _ = (parsed.subject, parsed.issuer)
        if parsed.serial_number <= 0:  # RFC 5280 section 4.1.2.2
            raise CertificateInvalidError(detail="its serial number is not positive")
    return parsed


_keep = lru_cache(maxsize=_KEPT)(_parse)


def parse_pem(pem: str | bytes) -> Certificate:
    """Return the first certificate of a PEM text: in a chain file that is the leaf. Raise `CertificateInvalidError`."""
    return parse_der(next(_blocks_of(pem)))


def parse_bundle(data: str | bytes) -> tuple[Certificate, ...]:
    """Parse all certificates of a file, at least one, in file order; PKCS#7 has no order, so leaf first.

    Raise `CertificateInvalidError`.
    """
    return tuple(map(parse_der, _every(data)))


def parse_any(data: str | bytes) -> Certificate:
    """Return the first certificate in PEM, DER, or base64 of either with or without line breaks."""
    return parse_der(next(_every(data)))


def parse_ca(data: str | bytes) -> Certificate:
    """Parse the CA certificate of a file, also after a device's; of a chain of CAs the lowest, in any order.

    If there is no CA, return the first certificate: it may be an old CA's. Raise `CertificateInvalidError` for
    unrelated CAs: a file's format is no reason to trust only one of them.
    """
    certificates = parse_bundle(data)
    cas = [one for one in certificates if one.is_ca]
    if len(ends := chain_ends(cas)) > 1:
        detail = "it has the certificates of several CAs; give one of them in a separate file"
        refusal = CertificateInvalidError(detail=detail)
        refusal.quote(fix="Copy the CA's certificate, from its BEGIN line to its END line, into a separate file.")
        raise refusal
    return ends[0] if ends else certificates[0]


def chain_ends(certificates: Sequence[Certificate]) -> Sequence[Certificate]:
    """Return the certificates that issued none of the others."""
    issuers = {one.issuer_der for one in certificates if not one.is_self_issued}
    return [one for one in dict.fromkeys(certificates) if one.subject_der not in issuers]


def kind_of(raw: bytes) -> str:
    """Return the type of a key store or other binary file, or an empty string if unknown."""
    try:
        parse_any(raw[:MAX_BUNDLE_BYTES])
    except CertificateIsPkcs12Error:
        return "it is PKCS#12 (PFX)"
    except CertificateIsPkcs7Error:
        return "it is PKCS#7"
    except CertificateKeySwappedError:
        return "it is a private key"
    except CertificateIsRequestError:
        return "it is a certificate request"
    except CertificateInvalidError as error:
        return error.detail if error.detail.startswith("it is ") and error.detail not in _OF_TEXT else ""
    return "it is a certificate"


def pem_bundle(data: str | bytes) -> str:
    """Return all certificates of a file as PEM for OpenSSL.

    OpenSSL trusts roots that `parse_bundle` rejects. Raise `CertificateInvalidError`.
    """
    return "".join(pem_of(_loadable(der)) for der in _every(data))


def _loadable(der: bytes) -> bytes:
    try:
        with warnings.catch_warnings():  # serial numbers, as in some system roots
            warnings.simplefilter("ignore", UserWarning)
            x509.load_der_x509_certificate(der)
    except UNREADABLE as error:
        raise _identify_content(der, error) from error
    return der


def _every(data: str | bytes) -> Iterator[bytes]:
    raw = _bounded(data)
    if not is_der(raw) and b"-----BEGIN" not in raw:
        raw = _from_base64(raw)  # PEM too, as in Key Vault and Kubernetes
        if is_pkcs12(raw):
            raise CertificateIsPkcs12TextError
    if is_der(raw):
        yield from _all_in(raw)
    else:
        yield from _blocks_of(raw)


def _from_base64(raw: bytes) -> bytes:
    """Decode base64; return other data unchanged."""
    try:
        return _unbase64(raw) or raw
    except CertificateInvalidError:
        return raw


def pem_of(der: bytes) -> str:
    """Return a certificate's PEM text (RFC 7468)."""
    text = binascii.b2a_base64(der, newline=False).decode("ascii")
    lines = "\n".join(text[at : at + _PEM_COLUMNS] for at in range(0, len(text), _PEM_COLUMNS))
    return f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"


def thumbprint_of(der: bytes) -> Thumbprint:
    return Thumbprint(hashlib.sha256(der).digest())


def parse_thumbprint(text: str) -> Thumbprint:
    """Return the thumbprint written as 64 hex digits, with or without colons. Raise `CertificateInvalidError`."""
    try:
        raw = bytes.fromhex("".join(one for one in text if one.isprintable() and one not in ": "))
    except ValueError as error:
        raise CertificateInvalidError(detail="not hex digits") from error
    if len(raw) != _THUMBPRINT_BYTES:
        raise CertificateInvalidError(detail=f"{len(raw)} bytes instead of 32")
    return Thumbprint(raw)


def is_signed_by(certificate: Certificate, issuer: Certificate) -> bool:
    """Return whether `issuer`'s key made the signature. Checks signature and names only, not trust."""
    try:
        is_plain = certificate.issuer_der == issuer.subject_der and len(issuer.der) <= MAX_KEPT_BYTES
        key = _ec_key(issuer.der) if is_plain else None
        if key is not None and (signature := _ecdsa_signature_of(certificate.der)) is not None:
            key.verify(*signature)
        else:
            certificate.parsed.verify_directly_issued_by(issuer.parsed)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


@lru_cache(maxsize=_KEPT)
def _ec_key(der: bytes) -> ec.EllipticCurvePublicKey | None:
    """Return a CA's public key as a loaded object; cached, because few CAs sign many certificates."""
    key = _load(der).public_key()
    return key if isinstance(key, ec.EllipticCurvePublicKey) else None


def _ecdsa_signature_of(der: bytes) -> tuple[bytes, bytes, ec.ECDSA] | None:
    """Return the signature, the signed bytes and the ECDSA algorithm if the inner and outer algorithms match."""
    inside, algorithm_at, end = _parts_of(der)
    algorithm = der[algorithm_at : algorithm_at + ALGORITHM_BYTES]
    if (known := ECDSA.get(algorithm)) is None or not der.startswith(algorithm, end):
        return None
    bits, bits_end = element(der, end + ALGORITHM_BYTES)
    return der[bits + 1 : bits_end], der[inside:end], known


def _parts_of(der: bytes) -> tuple[int, int, int]:
    """Return the positions of the signed part, of its signature algorithm, and of its end."""
    start, _ = element(der, 0)
    at, end = element(der, start)
    if der[at] == EXPLICIT_0:  # the version, omitted in version 1
        at = element(der, at)[1]
    return start, element(der, at)[1], end


def _bounded(data: str | bytes) -> bytes:
    raw = data.encode("utf-8", "replace") if isinstance(data, str) else data
    if len(raw) > MAX_BUNDLE_BYTES:
        raise CertificateTooLargeError(limit=f"{MAX_BUNDLE_BYTES} bytes")
    return plain_text(raw)


def _unbase64(body: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except ValueError as error:
        raise CertificateInvalidError(detail="broken base64") from error


def _blocks_of(pem: str | bytes) -> Iterator[bytes]:
    raw = _bounded(pem)
    blocks = [block[1] for block in _BLOCK.finditer(raw)]
    if not blocks:
        raise _identify_content(raw, None)
    if not raw.isascii() and (seen := unseen_in_pem(raw)):  # this would hide a block
        raise CertificateInvalidError(detail=seen)
    if len(blocks) > MAX_BUNDLE_CERTIFICATES:
        raise CertificateTooLargeError(limit=f"{MAX_BUNDLE_CERTIFICATES} certificates")
    for block in blocks:
        der = _unbase64(block)
        if is_pkcs12(der):
            raise CertificateIsPkcs12TextError
        if der.startswith(b"-----BEGIN"):  # certutil -encode on PEM
            yield from _blocks_of(der)
        else:
            yield from _all_in(der)


def _all_in(der: bytes) -> Sequence[bytes]:
    """Return the certificates of PKCS#7, leaf first if all are readable; other DER alone, unchanged."""
    if not is_pkcs7(der):
        return [der]
    try:
        with warnings.catch_warnings():  # for BER, as some exporters write
            warnings.simplefilter("ignore", UserWarning)
            found = pkcs7.load_der_pkcs7_certificates(der)
            if len(found) > MAX_BUNDLE_CERTIFICATES:
                raise CertificateTooLargeError(limit=f"{MAX_BUNDLE_CERTIFICATES} certificates")
            ders = [one.public_bytes(Encoding.DER) for one in found]
    except UNREADABLE as error:
        raise CertificateIsPkcs7Error from error
    if not ders:
        raise CertificateIsPkcs7Error
    try:
        return [one.der for one in leaf_first(tuple(map(parse_der, ders)))]
    except CertificateInvalidError:
        return ders


def leaf_first(certificates: tuple[Certificate, ...]) -> tuple[Certificate, ...]:
    """Return the certificate that issued none of the others first, then its issuers, then the rest.

    The order is unchanged if several certificates qualify as the first.
    """
    left = dict.fromkeys(certificates)
    ends = chain_ends(certificates)
    ends = [one for one in ends if not one.is_ca] or ends
    if len(ends) != 1:
        return certificates
    by_subject = {one.subject_der: one for one in reversed(left)}
    chain: list[Certificate] = []
    following: Certificate | None = ends[0]
    while following is not None and following in left:
        del left[following]
        chain.append(following)
        following = by_subject.get(following.issuer_der)
    return (*chain, *left)


def _identify_content(raw: bytes, problem: Exception | None) -> CertificateInvalidError:
    """Return the error that identifies the actual content of these bytes."""
    labels = [label[1] for label in _LABEL.finditer(raw)]
    if is_pkcs12(raw):
        kind = CertificateIsPkcs12Error if has_pkcs12_key(raw) else CertificateIsPkcs12WithoutKeyError
        return kind(options=pkcs12_options(raw))
    if (block := _ANY_BLOCK.search(raw)) is not None and is_pkcs12(_from_base64(block[1])):
        return CertificateIsPkcs12TextError()
    if any(label.endswith(b"PRIVATE KEY") for label in labels) or _starts_with_version(raw):
        return CertificateKeySwappedError()
    if any(label.endswith(b"CERTIFICATE REQUEST") for label in labels) or _is_request(raw):
        return CertificateIsRequestError()
    if problem is not None:
        return CertificateInvalidError(detail="it is a CRL" if _is_crl(raw) else "its DER cannot be read")
    return CertificateInvalidError(detail=_name_of(raw))


def _is_crl(raw: bytes) -> bool:
    try:
        x509.load_der_x509_crl(raw)
    except UNREADABLE:
        return False
    return True


def _name_of(raw: bytes) -> str:
    """Return the type of other files by their first bytes."""
    begin = raw.lstrip()[:_LOOKED_AT].lower()
    known = next((said for pattern, said in _OTHERS if pattern.match(begin)), "")
    return known or unseen_in_pem(raw) or "no certificate block in it"


def _starts_with_version(raw: bytes) -> bool:
    """Return whether the data starts like a PKCS#8, PKCS#1 or SEC1 key: with a small INTEGER, not a SEQUENCE."""
    if len(raw) < 8 or raw[0] != SEQUENCE:  # noqa: PLR2004 - shorter than any key
        return False
    header = 2 + (raw[1] & 0x7F if raw[1] & 0x80 else 0)
    return raw[header : header + 2] == bytes((INTEGER, 1))


def _is_request(raw: bytes) -> bool:
    try:
        x509.load_der_x509_csr(raw)
    except (x509.InvalidVersion, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True
