"""Certificates that no maker should make: built field by field, for what must be refused or survived."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from birthmark.pki.certificates import Certificate, parse_der
from birthmark.pki.issuance import SigningKey
from fuzz.mutate import read_der, tlv, write_der
from support.fakes import NOON
from support.pki.pki_builders import Holder, a_key

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
    now: datetime = NOON,
) -> Holder:
    """A certificate of exactly these extensions; `names_keys` adds the key identifiers, `is_ca` basicConstraints."""
    key = key or a_key()
    issuer_key = key if signer is None else signer.private_key
    issuer = named(subject) if signer is None else signer.certificate.subject
    builder = (
        x509.CertificateBuilder(issuer, named(subject), key.public_key(), serial)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
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
    return a_certificate(*extensions, subject="Odd Root", is_ca=True, **fields)  # type: ignore[arg-type]  # fields by name


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


Tree = list[list[Any]]


def encode_oid(oid: str) -> bytes:
    return bytes(core.ObjectIdentifier(oid).contents)


def _extensions(tbs: Tree) -> Tree:
    return tbs[-1][1][0][1]  # type: ignore[no-any-return]  # decoded by hand


def _common_name(tbs: Tree) -> list[Any]:
    return tbs[5][1][0][1][0][1][1]  # type: ignore[no-any-return]  # decoded by hand


def _more(oid: str, value: bytes, *, critical: bool = False) -> Callable[[Tree], None]:
    parts = [[0x06, encode_oid(oid)], *([[0x01, b"\xff"]] if critical else []), [0x04, value]]
    return lambda tbs: _extensions(tbs).append([0x30, parts])


def _serial(value: bytes) -> Callable[[Tree], None]:
    return lambda tbs: tbs.__setitem__(1, [0x02, value])


def _named(tag: int, value: bytes) -> Callable[[Tree], None]:
    return lambda tbs: _common_name(tbs).__setitem__(slice(None), [tag, value])


CHANGES: Mapping[str, Callable[[Tree], None]] = {
    **{what: _more(oid, value) for what, (oid, value) in ODD_EXTENSIONS.items()},
    "certificatePolicies of nothing": _more("2.5.29.32", bytes.fromhex("3000")),
    "certificatePolicies with a strange qualifier": _more("2.5.29.32", bytes.fromhex("300c300a06022a03300430020600")),
    "an extension nobody knows, critical": _more("1.2.3.4", b"\x05\0", critical=True),
    "an extension without a value": _more("2.5.29.31", b""),
    "keyUsage twice": _more("2.5.29.15", b"\x03\x02\x07\x80"),
    "a serial number of zero": _serial(b"\0"),
    "a negative serial number": _serial(b"\x80\x01"),
    "a serial number of 300 bytes": _serial(b"\x01" * 300),
    "version 1 with extensions": lambda tbs: tbs.__delitem__(0),
    "version 9": lambda tbs: tbs[0].__setitem__(1, [[0x02, b"\x08"]]),
    "a day that does not exist": lambda tbs: tbs[4][1].__setitem__(0, [0x17, b"260231000000Z"]),
    "a time of the year 0": lambda tbs: tbs[4][1].__setitem__(0, [0x18, b"00000101000000Z"]),
    "no validity": lambda tbs: tbs[4].__setitem__(1, b""),
    "a common name of half a BMP character": _named(0x1E, b"\0d\0"),
    "a common name in TeletexString": _named(0x14, b"d\xe9vice"),
    "a common name in UniversalString": _named(0x1C, b"\0\0\0d"),
    "a common name that is an INTEGER": _named(0x02, b"\x05"),
    "a common name with a zero byte": _named(0x0C, b"d\0evice"),
    "a common name that is not UTF-8": _named(0x0C, b"d\xff\xfe"),
    "an empty common name": _named(0x0C, b""),
}
"""Legal or not: what a stranger may show. Each changes the parts of a TBSCertificate."""


def odd_certificate(what: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """The DER of a self-signed certificate, named `odd-…`, that is odd in one way; its signature is good."""
    good = a_certificate((usage("digital_signature"), True), subject="odd-device", key=key, names_keys=False)
    tree: Any = read_der(good.certificate.der)
    (tbs, algorithm, _signature) = tree[0][1]
    CHANGES[what](tbs[1])
    signature = key.sign(write_der([tbs]), ec.ECDSA(hashes.SHA256()))
    return tlv(0x30, write_der([tbs, algorithm, [0x03, b"\0" + signature]]))
