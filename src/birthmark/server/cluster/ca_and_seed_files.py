"""The files that every machine of a cluster shares: each CA with its keys, and the seeds.

Files of a single machine are excluded: its TLS key, the operator's token, and the OCSP responder certificates.

A CA's directory has a note, `.shared`, of the files that all machines had at the last check. A file that differs from
it was changed only on this machine. It is kept as `.NAME.left` before another file replaces it.
"""

import hashlib
import logging
from pathlib import Path

import msgspec

from birthmark import atomic_files
from birthmark.ca.cross_certificates import NEW_WITH_OLD, OLD_WITH_NEW
from birthmark.ca.hierarchy_files import ROOT_LIST, alone_in, finish
from birthmark.ca.key_files import read_owned, read_private
from birthmark.ca.passphrase_rotation import exchange
from birthmark.ca.passphrase_sources import BESIDE
from birthmark.ca.root_generation_directories import ABANDONED, FIRST, directories_of
from birthmark.pki.certificate_profiles import Purpose
from birthmark.server.cluster.sealed_files import Files

log = logging.getLogger(__name__)

SEEDS = "seeds"
_SEEDS = ("audit.seed", "est.seed")
_OWN, _SHARED, _LEFT = "ocsp-", ".shared", "left"
_NAMES = {ROOT_LIST, BESIDE, ABANDONED, f"{NEW_WITH_OLD}.pem", f"{OLD_WITH_NEW}.pem"} | {
    f"{purpose}.{ending}" for purpose in Purpose for ending in ("pem", "key", "pending", "asked")
}
"""File names of a CA. Other files in its directory belong to the administrator."""


def collect_shared_files(data: Path) -> dict[str, dict[str, bytes]]:
    """Return the shared files by CA directory or `SEEDS`. Raise `CaBusyError`, `SecretUnreadableError`."""
    found = {SEEDS: {name: read_private(data / name) for name in _SEEDS if (data / name).exists()}}
    for directory in directories_of(data):
        with alone_in(directory):
            finish(directory)
            found[directory.name] = _in(directory)
    return found


def list_unshared_files(data: Path) -> list[Path]:
    """Return the files of CA directories that are not shared, except hidden ones and those of a single machine."""
    there = (path for directory in directories_of(data) for path in sorted(directory.iterdir()))
    return [path for path in there if path.name not in _NAMES and not path.name.startswith((".", _OWN))]


def replace_shared_files(data: Path, name: str, files: Files) -> bool:
    """Replace all files under a name with these and return whether any differed.

    Raise the errors of `collect_shared_files`. Files that are surplus, or that no other machine has, are kept as
    `.NAME.left`.
    """
    if name == SEEDS:
        return sum(_replaced(data / one, files[one]) for one in _SEEDS if one in files) > 0
    directory, files = data / name, {one: files[one] for one in files.keys() & _NAMES}
    directory.mkdir(mode=0o700, exist_ok=True)
    with alone_in(directory):
        finish(directory)
        if is_changed := (there := _in(directory)) != files:
            if not _is_noted(directory, there):
                # Keep all: the key that decrypts them stays with them.
                for one in filter(lambda one: there[one] != files.get(one), there):
                    _keep_copy(directory / one, there[one])
            new = {one: content for one, content in files.items() if there.get(one) != content}
            exchange(directory, new, is_in_key_directory=BESIDE in files)
            for stale in filter(lambda one: (directory / one).exists(), there.keys() - files.keys()):
                # It may be the only copy of a key.
                _keep_copy(directory / stale, there[stale])
                atomic_files.remove(directory / stale)
        note(directory, files)
    return is_changed


def note(directory: Path, files: Files) -> None:
    """Write the note of a CA's shared files, unless it is already up to date."""
    if not _is_noted(directory, files):
        atomic_files.replace(directory / _SHARED, _digest(files))


def is_name(name: str) -> bool:
    """Return whether this is a name for shared files of a data directory."""
    return name in {SEEDS, FIRST} or (name.startswith(f"{FIRST}-") and "/" not in name and "\0" not in name)


def _in(directory: Path) -> dict[str, bytes]:
    return {path.name: read_owned(path) for path in sorted(directory.iterdir()) if path.name in _NAMES}


def _replaced(path: Path, content: bytes) -> bool:
    if path.exists():
        if (there := read_private(path)) == content:
            return False
        _keep_copy(path, there)
    atomic_files.replace(path, content)
    return True


def _is_noted(directory: Path, files: Files) -> bool:
    path = directory / _SHARED
    return path.exists() and path.read_bytes() == _digest(files)


def _digest(files: Files) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode(dict(sorted(files.items())))).hexdigest().encode()


def _keep_copy(path: Path, content: bytes) -> None:
    """Keep a copy of a file that is about to be replaced, unless a copy exists already."""
    hidden = path.with_name(f".{path.name}")
    if any(one.read_bytes() == content for one in path.parent.glob(f"{hidden.name}.{_LEFT}*")):
        return
    left = atomic_files.backup_path(hidden, _LEFT)
    atomic_files.replace(left, content)
    log.warning("server.left_beside", extra={"path": str(path), "left": str(left)})
