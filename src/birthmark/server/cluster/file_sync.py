"""Synchronization of the shared files of a cluster's machines through the database.

One machine is the leader: the others copy the content of its data directory. They check at each start, when a root
rollover changes state, and once a minute. Nothing is merged, so there are no conflicts: followers create no CA and no
root.
"""

import asyncio
import logging
import re
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from sqlalchemy import ColumnElement, or_

from birthmark import atomic_files
from birthmark.broker.store import WORKERS
from birthmark.ca.hierarchy import Generation
from birthmark.ca.hierarchy_files import BELOW, PurposeMissingError
from birthmark.ca.key_files import SecretUnreadableError
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import BirthmarkError, ChangedMeanwhileError, ConflictError
from birthmark.pki.revocation_urls import DistributionPoints
from birthmark.server.cluster import ca_and_seed_files as shared
from birthmark.server.cluster.node_identity_and_invitation import FILE, FIRST, ClusterNode, machine_of, made, render
from birthmark.server.cluster.sealed_files import (
    KEY_BYTES,
    MAX_CHARS,
    NONCE_BYTES,
    SharedUnreadableError,
    seal,
    unseal,
)
from birthmark.server.data_dir import RecordsLostError
from birthmark.server.database_installation_facts import ensure_installation_id, root_of
from birthmark.store import Changes, Database, insert, upsert
from birthmark.store.core_tables import server_facts
from birthmark.store.table_statements import change, find, guard_unchanged, remove

log = logging.getLogger(__name__)

_LOOK_EVERY_S, _ATTEMPTS = 60.0, 3
_MOST_WORKERS, _OF_MACHINE = 1000, re.compile(r"(m[0-9]+)-")
_LEAD, _HOST, _FILES = "server.machines.lead", "server.machine.", "server.shared."
_LAST = "server.machines.shared"
"""Fact that changes each time the leader publishes files."""
_FACT, _ADD, _ADD_NEW = find(server_facts), insert(server_facts, ignore_existing=True), insert(server_facts)
_PUT = upsert(server_facts)
_SET, _STILL = change(server_facts, ["value"], "name", "value"), guard_unchanged(server_facts, "name", "value")


def _begins(*prefixes: str) -> ColumnElement[bool]:
    return or_(*(server_facts.c.name.startswith(one, autoescape=True) for one in prefixes))


_ALL_FILES, _ALL_HOSTS = (find(server_facts, _begins(one), order=server_facts.c.name) for one in (_FILES, _HOST))
_FORGET = remove(server_facts, _begins(_HOST, _FILES, _LEAD, _LAST))


class MachineElsewhereError(ConflictError):
    """Another machine is the leader."""

    code = "server.machine_elsewhere"
    cause = "Only the leader {lead} ({host}) can change the CA's files; this machine is {name}."
    fix = (
        "Run the command on the leader. If the leader is lost, make this machine the leader: `birthmark server node "
        "lead --yes --data {data}`."
    )
    data: Path
    host: str
    lead: str
    name: str


class MachineAloneError(ConflictError):
    """The server is set up for one machine."""

    code = "server.machine_alone"
    cause = "The workers of this server {how}, so other machines cannot join."
    fix = (
        "Stop the server, and set a PostgreSQL database in BIRTHMARK_DATABASE. Then start the server with a NATS "
        "server that all machines can reach: `birthmark serve --workers 2 --bus nats://nats.example:4222`."
    )
    how: str


@dataclass(slots=True)
class FileSync:
    """Synchronizes the shared files of a data directory; does nothing in an installation of one machine."""

    database: Database = field(repr=False)
    data: Path
    clock: Clock = field(repr=False)
    entropy: Entropy = field(repr=False)
    places: DistributionPoints | None = None
    alone: str = ""
    """Why this installation cannot have another machine."""

    async def is_leader(self) -> bool:
        """Return whether this machine is the leader, whose files and host name apply."""
        machine = machine_of(self.data)
        return machine is None or machine.name == await self._get_leader()

    async def check_is_leader(self) -> None:
        """Raise `MachineElsewhereError` if another machine is the leader, which creates CAs and roots."""
        machine = machine_of(self.data)
        if machine is not None and (lead := await self._get_leader()) != machine.name:
            host = await self.database.one(_FACT, name=f"{_HOST}{lead}")
            told = "unknown host" if host is None else _host(host["value"])
            raise MachineElsewhereError(data=self.data, host=told, lead=lead, name=machine.name)

    def create_missing_issuers(self, generation: Generation) -> None:
        """Create every issuing CA that may be needed, because followers create none.

        CAs that an external CA must issue are skipped.
        """
        if machine_of(self.data) is None:
            return
        for purpose in BELOW:
            try:
                generation.issuer(purpose, now=self.clock.now(), entropy=self.entropy, points=self.places)
            except PurposeMissingError as error:
                log.info("server.shared", extra={"reason": error.explain_cause()})

    async def share(self, generations: Sequence[Generation]) -> None:
        """If this machine is the leader, complete these generations and synchronize.

        Earlier versions may have created fewer CAs.
        """
        if await self.is_leader():
            for generation in generations:
                self.create_missing_issuers(generation)
            await self.synchronize()
            for path in shared.list_unshared_files(self.data) if machine_of(self.data) is not None else ():
                log.info("server.left_out", extra={"path": str(path)})

    async def publish_generation(self, generation: Generation) -> Changes:
        """Publish a generation to the database; return a write guard that requires this machine to be the leader.

        Raise `MachineElsewhereError`, and the errors of `settle`.
        """
        machine = machine_of(self.data)
        if machine is None:
            return Changes()
        await self.check_is_leader()
        self.create_missing_issuers(generation)
        for left in reversed(range(_ATTEMPTS)):
            try:
                await self._push(machine)
                break
            except ChangedMeanwhileError:
                await self.check_is_leader()
                if not left:
                    raise
        return self._leading(machine)

    def _leading(self, machine: ClusterNode) -> Changes:
        return Changes().run(_STILL, expect=1, otherwise=_moved(), key_name=_LEAD, key_value=machine.name)

    async def synchronize(self) -> None:
        """Synchronize: publish the local files if this machine is the leader, or copy those of the database.

        Raise `SharedUnreadableError`, `RecordsLostError`, `CaBusyError`, or `UnavailableError`.
        """
        machine = machine_of(self.data)
        for left in reversed(range(_ATTEMPTS)):
            if machine is None:
                return
            try:
                if machine.name == await self._get_leader():
                    await self._push(machine)
                else:
                    await self.copy_from_database(machine)
            except ChangedMeanwhileError:  # by another worker of this machine, or by the leader
                if not left:
                    raise
            else:
                return

    async def run_sync_loop(self) -> None:
        """Synchronize periodically; never returns."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                await self.synchronize()
            except BirthmarkError as error:
                log.warning("server.not_shared", extra={"code": error.code, "reason": error.explain_cause()})

    async def create_invitation(self, generations: Sequence[Generation], actor: str) -> Mapping[str, object]:
        """Return the invitation with which another machine joins, which is a secret.

        The first call makes this machine the first of a cluster. Raise `MachineAloneError`, `MachineElsewhereError`.
        """
        if self.alone:
            raise MachineAloneError(how=self.alone)
        machine = machine_of(self.data) or await self._create_first_node()
        await self.check_is_leader()
        await self.share(generations)
        await self.database.commit(Changes().audit(actor, "server.machine_invite", machine.installation))
        invitation: dict[str, object] = msgspec.to_builtins(made(machine.installation, machine.key))
        return invitation

    async def become_leader(self, actor: str) -> None:
        """Make this machine the leader. Raise `MachineAloneError`, `ChangedMeanwhileError`."""
        machine = machine_of(self.data)
        if machine is None:
            raise MachineAloneError(how="run on one machine")
        for left in reversed(range(_ATTEMPTS)):
            if (before := await self._get_leader()) == machine.name:
                return
            shared_last = await self.database.one(_FACT, name=_LAST)
            await self.copy_from_database(machine)
            changes = Changes().run(
                _SET, expect=1, otherwise=_moved(), key_name=_LEAD, key_value=before, value=machine.name
            )
            if shared_last is None:
                changes.run(_ADD, expect=1, otherwise=_moved(), name=_LAST, value=self._create_name_claim())
            else:
                changes.run(_STILL, expect=1, otherwise=_moved(), key_name=_LAST, key_value=shared_last["value"])
            try:
                await self.database.commit(changes.audit(actor, "server.machine_lead", machine.name, before=before))
            except ChangedMeanwhileError:  # the former leader shared more, missing here
                if not left:
                    raise
            else:
                return

    async def machines(self) -> Sequence[Mapping[str, object]]:
        """Return the machines by name, each with its number of live workers."""
        if (here := machine_of(self.data)) is None:
            return []
        lead = await self._get_leader()
        rows = [(row["name"].removeprefix(_HOST), _host(row["value"])) for row in await self.database.all(_ALL_HOSTS)]
        rows.sort(key=lambda row: int(row[0].removeprefix("m")))
        ids = [str(row["id"]) for row in await self.database.all(WORKERS, limit=_MOST_WORKERS)]
        alive = Counter(found[1] if (found := _OF_MACHINE.match(one)) else FIRST for one in ids)
        return [
            {"name": name, "host": host, "leads": name == lead, "here": name == here.name, "workers": alive[name]}
            for name, host in rows
        ]

    async def take_name(self) -> str:
        """Claim a node name that is unique in this installation, and return it."""
        number = 2
        mark = self._create_name_claim()
        while True:
            name = f"m{number}"
            await self.database.commit(Changes().run(_ADD, name=f"{_HOST}{name}", value=mark))
            row = await self.database.one(_FACT, name=f"{_HOST}{name}")
            if row is not None and row["value"] == mark:
                return name
            number += 1

    async def check_can_decrypt(self, machine: ClusterNode) -> None:
        """Raise `SharedUnreadableError` unless the database has files that this machine can decrypt."""
        await self._all_opened(machine)

    async def copy_from_database(self, machine: ClusterNode) -> int:
        """Copy the files of the database to this machine and return their number.

        If one part cannot be decrypted, no file is copied. Raise `SharedUnreadableError`.
        """
        opened = await self._all_opened(machine)
        for name, files in opened.items():
            if await asyncio.to_thread(shared.replace_shared_files, self.data, name, files):
                log.info("server.shared", extra={"part": name})
        return sum(map(len, opened.values()))

    # ---- inside

    def _opened(self, machine: ClusterNode, name: str, text: str) -> dict[str, bytes]:
        try:
            return unseal(text, name, installation=machine.installation, key=machine.key)
        except SharedUnreadableError as error:
            error.data = self.data  # a plain fact: it may travel from a worker to its parent
            raise

    async def _load_sealed_files(self) -> Mapping[str, str]:
        """Return the encrypted files of the database."""
        return {row["name"].removeprefix(_FILES): str(row["value"]) for row in await self.database.all(_ALL_FILES)}

    async def _all_opened(self, machine: ClusterNode) -> Mapping[str, dict[str, bytes]]:
        there = await self._load_sealed_files()
        if shared.SEEDS not in there:
            reason = "the database contains no shared files, so it is not the database of the inviting machine"
            raise SharedUnreadableError(name=shared.SEEDS, reason=reason, data=self.data)
        return {name: self._opened(machine, name, text) for name, text in there.items() if shared.is_name(name)}

    async def _push(self, machine: ClusterNode) -> None:
        there = await self._load_sealed_files()
        here = await asyncio.to_thread(shared.collect_shared_files, self.data)
        here[shared.SEEDS] |= await self._restore_seeds(machine, there)
        changes, different = self._leading(machine), False
        for name, files in here.items():
            before = there.get(name)
            if before is not None and self._is_same(machine, name, before, files):
                continue
            different = True
            nonce = self.entropy.token(NONCE_BYTES)
            sealed = seal(files, name, installation=machine.installation, key=machine.key, nonce=nonce)
            if len(sealed) > MAX_CHARS:  # no machine opens it
                raise SecretUnreadableError(
                    path=self.data / name, reason="it is too large to share with other machines"
                )
            key = f"{_FILES}{name}"
            if before is None:
                changes.run(_ADD_NEW, name=key, value=sealed)
            else:
                changes.run(_SET, expect=1, otherwise=_moved(), key_name=key, key_value=before, value=sealed)
        if different:
            changes.run(_PUT, name=_LAST, value=self._create_name_claim())
            await self.database.commit(changes)
        for name in here.keys() - {shared.SEEDS}:
            await asyncio.to_thread(shared.note, self.data / name, here[name])

    async def _restore_seeds(self, machine: ClusterNode, there: Mapping[str, str]) -> Mapping[str, bytes]:
        """Write the seeds of the database to this machine and return them.

        They replace different local seeds, even on the leader. Data signed with or derived from the stored seeds would
        otherwise be lost.
        """
        try:
            seeds = self._opened(machine, shared.SEEDS, there[shared.SEEDS])
        except (KeyError, SharedUnreadableError):  # the first node, or a lost key
            return {}
        await asyncio.to_thread(shared.replace_shared_files, self.data, shared.SEEDS, seeds)
        return seeds

    def _is_same(self, machine: ClusterNode, name: str, sealed: str, files: Mapping[str, bytes]) -> bool:
        try:
            return self._opened(machine, name, sealed) == files
        except SharedUnreadableError:  # the key is lost
            return False

    async def _create_first_node(self) -> ClusterNode:
        """Make this the first machine of a cluster.

        Of two concurrent calls one succeeds, and both use its result.
        """
        machine = made(await ensure_installation_id(self.database, self.entropy), self.entropy.token(KEY_BYTES), FIRST)
        facts = (
            Changes()
            .run(_ADD, name=f"{_HOST}{FIRST}", value=self._create_name_claim())
            .run(_ADD, name=_LEAD, value=FIRST)
        )
        await self.database.commit(facts)
        try:
            atomic_files.create(self.data / FILE, render(machine))
        except FileExistsError:
            machine = machine_of(self.data) or machine
        return machine

    def _create_name_claim(self) -> str:
        """Return a unique mark that claims this machine's name: the host name and a random suffix."""
        return f"{socket.gethostname()} {self.entropy.token(4).hex()}"

    async def _get_leader(self) -> str:
        """Return the name of the leader. Raise `RecordsLostError` if this is not the cluster's database."""
        if (row := await self.database.one(_FACT, name=_LEAD)) is not None:
            return str(row["value"])
        if await root_of(self.database) is None:
            raise RecordsLostError(path=self.data)
        raise RecordsLostError(path=self.data, how="has no record of its machines")


def _host(mark: object) -> str:
    return str(mark).partition(" ")[0]


def _moved() -> ChangedMeanwhileError:
    return ChangedMeanwhileError(what="The cluster's leader or its shared data")


async def remove_cluster_state(data: Path, database: Database) -> None:
    """Remove all cluster information from a directory and its database, which other machines cannot reach."""
    (data / FILE).unlink(missing_ok=True)
    await database.commit(Changes().run(_FORGET))
