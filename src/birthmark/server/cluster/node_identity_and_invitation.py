"""`machine.json` of a data directory: the identity of a cluster node. An invitation is the same without a name.

A server on one machine has no such file.
"""

import re
import socket
from pathlib import Path
from typing import Annotated

import msgspec

from birthmark import atomic_files
from birthmark.ca.key_files import read_private
from birthmark.errors import ConflictError, InvalidRequestError, UnavailableError
from birthmark.server.cluster.sealed_files import KEY_BYTES
from birthmark.text_file_encodings import plain_text
from birthmark.untrusted_json_and_text import decode_json, printable

FILE = "machine.json"
FIRST = "m1"
MAX_BYTES = 4096
_VERSION = 1


class InvitationRefusedError(InvalidRequestError):
    """The file is not an invitation."""

    code = "server.invitation_refused"
    cause = "{path} is not an invitation to a cluster: {reason}."
    fix = (
        "Create an invitation on a server of the cluster: `birthmark server node invite --out joining.json`. Then "
        "copy the file to this machine and join with it."
    )
    path: Path
    reason: str


class JoinUnfinishedError(ConflictError):
    """The join of this machine is incomplete."""

    code = "server.join_unfinished"
    cause = "Joining {path} to a cluster was interrupted, so the data in this directory is incomplete."
    fix = "Run the same command again: `birthmark server node join invitation.json --data {path}`."
    path: Path


class BusMissingError(UnavailableError):
    """The NATS of the cluster is not specified."""

    code = "server.bus_missing"
    cause = "{path} belongs to a cluster whose workers share a NATS server, but no NATS server is specified."
    fix = (
        "Set the NATS URL in the configuration (bus) or in this shell: `export BIRTHMARK_BUS=nats://nats.example:4222`."
    )
    path: Path


class ClusterNode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A machine of a cluster."""

    version: Annotated[int, msgspec.Meta(ge=_VERSION, le=_VERSION)]
    installation: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{24}$")]
    sealing_key: Annotated[str, msgspec.Meta(pattern=f"^[0-9a-f]{{{2 * KEY_BYTES}}}$")]
    name: Annotated[str, msgspec.Meta(pattern="^(m[1-9][0-9]{0,2})?$")] = ""
    is_whole: bool = True
    """Whether this machine has all shared files."""

    def __repr__(self) -> str:
        return f"Machine({self.name or 'invited'} of {self.installation})"

    @property
    def key(self) -> bytes:
        """Key that encrypts the shared files."""
        return bytes.fromhex(self.sealing_key)

    @property
    def prefix(self) -> str:
        """Prefix of this machine's worker names; the first machine keeps the names from before the cluster."""
        return "" if self.name in {"", FIRST} else f"{self.name}-"


def made(installation: str, key: bytes, name: str = "") -> ClusterNode:
    """Return a machine, or an invitation if it has no name."""
    return ClusterNode(_VERSION, installation, key.hex(), name)


def parse(data: bytes, path: Path) -> ClusterNode:
    """Return the content of such a file. Raise `InvitationRefusedError`."""
    if len(data) > MAX_BYTES:
        raise InvitationRefusedError(path=path, reason="it is too large")
    try:
        return decode_json(plain_text(data), ClusterNode)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvitationRefusedError(path=path, reason=_format_parse_error(error)) from error


def render(machine: ClusterNode) -> bytes:
    return msgspec.json.format(msgspec.json.encode(machine), indent=2) + b"\n"


def machine_of(data: Path) -> ClusterNode | None:
    """Return the machine of a data directory; None if it is the only one.

    Raise `InvitationRefusedError`, `SecretExposedError`, `SecretForeignError`, `JoinUnfinishedError`.
    """
    path = data / FILE
    if not path.exists():
        return None
    machine = parse(read_private(path), path)
    if not machine.is_whole:
        raise JoinUnfinishedError(path=data)
    return machine


def format_machine_name(data: Path) -> str:
    """Return the display name of this machine: its host name, prefixed in a cluster with its cluster name."""
    machine = machine_of(data)
    host = printable(socket.gethostname())
    return host if machine is None or not machine.name else f"{machine.name} ({host})"


def note(data: Path, machine: ClusterNode) -> None:
    """Write the node to which the data directory belongs."""
    atomic_files.replace(data / FILE, render(machine))


def check_bus(data: Path, bus: str | None) -> None:
    """Raise `BusMissingError` if this machine belongs to a cluster and no NATS server is configured."""
    if bus is None and machine_of(data) is not None:
        raise BusMissingError(path=data)


def _format_parse_error(error: Exception) -> str:
    """Return the problem without the value, which may be a key."""
    found = re.search(r"at `\$\.?(\w+)`", str(error))
    return f"'{found.group(1)}' in it is not as it has to be" if found else "it is not JSON, or of another kind"
