"""The process's PKCS#11 library: one at a time, found, loaded, initialized and finalized.

PKCS#11 state (logins and sessions) is per process. So there is one library and one lock, and a change of what the
library sees (a new SoftHSM token, another SOFTHSM2_CONF) restarts it here.
"""

import atexit
import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from pkcs11 import exceptions as p11

from birthmark.keys.errors import ModuleBrokenError, ModuleMissingError, SoftHsmMissingError
from birthmark.keys.native_library_lock import NativeLock
from birthmark.keys.pkcs11_os_locks import SharedLibrary

LOCK = NativeLock()
"""Lock for every call into the library."""

_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_SOFTHSM = (
    "usr/lib/*/softhsm/libsofthsm2.so",  # Debian: one directory per architecture
    "usr/lib/softhsm/libsofthsm2.so",
    "usr/lib64/softhsm/libsofthsm2.so",
    "usr/lib64/pkcs11/libsofthsm2.so",
    "usr/local/lib/softhsm/libsofthsm2.so",
)
# Libraries of secure elements, at the paths of their packages and their manufacturers' instructions.
_CHIPS = (
    "usr/lib/plug-and-trust/libsss_pkcs11.so",  # path of NXP's middleware in Debian and Alpine packages
    "usr/local/lib/libsss_pkcs11.so",
    "usr/lib/libsss_pkcs11.so",
    "usr/lib/*/libsss_pkcs11.so",
    "usr/lib/libcryptoauth.so",
    "usr/local/lib/libcryptoauth.so",
    "usr/lib/*/libcryptoauth.so",
    "usr/lib/*/libtpm2_pkcs11.so.1",
    "usr/lib/*/pkcs11/libtpm2_pkcs11.so",
    "usr/lib/libtpm2_pkcs11.so*",
    "usr/lib/pkcs11/libtpm2_pkcs11.so",
)


class _LoadedLibrary:
    """The initialized library."""

    library: SharedLibrary | None = None
    path: Path | None = None
    settings: str | None = None
    generation: int = 0


_loaded = _LoadedLibrary()
_every: dict[Path, SharedLibrary] = {}
"""Loaded libraries; none is ever unloaded, as other code in the process may use it."""
_users: list[Callable[[], bool]] = []


def kind_of(error: p11.PKCS11Error | OSError) -> str:
    """Return the name of a library's return value in words: `device error` for CKR_DEVICE_ERROR."""
    return _CAPITAL.sub(" ", type(error).__name__).lower()


def find_softhsm(root: Path = Path("/")) -> Path:
    """Return SoftHSM's library. Raise `SoftHsmMissingError`, which names the package."""
    for pattern in _SOFTHSM:
        for path in sorted(root.glob(pattern)):
            return path
    raise SoftHsmMissingError(looked_in=", ".join("/" + pattern.rsplit("/", 1)[0] for pattern in _SOFTHSM))


def find_libraries(root: Path = Path("/")) -> list[Path]:
    """Return all PKCS#11 libraries with a known name, without duplicates, those of chips before SoftHSM's."""
    found = [path for pattern in (*_CHIPS, *_SOFTHSM) for path in sorted(root.glob(pattern))]
    return list({path.resolve(): path for path in reversed(found)}.values())[::-1]


def load_library(path: Path) -> SharedLibrary:
    """Return the initialized library; hold `LOCK` while using it. Another running library and its sessions end."""
    with LOCK:
        settings = os.environ.get("SOFTHSM2_CONF")
        path = path.resolve()
        if _loaded.library is not None and _loaded.library.initialized:
            if (path, settings) == (_loaded.path, _loaded.settings):
                return _loaded.library
            stop_library()
        if not path.exists():
            raise ModuleMissingError(path=path)
        try:
            library = _every.get(path) or _every.setdefault(path, SharedLibrary(str(path)))
            library.initialize()
        except (p11.PKCS11Error, OSError) as error:
            raise ModuleBrokenError(path=path, detail=str(error) or kind_of(error)) from error
        _loaded.library, _loaded.path, _loaded.settings = library, path, settings
        _loaded.generation += 1
        return library


def stop_library() -> None:
    """Finalize the library, if one is running; all sessions end.

    The next `load_library` sees new tokens and settings.
    """
    _stop(always=True)


def _stop(*, always: bool) -> None:
    with LOCK:
        if _loaded.library is not None and _loaded.library.initialized:
            left = [leave() for leave in _users]
            if all(left) or always:
                with contextlib.suppress(p11.PKCS11Error):
                    _loaded.library.finalize()
        _loaded.library = None
        _loaded.generation += 1


def add_stop_callback(leave: Callable[[], bool]) -> None:
    """Register a callback that makes a multithreaded user leave the library before it stops; it returns success."""
    if leave not in _users:
        _users.append(leave)


def generation() -> int:
    """Return a number that changes whenever earlier sessions become invalid."""
    return _loaded.generation


# Some libraries crash on open sessions at exit, and all crash if stopped during a signature in another thread.
atexit.register(_stop, always=False)
