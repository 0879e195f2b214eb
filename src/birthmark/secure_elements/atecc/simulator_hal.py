"""Connects a simulated chip to cryptoauthlib in place of the I2C bus.

It uses the library's own hook (`hal_iface_register_hal`). The library is unmodified and performs all its operations:
wake, command packets, length and checksum checks.
"""

import ctypes
from collections.abc import Callable
from typing import Any

_OK, _NO_ANSWER, _TOO_SMALL = 0, 0xE7, 0xE5
_I2C = 0
_COMMAND = 0x03
_AWAKE = bytes.fromhex("04113343")
"""Wake response of a chip; without it the library retries for a long time."""
_Answer = Callable[[bytes], bytes]

_INIT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_POST = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_SEND = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint8, ctypes.POINTER(ctypes.c_uint8), ctypes.c_int)
_RECEIVE = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_uint8, ctypes.POINTER(ctypes.c_uint8), ctypes.POINTER(ctypes.c_uint16)
)
_CONTROL = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_uint8, ctypes.c_void_p, ctypes.c_size_t)
_RELEASE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class _Hal(ctypes.Structure):
    """The library's ATCAHAL_t."""

    _fields_ = (
        ("init", _INIT),
        ("post_init", _POST),
        ("send", _SEND),
        ("receive", _RECEIVE),
        ("control", _CONTROL),
        ("release", _RELEASE),
    )


class AteccBus:
    """Bus with one chip. Keep it while the library may use it, then call `remove`."""

    def __init__(self, library: Any, answer: _Answer) -> None:
        self._library, self._answer, self._pending = library, answer, b""
        self._hal = _Hal(
            _INIT(lambda _iface, _hal: _OK),
            _POST(lambda _iface: _OK),
            _SEND(self._send),
            _RECEIVE(self._receive),
            _CONTROL(lambda _iface, _option, _param, _size: _OK),
            _RELEASE(lambda _hal_data: _OK),
        )
        self._before = ctypes.c_void_p()
        self._register(ctypes.byref(self._hal))

    def remove(self) -> None:
        """Restore the library's own I2C."""
        self._register(self._before)

    def _register(self, hal: Any) -> None:
        before, phy = ctypes.c_void_p(), ctypes.c_void_p()
        code = self._library.hal_iface_register_hal(_I2C, hal, ctypes.byref(before), None, ctypes.byref(phy))
        if code != _OK:
            raise RuntimeError(f"cryptoauthlib supports no other bus: 0x{code:02x}")
        self._before = before

    def _send(self, _iface: Any, word: int, data: Any, length: int) -> int:
        if word == _COMMAND and length > 0:
            self._pending = self._answer(bytes(data[:length]))
        return _OK

    def _receive(self, _iface: Any, _word: int, data: Any, length: Any) -> int:
        wanted = length[0]
        if not self._pending:
            if wanted != len(_AWAKE):
                return _NO_ANSWER
            self._pending = _AWAKE
        piece, self._pending = self._pending[:wanted], self._pending[wanted:]
        for at, byte in enumerate(piece):
            data[at] = byte
        length[0] = len(piece)
        return _OK
