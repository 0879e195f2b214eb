"""The SE050 family: which keys a variant has is seen by looking, in both byte orders of labels."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from birthmark.keys.se050_labels import object_id_of
from birthmark.keys.se050_reference_keys import parse_reference_key, reference_public_key
from birthmark.secure_elements.chip_profiles import SE050, Algorithm, KeySlot, Variant
from birthmark.secure_elements.softhsm_element import SoftwareElement, create_software_element
from support.fakes import NOON, SeededEntropy

pytestmark = pytest.mark.integration

Make = Callable[..., SoftwareElement]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(variant: Variant, *, is_old: bool = False) -> SoftwareElement:
        directory, entropy = tmp_path / "chip", SeededEntropy()
        return create_software_element(
            directory, SE050, now=NOON, entropy=entropy, variant=variant, has_swapped_labels=is_old
        )

    return made


def a_variant(**keys: Algorithm) -> Variant:
    """A chip with these keys, by the end of their object ids, in hex behind an x."""
    places = {name: 0xF0000000 | int(name.removeprefix("x"), 16) for name in keys}
    slots = tuple(KeySlot(f"sss:{places[name]:08X}", kind, places[name]) for name, kind in keys.items())
    return Variant("a chip of a test", (), slots)


@pytest.mark.parametrize(
    ("name", "is_old", "identity"),
    [("A", False, 0xF0000100), ("A", True, 0xF0000100), ("B", True, 0xF0000110), ("C", False, 0xF0000100)],
)
def test_every_key_of_a_variant_is_found_with_its_certificate_and_named_by_a_file(
    make: Make, tmp_path: Path, name: str, is_old: bool, identity: int
) -> None:
    variant = SE050.variants[name]
    with make(variant, is_old=is_old).open() as element:
        assert object_id_of(element.key().label) == identity
        held = {item.object_id for item in element.objects() if item.kind == "private key"}
        assert held == {f"0x{slot.object_id:08X}" for slot in variant.keys}
        for slot in variant.keys:
            selector = f"0x{slot.object_id:08X}"
            key = element.key(selector)
            assert element.certificate(selector).public_key() == key.public_key
            reference = element.reference_key(selector)
            assert parse_reference_key(reference.encode()) == slot.object_id
            assert reference_public_key(reference.encode()) == key.public_key
            (tmp_path / "reference.pem").write_text(reference)
            assert told_by_openssl(tmp_path / "reference.pem") == key.public_key.public_bytes(
                Encoding.DER, PublicFormat.SubjectPublicKeyInfo
            )


def told_by_openssl(key_file: Path) -> bytes:
    line = ["openssl", "pkey", "-in", str(key_file), "-pubout", "-outform", "DER"]
    return subprocess.run(line, capture_output=True, check=True).stdout


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize(
    ("variant", "identity", "kind"),
    [
        (a_variant(x102=Algorithm.P256, x112=Algorithm.RSA2048), 0xF0000102, ec.EllipticCurvePublicKey),
        (a_variant(x112=Algorithm.RSA2048), 0xF0000112, rsa.RSAPublicKey),
        (a_variant(x100=Algorithm.RSA2048, x110=Algorithm.P256), 0xF0000110, ec.EllipticCurvePublicKey),
    ],
    ids=["gateway", "gateway-rsa", "kinds-turned-around"],
)
def test_the_identity_is_the_key_that_is_there_and_an_ec_key_first(
    make: Make, variant: Variant, identity: int, kind: type, is_old: bool
) -> None:
    with make(variant, is_old=is_old).open() as element:
        assert object_id_of(element.key().label) == identity
        assert isinstance(element.key().public_key, kind)
        assert element.certificate().public_key() == element.key().public_key


def test_of_a_chip_without_an_identity_the_only_key_is_meant(make: Make) -> None:
    with make(a_variant()).open() as element:
        element.generate_key("operational", Algorithm.P256)
        assert element.key().label == "operational"


def test_the_names_of_keys_are_their_object_ids_and_configurations_are_named_once() -> None:
    slots = [slot for variant in SE050.variants.values() for slot in variant.keys]
    assert {slot.object_id for slot in slots} == {slot.object_id for slot in SE050.identities}
    assert all(object_id_of(slot.label) == slot.object_id for slot in slots)
    configurations = [oef for variant in SE050.variants.values() for oef in variant.oef_ids]
    assert len(configurations) == len(set(configurations))
