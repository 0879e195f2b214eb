"""Where the agent keeps things, under which names, and how a file is replaced without ever being half there."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from birthmark import atomic_files
from birthmark.errors import UnavailableError
from birthmark.untrusted_text import reason_of

# aziot's ids of what is issued.
DEVICE_ID = "device-id"
EST_ID = "est-id"
EDGE_CA = "aziot-edged-ca"
LOCAL_CA = "local-ca"


class StateNotWritableError(UnavailableError):
    """The agent's state cannot be written."""

    code = "agent.state_not_writable"
    cause = "{path} cannot be written: {reason}."
    fix = (
        "Run the agent as the user that owns it, or use another directory: `{again} --config {config} "
        '--root "$HOME/birthmark-agent"`.'
    )
    again: str = ""
    config: str = "?"
    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class AgentPaths:
    """The directories below a root, which is / on a device."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "etc/aziot/config.toml"

    @property
    def certs(self) -> Path:
        return self.root / "var/lib/aziot/certd/certs"

    @property
    def keys(self) -> Path:
        return self.root / "var/lib/aziot/keyd/keys"

    @property
    def state(self) -> Path:
        return self.root / "var/lib/aziot/identityd/birthmark.json"

    @property
    def last_good(self) -> Path:
        return self.root / "var/lib/aziot/identityd/birthmark-config.json"

    @property
    def job(self) -> Path:
        """What the device was told to do, and how far it is (`jobs.record`)."""
        return self.root / "var/lib/aziot/identityd/birthmark-job.json"

    @property
    def lock(self) -> Path:
        return self.root / "var/lib/aziot/identityd/birthmark.lock"

    @property
    def anchors(self) -> Path:
        """Roots that were followed (`anchors`)."""
        return self.certs / "birthmark-anchors.pem"

    def certificate(self, certificate_id: str) -> Path:
        return self.certs / file_name(certificate_id, ".cer")

    def key(self, key_id: str) -> Path:
        return self.keys / file_name(key_id, ".key")

    def request(self, certificate_id: str) -> Path:
        """Return where a request that somebody has to approve is kept."""
        return self.certs / file_name(next_of(certificate_id), ".csr")

    def prepare(self) -> None:
        """Make the directories. Raise `StateNotWritableError`."""
        for directory in (self.certs, self.keys, self.state.parent):
            try:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise StateNotWritableError(path=directory, reason=reason_of(error)) from error


def orders_beside(lock: Path) -> Path:
    """Return the socket by which whoever has the lock takes orders."""
    return lock.with_suffix(".sock")


def next_of(name: str) -> str:
    """Return the id under which the next certificate or key waits until it is proven."""
    return f"{name}-temp"


def file_name(name: str, suffix: str) -> str:
    """Return a file name as aziot makes it: the id's letters and digits, and the SHA-256 of all of it."""
    plain = "".join(char for char in name if char.isascii() and char.isalnum())
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()}{suffix}"


def write_file(path: Path, data: bytes) -> None:
    """Replace a file of mode 0600 in one step, durably. Raise `StateNotWritableError`."""
    with _writable(path):
        atomic_files.replace(path, data, owner=_the_service_s(path.parent))


def move_file(source: Path, target: Path) -> None:
    """Rename, and have the directory remember it through a power cut. Raise `StateNotWritableError`."""
    with _writable(target):
        atomic_files.move(source, target)


def remove_file(path: Path) -> None:
    """Remove a file, durably, if it is there, and what a write that was cut short left beside it."""
    with _writable(path):
        atomic_files.remove(path)


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateNotWritableError(path=path, reason=reason_of(error)) from error


def _the_service_s(directory: Path) -> tuple[int, int] | None:
    """Return whose is what root writes into a service's directory: the service's, which could not read it else."""
    if os.geteuid() == 0 and (owner := directory.stat()).st_uid:
        return owner.st_uid, owner.st_gid
    return None
