"""The files that every machine of an installation has: each CA with its keys, and the seeds.

Not among them is what is each machine's own: its TLS key, the operator's token, and certificates for answers by OCSP.
"""

from collections.abc import Iterator
from pathlib import Path

from birthmark import durable
from birthmark.ca.generations import FIRST
from birthmark.ca.kept import alone_in
from birthmark.ca.keyfile import read_owned, read_private
from birthmark.ca.passphrase import BESIDE
from birthmark.ca.rekey import exchange, finish
from birthmark.server.machines.sealed import Files

SEEDS = "seeds"
_SEEDS = ("audit.seed", "est.seed")
_OWN = "ocsp-"


def collected(data: Path) -> dict[str, dict[str, bytes]]:
    """Return what there is, by a CA's directory or `SEEDS`. Raise `CaBusyError`, `SecretUnreadableError`."""
    found = {SEEDS: {name: read_private(data / name) for name in _SEEDS if (data / name).exists()}}
    for directory in (data / FIRST, *sorted(data.glob(f"{FIRST}-*"))):
        if (directory / "root.pem").exists():
            with alone_in(directory):
                finish(directory)
                found[directory.name] = _in(directory)
    return found


def put(data: Path, name: str, files: Files) -> bool:
    """Have these files and no others under that name; say whether there was a difference. Raise as `collected`.

    What is too much is kept as `.NAME.left`.
    """
    if name == SEEDS:
        return sum(_replaced(data / one, files[one]) for one in _SEEDS if one in files) > 0
    directory = data / name
    directory.mkdir(mode=0o700, exist_ok=True)
    with alone_in(directory):
        finish(directory)
        if (there := _in(directory)) == files:
            return False
        new = {one: content for one, content in files.items() if there.get(one) != content}
        exchange(directory, new, is_beside=BESIDE in files)
        for stale in filter(lambda one: (directory / one).exists(), there.keys() - files.keys()):
            # It may be a key that nobody else has.
            durable.move(directory / stale, durable.aside(directory / f".{stale}", "left"))
    return True


def is_name(name: str) -> bool:
    """Say whether files of this name belong into a data directory."""
    return name in {SEEDS, FIRST} or (name.startswith(f"{FIRST}-") and "/" not in name and "\0" not in name)


def _in(directory: Path) -> dict[str, bytes]:
    return {path.name: read_owned(path) for path in _shared(directory)}


def _shared(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        if path.is_file() and not path.name.startswith((".", _OWN)):
            yield path


def _replaced(path: Path, content: bytes) -> bool:
    if path.exists() and read_private(path) == content:
        return False
    durable.replace(path, content)
    return True
