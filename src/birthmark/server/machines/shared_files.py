"""The files that every machine of an installation has: each CA with its keys, and the seeds.

Not among them is what is each machine's own: its TLS key, the operator's token, and certificates for answers by OCSP.

A CA's directory has a note, `.shared`, of what all machines had when this one last looked: what differs from that was
changed here and shared with nobody, and is kept beside as `.NAME.left` before anything takes its place.
"""

import hashlib
import logging
from pathlib import Path

import msgspec

from birthmark import atomic_files
from birthmark.ca.cross_certificates import NEW_WITH_OLD, OLD_WITH_NEW
from birthmark.ca.generations import ABANDONED, FIRST, directories_of
from birthmark.ca.hierarchy_files import ROOT_LIST, alone_in, finish
from birthmark.ca.key_files import read_owned, read_private
from birthmark.ca.passphrase import BESIDE
from birthmark.ca.passphrase_rotation import exchange
from birthmark.pki.certificate_profiles import Purpose
from birthmark.server.machines.sealed_files import Files

log = logging.getLogger(__name__)

SEEDS = "seeds"
_SEEDS = ("audit.seed", "est.seed")
_OWN, _SHARED, _LEFT = "ocsp-", ".shared", "left"
_NAMES = {ROOT_LIST, BESIDE, ABANDONED, f"{NEW_WITH_OLD}.pem", f"{OLD_WITH_NEW}.pem"} | {
    f"{purpose}.{ending}" for purpose in Purpose for ending in ("pem", "key", "pending", "asked")
}
"""What a CA has. Whatever else lies in its directory is somebody's own."""


def collected(data: Path) -> dict[str, dict[str, bytes]]:
    """Return what there is, by a CA's directory or `SEEDS`. Raise `CaBusyError`, `SecretUnreadableError`."""
    found = {SEEDS: {name: read_private(data / name) for name in _SEEDS if (data / name).exists()}}
    for directory in directories_of(data):
        with alone_in(directory):
            finish(directory)
            found[directory.name] = _in(directory)
    return found


def left_out(data: Path) -> list[Path]:
    """Return what lies in a CA's directory and is shared with nobody, but for a machine's own and what is hidden."""
    there = (path for directory in directories_of(data) for path in sorted(directory.iterdir()))
    return [path for path in there if path.name not in _NAMES and not path.name.startswith((".", _OWN))]


def put(data: Path, name: str, files: Files) -> bool:
    """Have these files and no others under that name; say whether there was a difference. Raise as `collected`.

    What is too much, and what nobody else has, is kept as `.NAME.left`.
    """
    if name == SEEDS:
        return sum(_replaced(data / one, files[one]) for one in _SEEDS if one in files) > 0
    directory, files = data / name, {one: files[one] for one in files.keys() & _NAMES}
    directory.mkdir(mode=0o700, exist_ok=True)
    with alone_in(directory):
        finish(directory)
        if is_changed := (there := _in(directory)) != files:
            if not _is_noted(directory, there):
                # All of them: what opens a key is left with it.
                for one in filter(lambda one: there[one] != files.get(one), there):
                    _leave(directory / one, there[one])
            new = {one: content for one, content in files.items() if there.get(one) != content}
            exchange(directory, new, is_beside=BESIDE in files)
            for stale in filter(lambda one: (directory / one).exists(), there.keys() - files.keys()):
                # It may be a key that nobody else has.
                _leave(directory / stale, there[stale])
                atomic_files.remove(directory / stale)
        note(directory, files)
    return is_changed


def note(directory: Path, files: Files) -> None:
    """Note what all machines have of a CA; nothing where that is noted."""
    if not _is_noted(directory, files):
        atomic_files.replace(directory / _SHARED, _digest(files))


def is_name(name: str) -> bool:
    """Say whether files of this name belong into a data directory."""
    return name in {SEEDS, FIRST} or (name.startswith(f"{FIRST}-") and "/" not in name and "\0" not in name)


def _in(directory: Path) -> dict[str, bytes]:
    return {path.name: read_owned(path) for path in sorted(directory.iterdir()) if path.name in _NAMES}


def _replaced(path: Path, content: bytes) -> bool:
    if path.exists():
        if (there := read_private(path)) == content:
            return False
        _leave(path, there)
    atomic_files.replace(path, content)
    return True


def _is_noted(directory: Path, files: Files) -> bool:
    path = directory / _SHARED
    return path.exists() and path.read_bytes() == _digest(files)


def _digest(files: Files) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode(dict(sorted(files.items())))).hexdigest().encode()


def _leave(path: Path, content: bytes) -> None:
    """Keep beside what is about to go, unless it is kept there already."""
    hidden = path.with_name(f".{path.name}")
    if any(one.read_bytes() == content for one in path.parent.glob(f"{hidden.name}.{_LEFT}*")):
        return
    left = atomic_files.aside(hidden, _LEFT)
    atomic_files.replace(left, content)
    log.warning("server.left_beside", extra={"path": str(path), "left": str(left)})
