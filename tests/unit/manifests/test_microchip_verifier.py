"""Every check on a Trust&GO manifest, each broken in turn."""

import base64
import io
import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from birthmark.manifests import errors
from birthmark.manifests.manifest_entry import ManifestEntry
from birthmark.manifests.microchip_trust_anchors import MICROCHIP_ROOTS, MICROCHIP_SIGNERS
from birthmark.manifests.microchip_verifier import ManifestTrust, root_of, signer_of, trust_of
from birthmark.manifests.parallel_verification import verify_all
from birthmark.manifests.writer import ManifestChip, ManifestKey, render_entry, write_manifest
from birthmark.pki import certificate_profiles
from support.fakes import NOON
from support.pki.pki_builders import Holder, a_ca, a_device, a_key

ROOT = a_ca("Rehearsal Root")
ISSUER = a_ca("Crypto Authentication Signer 0001", parent=ROOT, profile=certificate_profiles.ISSUING_CA)
LOG = a_ca("Manifest Signer")
SIGNER = ManifestKey(LOG.certificate, LOG.private_key)  # type: ignore[arg-type]  # the builders make P-256 and both certificates
TRUST = trust_of([signer_of(LOG.certificate)], [root_of(ROOT.certificate)])


def a_chip(
    unique_id: str = "0123aabbccddeeff01",
    name: str | None = None,
    issuer: Holder = ISSUER,
    key: ec.EllipticCurvePrivateKey | None = None,
) -> ManifestChip:
    key = key or a_key()
    device = a_device(issuer, name or f"sn{unique_id.upper()}", key=key)
    return ManifestChip(unique_id, [key.public_key(), a_key().public_key()], (device.certificate, issuer.certificate))


def outcome(entry: dict[str, Any], trust: ManifestTrust = TRUST) -> ManifestEntry | errors.ManifestError:
    (only,) = verify_all(io.BytesIO(json.dumps([entry]).encode()), trust)
    return only


def test_a_good_entry_tells_the_device_its_certificate_and_its_keys() -> None:
    chip = a_chip()
    entry = outcome(render_entry(chip, SIGNER, NOON))
    assert isinstance(entry, ManifestEntry)
    assert (entry.device_id, entry.unique_id, entry.key_ids) == ("sn0123AABBCCDDEEFF01", chip.unique_id, ("0", "1"))
    assert entry.certificate == chip.chain[0]  # type: ignore[index]  # the builders make P-256 and both certificates


def test_a_written_manifest_of_many_is_read_back() -> None:
    text = io.StringIO()
    count = write_manifest(text, (a_chip(f"0123{n:012x}01") for n in range(5)), SIGNER, NOON)
    entries = list(verify_all(io.BytesIO(text.getvalue().encode()), TRUST))
    assert count == 5
    assert all(isinstance(entry, ManifestEntry) for entry in entries)


def test_a_changed_payload_breaks_the_signature() -> None:
    entry = render_entry(a_chip(), SIGNER, NOON)
    entry["payload"] = entry["payload"][:-4] + ("AAAA" if not entry["payload"].endswith("AAAA") else "BBBB")
    assert isinstance(outcome(entry), errors.SignatureBrokenError)


def test_padding_of_base64url_changes_nothing_that_is_signed() -> None:
    entry = render_entry(a_chip(), SIGNER, NOON)
    padded = {name: entry[name] + "=" * (-len(entry[name]) % 4) for name in ("protected", "payload", "signature")}
    assert padded != {name: entry[name] for name in padded}
    assert isinstance(outcome(entry | padded), ManifestEntry)


def test_a_changed_header_is_found_although_the_signature_holds() -> None:
    entry = render_entry(a_chip(), SIGNER, NOON)
    entry["header"]["uniqueId"] = "0123000000000000ff"
    assert isinstance(outcome(entry), errors.UniqueIdChangedError)


def test_an_unknown_signer_is_named() -> None:
    unauthenticated = a_ca("Stranger")
    entry = render_entry(a_chip(), ManifestKey(unauthenticated.certificate, unauthenticated.private_key), NOON)  # type: ignore[arg-type]  # the builders make P-256 and both certificates
    found = outcome(entry)
    assert isinstance(found, errors.UnknownSignerError)
    assert found.facts["thumbprint"] == unauthenticated.certificate.thumbprint.hex()


def test_a_signer_must_have_been_valid_when_the_chip_was_provisioned() -> None:
    early = render_entry(a_chip(), SIGNER, NOON - timedelta(days=3650))
    assert isinstance(outcome(early), errors.SignerNotValidError)


def test_a_certificate_of_another_chip_is_found() -> None:
    entry = render_entry(a_chip(name="sn0123000000000000FF"), SIGNER, NOON)
    assert isinstance(outcome(entry), errors.NameMismatchError)


def test_a_certificate_with_another_key_is_found() -> None:
    good = a_chip()
    mixed = ManifestChip(good.unique_id, [ec.generate_private_key(ec.SECP256R1()).public_key()], good.chain)
    assert isinstance(outcome(render_entry(mixed, SIGNER, NOON)), errors.KeyMismatchError)


def test_a_certificate_of_an_unknown_root_is_found() -> None:
    other = a_ca("Other", parent=a_ca("Other Root"), profile=certificate_profiles.ISSUING_CA)
    assert isinstance(outcome(render_entry(a_chip(issuer=other), SIGNER, NOON)), errors.ChainBrokenError)


def test_a_device_that_its_signer_did_not_issue_is_found() -> None:
    good = a_chip()
    twin = a_ca("Crypto Authentication Signer 0001", parent=ROOT, profile=certificate_profiles.ISSUING_CA)
    mixed = ManifestChip(good.unique_id, good.keys, (good.chain[0], twin.certificate))  # type: ignore[index]  # the builders make P-256 and both certificates
    assert isinstance(outcome(render_entry(mixed, SIGNER, NOON)), errors.ChainBrokenError)


def test_a_device_of_the_root_s_signs_for_no_other() -> None:
    leaf, unique_id = a_device(ROOT, "a-device"), "0123456789abcdef01"
    device = a_device(leaf, "sn" + unique_id.upper())
    chip = ManifestChip(unique_id, [device.certificate.public_key()], (device.certificate, leaf.certificate))  # type: ignore[list-item]  # the builders make P-256
    found = outcome(render_entry(chip, SIGNER, NOON))
    assert isinstance(found, errors.ChainBrokenError)
    assert "is not a CA" in found.explain_cause()


FEW = [render_entry(a_chip(f"0123{number:012x}01"), SIGNER, NOON) for number in range(6)]


@given(st.integers(min_value=0, max_value=5), st.integers(min_value=0), st.integers(min_value=0, max_value=7))
def test_one_changed_bit_of_what_is_signed_is_one_refused_row_and_no_other(row: int, place: int, bit: int) -> None:
    signed = FEW[row]["payload"]
    at = place % len(signed)
    changed = bytearray(json.dumps(FEW), "ascii")
    changed[changed.index(signed.encode()) + at] ^= (
        1 << bit
    )  # a quote, a brace, a comma, no UTF-8: whatever comes of it
    found = list(verify_all(io.BytesIO(changed), TRUST))
    assert [isinstance(one, ManifestEntry) for one in found] == [number != row for number in range(6)]
    assert found[row].facts["place"] == str(row + 1)  # type: ignore[union-attr]  # the assertion before says so


def test_the_same_chip_twice_is_found() -> None:
    entry = render_entry(a_chip(), SIGNER, NOON)
    first, second = verify_all(io.BytesIO(json.dumps([entry, entry]).encode()), TRUST)
    assert isinstance(first, ManifestEntry)
    assert isinstance(second, errors.DuplicateEntryError)


def test_one_key_under_two_names_is_found() -> None:
    key = a_key()
    entries = [render_entry(a_chip(f"0123{n:012x}01", key=key), SIGNER, NOON) for n in range(2)]
    first, second = verify_all(io.BytesIO(json.dumps(entries).encode()), TRUST)
    assert isinstance(first, ManifestEntry)
    assert isinstance(second, errors.DuplicateEntryError)
    assert "the same key" in second.explain_cause()


def test_a_ca_cannot_be_a_device() -> None:
    device = a_ca("sn0123AABBCCDDEEFF01", parent=ISSUER, profile=certificate_profiles.ISSUING_CA)
    key: ec.EllipticCurvePublicKey = device.private_key.public_key()  # type: ignore[assignment] # the builders make P-256
    chip = ManifestChip("0123aabbccddeeff01", [key], (device.certificate, ISSUER.certificate))
    found = outcome(render_entry(chip, SIGNER, NOON))
    assert isinstance(found, errors.MalformedEntryError)
    assert "is a CA certificate" in found.explain_cause()


def test_an_entry_without_certificates_is_good_and_has_none() -> None:
    entry = outcome(render_entry(ManifestChip("0123aabbccddeeff01", [], None), SIGNER, NOON))
    assert isinstance(entry, ManifestEntry)
    assert entry.certificate is None
    assert entry.unchecked == "it lists no public keys"
    assert entry.device_id == "sn0123AABBCCDDEEFF01"


def test_another_algorithm_is_refused_before_any_key_is_used() -> None:
    entry = render_entry(a_chip(), SIGNER, NOON)
    none = base64.urlsafe_b64encode(b'{"alg":"none","x5t#S256":""}').rstrip(b"=").decode()
    assert isinstance(outcome(entry | {"protected": none}), errors.MalformedEntryError)


def test_a_file_that_ends_in_the_middle_says_where() -> None:
    text = json.dumps([render_entry(a_chip(), SIGNER, NOON)])
    with pytest.raises(errors.MalformedEntryError) as refusal:
        list(verify_all(io.BytesIO(text.encode()[:-20]), TRUST))
    assert refusal.value.facts["place"] == "1"


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for candidate in (data, b"[" + data + b"]", b'[{"payload":"' + base64.b64encode(data) + b'","protected":"e30"}]'):
        try:
            for entry in verify_all(io.BytesIO(candidate), TRUST):
                assert isinstance(entry, errors.ManifestError)
        except errors.ManifestError as error:
            assert error.explain_cause()


Change = Callable[[dict[str, Any]], object]


def signed_anew(change: Change, chip: ManifestChip | None = None) -> dict[str, Any]:
    """An entry whose payload the trusted signer signed after `change` had its way with it."""
    entry = render_entry(chip or a_chip(), SIGNER, NOON)
    payload = json.loads(base64.urlsafe_b64decode(entry["payload"] + "=="))
    instead = change(payload)
    raw = instead if isinstance(instead, bytes) else json.dumps(payload).encode()
    body = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    made = LOG.private_key.sign(f"{entry['protected']}.{body}".encode(), ec.ECDSA(hashes.SHA256()))  # type: ignore[call-arg,arg-type]  # the builders make P-256 and both certificates
    r, s = decode_dss_signature(made)
    signature = base64.urlsafe_b64encode(r.to_bytes(32) + s.to_bytes(32)).rstrip(b"=").decode()
    return entry | {"payload": body, "signature": signature}


def first_key(payload: dict[str, Any]) -> dict[str, Any]:
    keys: list[dict[str, Any]] = payload["publicKeySet"]["keys"]
    return keys[0]


def with_issuer_of_an_unknown_algorithm(payload: dict[str, Any]) -> None:
    ecdsa, unknown = bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06082a8648ce3d04037f")
    issuer = ISSUER.certificate.der.replace(ecdsa, unknown)
    first_key(payload)["x5c"][1] = base64.b64encode(issuer).decode()


BAD_UNDER_A_GOOD_SIGNATURE = {
    "a certificate that is not ASCII": lambda payload: first_key(payload)["x5c"].__setitem__(0, "\u0663\u0663"),
    "an issuer that is not ASCII": lambda payload: first_key(payload)["x5c"].__setitem__(1, "\u0663\u0663"),
    "an issuer signed with an unknown algorithm": with_issuer_of_an_unknown_algorithm,
    "a payload nested without end": lambda _payload: b'{"a":' * 5000,
    "a coordinate that is not ASCII": lambda payload: first_key(payload).__setitem__("x", "\u0663"),
    "a name of 22,000 tabs": lambda payload: payload.__setitem__("uniqueId", "\t" * 22_000),
    "a model of 22,000 tabs": lambda payload: payload.__setitem__("model", "\t" * 22_000),
    "a coordinate that is too long": lambda payload: first_key(payload).__setitem__("x", "AA" * 33),
}


@pytest.mark.parametrize("change", BAD_UNDER_A_GOOD_SIGNATURE.values(), ids=BAD_UNDER_A_GOOD_SIGNATURE)
def test_a_bad_entry_under_a_good_signature_is_one_refused_row_and_the_others_are_read(change: Change) -> None:
    bad, good = signed_anew(change), render_entry(a_chip("0123000000000000ff"), SIGNER, NOON)
    first, second = verify_all(io.BytesIO(json.dumps([bad, good]).encode()), TRUST)
    assert isinstance(first, errors.ManifestError)
    assert first.explain_cause()
    assert isinstance(second, ManifestEntry)


UNCHECKABLE = {
    "with an unknown curve": lambda payload: first_key(payload).__setitem__("crv", "P-999"),
    "with an unknown kind of key": lambda payload: first_key(payload).__setitem__("kty", "OKP"),
    "with an unknown one beside": lambda payload: payload["publicKeySet"]["keys"][1].__setitem__("crv", "X"),
}


@pytest.mark.parametrize("change", UNCHECKABLE.values(), ids=UNCHECKABLE)
def test_an_entry_whose_keys_cannot_be_checked_is_not_verified_and_says_what_was(change: Change) -> None:
    found = outcome(signed_anew(change))
    assert isinstance(found, errors.NotCheckedError)
    cause = found.explain_cause()
    assert cause.startswith("The signature, signer and header of entry ")
    assert "are valid. The key, certificate and chain were not checked" in cause


@pytest.mark.parametrize("part", ["publicKeySet", "x5c"])
def test_an_entry_without_keys_or_certificate_says_what_was_not_checked(part: str) -> None:
    found = outcome(signed_anew(lambda payload: (payload if part == "publicKeySet" else first_key(payload)).pop(part)))
    assert isinstance(found, ManifestEntry)
    assert found.unchecked == {"publicKeySet": "it lists no public keys", "x5c": "it has no certificate"}[part]
    whole = outcome(render_entry(a_chip(), SIGNER, NOON))
    assert isinstance(whole, ManifestEntry)
    assert whole.unchecked is None


def samples() -> list[Path]:
    """Real manifests where BIRTHMARK_SAMPLES has them, else a look-alike written here."""
    folder = os.environ.get("BIRTHMARK_SAMPLES")
    return sorted(Path(folder).glob("ECC608*.json")) if folder else []


@pytest.mark.parametrize("number", range(2))
def test_real_manifests_verify_with_the_facts_we_ship(number: int, tmp_path: Path) -> None:
    real = samples()
    if real:
        file, trust = real[number], trust_of(MICROCHIP_SIGNERS.values(), MICROCHIP_ROOTS)
    else:
        file, trust = tmp_path / "look-alike.json", TRUST
        with file.open("w") as text:
            write_manifest(text, (a_chip(f"0123{n:012x}01") for n in range(10)), SIGNER, NOON)
    with file.open("rb") as raw:
        entries = list(verify_all(raw, trust))
    assert len(entries) == 10
    assert all(isinstance(entry, ManifestEntry) for entry in entries)
