"""A fresh SoftHSM2 token in a directory of its own: PKCS#11 for tests and the demo without a chip.

The token is initialized through the library's own functions and not by `softhsm2-util`, which takes PINs as arguments.
"""

import ctypes
import os
from pathlib import Path

from birthmark.keys.errors import ModuleBrokenError
from birthmark.keys.library import LOCK, find_softhsm, load_library, stop_library

_LABEL_BYTES = 32
_SO, _USER = 0, 1
_RW_SERIAL = 0x2 | 0x4
_CONF = """\
directories.tokendir = {tokens}
objectstore.backend = file
objectstore.umask = 0077
log.level = ERROR
slots.removable = false
"""


def initialize_token(directory: Path, label: str, pin: str) -> Path:
    """Make `directory` with `softhsm2.conf` and one token, select it for this process, and return the library."""
    module = find_softhsm()
    tokens = directory / "tokens"
    tokens.mkdir(mode=0o700, parents=True)
    conf = directory / "softhsm2.conf"
    conf.write_text(_CONF.format(tokens=tokens.resolve()))
    conf.chmod(0o600)
    with LOCK:
        select(directory)
        stop_library()
        load_library(module)
        _initialize(module, label, pin)
        stop_library()  # SoftHSM looks for tokens when it starts
    return module


def select(directory: Path) -> None:
    """Point SoftHSM of this process and its children at `directory`."""
    os.environ["SOFTHSM2_CONF"] = str((directory / "softhsm2.conf").resolve())


def _initialize(module: Path, label: str, pin: str) -> None:
    library = ctypes.CDLL(str(module.resolve()))  # the copy that is loaded and started already
    count = ctypes.c_ulong(8)
    slots = (ctypes.c_ulong * 8)()
    secret = pin.encode()
    session = ctypes.c_ulong()
    unsigned = ctypes.c_ulong
    _check(library.C_GetSlotList(ctypes.c_ubyte(1), slots, ctypes.byref(count)), module)
    slot = unsigned(slots[count.value - 1])
    padded = label.encode().ljust(_LABEL_BYTES)
    _check(library.C_InitToken(slot, secret, unsigned(len(secret)), padded), module)
    _check(library.C_OpenSession(slot, unsigned(_RW_SERIAL), None, None, ctypes.byref(session)), module)
    _check(library.C_Login(session, unsigned(_SO), secret, unsigned(len(secret))), module)
    _check(library.C_InitPIN(session, secret, unsigned(len(secret))), module)
    _check(library.C_CloseSession(session), module)


def _check(code: int, module: Path) -> None:
    if code:
        raise ModuleBrokenError(path=module, detail=f"error 0x{code & 0xFFFFFFFF:x} while making a token")
