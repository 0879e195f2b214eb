"""Join of a cluster by invitation: a new machine takes its name and copies the sealed CA files and seeds."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from birthmark.audit.signed_heads import AuditKey
from birthmark.ca.key_files import SecretUnreadableError, read_private
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import ConflictError
from birthmark.server import database_installation_facts
from birthmark.server.cluster.file_sync import FileSync
from birthmark.server.cluster.node_identity_and_invitation import FILE, ClusterNode, InvitationRefusedError, note, parse
from birthmark.server.data_dir import DataDirectory
from birthmark.store import Changes, Database, open_database

_OTHERS = ("ca", "audit.seed", "operator.token", "birthmark.db")


class MachineOccupiedError(ConflictError):
    """The directory already contains a server."""

    code = "server.machine_occupied"
    cause = "{path} already contains a server's data, which would be lost."
    fix = "Join with a new directory: `{command}`."
    command: str = "birthmark server node join invitation.json --data DIRECTORY"
    path: Path


@dataclass(frozen=True, slots=True)
class JoinResult:
    """Result of a join."""

    name: str
    files: int
    """Number of files copied; 0 if the machine joined before."""


async def join(invitation: Path, data: Path, url: str, clock: Clock, entropy: Entropy) -> JoinResult:
    """Create a data directory for a new machine of the installation whose database is at `url`.

    Repeat the call to resume an interrupted join. No file of a machine that joined before changes.

    Raise `InvitationRefusedError`, `MachineOccupiedError`, `SharedUnreadableError`, and the errors of
    `DataDirectory.prepare` and `open_database`.
    """
    try:
        invited = parse(read_private(invitation), invitation)
    except SecretUnreadableError as error:  # its text: keys
        raise InvitationRefusedError(path=invitation, reason=str(error.reason).lower()) from error
    if invited.name:
        raise InvitationRefusedError(path=invitation, reason="it is the state file of a node that already joined")
    _find_earlier_node(data, invited)  # reject a foreign one before any change
    directory = DataDirectory(data, clock, entropy)
    directory.prepare()
    try:
        before = _find_earlier_node(data, invited)  # now under the lock: another call may have ended
        return await _joined(before or invited, data, url, clock, entropy)
    finally:
        directory.release()


def _find_earlier_node(data: Path, invited: ClusterNode) -> ClusterNode | None:
    """Return the node that an earlier call stored, if any. Raise `MachineOccupiedError`."""
    if (path := data / FILE).exists():
        found = parse(read_private(path), path)
        if (found.installation, found.key) == (invited.installation, invited.key) and found.name:
            return found
        raise MachineOccupiedError(path=data)
    if any((data / one).exists() for one in _OTHERS):
        raise MachineOccupiedError(path=data)
    return None


async def _joined(machine: ClusterNode, data: Path, url: str, clock: Clock, entropy: Entropy) -> JoinResult:
    database = await open_database(url, clock, worker=f"join-{entropy.token(6).hex()}")
    try:
        await database_installation_facts.check_not_restoring_or_moved(database, data)
        sharing = FileSync(database, data, clock, entropy)
        await sharing.check_can_decrypt(machine)
        if machine.name and machine.is_whole:  # its server shares its files, or takes over
            return JoinResult(machine.name, 0)
        if not machine.name:
            machine = msgspec.structs.replace(machine, name=await sharing.take_name(), is_whole=False)
            note(data, machine)
        files = await sharing.copy_from_database(machine)
    finally:
        await database.close()
    await _note_audit(machine, data, url, clock)
    note(data, msgspec.structs.replace(machine, is_whole=True))
    return JoinResult(machine.name, files)


async def _note_audit(machine: ClusterNode, data: Path, url: str, clock: Clock) -> None:
    """Record the audit entry under the node's unique name."""
    signer = AuditKey(read_private(data / "audit.seed").strip().decode("ascii"))
    database: Database = await open_database(url, clock, worker=machine.name, signer=signer)
    try:
        await database.commit(Changes().audit("operator", "server.machine_join", machine.name))
    finally:
        await database.close()
