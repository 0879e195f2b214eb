"""Keys in a token sign as keys in files do: by every scheme of their kind, by which anybody can check them."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.mechanisms import KeyType

from birthmark.keys.errors import (
    KeyNotFoundError,
    KeyUnsupportedError,
    PinWrongError,
    PublicKeyMissingError,
    TokenFailedError,
)
from birthmark.keys.key_handle import Scheme
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_key import TokenKey
from birthmark.keys.pkcs11_library_lifecycle import stop_library
from birthmark.keys.pkcs11_token import Pkcs11Token
from birthmark.keys.possession import check_nonce, sign_nonce
from birthmark.pki.certificate_profiles import DEVICE
from birthmark.pki.issuance import self_signed
from birthmark.pki.names_and_registration_ids import name_of
from birthmark.secure_elements.chip_profiles import Algorithm
from birthmark.secure_elements.softhsm_element import initialize_token
from birthmark.secure_elements.token_object_management import generate
from support.fakes import NOON
from support.pki.pki_builders import a_key

PIN = "123456"
SALTED = padding.PSS(padding.MGF1(hashes.SHA256()), 32)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("SOFTHSM2_CONF", "")
    yield initialize_token(tmp_path / "chip", "device", PIN)
    stop_library()
    os.environ.pop("SOFTHSM2_CONF", None)


@pytest.fixture
def token(module: Path) -> Iterator[Pkcs11Token]:
    with closing(Pkcs11Token.open(module, label="device", pin=Pin(PIN))) as opened:
        yield opened


def made(token: Pkcs11Token, algorithm: Algorithm) -> TokenKey:
    with token.session() as session:
        generate(session, "key", algorithm, b"\x01")
    return TokenKey.find(token, label="key")


@pytest.mark.parametrize("scheme", [one for one in Scheme if not one.is_ec])
def test_an_rsa_key_signs_by_every_scheme_of_its_kind(token: Pkcs11Token, scheme: Scheme) -> None:
    key = made(token, Algorithm.RSA2048)
    public = key.public_key
    assert isinstance(public, rsa.RSAPublicKey)
    how = SALTED if scheme is Scheme.RSA_PSS_SHA256 else padding.PKCS1v15()
    public.verify(key.sign(b"data", scheme), b"data", how, scheme.hash)


@pytest.mark.parametrize("algorithm", [Algorithm.P256, Algorithm.P384, Algorithm.RSA2048])
def test_a_proof_of_possession_is_for_its_nonce_alone(token: Pkcs11Token, algorithm: Algorithm) -> None:
    key = made(token, algorithm)
    signature = sign_nonce(key, b"nonce")
    check_nonce(key.public_key, b"nonce", signature)
    with pytest.raises(InvalidSignature):
        check_nonce(key.public_key, b"another", signature)


@pytest.mark.parametrize(
    ("algorithm", "scheme"),
    [(Algorithm.P256, Scheme.RSA_PKCS1_SHA256), (Algorithm.RSA2048, Scheme.ECDSA_SHA256)],
)
def test_a_key_does_not_sign_by_another_kinds_scheme(token: Pkcs11Token, algorithm: Algorithm, scheme: Scheme) -> None:
    with pytest.raises(KeyUnsupportedError):
        made(token, algorithm).sign(b"data", scheme)


def put_private_half(token: Pkcs11Token, key: ec.EllipticCurvePrivateKey) -> None:
    """Put a key without its public half, as chips hold them."""
    curve = bytes.fromhex("06082a8648ce3d030107")  # the OID of P-256
    scalar = key.private_numbers().private_value.to_bytes(32, "big")
    kind = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.KEY_TYPE: KeyType.EC, Attribute.LABEL: "key"}
    how = {Attribute.TOKEN: True, Attribute.SIGN: True, Attribute.EC_PARAMS: curve, Attribute.VALUE: scalar}
    with token.session() as session:
        session.create_object({**kind, **how})


def test_a_public_half_is_found_in_a_certificate_of_the_same_name_with_what_pads_it(token: Pkcs11Token) -> None:
    key = a_key()
    put_private_half(token, key)
    certificate = self_signed(DEVICE, name_of("device-1"), key, serial=7, now=NOON)
    padded = certificate.parsed.public_bytes(Encoding.DER) + bytes(32)
    kind = {Attribute.CLASS: ObjectClass.CERTIFICATE, Attribute.CERTIFICATE_TYPE: 0, Attribute.LABEL: "key"}
    with token.session() as session:
        session.create_object({**kind, Attribute.TOKEN: True, Attribute.VALUE: padded, Attribute.SUBJECT: b""})
    assert TokenKey.find(token, label="key").public_key == key.public_key()


def test_a_key_whose_public_half_is_nowhere_is_told(token: Pkcs11Token) -> None:
    put_private_half(token, a_key())
    with pytest.raises(PublicKeyMissingError) as refused:
        TokenKey.find(token, label="key")
    assert "key 'key'" in refused.value.explain_cause()


def test_what_there_is_instead_of_a_key_that_is_not_there_is_told(token: Pkcs11Token) -> None:
    made(token, Algorithm.P256)
    with pytest.raises(KeyNotFoundError) as refused:
        token.find_private_key(label="other", key_id=b"\x02")
    assert "label 'other' and id 02" in refused.value.explain_cause()
    assert "'key'" in refused.value.explain_cause()


def test_a_wrong_pin_opens_nothing(module: Path) -> None:
    with pytest.raises(PinWrongError):
        Pkcs11Token.open(module, label="device", pin=Pin("654321"))


def test_a_session_that_was_closed_signs_nothing(module: Path) -> None:
    opened = Pkcs11Token.open(module, label="device", pin=Pin(PIN))
    key = made(opened, Algorithm.P256)
    opened.close()
    opened.close()
    with pytest.raises(TokenFailedError):
        key.sign(b"data", Scheme.ECDSA_SHA256)
