"""Microchip's real library over a software chip, by the library's hook for its bus: what it says and what we say."""

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from birthmark.keys.errors import KeyUnsupportedError, TokenFailedError, TokenNotFoundError
from birthmark.pki.certificates import Certificate, parse_bundle, parse_der
from birthmark.secure_elements.atecc.certificates import VARIABLE, compress_certificate, padded_point
from birthmark.secure_elements.atecc.chip import AteccChip, load_memory, save_memory
from birthmark.secure_elements.atecc.compressed_certificate import build_compressed
from birthmark.secure_elements.atecc.emulated_pkcs11_token import AteccToken
from birthmark.secure_elements.atecc.simulated_factory import KINDS, SoftwareAtecc, create_atecc
from birthmark.secure_elements.atecc.simulator import SoftwareChip
from birthmark.secure_elements.chip_profiles import ATECC608, Algorithm
from birthmark.secure_elements.dps_assignment_codec import Assignment, Layout
from birthmark.secure_elements.element_session import Element
from birthmark.secure_elements.errors import ElementDataOccupiedError, ElementKeyExistsError
from birthmark.secure_elements.possession import check_proof, prove
from support.fakes import SeededEntropy

cryptoauthlib = pytest.importorskip("cryptoauthlib", reason="Microchip's wheel is for x86-64 Linux alone")
pytestmark = pytest.mark.integration
NOW = datetime(2025, 6, 1, 12, 34, 56, tzinfo=UTC)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], SoftwareAtecc]:
    def make_one(kind: str) -> SoftwareAtecc:
        made = create_atecc(tmp_path / kind, kind, now=NOW, entropy=SeededEntropy())
        monkeypatch.setenv(VARIABLE, made.environment[VARIABLE])
        return made

    return make_one


@pytest.fixture(params=list(KINDS))
def software(request: pytest.FixtureRequest, make: Callable[[str], SoftwareAtecc]) -> SoftwareAtecc:
    return make(request.param)


@pytest.fixture
def element(software: SoftwareAtecc) -> Iterator[Element]:
    with Element(AteccToken.at(software.module)) as opened:
        yield opened


@pytest.fixture
def noise(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The slots whose next answers with their public key have a bit flipped; of chips that are opened after."""
    slots: list[int] = []
    answer = SoftwareChip.answer

    def garbled(chip: SoftwareChip, command: bytes) -> bytes:
        said = answer(chip, command)
        if not slots or command[1:4] != bytes((0x40, 0, slots[0])):
            return said
        slots.pop(0)
        return said[:10] + bytes((said[10] ^ 1,)) + said[11:]

    monkeypatch.setattr(SoftwareChip, "answer", garbled)
    return slots


def chip_of(element: Element) -> AteccChip:
    assert isinstance(element.token, AteccToken)
    assert element.token._atecc is not None
    return element.token._atecc.chip


def read_by_the_library(what: str, *above: bytes) -> bytes:
    """Return `device` or `signer` as the library rebuilds it; a chip is open."""
    size = cryptoauthlib.AtcaReference(0)
    assert getattr(cryptoauthlib, f"tng_atcacert_max_{what}_cert_size")(size) == 0
    into = bytearray(size.value)
    assert getattr(cryptoauthlib, f"tng_atcacert_read_{what}_cert")(into, size, *above) == 0
    return bytes(into[: size.value])


@pytest.mark.parametrize("kind", ["TNGTLS", "TRUSTFLEX"])
def test_our_certificates_are_the_librarys_bit_for_bit(make: Callable[[str], SoftwareAtecc], kind: str) -> None:
    with Element(AteccToken.at(make(kind).module)) as element:
        device, signer = element.chain()
        assert read_by_the_library("signer") == signer.der
        assert read_by_the_library("device", signer.der) == device.der
        assert element.info.serial == str(device.subject_cn).removeprefix("sn")


def test_real_certificates_come_out_as_they_were(make: Callable[[str], SoftwareAtecc]) -> None:
    """Of Microchip's manifests where BIRTHMARK_SAMPLES has them; by our own hand and by the library's."""
    folder = os.environ.get("BIRTHMARK_SAMPLES")
    if folder is None:
        pytest.skip("BIRTHMARK_SAMPLES names no real manifests")
    software, checked = make("TNGTLS"), 0
    for device, signer, serial in real_pairs(Path(folder)):
        memory = load_memory(software.directory)
        point = device.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
        eui = device.der[device.der.index(b"eui48_") + 6 :][:12]
        config = bytearray(memory.config)
        config[0:4], config[8:13] = serial[:4], serial[4:]
        memory.config = bytes(config)
        memory.slots[5] = eui.ljust(36, b"\0")
        for slot, of, number in ((10, device, 3), (12, signer, 1)):
            like = build_compressed(bytes(64), datetime(2020, 1, 1, tzinfo=UTC), 1, b"\0\0", template=number, chain=0)
            memory.slots[slot] = compress_certificate(of, like=like).render()
        signer_point = signer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
        memory.slots[11] = padded_point(signer_point)
        save_memory(software.directory, memory)
        with AteccToken.at(software.module) as token, token.session() as session:
            session.chip.point = lambda _slot, point=point: point  # nobody has its private key
            found = [raw for _label, raw in session._certificates()]
            assert found == [device.der, signer.der]
            assert read_by_the_library("signer") == signer.der
            checked += 1
    assert checked == 10


def real_pairs(folder: Path) -> Iterator[tuple[Certificate, Certificate, bytes]]:
    for path in folder.glob("*.json"):
        for entry in json.loads(path.read_bytes()):
            payload = json.loads(base64.urlsafe_b64decode(entry["payload"] + "=="))
            if "publicKeySet" in payload:
                chain = [parse_der(base64.b64decode(raw)) for raw in payload["publicKeySet"]["keys"][0]["x5c"]]
                yield chain[0], chain[1], bytes.fromhex(payload["uniqueId"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 32 * 365 * 24 - 1), st.integers(1, 31))
def test_our_dates_are_the_librarys(hours: int, years: int) -> None:
    from datetime import timedelta

    issued = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
    if (issued.month, issued.day) == (2, 29):
        return
    mine = build_compressed(bytes(64), issued, years, b"\0\1", template=3, chain=0)
    stamp = cryptoauthlib.atcacert_tm_utc_t(
        tm_sec=0,
        tm_min=0,
        tm_hour=issued.hour,
        tm_mday=1,
        tm_mon=issued.month - 1,
        tm_year=issued.year - 1900,
    )
    stamp.tm_mday = issued.day  # its constructor takes no 31st
    into = bytearray(3)
    assert cryptoauthlib.atcacert_date_enc_compcert(stamp, years, into) == 0
    assert bytes(into) == mine.dates


# ---- what an element is


def test_it_is_listed_as_microchips_own_pkcs11_library_lists_it(element: Element) -> None:
    found = {(item.kind, item.label) for item in element.objects()}
    assert {
        ("private key", "device"),
        ("public key", "device"),
        ("certificate", "device"),
        ("certificate", "signer"),
        ("data", "slot8"),
    } <= found
    assert element.profile is ATECC608
    assert element.info.model == "ATECC608B"


def test_the_key_in_the_chip_is_the_certificates_and_proves_itself(element: Element) -> None:
    key = element.key()
    assert key.public_key == element.certificate().public_key()
    assert check_proof(prove(key, b"chosen by the asker"), b"chosen by the asker") == key.public_key
    request = x509.load_der_x509_csr(element.csr("thermometer-1"))
    assert request.is_signature_valid


def test_the_library_signs_with_the_same_key(element: Element) -> None:
    digest, signature = hashlib.sha256(b"data").digest(), bytearray(64)
    with element.token.session():
        assert cryptoauthlib.atcab_sign(0, digest, signature) == 0
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    key = element.key().public_key
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(encode_dss_signature(r, s), digest, ec.ECDSA(Prehashed(hashes.SHA256())))


@pytest.mark.parametrize("layout", list(Layout))
def test_slot_8_remembers_in_both_layouts_and_survives(software: SoftwareAtecc, layout: Layout) -> None:
    assignment = Assignment("hub.example", "thermometer-1")
    with Element(AteccToken.at(software.module)) as element:
        element.remember(assignment, layout)
    with Element(AteccToken.at(software.module)) as element:
        found = element.memory()
        assert (found.layout, found.hub, found.device) == (layout, "hub.example", "thermometer-1")
        assert len(element.read_data("slot8")) == 416


def test_foreign_bytes_in_slot_8_are_kept(element: Element) -> None:
    element.write_data("slot8", b"somebody else's settings")
    with pytest.raises(ElementDataOccupiedError):
        element.write_data("slot8", b"ours")
    element.write_data("slot8", b"ours", may_replace=True)
    assert element.read_data("slot8").rstrip(b"\0") == b"ours"


def test_keys_are_made_in_the_slots_that_are_for_it_and_never_replaced(make: Callable[[str], SoftwareAtecc]) -> None:
    with Element(AteccToken.at(make("TRUSTCUSTOM").module)) as element:
        made = element.generate_key("slot3", Algorithm.P256)
        assert made.public_key == element.key("slot3").public_key
        with pytest.raises(ElementKeyExistsError):
            element.generate_key("slot3", Algorithm.P256)
        with pytest.raises(TokenFailedError):
            element.generate_key("slot9", Algorithm.P256)
        with pytest.raises(KeyUnsupportedError):
            element.generate_key("slot2", Algorithm.RSA2048)


@pytest.mark.parametrize("garbled", [1, 2, 3])
def test_an_answer_that_came_garbled_never_costs_a_key(
    make: Callable[[str], SoftwareAtecc], noise: list[int], garbled: int
) -> None:
    with Element(AteccToken.at(make("TRUSTCUSTOM").module)) as element:
        made = element.generate_key("slot2", Algorithm.P256)
        chip_of(element)._points.clear()
        noise += [2] * garbled
        with pytest.raises(TokenFailedError):
            element.generate_key("slot2", Algorithm.P256)
        noise.clear()
        assert element.key("slot2").public_key == made.public_key


def test_the_command_that_makes_a_key_is_not_sent_where_one_is(make: Callable[[str], SoftwareAtecc]) -> None:
    with Element(AteccToken.at(make("TRUSTCUSTOM").module)) as element:
        made = element.generate_key("slot2", Algorithm.P256)
        with pytest.raises(TokenFailedError), element.token.session():
            chip_of(element).generate(2)
        assert element.key("slot2").public_key == made.public_key


# ---- a CA of one's own


def test_ones_own_ca_writes_its_certificates_and_reads_them_again(make: Callable[[str], SoftwareAtecc]) -> None:
    first = make("TRUSTCUSTOM")
    with Element(AteccToken.at(first.module)) as element:
        device, signer = parse_bundle(first.template.read_bytes())
        chip_of(element).write_slot(10, b"\xff" * 72)
        assert [item.label for item in element.objects() if item.kind == "certificate"] == ["signer"]
        element.write_certificate(signer, label="signer")
        element.write_certificate(device)
        assert element.chain() == (device, signer)


def test_a_certificate_that_would_not_come_out_again_is_not_written(make: Callable[[str], SoftwareAtecc]) -> None:
    software = make("TRUSTCUSTOM")
    with Element(AteccToken.at(software.module)) as element:
        before = element.certificate()
        foreign = issued_otherwise(before)
        with pytest.raises(TokenFailedError, match=r".*"):
            element.write_certificate(foreign)
        assert element.certificate() == before


def issued_otherwise(certificate: Certificate) -> Certificate:
    """For the same key, with another extension: 72 bytes cannot say that."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Own Signer F600")])
    start = NOW.replace(minute=0, second=0)
    builder = x509.CertificateBuilder(name, name, certificate.public_key(), 7, start, start.replace(year=2030))
    signed = builder.sign(key, hashes.SHA256())
    return parse_der(signed.public_bytes(Encoding.DER))


def test_the_factorys_certificate_is_locked(make: Callable[[str], SoftwareAtecc]) -> None:
    with Element(AteccToken.at(make("TNGTLS").module)) as element:
        assert element.write_certificate(element.certificate()) == "device"  # the same: nothing to write
        with pytest.raises(TokenFailedError):
            chip_of(element).write_slot(10, bytes(72))


def test_without_its_template_a_certificate_is_not_guessed(
    make: Callable[[str], SoftwareAtecc], monkeypatch: pytest.MonkeyPatch
) -> None:
    software = make("TRUSTCUSTOM")
    monkeypatch.delenv(VARIABLE)
    with Element(AteccToken.at(software.module)) as element:
        assert not [item for item in element.objects() if (item.kind, item.label) == ("certificate", "device")]


def test_a_template_that_says_too_little_shows_no_certificate_of_a_signer(
    make: Callable[[str], SoftwareAtecc], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A CA of one's own may have left out the authority key identifier."""
    software, example = make("TRUSTCUSTOM"), tmp_path / "example.pem"
    device, signer = parse_bundle(Path(software.environment[VARIABLE]).read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.load_der_x509_certificate(signer.der).subject
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, NOW, NOW.replace(year=2030))
    bare = parse_der(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))
    example.write_text(device.pem() + bare.pem())
    monkeypatch.setenv(VARIABLE, str(example))
    with Element(AteccToken.at(software.module)) as element:
        assert not [item for item in element.objects() if (item.kind, item.label) == ("certificate", "signer")]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/dev/zero", "/dev/zero, which contains no PEM certificates"),  # and is not read to its end
        ("/missing.pem", "/missing.pem: no such file or directory"),
    ],
)
def test_a_template_that_cannot_be_read_is_named(
    make: Callable[[str], SoftwareAtecc], monkeypatch: pytest.MonkeyPatch, path: str, said: str
) -> None:
    software = make("TRUSTCUSTOM")
    monkeypatch.setenv(VARIABLE, path)
    with Element(AteccToken.at(software.module)) as element, pytest.raises(TokenFailedError) as failed:
        element.objects()
    assert failed.value.facts["detail"] == f"{VARIABLE} refers to {said}"


# ---- trouble


def test_another_label_or_slot_is_not_there(software: SoftwareAtecc) -> None:
    for label, slot in (("SSS_PKCS11", None), (None, 7)):
        with pytest.raises(TokenNotFoundError):
            AteccToken.at(software.module, label=label, slot_id=slot)


def test_a_bus_without_a_chip_says_where_it_looked() -> None:
    with pytest.raises(TokenFailedError) as failed:
        AteccToken.at(Path("cryptoauthlib:i2c,0x6C,199"))
    assert "cryptoauthlib:i2c,0x6C,199" in failed.value.explain_cause()


def test_after_a_software_chip_the_library_has_its_own_bus_again(software: SoftwareAtecc) -> None:
    AteccToken.at(software.module).close()
    with pytest.raises(TokenFailedError):
        AteccToken.at(Path("cryptoauthlib:i2c,0x6A,199"))
    with Element(AteccToken.at(software.module)) as element:
        assert element.key().label == "device"


def test_a_closed_chip_is_closed(software: SoftwareAtecc) -> None:
    token = AteccToken.at(software.module)
    token.close()
    token.close()
    with pytest.raises(TokenFailedError), token.session():
        pass
