"""The software chip, packet by packet."""

import random
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.keys.errors import ModuleBrokenError, ModuleMissingError
from birthmark.secure_elements.atecc.chip import ChipAddress, load_memory
from birthmark.secure_elements.atecc.simulated_factory import create_atecc
from birthmark.secure_elements.atecc.simulator import SLOT_BYTES, ChipMemory, SoftwareChip, crc16, packet
from support.fakes import SeededEntropy

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> ChipMemory:
    directory = tmp_path_factory.mktemp("chip")
    create_atecc(directory, "TNGTLS", now=NOON, entropy=SeededEntropy())
    return load_memory(directory)


@pytest.fixture
def chip(memory: ChipMemory) -> SoftwareChip:
    return a_chip(memory)


def a_chip(memory: ChipMemory) -> SoftwareChip:
    own = ChipMemory(memory.config, memory.otp, list(memory.slots), dict(memory.keys))
    return SoftwareChip(own, random.Random(1).randbytes)


def ask(chip: SoftwareChip, opcode: int, first: int, second: int, data: bytes = b"") -> bytes:
    """Return what the chip answers, without count and checksum, which must be right."""
    answer = chip.answer(packet(bytes((opcode, first)) + second.to_bytes(2, "little") + data))
    assert answer[0] == len(answer)
    assert crc16(answer[:-2]) == answer[-2:]
    return answer[1:-2]


def test_the_checksum_is_the_chips() -> None:
    """The wake answer of every chip of the family: 04 11, checksum 33 43."""
    assert crc16(bytes.fromhex("0411")) == bytes.fromhex("3343")


def test_it_tells_revision_and_serial(chip: SoftwareChip) -> None:
    assert ask(chip, 0x30, 0, 0) == bytes.fromhex("00006003")
    config = ask(chip, 0x02, 0x80, 0)
    assert config[:2] == b"\x01\x23"
    assert config[12] == 0x01


@given(st.binary(max_size=250))
def test_whatever_comes_is_answered_by_a_packet(memory: ChipMemory, command: bytes) -> None:
    answer = a_chip(memory).answer(command)
    assert answer[0] == len(answer)
    assert crc16(answer[:-2]) == answer[-2:]


@given(
    st.sampled_from([0x02, 0x12, 0x16, 0x17, 0x1B, 0x30, 0x40, 0x41, 0x47]),
    st.integers(0, 255),
    st.integers(0, 0xFFFF),
    st.binary(max_size=80),
)
def test_no_command_tells_a_private_key_or_changes_the_identity(
    memory: ChipMemory, opcode: int, first: int, second: int, data: bytes
) -> None:
    chip = a_chip(memory)
    answer = ask(chip, opcode, first, second, data)
    for scalar in memory.keys.values():
        assert scalar[:8] not in answer
    assert chip.memory.keys[0] == memory.keys[0]
    assert chip.memory.config[:16] == memory.config[:16]
    assert tuple(map(len, chip.memory.slots)) == SLOT_BYTES


def test_a_wrong_checksum_is_refused(chip: SoftwareChip) -> None:
    assert chip.answer(bytes.fromhex("07300000000000"))[1] == 0xFF


def test_what_the_factory_locked_is_not_written(chip: SoftwareChip) -> None:
    assert ask(chip, 0x12, 0x82, 10 << 3, bytes(32)) == b"\x0f"
    assert ask(chip, 0x12, 0x80, 0, bytes(32)) == b"\x0f"
    assert ask(chip, 0x12, 0x82, 8 << 3, b"x" * 32) == b"\x00"
    assert ask(chip, 0x02, 0x82, 8 << 3) == b"x" * 32


def test_a_slot_is_locked_for_good(chip: SoftwareChip) -> None:
    assert ask(chip, 0x17, 0x02 | 8 << 2 | 0x80, 0) == b"\x00"
    assert ask(chip, 0x12, 0x82, 8 << 3, b"x" * 32) == b"\x0f"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("cryptoauthlib", ChipAddress(0x6A, 1)),
        ("cryptoauthlib:i2c,0x6C", ChipAddress(0x6C, 1)),
        ("cryptoauthlib:i2c,0xC0,2", ChipAddress(0xC0, 2)),
        ("cryptoauthlib:/somewhere", ChipAddress(directory=Path("/somewhere"))),
        ("/usr/lib/libcryptoauth.so", None),
        ("cryptoauthlibrary", None),
    ],
)
def test_where_a_chip_is_stands_in_place_of_a_library(text: str, place: ChipAddress | None) -> None:
    assert ChipAddress.parse(Path(text)) == place


def test_an_address_in_seven_bits_or_none_is_explained() -> None:
    with pytest.raises(ModuleBrokenError) as refused:
        ChipAddress.parse(Path("cryptoauthlib:i2c,53"))
    assert "8-bit address" in refused.value.explain_cause()


def test_a_file_that_is_no_chip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModuleMissingError):
        load_memory(tmp_path)
    for content in (b"", b"{}", b'{"config":"","otp":"","slots":[]}', b"\xff"):
        (tmp_path / "atecc.chip").write_bytes(content)
        with pytest.raises(ModuleBrokenError):
            load_memory(tmp_path)


def test_a_chips_file_is_its_owners_alone(tmp_path: Path) -> None:
    create_atecc(tmp_path / "chip", "TRUSTCUSTOM", now=NOON, entropy=SeededEntropy())
    assert (tmp_path / "chip" / "atecc.chip").stat().st_mode & 0o777 == 0o600
