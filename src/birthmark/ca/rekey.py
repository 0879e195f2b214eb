"""Give the keys of a directory another passphrase: all of them or none, whenever the machine stops.

Every key is written anew beside its file; a mark makes them count, and from then on whoever opens the directory ends
what was begun.
"""

from pathlib import Path

from birthmark import durable
from birthmark.ca.kept import alone_in
from birthmark.ca.keyfile import (
    is_in_file,
    key_pem,
    new_passphrase,
    read_key,
    read_pair,
)
from birthmark.ca.passphrase import BESIDE, Passphrase
from birthmark.clock import Entropy

_MARK = ".moving"
_NEXT = ".next"


def move(directory: Path, old: Passphrase, new: Passphrase, entropy: Entropy) -> int:
    """Encrypt every key with `new` instead of `old`, and return how many there were.

    A file that `new` names is made when there is none, with a passphrase of 32 random bytes.
    """
    with alone_in(directory):
        finish(directory)
        for stale in directory.glob(f".*{_NEXT}"):  # of a run that ended before its mark
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
        if new.is_beside:
            _keep(directory / BESIDE, after + b"\n")
        durable.replace(directory / _MARK, b"beside" if new.is_beside else b"elsewhere")
        finish(directory)
        return len(keys) + len(pairs)


def finish(directory: Path) -> None:
    """End what was begun and marked; nothing where there is no mark."""
    mark = directory / _MARK
    if not mark.exists():
        return
    is_beside = mark.read_bytes() == b"beside"
    for path in sorted(directory.glob(f".*{_NEXT}")):
        path.replace(directory / path.name.removeprefix(".").removesuffix(_NEXT))
    if not is_beside:
        (directory / BESIDE).unlink(missing_ok=True)
    durable.sync_directory(directory)
    mark.unlink()
    durable.sync_directory(directory)


def _keep(path: Path, data: bytes) -> None:
    durable.replace(path.with_name(f".{path.name}{_NEXT}"), data)


def _made(new: Passphrase, entropy: Entropy) -> bytes | None:
    """Return the passphrase of a place that has none yet, and put it there where that is a file elsewhere."""
    if new.is_beside:
        return new_passphrase(entropy)
    kind, _, rest = (new.source or "").partition(":")
    path = Path(rest).expanduser()
    if kind == "file" and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.create(path, new_passphrase(entropy) + b"\n")
    return None
