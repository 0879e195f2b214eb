"""Selectors and proofs, without a chip."""

import base64
import contextlib
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from birthmark.keys.file_key import FileKey
from birthmark.keys.se050_labels import is_same_label, label_of, object_id_of, swapped
from birthmark.secure_elements.chip_profiles import ATECC608, GENERIC, SE050, KeySlot, profile_of
from birthmark.secure_elements.element_session import parse_selector
from birthmark.secure_elements.errors import (
    ElementProofInvalidError,
    SelectorInvalidError,
)
from birthmark.secure_elements.possession import PossessionProof, check_proof, prove


def test_a_token_label_tells_the_chip() -> None:
    assert profile_of("SSS_PKCS11") is SE050
    assert profile_of("00ABC") is ATECC608
    assert profile_of("0FABC") is ATECC608
    assert profile_of("anything") is GENERIC


@pytest.mark.parametrize("slot", SE050.identities, ids=lambda slot: slot.label)
def test_each_identity_of_the_se050_family_is_known_by_its_label_in_either_byte_order(slot: KeySlot) -> None:
    assert slot.object_id is not None
    for label in (label_of(slot.object_id), label_of(swapped(slot.object_id))):
        assert object_id_of(label) == slot.object_id
        assert is_same_label(slot.label, label)


def test_the_page_names_each_configuration_of_the_family() -> None:
    page = (Path(__file__).parents[3] / "docs" / "howto" / "se050.md").read_text()
    for variant in SE050.variants.values():
        assert all(oef in page for oef in variant.oef_ids)
        assert all(f"0x{slot.object_id:08X}" in page for slot in variant.keys)


@pytest.mark.parametrize("text", ["0xF0000100", "F0000100", "sss:F0000100", "sss:000100F0"])
def test_an_object_id_is_named_in_several_ways(text: str) -> None:
    assert parse_selector(text).object_id == 0xF0000100


def test_other_names_are_labels_or_ids() -> None:
    assert parse_selector("device").label == "device"
    assert parse_selector("id:0a0b").key_id == b"\x0a\x0b"
    assert parse_selector(None).label is None


@given(st.text(max_size=300))
def test_any_text_is_a_selector_or_a_refusal(text: str) -> None:
    with contextlib.suppress(SelectorInvalidError):
        parse_selector(text)


@pytest.fixture
def proof(tmp_path_factory: pytest.TempPathFactory) -> PossessionProof:
    path = tmp_path_factory.mktemp("key") / "key.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return prove(FileKey.load(path), b"12345678")


def test_a_proof_is_checked_from_its_json(proof: PossessionProof) -> None:
    again = msgspec.json.decode(msgspec.json.encode(proof), type=PossessionProof)
    check_proof(again, b"12345678")


@pytest.mark.parametrize(
    "change",
    [
        {"signature": base64.b64encode(b"no").decode()},
        {"signature": "~"},
        {"nonce": base64.b64encode(b"87654321").decode()},
        {"public_key": "not a key"},
    ],
)
def test_a_changed_proof_does_not_hold(proof: PossessionProof, change: dict[str, str]) -> None:
    with pytest.raises(ElementProofInvalidError):
        check_proof(msgspec.structs.replace(proof, **change), b"12345678")
