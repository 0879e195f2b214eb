"""`machine.json` of a data directory: which of several machines this is. An invitation is one without a name.

A directory without it is of a server on one machine.
"""

import re
import socket
from pathlib import Path
from typing import Annotated

import msgspec

from birthmark import atomic_files
from birthmark.ca.key_files import read_private
from birthmark.errors import ConflictError, InvalidRequestError, UnavailableError
from birthmark.server.machines.sealed_files import KEY_BYTES
from birthmark.text_files import plain_text
from birthmark.untrusted_text import decode_json, printable

FILE = "machine.json"
FIRST = "m1"
MAX_BYTES = 4096
_VERSION = 1


class InvitationRefusedError(InvalidRequestError):
    """The file is not an invitation."""

    code = "server.invitation_refused"
    cause = "{path} is not an invitation to a cluster: {reason}."
    fix = (
        "Create one on a server of the cluster, copy it to this machine, and join with it: `birthmark "
        "server machine invite --out joining.json`."
    )
    path: Path
    reason: str


class JoinUnfinishedError(ConflictError):
    """The join of this machine is incomplete."""

    code = "server.join_unfinished"
    cause = "The join of {path} to a cluster was interrupted; its data is incomplete."
    fix = "Run the same command again: `birthmark server machine join invitation.json --data {path}`."
    path: Path


class BusMissingError(UnavailableError):
    """The NATS of the cluster is not specified."""

    code = "server.bus_missing"
    cause = "{path} belongs to a cluster, whose workers share a NATS, and none is specified."
    fix = "Set it in the configuration (bus), or here: `export BIRTHMARK_BUS=nats://nats.example:4222`."
    path: Path


class ClusterNode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of an installation's machines."""

    version: Annotated[int, msgspec.Meta(ge=_VERSION, le=_VERSION)]
    installation: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{24}$")]
    sealing_key: Annotated[str, msgspec.Meta(pattern=f"^[0-9a-f]{{{2 * KEY_BYTES}}}$")]
    name: Annotated[str, msgspec.Meta(pattern="^(m[1-9][0-9]{0,2})?$")] = ""
    is_whole: bool = True
    """What the others have is here."""

    def __repr__(self) -> str:
        return f"Machine({self.name or 'invited'} of {self.installation})"

    @property
    def key(self) -> bytes:
        """What files are sealed by."""
        return bytes.fromhex(self.sealing_key)

    @property
    def prefix(self) -> str:
        """What its workers' names begin with. Those of the first are called as they were when it was alone."""
        return "" if self.name in {"", FIRST} else f"{self.name}-"


def made(installation: str, key: bytes, name: str = "") -> ClusterNode:
    """Return a machine, or an invitation where it has no name."""
    return ClusterNode(_VERSION, installation, key.hex(), name)


def parse(data: bytes, path: Path) -> ClusterNode:
    """Return what is in such a file. Raise `InvitationRefusedError`."""
    if len(data) > MAX_BYTES:
        raise InvitationRefusedError(path=path, reason="it is too large")
    try:
        return decode_json(plain_text(data), ClusterNode)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvitationRefusedError(path=path, reason=_told(error)) from error


def render(machine: ClusterNode) -> bytes:
    return msgspec.json.format(msgspec.json.encode(machine), indent=2) + b"\n"


def machine_of(data: Path) -> ClusterNode | None:
    """Return which machine a data directory is of; None for the only one.

    Raise `InvitationRefusedError`, `SecretExposedError`, `SecretForeignError`, `JoinUnfinishedError`.
    """
    path = data / FILE
    if not path.exists():
        return None
    machine = parse(read_private(path), path)
    if not machine.is_whole:
        raise JoinUnfinishedError(path=data)
    return machine


def machine_named(data: Path) -> str:
    """Return what people call this machine: its host's name, and before it its own where it is one of several."""
    machine = machine_of(data)
    host = printable(socket.gethostname())
    return host if machine is None or not machine.name else f"{machine.name} ({host})"


def note(data: Path, machine: ClusterNode) -> None:
    """Write which machine the directory is of."""
    atomic_files.replace(data / FILE, render(machine))


def check_bus(data: Path, bus: str | None) -> None:
    """Raise `BusMissingError` where this is one of several machines, and no NATS is named."""
    if bus is None and machine_of(data) is not None:
        raise BusMissingError(path=data)


def _told(error: Exception) -> str:
    """Return what is wrong, without what stands there: it may be a key."""
    found = re.search(r"at `\$\.?(\w+)`", str(error))
    return f"'{found.group(1)}' in it is not as it has to be" if found else "it is not JSON, or of another kind"
