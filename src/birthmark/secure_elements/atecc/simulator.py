"""Simulated ATECC608: receives the library's bus packets and responds like a chip.

In: one command packet (count, opcode, param1, param2, data, CRC), randomness.

Out: one response packet; the caller stores the chip's memory.

Implemented as in silicon. It has zones with locks, private keys that no command reads, and slots that are written in
blocks of 4 or 32 bytes. It signs a previously loaded digest. Not implemented: timing, power, limited key use, encrypted
and authorized access, commands that are not used here.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

OK, PARSE_ERROR, EXECUTION_ERROR, CRC_ERROR = 0x00, 0x03, 0x0F, 0xFF
CONFIG_ZONE, OTP_ZONE, DATA_ZONE = 0, 1, 2
CONFIG_BYTES, OTP_BYTES = 128, 64
SLOT_BYTES = (*(36,) * 8, 416, *(72,) * 7)
REVISIONS: Mapping[str, bytes] = {
    "ATECC608A": bytes.fromhex("00006002"),
    "ATECC608B": bytes.fromhex("00006003"),
    "ATECC608C": bytes.fromhex("00006004"),
}
MIN_PACKET, MAX_PACKET = 7, 198
_WORD, _BLOCK = 4, 32
_UNLOCKED = 0x55
_LOCK_DATA, _LOCK_CONFIG, _SLOTS_LOCKED = 86, 87, 88
_KEY_CONFIG = 96
_EXTERNAL, _FROM_BUFFER = 0x80, 0x20
_CREATE = 0x04
_PASS_THROUGH, _MODE_BITS, _TO_BUFFER = 0x03, 0x03, 0x40


class ChipMemory(msgspec.Struct):
    """Non-volatile memory of a chip. `keys` are the private keys, used only by `Sign` and `GenKey`."""

    config: bytes
    otp: bytes
    slots: list[bytes]
    keys: dict[int, bytes] = {}


class _RefusedError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def crc16(data: bytes) -> bytes:
    """Return the chip's checksum: polynomial 0x8005, LSB first, initial value 0, low byte first."""
    register = 0
    for byte in data:
        for bit in range(8):
            is_set = byte >> bit & 1
            register, carry = register << 1 & 0xFFFF, register >> 15
            if carry != is_set:
                register ^= 0x8005
    return register.to_bytes(2, "little")


def packet(body: bytes) -> bytes:
    """Return a packet: its byte count, the body, the checksum."""
    counted = bytes((len(body) + 3,)) + body
    return counted + crc16(counted)


@dataclass(slots=True)
class SoftwareChip:
    """Simulated chip that executes commands. `changed` is called after every write to the memory."""

    memory: ChipMemory
    random: Callable[[int], bytes]
    changed: Callable[[], None] = lambda: None
    _temp_key: bytes = bytes(32)
    _buffer: bytes = bytes(32)
    _public: dict[int, bytes] = field(default_factory=dict)

    def answer(self, command: bytes) -> bytes:
        """Return the response to one packet; every input has a response."""
        if not MIN_PACKET <= len(command) <= MAX_PACKET or command[0] != len(command):
            return packet(bytes((CRC_ERROR,)))
        if crc16(command[:-2]) != command[-2:]:
            return packet(bytes((CRC_ERROR,)))
        opcode, first, second = struct.unpack_from("<BBH", command, 1)
        handler = _COMMANDS.get(opcode)
        try:
            return packet(handler(self, first, second, command[5:-2]) if handler else bytes((PARSE_ERROR,)))
        except _RefusedError as refused:
            return packet(bytes((refused.code,)))

    # ---- memory

    def _is_locked(self, zone: int) -> bool:
        return self.memory.config[_LOCK_CONFIG if zone == CONFIG_ZONE else _LOCK_DATA] != _UNLOCKED

    def _place(self, first: int, second: int) -> tuple[int, int, int, int]:
        """Return zone, slot, offset and length of an address."""
        zone, length = first & 3, _BLOCK if first & 0x80 else _WORD
        slot, block = (second >> 3 & 15, second >> 8 & 15) if zone == DATA_ZONE else (0, second >> 3 & 3)
        offset = block * _BLOCK + (0 if length == _BLOCK else (second & 7) * _WORD)
        size = {CONFIG_ZONE: CONFIG_BYTES, OTP_ZONE: OTP_BYTES, DATA_ZONE: SLOT_BYTES[slot]}.get(zone, 0)
        if offset + length > size + -size % _BLOCK or (length == _WORD and offset + length > size):
            raise _RefusedError(PARSE_ERROR)
        return zone, slot, offset, length

    def _content(self, zone: int, slot: int) -> bytes:
        return {CONFIG_ZONE: self.memory.config, OTP_ZONE: self.memory.otp}.get(zone) or self.memory.slots[slot]

    def read(self, first: int, second: int, _data: bytes) -> bytes:
        zone, slot, offset, length = self._place(first, second)
        if zone == DATA_ZONE and (not self._is_locked(zone) or slot in self._private()):
            raise _RefusedError(EXECUTION_ERROR)
        return self._content(zone, slot)[offset : offset + length].ljust(length, b"\0")

    def write(self, first: int, second: int, data: bytes) -> bytes:
        zone, slot, offset, length = self._place(first, second)
        if len(data) != length or first & 0x40:
            raise _RefusedError(PARSE_ERROR)
        if not self._may_write(zone, slot, offset):
            raise _RefusedError(EXECUTION_ERROR)
        before = self._content(zone, slot)
        after = (before[:offset] + data + before[offset + length :])[: len(before)]
        match zone:
            case 0:
                self.memory.config = after
            case 1:
                self.memory.otp = after
            case _:
                self.memory.slots[slot] = after
        self.changed()
        return bytes((OK,))

    def _may_write(self, zone: int, slot: int, offset: int) -> bool:
        if zone == CONFIG_ZONE:  # only factory and `Lock` set serial number and locks
            return not self._is_locked(zone) and offset >= 16 and not 84 <= offset <= 90  # noqa: PLR2004
        if zone == OTP_ZONE or slot in self._private():
            return not self._is_locked(zone) and zone == OTP_ZONE
        is_slot_open = int.from_bytes(self.memory.config[_SLOTS_LOCKED : _SLOTS_LOCKED + 2], "little") >> slot & 1
        write_rule = self.memory.config[20 + 2 * slot + 1] >> 4
        return bool(is_slot_open) and (not self._is_locked(zone) or write_rule == 0)

    def lock(self, first: int, second: int, _data: bytes) -> bytes:
        config = bytearray(self.memory.config)
        match first & 3:
            case 0 | 1 as which:
                at = (_LOCK_CONFIG, _LOCK_DATA)[which]
                summed = self.memory.config if which == 0 else b"".join([*self.memory.slots, self.memory.otp])
                is_right = bool(first & 0x80) or crc16(summed) == second.to_bytes(2, "little")
                if config[at] != _UNLOCKED or not is_right:
                    raise _RefusedError(EXECUTION_ERROR)
                config[at] = 0
            case _:
                slot = first >> 2 & 15
                config[_SLOTS_LOCKED + slot // 8] &= 0xFF ^ 1 << slot % 8
        self.memory.config = bytes(config)
        self.changed()
        return bytes((OK,))

    # ---- keys

    def _private(self) -> frozenset[int]:
        """Slots with private keys according to KeyConfig."""
        return frozenset(slot for slot in range(16) if self.memory.config[_KEY_CONFIG + 2 * slot] & 1)

    def _key(self, slot: int) -> ec.EllipticCurvePrivateKey:
        if slot not in self._private() or slot not in self.memory.keys:
            raise _RefusedError(EXECUTION_ERROR)
        return ec.derive_private_key(int.from_bytes(self.memory.keys[slot], "big"), ec.SECP256R1())

    def gen_key(self, first: int, second: int, _data: bytes) -> bytes:
        slot = second & 15
        if first & _CREATE:
            rule = self.memory.config[20 + 2 * slot + 1] >> 4
            is_open = int.from_bytes(self.memory.config[_SLOTS_LOCKED : _SLOTS_LOCKED + 2], "little") >> slot & 1
            if slot not in self._private() or not is_open or (self._is_locked(DATA_ZONE) and not rule & 2):
                raise _RefusedError(EXECUTION_ERROR)
            made = ec.generate_private_key(ec.SECP256R1())
            self.memory.keys[slot] = made.private_numbers().private_value.to_bytes(32, "big")
            self._public.pop(slot, None)
            self.changed()
        if slot not in self._public:
            public = self._key(slot).public_key()
            self._public[slot] = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
        return self._public[slot]

    def nonce(self, first: int, second: int, data: bytes) -> bytes:
        if first & _MODE_BITS == _PASS_THROUGH:
            if len(data) != _BLOCK:
                raise _RefusedError(PARSE_ERROR)
            if first & _TO_BUFFER:
                self._buffer = data
            else:
                self._temp_key = data
            return bytes((OK,))
        drawn = self.random(_BLOCK)
        digest = hashes.Hash(hashes.SHA256())
        digest.update(drawn + data + bytes((0x16, first, second & 0xFF)))
        self._temp_key = digest.finalize()
        return drawn

    def sign(self, first: int, second: int, _data: bytes) -> bytes:
        if not first & _EXTERNAL:
            raise _RefusedError(PARSE_ERROR)
        digest = self._buffer if first & _FROM_BUFFER else self._temp_key
        self._temp_key = self._buffer = bytes(_BLOCK)
        r, s = decode_dss_signature(self._key(second & 15).sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))))
        return r.to_bytes(_BLOCK, "big") + s.to_bytes(_BLOCK, "big")

    def info(self, _first: int, _second: int, _data: bytes) -> bytes:
        return self.memory.config[4:8]

    def draw(self, _first: int, _second: int, _data: bytes) -> bytes:
        return self.random(_BLOCK)


_Handler = Callable[[SoftwareChip, int, int, bytes], bytes]
_COMMANDS: Mapping[int, _Handler] = {
    0x02: SoftwareChip.read,
    0x12: SoftwareChip.write,
    0x16: SoftwareChip.nonce,
    0x17: SoftwareChip.lock,
    0x1B: SoftwareChip.draw,
    0x30: SoftwareChip.info,
    0x40: SoftwareChip.gen_key,
    0x41: SoftwareChip.sign,
}
