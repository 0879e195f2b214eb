"""Thread-safe initialization of a PKCS#11 library (`CKF_OS_LOCKING_OK`).

The binding calls `C_Initialize(NULL)`, which promises that only one thread will ever call (PKCS#11 section 5.4). But
awscrt signs on its own threads in the same library. So the library is initialized and finalized here, and the binding
finds it initialized. The binding is otherwise unchanged.
"""

import ctypes
from typing import Any

from pkcs11 import exceptions as p11
from pkcs11._pkcs11 import lib as Library  # noqa: N812 (its name is lower case)

_OK, _ARGUMENTS_BAD, _CANT_LOCK, _STARTED_ALREADY = 0x00, 0x07, 0x0A, 0x191
_OS_LOCKING_OK = 0x2


class _Arguments(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS."""

    _fields_ = (
        ("create_mutex", ctypes.c_void_p),
        ("destroy_mutex", ctypes.c_void_p),
        ("lock_mutex", ctypes.c_void_p),
        ("unlock_mutex", ctypes.c_void_p),
        ("flags", ctypes.c_ulong),
        ("reserved", ctypes.c_void_p),
    )


_Call = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)


class _Functions(ctypes.Structure):
    """The first fields of CK_FUNCTION_LIST, identical in every version."""

    _fields_ = (("major", ctypes.c_ubyte), ("minor", ctypes.c_ubyte), ("initialize", _Call), ("finalize", _Call))


class SharedLibrary(Library):
    """The binding's library, initialized for several threads.

    A library that other code in this process has initialized is used, but not finalized.
    """

    _is_started = False
    _is_ours = False

    @property
    def initialized(self) -> bool:  # type: ignore[override] # missing in the stub: it is read-only
        return self._is_started

    def initialize(self) -> None:
        """Initialize the library. Raise the binding's errors."""
        if self._is_started:
            return
        code = self._functions().initialize(ctypes.byref(_Arguments(flags=_OS_LOCKING_OK)))
        if code in (_ARGUMENTS_BAD, _CANT_LOCK):  # it has no locks of its own; `LOCK` is the only one then
            code = self._functions().initialize(None)
        if code not in (_OK, _STARTED_ALREADY):
            raise p11.PKCS11Error(f"C_Initialize failed: 0x{code:x}")
        self._is_started, self._is_ours = True, code == _OK

    def finalize(self) -> None:
        """Finalize the library if it was initialized here."""
        if self._is_started and self._is_ours:
            self._functions().finalize(None)
        self._is_started = self._is_ours = False

    def _functions(self) -> Any:
        if (found := vars(self).get("_list")) is None:
            handle = ctypes.CDLL(self.so)  # the copy loaded by the binding
            pointer = ctypes.POINTER(_Functions)()
            code = handle.C_GetFunctionList(ctypes.byref(pointer))
            if code:
                raise p11.PKCS11Error(f"C_GetFunctionList failed: 0x{code & 0xFFFFFFFF:x}")
            found = vars(self)["_list"] = pointer.contents
        return found
