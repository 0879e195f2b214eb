"""Real PKCS#11 with a software chip behind: what is in it, what leaves it, what is refused."""

import stat
import subprocess
from pathlib import Path
from typing import cast

import pkcs11
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11.constants import Attribute, ObjectClass

from birthmark.keys.cryptography_key_adapter import as_private_key
from birthmark.keys.errors import (
    KeyNotFoundError,
    KeyUnsupportedError,
    PinFileError,
    PinMissingError,
    PinWrongError,
    TokenAmbiguousError,
    TokenFailedError,
    TokenNotFoundError,
)
from birthmark.keys.key_handle import Scheme
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_key import TokenKey
from birthmark.keys.pkcs11_token import Pkcs11Token, list_tokens
from birthmark.keys.pkcs11_uri import parse_pkcs11_uri
from birthmark.keys.se050_reference_keys import parse_reference_key
from birthmark.pki.certificate_profiles import DEVICE
from birthmark.pki.certificates import parse_bundle
from birthmark.pki.csr import parse_csr
from birthmark.pki.issuance import self_signed
from birthmark.pki.names_and_registration_ids import name_of
from birthmark.secure_elements.chip_profiles import Algorithm
from birthmark.secure_elements.dps_assignment_codec import Assignment, Layout
from birthmark.secure_elements.element_session import Element
from birthmark.secure_elements.errors import (
    ElementCertificateMismatchError,
    ElementCertificateMissingError,
    ElementDataOccupiedError,
    ElementDataTooLargeError,
    ElementExistsError,
    ElementKeyExistsError,
    ElementMemoryInvalidError,
    ElementNoMemoryError,
    ElementNotReferableError,
    ElementProofInvalidError,
)
from birthmark.secure_elements.possession import check_proof, prove
from birthmark.secure_elements.softhsm_element import SoftwareElement, create_software_element
from support.fakes import NOON, SeededEntropy

pytestmark = pytest.mark.integration


def test_private_keys_cannot_leave_the_token(chip: Element) -> None:
    with chip.token.session() as session:
        keys = list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY}))
        assert len(keys) == 2
        for key in keys:
            assert key[Attribute.SENSITIVE]
            assert key[Attribute.ALWAYS_SENSITIVE]
            assert key[Attribute.NEVER_EXTRACTABLE]
            assert not key[Attribute.EXTRACTABLE]
            secret = (
                Attribute.VALUE
                if cast("pkcs11.PrivateKey", key).key_type is pkcs11.KeyType.EC
                else Attribute.PRIVATE_EXPONENT
            )
            with pytest.raises(pkcs11.AttributeSensitive):
                key[secret]
    assert all(item.is_guarded for item in chip.objects() if item.kind == "private key")


def test_an_se050_has_its_object_ids_in_either_byte_order(chip: Element) -> None:
    ids = {(item.kind, item.object_id, item.detail) for item in chip.objects() if item.kind != "certificate"}
    assert ids >= {("private key", "0xF0000100", "EC P-256"), ("private key", "0xF0000110", "RSA 2048")}
    certificates = {item.object_id for item in chip.objects() if item.kind == "certificate"}
    assert certificates == {"0xF0000101", "0xF0000111"}


@pytest.mark.parametrize(("selector", "kind"), [(None, ec.EllipticCurvePublicKey), ("0xF0000110", rsa.RSAPublicKey)])
def test_a_key_is_found_with_its_certificate(chip: Element, selector: str | None, kind: type) -> None:
    key, certificate = chip.key(selector), chip.certificate(selector)
    assert isinstance(key.public_key, kind)
    assert certificate.public_key() == key.public_key
    assert (certificate.subject_cn or "").startswith("se050-")


def test_a_certificate_padded_with_zeros_is_cut(se050: SoftwareElement) -> None:
    with se050.open() as element:
        with element.token.session() as session:
            stored = [bytes(item[Attribute.VALUE]) for item in session.get_objects({Attribute.LABEL: "sss:F0000101"})]
        assert stored[0].endswith(bytes(16))
        assert stored[0].startswith(element.certificate().der)
        assert not element.certificate().der.endswith(bytes(2))


def test_certificates_are_issued_by_the_makers_ca_whose_key_is_nowhere(se050: SoftwareElement) -> None:
    intermediate, root = parse_bundle(se050.manufacturer_certificates.read_bytes())
    with se050.open() as element:
        element.certificate().parsed.verify_directly_issued_by(intermediate.parsed)
    intermediate.parsed.verify_directly_issued_by(root.parsed)
    files = [path for path in se050.directory.rglob("*") if path.is_file()]
    assert not any(b"PRIVATE KEY" in path.read_bytes() for path in files)
    assert stat.S_IMODE(se050.pin_file.stat().st_mode) == 0o600


@pytest.mark.parametrize("selector", ["0xF0000100", "0xF0000110"])
def test_a_request_signed_in_the_chip_verifies(chip: Element, selector: str) -> None:
    request = parse_csr(chip.csr("device-1", selector))
    assert x509.load_der_x509_csr(chip.csr("device-1", selector)).is_signature_valid
    assert request.subject == name_of("device-1")
    assert request.public_key == chip.key(selector).public_key


@pytest.mark.parametrize("selector", ["0xF0000100", "F0000110"])
def test_a_reference_key_names_the_object_and_holds_no_secret(chip: Element, selector: str) -> None:
    pem = chip.reference_key(selector)
    assert parse_reference_key(pem.encode()) == int(selector.removeprefix("0x"), 16)
    point = chip.key(selector).public_key
    raw = (
        point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        if isinstance(point, ec.EllipticCurvePublicKey)
        else point.public_numbers().n.to_bytes(256, "big")
    )
    der = parse_pem(pem)
    # Nothing but the public half, zeros and the magic is in it.
    assert raw in der
    assert len(der.replace(raw, b"")) < 70


def parse_pem(pem: str) -> bytes:
    import base64

    return base64.b64decode("".join(pem.strip().splitlines()[1:-1]))


@pytest.mark.parametrize(
    ("selector", "scheme"),
    [(None, Scheme.ECDSA_SHA384), ("0xF0000110", Scheme.RSA_PSS_SHA256), ("0xF0000110", Scheme.RSA_PKCS1_SHA512)],
)
def test_signatures_of_every_scheme_are_made(chip: Element, selector: str | None, scheme: Scheme) -> None:
    from cryptography.hazmat.primitives.asymmetric import padding

    key = chip.key(selector)
    signature = key.sign(b"data", scheme)
    algorithm = scheme.hash
    if isinstance(key.public_key, ec.EllipticCurvePublicKey):
        key.public_key.verify(signature, b"data", ec.ECDSA(algorithm))
    elif scheme is Scheme.RSA_PSS_SHA256:
        key.public_key.verify(signature, b"data", padding.PSS(padding.MGF1(algorithm), 32), algorithm)
    else:
        key.public_key.verify(signature, b"data", padding.PKCS1v15(), algorithm)


def test_a_key_refuses_the_other_kinds_scheme(chip: Element) -> None:
    with pytest.raises(KeyUnsupportedError):
        chip.key().sign(b"data", Scheme.RSA_PKCS1_SHA256)


def test_possession_is_proven_for_one_nonce(chip: Element) -> None:
    proof = prove(chip.key(), b"a nonce of the asker")
    assert check_proof(proof, b"a nonce of the asker") == chip.key().public_key
    with pytest.raises(ElementProofInvalidError):
        check_proof(proof, b"another nonce")


def test_certificates_crls_and_requests_are_signed_by_a_token_key(chip: Element) -> None:
    for selector in (None, "0xF0000110"):
        key = as_private_key(chip.key(selector))
        certificate = self_signed(DEVICE, name_of("d1"), key, serial=1, now=NOON)
        assert certificate.is_self_signed


def test_an_se050_has_no_memory_and_an_atecc608_no_reference_key(chip: Element, atecc608: SoftwareElement) -> None:
    with pytest.raises(ElementNoMemoryError):
        chip.remember(Assignment("h", "d"))
    with atecc608.open() as element, pytest.raises(ElementNotReferableError):
        element.reference_key()


def test_an_atecc608_shows_its_chain_and_remembers_its_hub(atecc608: SoftwareElement) -> None:
    with atecc608.open() as element:
        device, signer = element.chain()
        device.parsed.verify_directly_issued_by(signer.parsed)
        assert (device.subject_cn or "").startswith("sn0123")
        assert element.recall() is None
        element.remember(Assignment("hub1.example", "d1", "0ne1"))
        element.remember(Assignment("hub2.example", "d1", "0ne1"))
    with atecc608.open() as element:
        assert element.recall() == Assignment("hub2.example", "d1", "0ne1")
        assert len(element.read_data("slot8")) == 416


def test_memory_is_bounded_and_foreign_data_is_told_apart(atecc608: SoftwareElement) -> None:
    with atecc608.open() as element:
        with pytest.raises(ElementNoMemoryError):
            element.remember(Assignment("h" * 400, "d1"))
        with pytest.raises(ElementDataTooLargeError):
            element.write_data("slot8", bytes(417))
        element.write_data("slot8", b"somebody else's")
        with pytest.raises(ElementMemoryInvalidError):
            element.recall()


def test_foreign_bytes_are_overwritten_only_when_asked(atecc608: SoftwareElement) -> None:
    with atecc608.open() as element:
        element.write_data("slot8", b"somebody else's")
        for write in (
            element.check_memory,
            lambda: element.remember(Assignment("hub1.example", "d1")),
            lambda: element.write_data("slot8", b"mine"),
        ):
            with pytest.raises(ElementDataOccupiedError):
                write()
        assert element.read_data("slot8") == b"somebody else's"
        element.remember(Assignment("hub1.example", "d1"), may_replace=True)
        assert element.recall() == Assignment("hub1.example", "d1")


def test_a_firmware_of_the_how_to_goes_on_reading_its_fields(atecc608: SoftwareElement) -> None:
    theirs = b"sn0123456789ABCDEF01".ljust(68, b"\0") + b"theirs"
    with atecc608.open() as element:
        element.write_data("slot8", theirs)
        with pytest.raises(ElementDataOccupiedError):
            element.remember(Assignment("hub1.example", "sn0123456789ABCDEF01"), Layout.BIRTHMARK)
        with pytest.raises(ElementDataOccupiedError):
            element.remember(Assignment("hub1.example", "another-name"))
        element.remember(Assignment("hub1.example", "sn0123456789ABCDEF01"))
        assert element.read_data("slot8").rstrip(b"\0") == (
            b"sn0123456789ABCDEF01" + b"hub1.example".ljust(48, b"\0") + b"theirs"
        )
        assert element.recall() == Assignment("hub1.example", "sn0123456789ABCDEF01")
        (data,) = [item for item in element.objects() if item.kind == "data"]
        assert data.detail == "416 bytes, the how-to's layout: serial sn0123456789ABCDEF01, hub hub1.example"
        element.remember(Assignment("hub1.example", "d1", "0ne1"), Layout.BIRTHMARK, may_replace=True)
        assert element.recall() == Assignment("hub1.example", "d1", "0ne1")


def test_a_certificate_of_ones_own_ca_is_written_back_and_replaces_the_makers(atecc608: SoftwareElement) -> None:
    with atecc608.open() as element:
        own = self_signed(DEVICE, name_of("d1"), as_private_key(element.key()), serial=7, now=NOON)
        element.write_certificate(own)
        assert element.certificate() == own
        assert [item.label for item in element.objects() if item.kind == "certificate"] == ["device", "signer"]


def test_a_certificate_of_another_key_is_not_written(atecc608: SoftwareElement) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    with atecc608.open() as element, pytest.raises(ElementCertificateMismatchError):
        element.write_certificate(self_signed(DEVICE, name_of("d1"), other, serial=7, now=NOON))


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_new_keys_are_guarded_and_never_replace_old_ones(atecc608: SoftwareElement, algorithm: Algorithm) -> None:
    with atecc608.open() as element:
        key = element.generate_key("next", algorithm)
        assert key.label == "next"
        assert [item.is_guarded for item in element.objects() if item.label == "next" and item.is_guarded is not None]
        with pytest.raises(ElementKeyExistsError):
            element.generate_key("next", algorithm)
        with pytest.raises(ElementCertificateMissingError):
            element.certificate("next")


def test_a_software_element_is_not_made_over_another(se050: SoftwareElement) -> None:
    with pytest.raises(ElementExistsError):
        create_software_element(se050.directory, se050.profile, now=NOON, entropy=SeededEntropy())


# ---- opening tokens and keys


def test_a_key_is_opened_by_its_uri_in_either_byte_order(any_se050: SoftwareElement) -> None:
    with any_se050.open():  # selects SoftHSM's directory
        text = f"pkcs11:token=SSS_PKCS11;object=sss:F0000100;type=private?pin-source=file:{any_se050.pin_file}"
        uri = parse_pkcs11_uri(text)
        assert uri.pin_source is not None
        token = Pkcs11Token.open(any_se050.module, label=uri.token, pin=Pin.from_file(uri.pin_source))
        key = TokenKey.find(token, label=uri.object)
        key.sign(b"x", Scheme.ECDSA_SHA256)
        key.close()
        with pytest.raises(TokenFailedError):
            key.sign(b"x", Scheme.ECDSA_SHA256)


def test_a_pin_file_with_white_space_around_the_pin_takes_no_try_at_the_chip(se050: SoftwareElement) -> None:
    pin = se050.pin_file.read_text().strip()
    (around := se050.directory / "around.pin").touch(0o600)
    with se050.open():
        pass
    for written in (f"{pin} \r\n".encode(), f"\u00a0{pin}".encode(), f"\ufeff {pin}\u3000\r\n".encode("utf-16-le")):
        around.write_bytes(written)
        with pytest.raises(PinFileError) as refused:
            Pkcs11Token.open(se050.module, label=se050.token_label, pin=Pin.from_file(around))
        (command,) = refused.value.explain_fix().split("`")[1::2]
        subprocess.run(["sh", "-c", command], check=True)
        trimmed = around.with_stem("around.trimmed")
        Pkcs11Token.open(se050.module, label=se050.token_label, pin=Pin.from_file(trimmed)).close()
        trimmed.unlink()


def test_mistakes_with_tokens_are_told_apart(se050: SoftwareElement) -> None:
    with se050.open():
        pass
    module, label = se050.module, se050.token_label
    with pytest.raises(PinWrongError) as wrong:
        Pkcs11Token.open(module, label=label, pin=Pin("000000"))
    assert "SSS_PKCS11" in wrong.value.explain_cause()
    with pytest.raises(PinMissingError):
        Pkcs11Token.open(module, label=label)
    with pytest.raises(TokenNotFoundError) as missing:
        Pkcs11Token.open(module, label="nobody")
    assert "SSS_PKCS11" in missing.value.explain_cause()
    with se050.open() as element, pytest.raises(KeyNotFoundError) as no_key:
        element.key("0xF0000102")
    assert "sss:F0000100" in no_key.value.explain_cause()


def test_one_token_among_several_must_be_named(se050: SoftwareElement) -> None:
    with se050.open():
        tokens = list_tokens(se050.module)
        assert [token.label for token in tokens] == ["SSS_PKCS11"]
        assert tokens[0].needs_pin
        with pytest.raises(TokenNotFoundError):
            Pkcs11Token.open(se050.module, slot_id=tokens[0].slot_id + 1)


def test_two_tokens_without_a_name_are_ambiguous(se050: SoftwareElement, tmp_path: Path) -> None:
    import shutil

    from birthmark.secure_elements.softhsm_element import initialize_token

    module = initialize_token(tmp_path / "two", "SSS_PKCS11", "1234")
    for token in (se050.directory / "tokens").iterdir():
        shutil.copytree(token, tmp_path / "two" / "tokens" / token.name)
    with pytest.raises(TokenAmbiguousError):
        Pkcs11Token.open(module, label="SSS_PKCS11", pin=Pin("1234"))


def test_sharing_a_token_keeps_it_open_until_the_last_user_closes(se050: SoftwareElement) -> None:
    first, second = se050.open(), se050.open()
    first.close()
    assert second.key().sign(b"x", Scheme.ECDSA_SHA256)
    second.close()
    second.close()
    with pytest.raises(TokenFailedError):
        second.key()
