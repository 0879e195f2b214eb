"""Every check on a bundle, each broken in turn: what a station signed, and what a chip did."""

import io
import json
import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from birthmark.errors import BirthmarkError
from birthmark.keys.possession import sign_nonce
from birthmark.manifests.bundle import line_format
from birthmark.manifests.bundle.accepted_stations_and_roots import BundleTrust
from birthmark.manifests.bundle.chip_proof_rules import nonce_of
from birthmark.manifests.bundle.intake_records import BundlePosition, ChipIntake
from birthmark.manifests.bundle.parallel_verifier import verify_all
from birthmark.manifests.bundle.verifier import count_chips, raw_lines
from birthmark.manifests.errors import MalformedEntryError
from birthmark.manifests.manifest_entry import ManifestEntry
from birthmark.pki.certificates import parse_der
from support.chips.intake_world import ISSUER, Line, a_chip, handle_of, take, verified
from support.fakes import NOON
from support.pki.odd_certificates import named
from support.pki.pki_builders import a_ca, a_device

WHOLE = ["CHIP-0", "CHIP-1", "CHIP-2"]
Spoil = Callable[[list[bytes]], list[bytes]]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    made = Line(tmp_path_factory.mktemp("north"))
    made.sealed(3)
    return made


def changed(raw: bytes, old: bytes, new: bytes) -> bytes:
    assert old in raw
    return raw.replace(old, new)


def test_a_sealed_bundle_is_believed(line: Line) -> None:
    assert verified(line.lines, line.trust) == WHOLE


def test_a_bundle_with_a_byte_order_mark_is_believed(line: Line) -> None:
    marked = [b"\xef\xbb\xbf" + line.lines[0], *line.lines[1:]]
    assert line_format.is_bundle(marked[0][: line_format.LOOKED_AT])
    assert verified(marked, line.trust) == verified(line.lines, line.trust)


def test_an_entry_says_who_took_which_chip_in_where_and_when(line: Line) -> None:
    entry = next(iter(verify_all(io.BytesIO(line.bundle.read_bytes()), line.trust)))
    assert isinstance(entry, ManifestEntry)
    assert entry.intake is not None
    assert (entry.device_id, entry.intake.board, entry.intake.operator) == ("chip-0", "CHIP-0", "ann")
    assert (entry.intake.station, entry.intake.place.seq, entry.intake.at) == (line.directory.name, 1, line.clock.now())
    assert (entry.intake.checked_now, entry.intake.checked_then) == ("Maker Root", None)


REFUSED: dict[str, tuple[Spoil, list[str]]] = {
    "a bit of a line": (
        lambda b: [b[0], changed(b[1], b"CHIP-0", b"CHIP-9"), *b[2:]],
        ["manifest.signature_broken", "CHIP-1", "CHIP-2"],
    ),
    "a line that is no JSON": (
        lambda b: [*b[:2], b[2].replace(b",", b";", 1), *b[3:]],
        ["CHIP-0", "manifest.malformed", "CHIP-2"],
    ),
    "a signature that is cut": (lambda b: [*b[:2], b[2][:-3], *b[3:]], ["CHIP-0", "manifest.malformed", "CHIP-2"]),
    "a line that is taken out": (
        lambda b: [*b[:2], *b[3:]],
        ["CHIP-0", "manifest.malformed", "manifest.not_whole"],
    ),
    "a line cut in two": (
        lambda b: [*b[:2], b[2][:90], b[2][90:], *b[3:]],
        ["CHIP-0", "manifest.malformed", "manifest.malformed", "CHIP-2"],
    ),
    "two lines run together": (
        lambda b: [b[0], b[1] + b"*" + b[2], *b[3:]],
        ["manifest.malformed", "CHIP-2", "manifest.not_whole"],
    ),
    "two lines taken out and one of nonsense put in": (
        lambda b: [b[0], b"{}", *b[3:]],
        ["manifest.malformed", "CHIP-2", "manifest.not_whole"],
    ),
    "the last chip taken out": (lambda b: [*b[:3], b[4]], ["CHIP-0", "CHIP-1", "manifest.not_whole"]),
    "the seal taken off": (lambda b: b[:-1], [*WHOLE, "manifest.not_whole"]),
    "the seal changed": (
        lambda b: [*b[:-1], changed(b[-1], b'"chips":3', b'"chips":4')],
        [*WHOLE, "manifest.not_whole"],
    ),
    "two lines exchanged": (
        lambda b: [b[0], b[2], b[1], *b[3:]],
        ["manifest.malformed", "manifest.malformed", "manifest.malformed"],
    ),
    "a line twice": (
        lambda b: [*b[:2], b[1], *b[2:]],
        ["CHIP-0", "manifest.malformed", "CHIP-1", "CHIP-2"],
    ),
    "the opening taken off": (lambda b: b[1:], ["manifest.malformed"] * 4),
    "the opening changed": (
        lambda b: [changed(b[0], b"T12:", b"T13:"), *b[1:]],
        ["manifest.signature_broken"] * 3,
    ),
    "nothing but the opening": (lambda b: b[:1], ["manifest.not_whole"]),
    "the whole twice": (lambda b: [*b, *b], [*WHOLE, *["manifest.duplicate"] * 3]),
    "the next after one without its seal": (
        lambda b: [*b[:-1], *b],
        [*WHOLE, "manifest.not_whole", *["manifest.duplicate"] * 3],
    ),
}


@pytest.mark.parametrize(("spoil", "told"), REFUSED.values(), ids=REFUSED)
def test_what_was_changed_is_refused_and_nothing_else(line: Line, spoil: Spoil, told: list[str]) -> None:
    assert verified(spoil(line.lines), line.trust) == told


def test_a_station_that_nobody_named_is_refused_chip_by_chip(line: Line) -> None:
    other = a_device(None, "another").certificate
    assert verified(line.lines, BundleTrust((other,))) == ["manifest.station_unknown"] * 3


def test_no_other_device_of_the_station_s_ca_is_a_station(tmp_path: Path) -> None:
    ca, line = a_ca("Plant"), Line(tmp_path / "south")
    own = a_device(ca, "south", lifetime=timedelta(days=9))
    line.directory.mkdir()
    (line.directory / "station.key").write_text(own.key_pem)
    (line.directory / "station.key").chmod(0o600)
    (line.directory / "station.pem").write_text(own.certificate.pem())
    line.sealed(1)
    assert verified(line.lines, line.trust) == ["CHIP-0"]
    assert verified(line.lines, BundleTrust((ca.certificate,))) == ["manifest.station_unknown"]


def test_a_station_cannot_call_itself_by_another_s_name(line: Line) -> None:
    opening = line_format.parse_line(line.lines[0]).line
    assert isinstance(opening, line_format.OpeningLine)
    forged = line.sign(msgspec.structs.replace(opening, station="head office"))
    assert verified([forged, *line.lines[1:]], line.trust)[:3] == ["manifest.malformed"] * 3


def test_a_bundle_names_the_seal_of_the_one_before(tmp_path: Path) -> None:
    line = Line(tmp_path / "north")
    seals = [line.sealed(1, name).read_bytes().splitlines() for name in ("first", "second")]
    assert [chip_of(one[0])["after"] for one in seals] == [None, line_format.digest(seals[0][-1])]


def test_a_line_after_the_station_s_certificate_ran_out_is_refused(tmp_path: Path) -> None:
    own, line = a_device(None, "south", lifetime=timedelta(days=9)), Line(tmp_path / "south")
    line.directory.mkdir()
    (line.directory / "station.key").write_text(own.key_pem)
    (line.directory / "station.key").chmod(0o600)
    (line.directory / "station.pem").write_text(own.certificate.pem())
    line.take(a_chip("chip-1"), "B-1")
    line.clock.move(timedelta(days=10))
    line.take(a_chip("chip-2", lifetime=timedelta(days=30)), "B-2")
    line.seal()
    assert verified(line.lines, BundleTrust((own.certificate,))) == ["B-1", "manifest.signer_not_valid_then"]


def test_a_chip_of_another_maker_is_refused_where_roots_are_named(line: Line) -> None:
    trust = BundleTrust(line.trust.stations, (a_ca("Another Maker").certificate,))
    assert verified(line.lines, trust) == ["manifest.chain_broken"] * 3


def test_without_a_root_the_chain_counts_as_not_checked(line: Line) -> None:
    found = verify_all(io.BytesIO(line.bundle.read_bytes()), BundleTrust(line.trust.stations))
    assert [one.intake.checked_now for one in found if isinstance(one, ManifestEntry) and one.intake] == [None] * 3


# ---- a station that signs whatever it is told: the chip's own proof still has to hold

MOVED: dict[str, dict[str, object]] = {
    "to another board": {"board": "B-9"},
    "to another operator": {"operator": "bob"},
    "by another challenge": {"challenge": "ab" * 32},
    "with another certificate": {"chain": (line_format.render_certificate(a_chip("copy").certificate),)},
    "with another key's name": {"key": "cd" * 32},
    "without a proof": {"proof": ""},
}


@pytest.mark.parametrize("change", MOVED.values(), ids=MOVED)
def test_a_proof_counts_for_nothing_else(tmp_path: Path, change: dict[str, object]) -> None:
    line = Line(tmp_path / "north")
    line.take(a_chip())
    opening, raw = line.lines
    honest = line_format.parse_line(raw).line
    forged = line.sign(msgspec.structs.replace(honest, **change))
    assert verified([opening, forged], line.trust)[0] == "manifest.key_mismatch"


NONSENSE: dict[str, dict[str, object]] = {
    "no board": {"board": ""},
    "no operator": {"operator": "a\nb"},
    "no challenge": {"challenge": "xyz"},
    "no certificate": {"chain": ()},
    "certificates without end": {"chain": (line_format.render_certificate(ISSUER.certificate),) * 100},
}


@pytest.mark.parametrize("change", NONSENSE.values(), ids=NONSENSE)
def test_what_a_station_signed_without_sense_is_no_entry(tmp_path: Path, change: dict[str, object]) -> None:
    line = Line(tmp_path / "north")
    line.take(a_chip())
    opening, raw = line.lines
    forged = line.sign(msgspec.structs.replace(line_format.parse_line(raw).line, **change))
    assert verified([opening, forged], line.trust)[0] == "manifest.malformed"


def test_a_key_of_a_kind_that_proves_nothing_here_is_refused(tmp_path: Path) -> None:
    line, key = Line(tmp_path / "north"), ed25519.Ed25519PrivateKey.generate()
    line.take(a_chip())
    opening, raw = line.lines
    builder = x509.CertificateBuilder(ISSUER.certificate.subject, named("chip-1"), key.public_key(), 7)
    builder = builder.not_valid_before(NOON).not_valid_after(NOON + timedelta(days=1))
    certificate = parse_der(builder.sign(ISSUER.private_key, hashes.SHA256()).public_bytes(Encoding.DER))
    chain = {"chain": (line_format.render_certificate(certificate),)}
    forged = line.sign(msgspec.structs.replace(line_format.parse_line(raw).line, **chain))
    assert verified([opening, forged], line.trust)[0] == "manifest.key_mismatch"


def test_a_proof_counts_in_no_other_line(tmp_path: Path) -> None:
    line = Line(tmp_path / "north")
    line.take(a_chip("chip-1"), "B-1")
    line.take(a_chip("chip-2"), "B-2")
    opening, _, second = line.lines
    honest = line_format.parse_line(second).line
    forged = line.sign(msgspec.structs.replace(honest, seq=1, previous=line_format.digest(opening)))
    assert verified([opening, forged], line.trust)[0] == "manifest.key_mismatch"


def test_a_proof_counts_in_no_other_bundle(tmp_path: Path) -> None:
    line = Line(tmp_path / "north")
    line.sealed(1)
    line.take(a_chip("chip-9"), "B-9")
    first = (line.directory / "intake-0001.jsonl").read_bytes().splitlines()
    honest = line_format.parse_line(line.lines[1]).line
    forged = line.sign(msgspec.structs.replace(honest, previous=line_format.digest(first[0])))
    assert verified([first[0], forged], line.trust)[0] == "manifest.key_mismatch"


def test_a_seal_counts_for_no_other_bundle(tmp_path: Path) -> None:
    line = Line(tmp_path / "north")
    first = line.sealed(1, "first").read_bytes().splitlines()
    second = line.sealed(2, "second").read_bytes().splitlines()
    assert verified([*first[:-1], b"{}", second[-1]], line.trust)[-1] == "manifest.not_whole"


def test_one_chip_on_two_boards_is_refused_although_its_station_signed_both(tmp_path: Path) -> None:
    line, chip = Line(tmp_path / "north"), a_chip()
    line.take(chip, "B-1")
    opening, raw = line.lines
    bundle = chip_of(opening)["bundle"]
    wish = ChipIntake("B-2", "ann", (chip.certificate, ISSUER.certificate))
    proof = sign_nonce(handle_of(chip), nonce_of(wish, BundlePosition(bundle, 2), "ef" * 32))
    honest = line_format.parse_line(raw).line
    again = msgspec.structs.replace(
        honest,
        seq=2,
        previous=line_format.digest(raw),
        board="B-2",
        challenge="ef" * 32,
        proof=line_format.base64(proof),
    )
    found = list(verify_all(io.BytesIO(b"\n".join([opening, raw, line.sign(again)])), line.trust))
    assert isinstance(found[1], BirthmarkError)
    assert found[1].explain_cause() == "Entry 2 (board B-2) is a duplicate: entry 1 has the same chip."


def chip_of(raw: bytes) -> dict[str, str]:
    said: dict[str, str] = json.loads(raw)
    return said


# ---- lines


def test_what_is_written_is_what_is_read(line: Line) -> None:
    for raw in line.lines:
        signed = line_format.parse_line(raw)
        assert line_format.render_line(signed.line, _signature(signed)) == raw


def _signature(signed: line_format.SignedLine) -> Callable[[bytes], bytes]:
    return lambda _: signed.signature


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_line_or_refused(raw: bytes) -> None:
    try:
        line_format.parse_line(raw)
    except MalformedEntryError as error:
        assert error.explain_cause()


@given(st.data())
def test_any_change_of_one_byte_is_seen(data: st.DataObject) -> None:
    lines, trust = _SAMPLE
    whole = b"\n".join(lines)
    at = data.draw(st.integers(0, len(whole) - 1))
    spoilt = bytearray(whole)
    spoilt[at] ^= 1 << data.draw(st.integers(0, 7))
    found = list(verify_all(io.BytesIO(bytes(spoilt)), trust))
    assert any(isinstance(one, BirthmarkError) for one in found)


def test_of_many_lines_exactly_those_are_refused_that_were_changed(tmp_path: Path) -> None:
    line, dice = Line(tmp_path / "north"), random.Random(9)
    lines = line.sealed(60).read_bytes().splitlines()
    for number in (spoilt := sorted(dice.sample(range(1, 61), 9))):
        raw = bytearray(lines[number])
        raw[dice.randrange(len(raw))] ^= 1 << dice.randrange(3)  # which makes no line's end of anything in it
        lines[number] = bytes(raw)
    found = list(verify_all(io.BytesIO(b"\n".join(lines)), line.trust))
    refused = {n: one.facts["place"] for n, one in enumerate(found, 1) if isinstance(one, BirthmarkError)}
    assert refused == {number: str(number) for number in spoilt}


def _sample() -> tuple[list[bytes], BundleTrust]:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        line = Line(Path(directory) / "sample")
        line.sealed(2)
        return line.lines, line.trust


_SAMPLE = _sample()


def test_a_line_without_an_end_is_not_kept_in_memory() -> None:
    endless = io.BytesIO(line_format.BEGINNING + b"a" * (3 * line_format.MAX_LINE_BYTES) + b"\n{}\n")
    found = list(verify_all(endless, BundleTrust(())))
    assert [one.explain_cause() for one in found if isinstance(one, BirthmarkError)] == [
        f"Entry 1 is not a valid manifest entry: it has more than {line_format.MAX_LINE_BYTES} bytes.",
        "Entry 2 is not a valid manifest entry: it does not end with a signature.",
    ]


def test_chips_are_counted_without_a_look_at_them(line: Line) -> None:
    assert count_chips(io.BytesIO(line.bundle.read_bytes())) == 3


@pytest.mark.parametrize("name", ["", " B", "B ", 'B"1', "B\\1", "B\n1", "B\x1b[31m", "b" * 65])
def test_what_cannot_name_a_board(name: str) -> None:
    assert not line_format.is_name(name)


@pytest.mark.parametrize("name", ["B-1", "基板 1", "b" * 64, "S/N:0001;A"])
def test_what_may_name_a_board(name: str) -> None:
    assert line_format.is_name(name)


@pytest.mark.parametrize(
    "time", ["", "2026-06-01", "2026-06-01T12:00:00", "2026-06-01T12:00:00+00:00", "0000-00-00T00:00:00Z"]
)
def test_a_time_has_one_form(time: str) -> None:
    with pytest.raises(MalformedEntryError):
        line_format.parse_time(time)


def test_take_is_said_where(tmp_path: Path) -> None:
    line = Line(tmp_path / "north")
    with line.station() as station:
        assert take(station, a_chip(), "B-1").line == 2


def test_the_sign_that_ends_a_text_in_dos_is_no_line_of_a_bundle() -> None:
    assert list(raw_lines(io.BytesIO(b"one\r\ntwo\r\n\x1a"))) == [b"one", b"two"]
