"""Passphrase rotation for all keys of a directory, atomic across crashes.

Each key is written to a new file; a mark activates them, and the next process that opens the directory completes the
rotation.
"""

from collections.abc import Mapping
from pathlib import Path

from birthmark import atomic_files
from birthmark.ca.hierarchy_files import MARK, NEXT, alone_in, finish
from birthmark.ca.key_files import (
    is_in_file,
    key_pem,
    new_passphrase,
    read_key,
    read_pair,
)
from birthmark.ca.passphrase_sources import BESIDE, Passphrase
from birthmark.clock_and_entropy import Entropy


def move(directory: Path, old: Passphrase, new: Passphrase, entropy: Entropy) -> int:
    """Encrypt every key with `new` instead of `old`, and return their number.

    If `new` names a file that does not exist, it is created with a passphrase of 32 random bytes.
    """
    with alone_in(directory):
        finish(directory)
        for stale in directory.glob(f".*{NEXT}"):  # left by an interrupted run
            stale.unlink()
        made = _made(new, entropy)
        before, after = old.reveal(), new.reveal() if made is None else made
        keys = [path for pattern in ("*.key", "*.pending") for path in directory.glob(pattern) if is_in_file(path)]
        pairs = list(directory.glob("ocsp-*.pem"))
        for path in keys:
            _keep(path, key_pem(read_key(path, before), after))
        for path in pairs:
            pair = read_pair(path, before)
            _keep(path, key_pem(pair.private_key, after) + pair.certificate.pem().encode())
        if new.is_in_key_directory:
            _keep(directory / BESIDE, after + b"\n")
        _count(directory, is_in_key_directory=new.is_in_key_directory)
        return len(keys) + len(pairs)


def exchange(directory: Path, files: Mapping[str, bytes], *, is_in_key_directory: bool) -> None:
    """Atomically replace files with those of another machine; the caller holds the directory lock.

    `is_beside` means that the passphrase of the keys is in the directory afterward.
    """
    for stale in directory.glob(f".*{NEXT}"):
        stale.unlink()
    for name, content in files.items():
        _keep(directory / name, content, 0o644 if name.endswith(".pem") else 0o600)
    _count(directory, is_in_key_directory=is_in_key_directory)


def _count(directory: Path, *, is_in_key_directory: bool) -> None:
    """Activate the new files."""
    atomic_files.replace(directory / MARK, b"beside" if is_in_key_directory else b"elsewhere")
    finish(directory)


def _keep(path: Path, data: bytes, mode: int = 0o600) -> None:
    atomic_files.replace(path.with_name(f".{path.name}{NEXT}"), data, mode)


def _made(new: Passphrase, entropy: Entropy) -> bytes | None:
    """Return a new passphrase if it is stored in the directory.

    Create its file if that is elsewhere and missing.
    """
    if new.is_in_key_directory:
        return new_passphrase(entropy)
    kind, _, rest = (new.source or "").partition(":")
    path = Path(rest).expanduser()
    if kind == "file" and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.create(path, new_passphrase(entropy) + b"\n")
    return None
