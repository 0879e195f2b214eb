"""Key files: what signs, and the mistakes people make with them."""

import base64
import copy
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from asn1crypto import keys as asn1_keys
from asn1crypto import pem as asn1_pem
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs12,
)
from hypothesis import given
from hypothesis import strategies as st

from birthmark.device_transports.identity_and_trust import FileIdentity, ServerTrust
from birthmark.device_transports.openssl.tls_context import client_context
from birthmark.keys.cryptography_key_adapter import as_private_key
from birthmark.keys.errors import (
    KeyFileExposedError,
    KeyFileInvalidError,
    KeyFileIsCertificateError,
    KeyFileIsPkcs12Error,
    KeyFileMissingError,
    KeyUnsupportedError,
    PassphraseWrongError,
    PinFileError,
    ReferenceKeyError,
)
from birthmark.keys.file_key import FileKey, pem_of_key, read_key_file
from birthmark.keys.key_handle import Scheme, default_scheme
from birthmark.keys.pin import Pin
from birthmark.keys.se050_labels import ids_of, is_same_label, label_of, object_id_of, swapped
from birthmark.keys.se050_reference_keys import parse_reference_key, render_reference_key
from birthmark.pki.certificate_profiles import DEVICE
from birthmark.pki.issuance import self_signed
from birthmark.pki.names_and_registration_ids import name_of
from support.fakes import NOON

EC_KEY = ec.generate_private_key(ec.SECP256R1())
P384_KEY = ec.generate_private_key(ec.SECP384R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)
PLAIN = NoEncryption()


PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def a_file(directory: Path, key: PrivateKey = EC_KEY, secret: KeySerializationEncryption = PLAIN) -> Path:
    path = directory / "key.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("key", [EC_KEY, P384_KEY, RSA_KEY])
def test_a_file_key_signs_requests_and_certificates_through_its_handle(tmp_path: Path, key: PrivateKey) -> None:
    handle = FileKey.load(a_file(tmp_path, key))
    signing_key = as_private_key(handle)
    request = x509.CertificateSigningRequestBuilder(name_of("d1")).sign(signing_key, hashes.SHA256())
    assert request.is_signature_valid
    assert self_signed(DEVICE, name_of("d1"), signing_key, serial=1, now=NOON).is_self_signed
    assert handle.describe() == f"file {tmp_path}/key.pem"
    assert signing_key.key_size == key.key_size
    assert copy.deepcopy(signing_key) is signing_key
    handle.close()


def test_the_private_half_never_comes_out_of_a_handle(tmp_path: Path) -> None:
    signing_key = as_private_key(FileKey.load(a_file(tmp_path)))
    with pytest.raises(UnsupportedAlgorithm):
        signing_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PLAIN)
    with pytest.raises(UnsupportedAlgorithm):
        signing_key.private_numbers()
    assert isinstance(signing_key, ec.EllipticCurvePrivateKey)
    with pytest.raises(UnsupportedAlgorithm):
        signing_key.exchange(ec.ECDH(), EC_KEY.public_key())
    for algorithm in (hashes.MD5(), utils.Prehashed(hashes.SHA256())):
        with pytest.raises(UnsupportedAlgorithm):
            signing_key.sign(b"x", ec.ECDSA(algorithm))


def test_an_rsa_handle_signs_by_pkcs1_and_pss_only(tmp_path: Path) -> None:
    signing_key = as_private_key(FileKey.load(a_file(tmp_path, RSA_KEY)))
    assert isinstance(signing_key, rsa.RSAPrivateKey)
    salted = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    RSA_KEY.public_key().verify(signing_key.sign(b"x", salted, hashes.SHA256()), b"x", salted, hashes.SHA256())
    with pytest.raises(UnsupportedAlgorithm):
        signing_key.sign(b"x", padding.PKCS1v15(), hashes.MD5())
    with pytest.raises(UnsupportedAlgorithm):
        signing_key.decrypt(b"x", padding.PKCS1v15())


def test_a_scheme_fits_its_key(tmp_path: Path) -> None:
    assert default_scheme(P384_KEY.public_key()) is Scheme.ECDSA_SHA384
    for key, scheme in ((EC_KEY, Scheme.RSA_PKCS1_SHA256), (RSA_KEY, Scheme.ECDSA_SHA256)):
        with pytest.raises(KeyUnsupportedError):
            FileKey.load(a_file(tmp_path, key)).sign(b"x", scheme)


@pytest.mark.parametrize("mode", [0o644, 0o606, 0o620, 0o601])
def test_a_key_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = a_file(tmp_path)
    path.chmod(mode)
    with pytest.raises(KeyFileExposedError) as refusal:
        FileKey.load(path)
    assert f"{mode:04o}" in refusal.value.explain_cause()


def test_a_key_for_a_group_is_taken_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = a_file(tmp_path)
    path.chmod(0o640)
    FileKey.load(path)
    assert "key.group_readable" in caplog.text


def test_a_passphrase_opens_and_a_wrong_one_does_not(tmp_path: Path) -> None:
    path = a_file(tmp_path, secret=BestAvailableEncryption(b"open"))
    FileKey.load(path, Pin("open"))
    for wrong in (None, Pin("shut")):
        with pytest.raises(PassphraseWrongError):
            FileKey.load(path, wrong)
    FileKey.load(a_file(tmp_path), Pin("needless"))


def armored(label: str, der: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n".encode()


SEC1, PKCS8 = (
    EC_KEY.private_bytes(Encoding.DER, form, PLAIN) for form in (PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8)
)
LOCKED = EC_KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"open"))
WRITERS: dict[str, Callable[[str, bytes], bytes]] = {
    "DER": lambda _, der: der,
    "base64": lambda _, der: base64.b64encode(der),
    "certutil -encode": lambda _, der: armored("CERTIFICATE", der).replace(b"\n", b"\r\n"),
    "base64 of PEM": lambda label, der: base64.b64encode(armored(label, der)),
    "PEM with CR": lambda label, der: armored(label, der).replace(b"\n", b"\r"),
    "PEM in UTF-16": lambda label, der: armored(label, der).decode().encode("utf-16"),
    "PEM with a mark": lambda label, der: armored(label, der).decode().encode("utf-8-sig"),
}
KEY_FORMS = {
    f"{name} of {kind}": write(label, der)
    for kind, label, der in (
        ("SEC1", "EC PRIVATE KEY", SEC1),
        ("PKCS#8", "PRIVATE KEY", PKCS8),
        ("a locked one", "ENCRYPTED PRIVATE KEY", LOCKED),
    )
    for name, write in WRITERS.items()
}


@pytest.mark.parametrize("form", KEY_FORMS)
def test_a_key_in_any_form_is_read_and_shown_to_a_server(tmp_path: Path, form: str) -> None:
    path = a_file(tmp_path)
    path.write_bytes(KEY_FORMS[form])
    key = FileKey.load(path, Pin("open"))
    assert key.public_key == EC_KEY.public_key()
    chain = (self_signed(DEVICE, name_of("d1"), EC_KEY, serial=1, now=NOON),)
    client_context(FileIdentity(chain, key, Pin("open")), ServerTrust())
    assert path.read_bytes() == KEY_FORMS[form]


@given(st.binary())
def test_any_bytes_are_a_keys_pem_or_stay_text(noise: bytes) -> None:
    assert pem_of_key(pem_of_key(noise)) == pem_of_key(noise)


PFX = pkcs12.serialize_key_and_certificates(b"n", EC_KEY, None, None, PLAIN)
PFX_FORMS = {
    "base64": base64.b64encode(PFX),
    "certutil": armored("CERTIFICATE", PFX),
    "UTF-16": armored("CERTIFICATE", PFX).decode().encode("utf-16"),
    "CR": armored("CERTIFICATE", PFX).replace(b"\n", b"\r"),
}


@pytest.mark.parametrize("form", PFX_FORMS)
def test_the_commands_for_pkcs12_in_text_lead_to_the_key(tmp_path: Path, form: str) -> None:
    (given_file := tmp_path / "a key.txt").write_bytes(PFX_FORMS[form])
    for path in (given_file, tmp_path / "device.pfx"):
        with pytest.raises(KeyFileIsPkcs12Error) as refusal:
            FileKey.load(path)
        command = refusal.value.explain_fix().split("`")[1].replace("-nocerts", "-passin pass: -nocerts")
        subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert FileKey.load(tmp_path / "device.pfx.key").public_key == EC_KEY.public_key()


def test_pkcs12_without_a_key_is_told_with_no_command_that_takes_one_out(tmp_path: Path) -> None:
    certificate = self_signed(DEVICE, name_of("d1"), EC_KEY, serial=1, now=NOON)
    (path := tmp_path / "x.pfx").write_bytes(
        pkcs12.serialize_key_and_certificates(None, None, None, [certificate.parsed], PLAIN)
    )
    with pytest.raises(KeyFileIsPkcs12Error) as refusal:
        FileKey.load(path)
    assert refusal.value.explain_fix() == "It holds certificates alone: export it again with its private key."


def test_mistakes_with_key_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(KeyFileMissingError):
        FileKey.load(tmp_path / "nothing.pem")
    with pytest.raises(KeyFileInvalidError):
        FileKey.load(tmp_path)
    swapped_file = tmp_path / "cert.pem"
    swapped_file.write_text(self_signed(DEVICE, name_of("d1"), EC_KEY, serial=1, now=NOON).pem())
    with pytest.raises(KeyFileIsCertificateError):
        FileKey.load(swapped_file)
    noise = tmp_path / "noise.pem"
    noise.write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    noise.chmod(0o600)
    with pytest.raises(KeyFileInvalidError):
        FileKey.load(noise)
    other = tmp_path / "ed.pem"
    ed = ed25519.Ed25519PrivateKey.generate()
    other.write_bytes(ed.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PLAIN))
    other.chmod(0o600)
    with pytest.raises(KeyUnsupportedError):
        FileKey.load(other)


# ---- reference keys


@given(st.integers(0, 2**32 - 1), st.sampled_from([EC_KEY, P384_KEY, RSA_KEY]))
def test_a_reference_key_names_its_object(object_id: int, key: PrivateKey) -> None:
    assert parse_reference_key(render_reference_key(key.public_key(), object_id).encode()) == object_id


def test_the_scalar_is_as_nxp_writes_it() -> None:
    pem = render_reference_key(EC_KEY.public_key(), 0xF0000100)
    key = asn1_keys.ECPrivateKey.load(asn1_pem.unarmor(pem.encode())[2])
    assert key["private_key"].contents == bytes.fromhex("10" + "00" * 17 + "F0000100" + "A5A6B5B6A5A6B5B6" + "1000")
    point = EC_KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert bytes(key["public_key"]) == point


def test_a_reference_key_in_pkcs8_or_behind_parameters_is_known() -> None:
    inner = asn1_keys.ECPrivateKey.load(asn1_pem.unarmor(render_reference_key(EC_KEY.public_key(), 7).encode())[2])
    info = asn1_keys.PrivateKeyInfo.wrap(inner, "ec")
    pkcs8 = asn1_pem.armor("PRIVATE KEY", info.dump())
    assert parse_reference_key(pkcs8) == 7
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    assert parse_reference_key(parameters + render_reference_key(EC_KEY.public_key(), 7).encode()) == 7


@given(st.integers(0, 2**32 - 1))
def test_an_rsa_reference_key_whose_writer_turned_the_primes_around_names_the_same_object(object_id: int) -> None:
    pem = render_reference_key(RSA_KEY.public_key(), object_id)
    key = asn1_keys.RSAPrivateKey.load(asn1_pem.unarmor(pem.encode())[2])
    turned = asn1_keys.RSAPrivateKey(key.native | {"prime1": object_id, "prime2": 1})
    assert parse_reference_key(asn1_pem.armor("RSA PRIVATE KEY", turned.dump())) == object_id


def test_ordinary_keys_are_no_reference_keys(tmp_path: Path) -> None:
    for key in (EC_KEY, P384_KEY, RSA_KEY):
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            assert parse_reference_key(key.private_bytes(Encoding.PEM, form, PLAIN)) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_no_reference_key(noise: bytes) -> None:
    assert parse_reference_key(noise) is None
    for label in ("EC PRIVATE KEY", "RSA PRIVATE KEY", "PRIVATE KEY"):
        assert parse_reference_key(asn1_pem.armor(label, noise)) is None


def test_a_reference_key_is_refused_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "ref.pem"
    path.write_text(render_reference_key(RSA_KEY.public_key(), 0xF0000110))
    with pytest.raises(ReferenceKeyError) as refusal:
        FileKey.load(path)
    assert "0xF0000110" in refusal.value.explain_cause()
    assert "chip exec" in refusal.value.explain_fix()


# ---- labels and PINs


@given(st.integers(0, 0xFFFFFF).map(lambda low: 0xF0000000 | low))
def test_labels_of_nxps_block_are_known_in_either_byte_order(object_id: int) -> None:
    plain, turned = label_of(object_id), label_of(swapped(object_id))
    assert object_id_of(plain) == object_id
    if swapped(object_id) >> 24 != 0xF0:
        assert object_id_of(turned) == object_id
        assert is_same_label(plain, turned)
    assert ids_of(object_id)[0] == ids_of(object_id)[1][::-1]


def test_labels_as_the_fact_sheet_has_them() -> None:
    assert (label_of(0xF0000110), label_of(swapped(0xF0000110))) == ("sss:F0000110", "sss:100100F0")
    assert object_id_of("sss:0xF0000100") == 0xF0000100
    assert object_id_of(label_of(0x20181001)) == 0x20181001
    assert object_id_of("device") is None
    assert not is_same_label("device", "signer")


def test_a_pin_shows_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "pin"
    path.write_text("s3cret\r\n")
    path.chmod(0o600)
    pin = Pin.from_file(path)
    assert pin.reveal() == "s3cret"
    assert "s3cret" not in repr(pin)
    with pytest.raises(TypeError):
        pickle.dumps(pin)
    assert Pin.prompt("t", ask=lambda text: f"typed after {text}").reveal() == "typed after PIN of token t: "


@pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo\n", b"x" * 300, b"\xff\xfe", b"a\0b"])
def test_a_pin_file_holds_one_line_of_text(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pin"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(PinFileError):
        Pin.from_file(path)


def test_a_pin_comes_by_descriptor(tmp_path: Path) -> None:
    import os

    reader, writer = os.pipe()
    os.write(writer, b"1234\n")
    os.close(writer)
    assert Pin.from_descriptor(reader).reveal() == "1234"
    os.close(reader)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_of_another_user_is_read_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "foreign.key"
    path.write_bytes(b"-----BEGIN PRIVATE KEY-----\n")
    os.chown(path, 65534, 65534)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    read_key_file(path)
    assert "key.of_another_user" in caplog.text


ENCRYPTED = EC_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw")).decode()
ENCRYPTED_FORMS = {
    "PEM": ENCRYPTED.encode(),
    "PEM with a mark": ENCRYPTED.encode("utf-8-sig"),
    "UTF-16": ENCRYPTED.encode("utf-16"),
    "UTF-16 without a mark": ENCRYPTED.encode("utf-16-be"),
    **{
        f"{coded} {name}": ENCRYPTED.replace("\n", end).encode(coded)
        for coded in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")
        for name, end in (("CRLF", "\r\n"), ("CR", "\r"))
    },
    "DER": EC_KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw")),
    "base64 of PEM": base64.encodebytes(ENCRYPTED.encode()),
}


@pytest.mark.parametrize("form", ENCRYPTED_FORMS)
def test_the_command_that_takes_the_passphrase_away_reads_each_form(tmp_path: Path, form: str) -> None:
    (path := tmp_path / "a key.pem").touch(0o600)
    path.write_bytes(ENCRYPTED_FORMS[form])
    with pytest.raises(PassphraseWrongError) as refused:
        FileKey.load(path)
    command = refused.value.explain_fix().split("`")[-2].replace("openssl pkey", "openssl pkey -passin pass:pw")
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert FileKey.load(path.with_name("a key.pem.plain")).public_key == EC_KEY.public_key()
