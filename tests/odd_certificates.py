"""Certificates that no maker should make: built field by field, for what must be refused or survived."""

from collections.abc import Sequence
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from birthmark.pki.certificates import Certificate, parse_der
from birthmark.pki.issue import SigningKey
from fakes import NOON
from pki_builders import Holder, a_key

Extension = tuple[x509.ExtensionType, bool]


def named(common_name: str | None) -> x509.Name:
    return x509.Name([] if common_name is None else [x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


def usage(*bits: str) -> x509.KeyUsage:
    """A key usage with only these bits, by cryptography's names."""
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in bits for name in names})


def a_certificate(
    *extensions: Extension,
    subject: str | None = "device-1",
    signer: Holder | None = None,
    key: SigningKey | None = None,
    serial: int = 77,
    names_keys: bool = True,
    is_ca: bool | None = None,
) -> Holder:
    """A certificate of exactly these extensions; `names_keys` adds the key identifiers, `is_ca` basicConstraints."""
    key = key or a_key()
    issuer_key = key if signer is None else signer.private_key
    issuer = named(subject) if signer is None else signer.certificate.subject
    builder = (
        x509.CertificateBuilder(issuer, named(subject), key.public_key(), serial)
        .not_valid_before(NOON - timedelta(days=1))
        .not_valid_after(NOON + timedelta(days=1))
    )
    wanted: list[Extension] = list(extensions)
    if names_keys:
        wanted.append((x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False))
        wanted.append((x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False))
    if is_ca is not None:
        wanted.append((x509.BasicConstraints(ca=is_ca, path_length=None), True))
    for value, critical in wanted:
        builder = builder.add_extension(value, critical)
    algorithm = hashes.SHA256()
    return Holder(parse_der(builder.sign(issuer_key, algorithm).public_bytes(Encoding.DER)), key)


def a_root(*extensions: Extension, **fields: object) -> Holder:
    return a_certificate(*extensions, subject="Odd Root", is_ca=True, **fields)  # type: ignore[arg-type]


def anchors(*holders: Holder) -> Sequence[Certificate]:
    return [holder.certificate for holder in holders]


def with_extension(oid: str, value: bytes, *, critical: bool = False) -> Holder:
    """A self-signed certificate with an extension in raw DER."""
    raw = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
    return a_certificate((raw, critical), key=ec.generate_private_key(ec.SECP256R1()))


ODD_EXTENSIONS = {
    "subjectAltName with an x400Address": ("2.5.29.17", bytes.fromhex("3006a3043002 3000".replace(" ", ""))),
    "subjectAltName with an ediPartyName": ("2.5.29.17", bytes.fromhex("3009a507a1050c0361 6263".replace(" ", ""))),
    "issuerAltName with an x400Address": ("2.5.29.18", bytes.fromhex("3006a3043002 3000".replace(" ", ""))),
    "TLS feature of an unknown number": ("1.3.6.1.5.5.7.1.24", bytes.fromhex("3003020163")),
}
"""Legal, and read by nobody: object id and value."""
