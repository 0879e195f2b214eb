"""Paths and file names of the agent, and atomic file replacement."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from birthmark import atomic_files
from birthmark.errors import UnavailableError
from birthmark.untrusted_json_and_text import reason_of

# IDs that aziot uses for issued certificates.
DEVICE_ID = "device-id"
EST_ID = "est-id"
EDGE_CA = "aziot-edged-ca"
LOCAL_CA = "local-ca"


class StateNotWritableError(UnavailableError):
    """The agent's state cannot be written."""

    code = "agent.state_not_writable"
    cause = "The agent cannot write to {path}: {reason}."
    fix = (
        "Run the agent as the user that owns this path, or use another directory: `{again} --config {config} --root "
        '"$HOME/birthmark-agent"`.'
    )
    again: str = ""
    config: str = "?"
    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class AgentPaths:
    """Paths of the agent below a root directory, which is `/` on a device."""

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
        """Record of the current job (`jobs.record`)."""
        return self.root / "var/lib/aziot/identityd/birthmark-job.json"

    @property
    def lock(self) -> Path:
        return self.root / "var/lib/aziot/identityd/birthmark.lock"

    @property
    def anchors(self) -> Path:
        """File of the roots that were followed in root rollovers (`anchors`)."""
        return self.certs / "birthmark-anchors.pem"

    def certificate(self, certificate_id: str) -> Path:
        return self.certs / file_name(certificate_id, ".cer")

    def key(self, key_id: str) -> Path:
        return self.keys / file_name(key_id, ".key")

    def request(self, certificate_id: str) -> Path:
        """Return the file of a CSR that awaits approval."""
        return self.certs / file_name(next_of(certificate_id), ".csr")

    def prepare(self) -> None:
        """Create the directories. Raise `StateNotWritableError`."""
        for directory in (self.certs, self.keys, self.state.parent):
            try:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise StateNotWritableError(path=directory, reason=reason_of(error)) from error


def control_socket_of(lock: Path) -> Path:
    """Return the control socket of the lock holder."""
    return lock.with_suffix(".sock")


def next_of(name: str) -> str:
    """Return the ID of the next certificate or key until it is proven."""
    return f"{name}-temp"


def file_name(name: str, suffix: str) -> str:
    """Return the file name in aziot's form: the ID's letters and digits, and the SHA-256 of the ID."""
    plain = "".join(char for char in name if char.isascii() and char.isalnum())
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()}{suffix}"


def write_file(path: Path, data: bytes) -> None:
    """Atomically and durably replace a file of mode 0600. Raise `StateNotWritableError`."""
    with _writable(path):
        atomic_files.replace(path, data, owner=_find_service_owner(path.parent))


def move_file(source: Path, target: Path) -> None:
    """Rename a file and sync its directory. Raise `StateNotWritableError`."""
    with _writable(target):
        atomic_files.move(source, target)


def remove_file(path: Path) -> None:
    """Durably remove a file, if it exists, and the leftovers of an interrupted write."""
    with _writable(path):
        atomic_files.remove(path)


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateNotWritableError(path=path, reason=reason_of(error)) from error


def _find_service_owner(directory: Path) -> tuple[int, int] | None:
    """Return the owner for files that root writes to a service's directory: the service, so that it can read them."""
    if os.geteuid() == 0 and (owner := directory.stat()).st_uid:
        return owner.st_uid, owner.st_gid
    return None
