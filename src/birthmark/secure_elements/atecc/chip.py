"""Chip commands through Microchip's library: over I2C, or to a simulated chip in a file.

The library supports one device per process; callers must hold `keys.pkcs11_library.LOCK`.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import msgspec

from birthmark import atomic_files
from birthmark.clock_and_entropy import SystemEntropy
from birthmark.keys.errors import ModuleBrokenError, ModuleMissingError, TokenFailedError
from birthmark.secure_elements.atecc.simulator import (
    CONFIG_BYTES,
    DATA_ZONE,
    OTP_BYTES,
    OTP_ZONE,
    SLOT_BYTES,
    ChipMemory,
    SoftwareChip,
)
from birthmark.secure_elements.atecc.simulator_hal import AteccBus
from birthmark.untrusted_json_and_text import decode_json

NAME = "cryptoauthlib"
"""Value used in place of a PKCS#11 library path."""
CHIP_FILE = "atecc.chip"
_I2C = re.compile(r"i2c,(?P<address>0x[0-9A-Fa-f]{2})(?:,(?P<bus>[0-9]{1,3}))?")
_TYPE_608 = 3
_ADDRESS = 0x6A
_BLOCK = 32
_POINT_BYTES = 64
_MAX_FILE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ChipAddress:
    """Chip address: a bus and an 8-bit address, as Microchip writes it, or a simulated chip's directory."""

    address: int = _ADDRESS
    bus: int = 1
    directory: Path | None = None

    @classmethod
    def parse(cls, module: Path) -> "ChipAddress | None":
        """Parse `cryptoauthlib[:i2c,0x6A[,BUS]|:DIR]`; return None for a library path."""
        text = str(module)
        if text == NAME:
            return cls()
        if not text.startswith(f"{NAME}:"):
            return None
        rest = text.removeprefix(f"{NAME}:")
        if (found := _I2C.fullmatch(rest)) is not None:
            return cls(int(found["address"], 16), int(found["bus"] or 1))
        if rest.startswith("i2c"):
            raise ModuleBrokenError(path=module, detail="use cryptoauthlib:i2c,0x6A,1: the 8-bit address, then the bus")
        return cls(directory=Path(rest))

    def __str__(self) -> str:
        return f"{NAME}:" + (f"i2c,0x{self.address:02X},{self.bus}" if self.directory is None else str(self.directory))


def load_memory(directory: Path) -> ChipMemory:
    """Load a simulated chip's memory. Raise `ModuleMissingError` or `ModuleBrokenError`."""
    path = directory / CHIP_FILE
    try:
        with path.open("rb") as file:
            memory = decode_json(file.read(_MAX_FILE_BYTES), ChipMemory)
    except OSError as error:
        raise ModuleMissingError(path=path) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModuleBrokenError(path=path, detail="it is not a simulated secure element") from error
    sizes = (len(memory.config), len(memory.otp), *map(len, memory.slots))
    if sizes != (CONFIG_BYTES, OTP_BYTES, *SLOT_BYTES):
        raise ModuleBrokenError(path=path, detail="it is not a simulated secure element")
    return memory


def save_memory(directory: Path, memory: ChipMemory) -> None:
    """Write the memory atomically: a power failure leaves the old or the new state."""
    atomic_files.replace(directory / CHIP_FILE, msgspec.json.encode(memory))


class AteccChip:
    """An open ATECC chip; close it when done."""

    def __init__(self, address: ChipAddress, library: Any, bus: AteccBus | None) -> None:
        """Use the library started by `open`."""
        self.place, self._library, self._bus = address, library, bus
        self._points: dict[int, bytes] = {}  # cache, because the chip recomputes them slowly each time

    @classmethod
    def open(cls, address: ChipAddress) -> Self:
        """Start the library and find the chip. Raise `ModuleMissingError` or `TokenFailedError`."""
        try:
            import cryptoauthlib
            from cryptoauthlib.library import get_cryptoauthlib, load_cryptoauthlib
        except ImportError as error:
            raise ModuleMissingError(path="cryptoauthlib of Python (`pip install cryptoauthlib`)") from error
        load_cryptoauthlib()
        bus = None
        if (directory := address.directory) is not None:
            memory = load_memory(directory)
            chip = SoftwareChip(memory, SystemEntropy().token, lambda: save_memory(directory, memory))
            bus = AteccBus(get_cryptoauthlib(), chip.answer)
        settings = cryptoauthlib.cfg_ateccx08a_i2c_default()
        settings.devtype = _TYPE_608
        settings.cfg.atcai2c.u.address, settings.cfg.atcai2c.bus = address.address, address.bus
        opened = cls(address, cryptoauthlib, bus)
        try:
            with opened._said("the chip does not answer"):
                opened._check(cryptoauthlib.atcab_init(settings), "the bus")
                opened.revision()
        except TokenFailedError:
            opened.close()
            raise
        return opened

    def close(self) -> None:
        """Release the bus."""
        self._library.atcab_release()
        if self._bus is not None:
            self._bus.remove()
            self._bus = None

    # ---- identity

    def serial(self) -> bytes:
        """Return the nine-byte serial number that Microchip assigned."""
        return self._filled(9, self._library.atcab_read_serial_number)

    def revision(self) -> bytes:
        """Return the 4-byte revision; the last two bytes distinguish 608A, B and C."""
        return self._filled(4, self._library.atcab_info)

    def product_code(self) -> str:
        """Return the first eight characters of the OTP zone, by which Microchip names the factory's template."""
        raw = self._filled(8, lambda into: self._library.atcab_read_bytes_zone(OTP_ZONE, 0, 0, into, 8))
        return raw.decode("ascii", "replace")

    # ---- keys

    def has_key(self, slot: int) -> bool:
        """Return whether a private key exists. Raise `TokenFailedError` if the chip does not report it."""
        if slot in self._points:
            return True
        into = bytearray(_POINT_BYTES)
        code = self._library.atcab_get_pubkey(slot, into)
        # Only this status means that the slot has no key; a bus error proves nothing.
        if code == self._library.Status.ATCA_EXECUTION_ERROR.value:
            return False
        self._check(code, f"reading the public key of slot {slot}")
        self._points[slot] = bytes(into)
        return True

    def point(self, slot: int) -> bytes:
        """Return the public key of a private key: X, Y."""
        if not self.has_key(slot):
            raise TokenFailedError(detail=f"slot {slot} at {self.place} contains no key")
        return self._points[slot]

    def sign(self, slot: int, digest: bytes) -> bytes:
        """Sign a digest with the key in a slot, and return r and s."""
        return self._filled(64, lambda into: self._library.atcab_sign(slot, digest, into))

    def generate(self, slot: int) -> bytes:
        """Generate a key in a slot whose configuration permits it; return the public key. Never replace a key."""
        if self.has_key(slot):
            raise TokenFailedError(detail=f"slot {slot} at {self.place} already contains a key, which is not replaced")
        return self._filled(64, lambda into: self._library.atcab_genkey(slot, into))

    # ---- slots

    def read_slot(self, slot: int) -> bytes:
        size = SLOT_BYTES[slot]
        return self._filled(size, lambda into: self._library.atcab_read_bytes_zone(DATA_ZONE, slot, 0, into, size))

    def write_slot(self, slot: int, value: bytes) -> None:
        """Write a slot from its start, in complete words."""
        code = self._library.atcab_write_bytes_zone(DATA_ZONE, slot, 0, value, len(value))
        self._check(code, f"writing slot {slot}")

    def is_locked(self, slot: int) -> bool:
        """Return whether the slot is permanently locked."""
        told = self._library.AtcaReference(0)
        self._check(self._library.atcab_is_slot_locked(slot, told), "reading its locks")
        return bool(told.value)

    # ---- inside

    def _filled(self, size: int, value: Any) -> bytes:
        into = bytearray(size)
        self._check(value(into), "a command")
        return bytes(into)

    def _check(self, code: int, what: str) -> None:
        if code:
            names = [status.name for status in self._library.Status if status.value == code]
            raise TokenFailedError(detail=f"{what} at {self.place}: cryptoauthlib {' '.join(names)} ({code})")

    @contextlib.contextmanager
    def _said(self, what: str) -> Iterator[None]:
        try:
            yield
        except TokenFailedError as error:
            raise TokenFailedError(detail=f"{what} ({error.facts['detail']})") from error
