"""The hook reads key files with its own few lines of DER: they must agree with `keys.reference_keys`."""

import importlib.util
from types import ModuleType

import pytest
from asn1crypto import keys as asn1_keys
from asn1crypto import pem as asn1_pem
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from birthmark.keys.pkcs11_uri import Pkcs11Uri
from birthmark.keys.pkcs11_uri_files import render_uri_pem
from birthmark.keys.se050_reference_keys import render_reference_key
from birthmark.secure_elements.exec import HOOK

KEYS = (
    ec.generate_private_key(ec.SECP256R1()),
    ec.generate_private_key(ec.SECP384R1()),
    rsa.generate_private_key(65537, 2048),
)


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("birthmark_hook", HOOK / "sitecustomize.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hook = load()


@given(st.integers(0, 2**32 - 1), st.sampled_from(KEYS))
def test_a_reference_key_is_looked_up_under_both_labels(
    object_id: int, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
) -> None:
    plain, turned = hook._uris(render_reference_key(key.public_key(), object_id).encode())
    assert plain == f"pkcs11:object=sss%3A{object_id:08X};type=private"
    assert turned == f"pkcs11:object=sss%3A{object_id.to_bytes(4, 'little').hex().upper()};type=private"


def test_an_rsa_reference_key_with_its_primes_turned_around_is_looked_up_too() -> None:
    pem = render_reference_key(KEYS[2].public_key(), 0xF0000110).encode()
    key = asn1_keys.RSAPrivateKey.load(asn1_pem.unarmor(pem)[2])
    turned = asn1_keys.RSAPrivateKey(key.native | {"prime1": key["prime2"].native, "prime2": 1})
    assert hook._uris(asn1_pem.armor("RSA PRIVATE KEY", turned.dump())) == hook._uris(pem)


def test_known_labels_and_the_token_come_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIRTHMARK_EXEC_KEYS", "F0000100=sss:000100F0,F0000110=sss:100100F0")
    monkeypatch.setenv("BIRTHMARK_EXEC_TOKEN", "SSS PKCS11")
    pem = render_reference_key(KEYS[0].public_key(), 0xF0000100).encode()
    assert hook._uris(pem) == ["pkcs11:token=SSS%20PKCS11;object=sss%3A000100F0;type=private"]
    assert hook._uris(b"pkcs11:object=device?pin-source=file:/x\n") == [
        "pkcs11:token=SSS%20PKCS11;object=device;type=private"
    ]
    assert hook._uris(b"pkcs11:token=other;object=device;type=private") == [
        "pkcs11:token=other;object=device;type=private"
    ]


def test_the_providers_pem_is_read() -> None:
    uri = Pkcs11Uri(token="00ABC", object="device", type="private")
    assert hook._uris(render_uri_pem(uri).encode()) == [str(uri)]


def test_ordinary_keys_and_certificates_are_left_alone() -> None:
    for key in KEYS:
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            assert hook._uris(key.private_bytes(Encoding.PEM, form, NoEncryption())) == []
    assert hook._uris(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n") == []


@given(st.sampled_from(["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "PKCS#11 PROVIDER URI"]), st.binary())
def test_any_bytes_in_a_key_file_are_left_alone(label: str, noise: bytes) -> None:
    import base64

    body = base64.encodebytes(noise).decode()
    assert hook._uris(f"-----BEGIN {label}-----\n{body}-----END {label}-----\n".encode()) == []
    hook._uris(noise)
