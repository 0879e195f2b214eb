"""Inspection of files: existence, permissions, and the architecture of a library."""

import errno
import os
import platform
import stat
from pathlib import Path

from birthmark.doctor.facts import FileFacts
from birthmark.keys.pkcs11_library_lifecycle import find_libraries
from birthmark.untrusted_json_and_text import reason_of

MAX_TEXT_BYTES = 1024 * 1024
_ELF = b"\x7fELF"
_MACHINES = {3: "x86", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}  # e_machine, ELF specification
_HERE = {"i686": "x86", "i386": "x86", "armv7l": "arm", "armv6l": "arm", "arm64": "aarch64", "amd64": "x86_64"}
_TPMS = ("/dev/tpmrm0", "/dev/tpm0")
_TPM_LIBRARY = "libtpm2_pkcs11"


def inspect_file(path: Path) -> FileFacts:
    """Return the facts of a path, and whether this user can read it."""
    try:
        status = path.stat()
    except OSError as error:
        return FileFacts(str(path), exists=error.errno not in (errno.ENOENT, errno.ENOTDIR), reason=reason_of(error))
    reason = "" if os.access(path, os.R_OK) else "permission denied"
    if stat.S_ISFIFO(status.st_mode):
        reason = "a pipe, whose content was not checked"
    return FileFacts(
        str(path),
        exists=True,
        is_directory=stat.S_ISDIR(status.st_mode),
        mode=stat.S_IMODE(status.st_mode),
        reason=reason,
    )


def libraries(root: Path) -> list[str]:
    """Return the PKCS#11 libraries of this machine and below `root`; those without their hardware are last."""
    found = dict.fromkeys(str(path) for place in (root, Path("/")) for path in find_libraries(place))
    has_tpm = "TPM2_PKCS11_TCTI" in os.environ or any(Path(place).exists() for place in _TPMS)
    return sorted(found, key=lambda path: not has_tpm and _TPM_LIBRARY in path)


def text_of(path: Path) -> str:
    """Return the beginning of a text file; empty if it cannot be read or is no file."""
    return bytes_of(path, MAX_TEXT_BYTES).decode("utf-8", "replace")


def bytes_of(path: Path, limit: int) -> bytes:
    """Return at most `limit` bytes of a regular file; none if it cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would block
            return b""
        with path.open("rb") as file:
            return file.read(limit)
    except OSError:
        return b""


def machine_of(path: Path) -> str:
    """Return the architecture of a library; a note if the file is no library; empty if it cannot be read."""
    head = bytes_of(path, 20)
    if not head:
        return ""
    if not head.startswith(_ELF):
        return "unknown machine: not a library"
    number = int.from_bytes(head[18:20], "big" if head[5:6] == b"\2" else "little")  # byte order: EI_DATA
    return _MACHINES.get(number, f"machine {number}")


def this_machine() -> str:
    """Return this interpreter's architecture, by the same names."""
    name = platform.machine()
    return _HERE.get(name, name)
