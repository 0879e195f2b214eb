"""The Birthmark server of this user that listens on a port, by the kernel's tables in /proc."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

_LISTENING = "0A"
_LOCK = "server.lock"
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class PortHolder:
    """A server's process and its data directory."""

    pid: int
    data: Path


def find_port_holder(address: str, port: int) -> PortHolder | None:
    """Return the server that listens there; None where none does, or its process belongs to another user."""
    sockets = {f"socket:[{inode}]" for inode in _listening(address, port)}
    for process in sorted(_PROC.glob("[0-9]*"), key=lambda path: int(path.name)) if sockets else ():
        if sockets & {str(target) for target in _open_files(process)}:
            for pid in (int(process.name), _parent(process)):  # a worker's parent holds the directory
                if (data := _data_of(_PROC / str(pid))) is not None:
                    return PortHolder(pid, data)
    return None


def _listening(address: str, port: int) -> Iterator[str]:
    """Yield the inodes of the sockets that listen on a port of an address, or of every address."""
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                _, local, _, state, *more = line.split()
                host, _, number = local.partition(":")
                if state == _LISTENING and int(number, 16) == port and _host(host) in {address, "0.0.0.0", "::"}:  # noqa: S104 - compared
                    yield more[5]


def _host(text: str) -> str:
    """Return an address that the kernel writes as words in the machine's (little-endian) order."""
    words = bytes.fromhex(text)
    found = ip_address(b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4)))
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)


def _open_files(process: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        for one in (process / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                yield one.readlink()


def _parent(process: Path) -> int:
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _data_of(process: Path) -> Path | None:
    return next((path.parent for path in _open_files(process) if path.name == _LOCK), None)
