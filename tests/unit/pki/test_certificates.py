import base64
import contextlib
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs7,
    pkcs12,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import PBES
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from birthmark.pki import certificate_profiles, certificates
from birthmark.pki.certificates import (
    MAX_BUNDLE_CERTIFICATES,
    Certificate,
    CertificateInvalidError,
    CertificateIsPkcs7Error,
    CertificateIsPkcs12Error,
    CertificateIsPkcs12TextError,
    CertificateIsPkcs12WithoutKeyError,
    CertificateIsRequestError,
    CertificateKeySwappedError,
    CertificateTooLargeError,
    is_signed_by,
    leaf_first,
    parse_any,
    parse_bundle,
    parse_der,
    parse_pem,
    parse_thumbprint,
    pem_bundle,
    pem_of,
)
from birthmark.pki.certs_only_cms import render_certs_only
from birthmark.pki.der import pkcs12_options
from birthmark.pki.fast_certificate_parser import MAX_CERTIFICATE_BYTES
from birthmark.pki.names_and_registration_ids import name_of
from birthmark.untrusted_json_and_text import printable
from support.fakes import NOON
from support.pki.pki_builders import a_ca, a_csr, a_device, a_key, an_rsa_key

ROOT = a_ca()
DEVICE = a_device(ROOT, "sn0123")
P384_KEY = ec.generate_private_key(ec.SECP384R1())
P384_CA = a_ca("P-384", key=P384_KEY).certificate


def test_a_certificate_survives_the_way_through_pem_base64_and_der() -> None:
    certificate = DEVICE.certificate
    assert parse_pem(certificate.pem()) == certificate
    assert parse_any(certificate.pem().encode()) == certificate
    assert parse_any(base64.encodebytes(certificate.der)) == certificate
    assert parse_any(certificate.der) == certificate


FORMS = {"DER": bytes, "base64": base64.encodebytes, "one line of base64": base64.b64encode}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_chain_file_may_be_one_certificate_in_another_form(form: Callable[[bytes], bytes]) -> None:
    assert parse_bundle(form(DEVICE.certificate.der)) == (DEVICE.certificate,)


def test_a_chain_file_may_be_base64_of_pem() -> None:
    text = (DEVICE.certificate.pem() + ROOT.certificate.pem()).encode()
    assert parse_bundle(base64.b64encode(text)) == (DEVICE.certificate, ROOT.certificate)


def test_a_certificate_says_who_it_is() -> None:
    certificate = DEVICE.certificate
    assert certificate.subject_cn == "sn0123"
    assert certificate.subject_text == "CN=sn0123"
    assert certificate.issuer_text == "CN=Test Root"
    assert certificate.version == 3
    assert not certificate.is_ca
    assert not certificate.is_self_signed
    assert ROOT.certificate.is_ca
    assert ROOT.certificate.is_self_signed
    assert parse_thumbprint(certificate.thumbprint.hex(":")) == certificate.thumbprint


def test_a_chain_file_is_read_in_its_order_with_the_leaf_first() -> None:
    text = "# a comment\n" + DEVICE.certificate.pem() + "\r\n" + ROOT.certificate.pem()
    assert parse_bundle(text) == (DEVICE.certificate, ROOT.certificate)
    assert parse_pem(text) == DEVICE.certificate


def by_openssl(*options: str) -> str:
    command = ["openssl", "x509", *options]
    return subprocess.run(command, input=DEVICE.certificate.pem(), capture_output=True, text=True, check=True).stdout


PEM = DEVICE.certificate.pem()
PEMS = {
    "trusted": by_openssl("-trustout"),
    "with its text": by_openssl("-text"),
    "of the old label": PEM.replace(" CERTIFICATE-", " X509 CERTIFICATE-"),
    "of a bag": f"Bag Attributes\n    localKeyID: 01 02\nsubject=CN = sn0123\n{PEM}",
    "with a mark and CRLF": "\ufeff" + PEM.replace("\n", "\r\n"),
    "behind its key": DEVICE.key_pem + PEM,
}


@pytest.mark.parametrize("form", PEMS)
def test_pem_as_other_programs_write_it_is_read(form: str) -> None:
    assert parse_bundle(PEMS[form].encode()) == (DEVICE.certificate,)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_a_private_key_in_the_place_of_a_certificate_is_recognized(form: PrivateFormat, encoding: Encoding) -> None:
    with pytest.raises(CertificateKeySwappedError) as refusal:
        parse_any(a_key().private_bytes(encoding, form, NoEncryption()))
    assert "X509_CERT_FILE" in refusal.value.explain_fix()


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_a_private_key_is_recognized_whatever_its_bytes_look_like(form: PrivateFormat) -> None:
    """Cut as a certificate is, this one's signature would have unused bits."""
    key = ec.derive_private_key(7920, ec.SECP256R1())
    with pytest.raises(CertificateKeySwappedError):
        parse_any(key.private_bytes(Encoding.DER, form, NoEncryption()))


def test_base64_of_a_whole_pem_is_read() -> None:
    assert parse_any(base64.encodebytes(DEVICE.certificate.pem().encode())) == DEVICE.certificate


def a_pfx() -> bytes:
    return pkcs12.serialize_key_and_certificates(
        b"n", DEVICE.private_key, DEVICE.certificate.parsed, None, NoEncryption()
    )


PFX = a_pfx()
BER = b"0\x80" + PFX[4:]


@pytest.mark.parametrize(
    ("read", "data"),
    [(parse_any, a_pfx()), (parse_bundle, a_pfx()), (parse_bundle, BER)],
    ids=["DER", "as a chain", "BER"],
)
def test_pkcs12_in_the_place_of_a_certificate_is_recognized(read: Callable[[bytes], object], data: bytes) -> None:
    with pytest.raises(CertificateIsPkcs12Error) as refusal:
        read(data)
    assert refusal.value.explain_fix() == "Send the certificate alone, in PEM or DER form."
    refusal.value.add_facts(path="FILE")
    assert "openssl pkcs12 -in FILE -nokeys" in refusal.value.explain_fix()


def armored(label: str, der: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n".encode()


def returned(data: bytes) -> bytes:
    return data.replace(b"\n", b"\r")


PFX_FORMS: dict[str, bytes] = {
    f"{name} in {encoding}": text.decode().encode(encoding)
    for name, text in {
        "one line": base64.b64encode(PFX),
        "lines": base64.encodebytes(PFX),
        "certutil": armored("CERTIFICATE", PFX),
        "certutil with CRLF": armored("CERTIFICATE", PFX).replace(b"\n", b"\r\n"),
        "certutil with CR": returned(armored("CERTIFICATE", PFX)),
        "PKCS12": armored("PKCS12", PFX),
    }.items()
    for encoding in ("ascii", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")
}


@pytest.mark.parametrize("form", PFX_FORMS)
def test_the_command_for_pkcs12_in_text_decodes_it(tmp_path: Path, form: str) -> None:
    (tmp_path / "a file.txt").write_bytes(PFX_FORMS[form])
    with pytest.raises(CertificateIsPkcs12TextError) as refusal:
        parse_bundle(PFX_FORMS[form])
    refusal.value.add_facts(path=tmp_path / "a file.txt")
    subprocess.run(["sh", "-c", refusal.value.explain_fix().split("`")[1]], cwd=tmp_path, check=True)
    assert (tmp_path / "device.pfx").read_bytes() == PFX


def test_pem_that_certutil_encoded_again_is_read() -> None:
    assert parse_any(armored("CERTIFICATE", DEVICE.certificate.pem().encode())) == DEVICE.certificate


def test_the_command_for_pkcs12_without_a_key_takes_the_certificates_out(tmp_path: Path) -> None:
    none = pkcs12.serialize_key_and_certificates(None, None, None, [DEVICE.certificate.parsed], NoEncryption())
    (tmp_path / "device.pfx").write_bytes(none)
    with pytest.raises(CertificateIsPkcs12WithoutKeyError) as refusal:
        parse_any(none)
    refusal.value.add_facts(path=tmp_path / "device.pfx")
    (command,) = refusal.value.explain_fix().split("`")[1::2]
    subprocess.run(["sh", "-c", command.replace("-nokeys", "-passin pass: -nokeys")], cwd=tmp_path, check=True)
    assert parse_bundle((tmp_path / "device.pfx.pem").read_bytes()) == (DEVICE.certificate,)


def test_a_password_that_is_wrong_leaves_no_file_behind(tmp_path: Path) -> None:
    (tmp_path / "device.pfx").write_bytes(PFX)
    with pytest.raises(CertificateIsPkcs12Error) as refusal:
        parse_any(PFX)
    refusal.value.add_facts(path=tmp_path / "device.pfx")
    for command in refusal.value.explain_fix().split("`")[1::2]:
        wrong = command.replace("pkcs12 -in", "pkcs12 -passin pass:wrong -in")
        assert subprocess.run(["sh", "-c", wrong], cwd=tmp_path, capture_output=True, check=False).returncode != 0
    assert [one.name for one in tmp_path.iterdir()] == ["device.pfx"]


@pytest.mark.parametrize("algorithm", list(PBES))
def test_the_command_for_pkcs12_reads_the_algorithm_that_it_names(tmp_path: Path, algorithm: PBES) -> None:
    encryption = PrivateFormat.PKCS12.encryption_builder().key_cert_algorithm(algorithm).build(b"pw")
    pfx = pkcs12.serialize_key_and_certificates(None, DEVICE.private_key, DEVICE.certificate.parsed, None, encryption)
    (tmp_path / "device.pfx").write_bytes(pfx)
    with pytest.raises(CertificateIsPkcs12Error) as refusal:
        parse_any(pfx)
    refusal.value.add_facts(path=tmp_path / "device.pfx")
    command = refusal.value.explain_fix().split("`")[1].replace("-nokeys", "-passin pass:pw -nokeys")
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert parse_pem((tmp_path / "device.pfx.pem").read_bytes()) == DEVICE.certificate


def test_pkcs12_of_windows_is_opened_with_algorithms_of_before() -> None:
    rc2 = bytes.fromhex("060a2a864886f70d010c0106")
    assert (pkcs12_options(a_pfx()), pkcs12_options(a_pfx() + rc2)) == ("", " -legacy")


CHAIN = (DEVICE.certificate, ROOT.certificate)
P7B = pkcs7.serialize_certificates([ROOT.certificate.parsed, DEVICE.certificate.parsed], Encoding.DER)
P7B_FORMS = {
    "DER": P7B,
    "BER": b"0\x80" + P7B[4:] + b"\0\0",
    "base64": base64.encodebytes(P7B),
    "base64 in one line": base64.b64encode(P7B),
    "base64 of PEM": base64.b64encode(armored("PKCS7", P7B)),
} | {
    f"{label} in {encoding}": armored(label, P7B).decode().encode(encoding)
    for label in ("PKCS7", "PKCS #7 SIGNED DATA", "CMS", "CERTIFICATE")
    for encoding in ("ascii", "utf-16", "utf-16-be", "utf-8-sig")
}


@pytest.mark.parametrize("form", P7B_FORMS)
def test_the_certificates_of_pkcs7_are_read_leaf_first_in_every_form(form: str) -> None:
    assert parse_bundle(P7B_FORMS[form]) == CHAIN
    assert parse_any(P7B_FORMS[form]) == DEVICE.certificate


@pytest.mark.parametrize("data", [P7B[:-40], render_certs_only(())], ids=["cut", "empty"])
def test_pkcs7_without_a_certificate_is_named(data: bytes) -> None:
    with pytest.raises(CertificateIsPkcs7Error):
        parse_bundle(data)


def test_more_certificates_in_pkcs7_than_any_chain_has_are_refused() -> None:
    many = [DEVICE.certificate.parsed] * (MAX_BUNDLE_CERTIFICATES + 1)
    with pytest.raises(CertificateTooLargeError):
        parse_bundle(pkcs7.serialize_certificates(many, Encoding.DER))


ISSUING = a_ca("Issuing", parent=ROOT, profile=certificate_profiles.ISSUING_CA)
LONG_CHAIN = tuple(one.certificate for one in (a_device(ISSUING), ISSUING, ROOT))


@given(st.permutations(LONG_CHAIN))
def test_a_chain_in_any_order_is_put_leaf_first(chain: list[Certificate]) -> None:
    assert leaf_first(tuple(chain)) == LONG_CHAIN


def test_certificates_of_several_devices_stay_in_their_order() -> None:
    several = (ROOT.certificate, DEVICE.certificate, a_device(ROOT, "d2").certificate)
    assert leaf_first(several) == several


@pytest.mark.parametrize("form", ["utf-8", "utf-16"])
def test_a_root_whose_serial_number_is_not_positive_is_trusted_in_any_form(form: str) -> None:
    serial = ROOT.certificate.serial.to_bytes(ROOT.certificate.serial.bit_length() // 8 + 1)
    odd = pem_of(ROOT.certificate.der.replace(serial, bytes((serial[0] | 0x80,)) + serial[1:]))
    with pytest.raises(CertificateInvalidError, match="serial"):
        parse_bundle(odd)
    assert pem_bundle((DEVICE.certificate.pem() + odd).encode(form)) == DEVICE.certificate.pem() + odd


def a_list() -> x509.CertificateRevocationList:
    made = x509.CertificateRevocationListBuilder(ROOT.certificate.parsed.subject, NOON, NOON + timedelta(days=1))
    return made.sign(ROOT.private_key, hashes.SHA256())


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"", "it is empty"),
        (b"\xef\xbb\xbf", "it is empty"),
        (b"\xff\xfe\r\0\n\0", "it is empty"),
        (b"\n<!DOCTYPE html>\n<html>", "it is an HTML page"),
        ("<html>".encode("utf-16"), "it is an HTML page"),
        (b"PK\3\4\x14\0", "it is a ZIP archive"),
        (b"hello", "no certificate block in it"),
        (b"uid,site\nS1,Osaka\n", "it is a table (CSV)"),
        ('"uid";"site"\r\n'.encode("utf-16"), "it is a table (CSV)"),
        (b"age-encryption.org/v1\n-> scrypt", "it is a backup, or another file that age encrypted"),
        (b'{"format": 1}', "it is JSON"),
        (b"[ZoneTransfer]\r\nZoneId=3\r\n", "it is a Zone.Identifier file of Windows Explorer"),
        (b"[InternetShortcut]\r\nURL=https://a.test/\r\n", "it is a link to a page (.url)"),
        (rb"{\rtf1\ansi x}", "it is a text of a text processor (RTF)"),
        (b"-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n", "it is a public key"),
        (a_list().public_bytes(Encoding.PEM), "it is a CRL"),
        (a_list().public_bytes(Encoding.DER), "it is a CRL"),
    ],
)
def test_another_file_is_named_by_what_it_is(data: bytes, detail: str) -> None:
    with pytest.raises(CertificateInvalidError) as refusal:
        parse_bundle(data)
    assert str(refusal.value) == f"Not a certificate: {detail}."


def test_a_request_in_the_place_of_a_certificate_is_recognized() -> None:
    with pytest.raises(CertificateIsRequestError) as refusal:
        parse_any(a_csr())
    refusal.value.add_facts(path="my pump.req")
    assert "birthmark ca sign 'my pump.req'" in refusal.value.explain_fix()


@pytest.mark.parametrize("data", [b"", "", "not base64!", b"\x30\x03\x02\x01\x01", "-----BEGIN CERTIFICATE-----"])
def test_what_is_no_certificate_is_refused(data: bytes | str) -> None:
    with pytest.raises(CertificateInvalidError):
        parse_any(data)


def test_an_oversized_certificate_is_refused_before_it_is_read() -> None:
    with pytest.raises(CertificateTooLargeError):
        parse_der(b"\x30" * (MAX_CERTIFICATE_BYTES + 1))


@pytest.mark.parametrize("whose", ["subject", "issuer"])
def test_a_name_of_hundreds_of_parts_is_refused_before_they_are_read(whose: str) -> None:
    many = x509.Name([x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, f"{number}") for number in range(300)])
    few, key, now = name_of("few"), a_key(), datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(many if whose == "subject" else few)
        .issuer_name(many if whose == "issuer" else few)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    with pytest.raises(CertificateTooLargeError, match="in a name"):
        parse_der(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))


def test_more_bytes_or_certificates_than_any_chain_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pem = a_ca().certificate.pem()
    monkeypatch.setattr(certificates, "MAX_BUNDLE_CERTIFICATES", 1)
    with pytest.raises(CertificateTooLargeError, match="1 certificates"):
        parse_bundle(pem + pem)
    monkeypatch.setattr(certificates, "MAX_BUNDLE_BYTES", 100)
    with pytest.raises(CertificateTooLargeError, match="100 bytes"):
        parse_bundle(pem)


def test_a_name_cannot_forge_log_lines() -> None:
    assert printable("a\nb\x1b[31m") == "a\\u000ab\\u001b[31m"


@given(st.binary(max_size=400))
def test_any_bytes_are_a_certificate_or_a_refusal(data: bytes) -> None:
    with contextlib.suppress(CertificateInvalidError):
        assert parse_any(data).der


@given(st.integers(0, len(DEVICE.certificate.der) - 1), st.integers(0, 255))
def test_a_damaged_certificate_is_read_whole_or_refused(position: int, value: int) -> None:
    der = bytearray(DEVICE.certificate.der)
    der[position] = value
    try:
        certificate = parse_der(bytes(der))
    except CertificateInvalidError:
        return
    assert certificate.subject_text is not None
    assert certificate.not_before.tzinfo is not None
    assert certificate.serial is not None
    assert certificate.spki_der
    assert certificate.is_self_signed in (True, False)


@pytest.mark.parametrize(
    "text", ["ab" * 32, "AB" * 32, f" {':'.join(['ab'] * 32)}\n", f"\u200e{' '.join(['ab'] * 32)}\u00a0"]
)
def test_a_thumbprint_is_read_with_or_without_colons(text: str) -> None:
    assert parse_thumbprint(text) == b"\xab" * 32


@pytest.mark.parametrize("text", ["", "ab" * 20, "xy" * 32, "ab" * 33])
def test_what_is_no_thumbprint_is_refused(text: str) -> None:
    with pytest.raises(CertificateInvalidError):
        parse_thumbprint(text)


def test_who_did_not_sign_did_not() -> None:
    ca, other = a_ca("Same"), a_ca("Same")
    leaf = a_device(ca).certificate
    assert is_signed_by(leaf, ca.certificate)
    assert not is_signed_by(leaf, other.certificate)
    assert not is_signed_by(leaf, leaf)


SIGNED = [
    a_device(ca, key=key).certificate
    for ca in (ROOT, a_ca("RSA", key=an_rsa_key()), a_ca("P-384", key=P384_KEY))
    for key in (None, P384_KEY)
]


@given(st.sampled_from(SIGNED), st.sampled_from([ROOT.certificate, P384_CA]), st.integers(0, 999), st.integers(0, 255))
def test_who_signed_is_what_the_library_says_for_a_certificate_with_any_byte_changed(
    certificate: Certificate, issuer: Certificate, at: int, value: int
) -> None:
    changed = bytearray(certificate.der)
    changed[at % len(changed)] = value
    with contextlib.suppress(CertificateInvalidError):
        found = parse_der(bytes(changed))
        try:
            found.parsed.verify_directly_issued_by(issuer.parsed)
            says = True
        except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
            says = False
        assert is_signed_by(found, issuer) is says
        assert found.spki_der == found.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def test_a_signature_that_names_another_algorithm_outside_than_inside_does_not_count() -> None:
    inside = DEVICE.certificate.der
    outside = inside.rindex(bytes.fromhex("06082a8648ce3d040302"))
    changed = inside[: outside + 9] + b"\x03" + inside[outside + 10 :]
    assert is_signed_by(parse_der(inside), ROOT.certificate)
    assert not is_signed_by(parse_der(changed), ROOT.certificate)


def test_names_that_differ_only_in_their_string_type_are_two_names_as_for_the_library() -> None:
    printable_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test Root", _type=_ASN1Type.PrintableString)])
    builder = x509.CertificateBuilder(
        issuer_name=printable_name,
        subject_name=name_of("device-1"),
        public_key=a_key().public_key(),
        serial_number=7,
        not_valid_before=NOON,
        not_valid_after=NOON + timedelta(days=1),
    )
    leaf = parse_der(builder.sign(ROOT.private_key, hashes.SHA256()).public_bytes(Encoding.DER))
    assert leaf.issuer_der != ROOT.certificate.subject_der
    with pytest.raises(ValueError, match="subject does not match"):
        leaf.parsed.verify_directly_issued_by(ROOT.certificate.parsed)
    assert not is_signed_by(leaf, ROOT.certificate)


def test_what_is_large_is_not_kept_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "MAX_KEPT_BYTES", 100)
    certificates._ec_key.cache_clear()
    assert is_signed_by(DEVICE.certificate, ROOT.certificate)
    assert certificates._ec_key.cache_info().currsize == 0
