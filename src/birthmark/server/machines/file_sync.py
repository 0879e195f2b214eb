"""What machines of one installation have in common as files, kept in step by way of their database.

One machine leads: what its directory has counts, and is what the others take over. They look at each start, when an
exchange of the root moves, and once a minute. Nothing is merged, so nothing can be in conflict: whoever follows makes
no CA and no root by itself.
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
from birthmark.clock import Clock, Entropy
from birthmark.errors import BirthmarkError, ChangedMeanwhileError, ConflictError
from birthmark.pki.distribution_points import DistributionPoints
from birthmark.server.data_dir import RecordsLostError
from birthmark.server.installation import id_of, root_of
from birthmark.server.machines import shared_files as shared
from birthmark.server.machines.machine_file import FILE, FIRST, ClusterNode, machine_of, made, render
from birthmark.server.machines.sealed_files import (
    KEY_BYTES,
    MAX_CHARS,
    NONCE_BYTES,
    SharedUnreadableError,
    seal,
    unseal,
)
from birthmark.store import Changes, Database, insert, upsert
from birthmark.store.crud_statements import change, find, remove, still
from birthmark.store.schema import server_facts

log = logging.getLogger(__name__)

_LOOK_EVERY_S, _ATTEMPTS = 60.0, 3
_MOST_WORKERS, _OF_MACHINE = 1000, re.compile(r"(m[0-9]+)-")
_LEAD, _HOST, _FILES = "server.machines.lead", "server.machine.", "server.shared."
_LAST = "server.machines.shared"
"""Another value with each time that the machine that leads has shared something."""
_FACT, _ADD, _ADD_NEW = find(server_facts), insert(server_facts, ignore_existing=True), insert(server_facts)
_PUT = upsert(server_facts)
_SET, _STILL = change(server_facts, ["value"], "name", "value"), still(server_facts, "name", "value")


def _begins(*prefixes: str) -> ColumnElement[bool]:
    return or_(*(server_facts.c.name.startswith(one, autoescape=True) for one in prefixes))


_ALL_FILES, _ALL_HOSTS = (find(server_facts, _begins(one), order=server_facts.c.name) for one in (_FILES, _HOST))
_FORGET = remove(server_facts, _begins(_HOST, _FILES, _LEAD, _LAST))


class MachineElsewhereError(ConflictError):
    """Another machine is the leader."""

    code = "server.machine_elsewhere"
    cause = "Only the leader {lead} ({host}) changes the CA's files, and this machine is {name}."
    fix = (
        "Run the command on that machine. If it is lost, make this machine the leader: `birthmark server "
        "machine lead --yes --data {data}`."
    )
    data: Path
    host: str
    lead: str
    name: str


class MachineAloneError(ConflictError):
    """The server is set up for one machine."""

    code = "server.machine_alone"
    cause = "The workers of this server {how}, so that other machines cannot join."
    fix = (
        "Stop it, set a PostgreSQL database in BIRTHMARK_DATABASE, and run it with a NATS that all "
        "machines reach: `birthmark serve --workers 2 --bus nats://nats.example:4222`."
    )
    how: str


@dataclass(slots=True)
class FileSync:
    """The common files of a data directory; does nothing where its installation has one machine."""

    database: Database = field(repr=False)
    data: Path
    clock: Clock = field(repr=False)
    entropy: Entropy = field(repr=False)
    places: DistributionPoints | None = None
    alone: str = ""
    """Why there can be no other machine."""

    async def leads(self) -> bool:
        """Say whether this machine is the one whose files, and whose name, count."""
        machine = machine_of(self.data)
        return machine is None or machine.name == await self._lead()

    async def check_leads(self) -> None:
        """Raise `MachineElsewhereError` where another machine makes CAs and roots."""
        machine = machine_of(self.data)
        if machine is not None and (lead := await self._lead()) != machine.name:
            host = await self.database.one(_FACT, name=f"{_HOST}{lead}")
            told = "which nobody knows" if host is None else _host(host["value"])
            raise MachineElsewhereError(data=self.data, host=told, lead=lead, name=machine.name)

    def complete(self, generation: Generation) -> None:
        """Make every CA that may be needed: machines that follow make none. One that has to be asked for is left."""
        if machine_of(self.data) is None:
            return
        for purpose in BELOW:
            try:
                generation.issuer(purpose, now=self.clock.now(), entropy=self.entropy, places=self.places)
            except PurposeMissingError as error:
                log.info("server.shared", extra={"reason": error.explain_cause()})

    async def share(self, generations: Sequence[Generation]) -> None:
        """Complete these where this machine leads, as an earlier version may have made less, and settle."""
        if await self.leads():
            for generation in generations:
                self.complete(generation)
            await self.settle()
            for path in shared.left_out(self.data) if machine_of(self.data) is not None else ():
                log.info("server.left_out", extra={"path": str(path)})

    async def give(self, generation: Generation) -> Changes:
        """Have all of a generation in the database; return what a commit begins with that holds while this one leads.

        Raise `MachineElsewhereError`, or as `settle` does.
        """
        machine = machine_of(self.data)
        if machine is None:
            return Changes()
        await self.check_leads()
        self.complete(generation)
        for left in reversed(range(_ATTEMPTS)):
            try:
                await self._push(machine)
                break
            except ChangedMeanwhileError:
                await self.check_leads()
                if not left:
                    raise
        return self._leading(machine)

    def _leading(self, machine: ClusterNode) -> Changes:
        return Changes().run(_STILL, expect=1, otherwise=_moved(), key_name=_LEAD, key_value=machine.name)

    async def settle(self) -> None:
        """Have in the database what is here where this machine leads, else here what is in the database.

        Raise `SharedUnreadableError`, `RecordsLostError`, `CaBusyError`, or `UnavailableError`.
        """
        machine = machine_of(self.data)
        for left in reversed(range(_ATTEMPTS)):
            if machine is None:
                return
            try:
                if machine.name == await self._lead():
                    await self._push(machine)
                else:
                    await self.take_over(machine)
            except ChangedMeanwhileError:  # by another worker of this machine, or by whoever leads now
                if not left:
                    raise
            else:
                return

    async def keep(self) -> None:
        """Settle again and again; for ever."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            try:
                await self.settle()
            except BirthmarkError as error:
                log.warning("server.not_shared", extra={"code": error.code, "reason": error.explain_cause()})

    async def invite(self, generations: Sequence[Generation], actor: str) -> Mapping[str, object]:
        """Return what another machine joins by, a secret; the first time, this one becomes the first of several.

        Raise `MachineAloneError`, `MachineElsewhereError`.
        """
        if self.alone:
            raise MachineAloneError(how=self.alone)
        machine = machine_of(self.data) or await self._begin()
        await self.check_leads()
        await self.share(generations)
        await self.database.commit(Changes().audit(actor, "server.machine_invite", machine.installation))
        invitation: dict[str, object] = msgspec.to_builtins(made(machine.installation, machine.key))
        return invitation

    async def lead(self, actor: str) -> None:
        """Make this machine the one whose files count. Raise `MachineAloneError`, `ChangedMeanwhileError`."""
        machine = machine_of(self.data)
        if machine is None:
            raise MachineAloneError(how="are on one machine")
        for left in reversed(range(_ATTEMPTS)):
            if (before := await self._lead()) == machine.name:
                return
            shared_last = await self.database.one(_FACT, name=_LAST)
            await self.take_over(machine)
            changes = Changes().run(
                _SET, expect=1, otherwise=_moved(), key_name=_LEAD, key_value=before, value=machine.name
            )
            if shared_last is None:
                changes.run(_ADD, expect=1, otherwise=_moved(), name=_LAST, value=self._mark())
            else:
                changes.run(_STILL, expect=1, otherwise=_moved(), key_name=_LAST, key_value=shared_last["value"])
            try:
                await self.database.commit(changes.audit(actor, "server.machine_lead", machine.name, before=before))
            except ChangedMeanwhileError:  # the one before has shared more, which this one does not have
                if not left:
                    raise
            else:
                return

    async def machines(self) -> Sequence[Mapping[str, object]]:
        """Return the machines there are, by name, and how many workers of each are alive."""
        if (here := machine_of(self.data)) is None:
            return []
        lead = await self._lead()
        rows = [(row["name"].removeprefix(_HOST), _host(row["value"])) for row in await self.database.all(_ALL_HOSTS)]
        rows.sort(key=lambda row: int(row[0].removeprefix("m")))
        ids = [str(row["id"]) for row in await self.database.all(WORKERS, limit=_MOST_WORKERS)]
        alive = Counter(found[1] if (found := _OF_MACHINE.match(one)) else FIRST for one in ids)
        return [
            {"name": name, "host": host, "leads": name == lead, "here": name == here.name, "workers": alive[name]}
            for name, host in rows
        ]

    async def take_name(self) -> str:
        """Return a name that no machine of this installation has, and have it."""
        number = 2
        mark = self._mark()
        while True:
            name = f"m{number}"
            await self.database.commit(Changes().run(_ADD, name=f"{_HOST}{name}", value=mark))
            row = await self.database.one(_FACT, name=f"{_HOST}{name}")
            if row is not None and row["value"] == mark:
                return name
            number += 1

    async def check_opens(self, machine: ClusterNode) -> None:
        """Raise `SharedUnreadableError` unless the database has what this machine may open."""
        await self._all_opened(machine)

    async def take_over(self, machine: ClusterNode) -> int:
        """Have here what is in the database, and return how many files that are; nothing where one part does not open.

        Raise `SharedUnreadableError`.
        """
        opened = await self._all_opened(machine)
        for name, files in opened.items():
            if await asyncio.to_thread(shared.put, self.data, name, files):
                log.info("server.shared", extra={"part": name})
        return sum(map(len, opened.values()))

    # ---- inside

    def _opened(self, machine: ClusterNode, name: str, text: str) -> dict[str, bytes]:
        try:
            return unseal(text, name, installation=machine.installation, key=machine.key)
        except SharedUnreadableError as error:
            error.data = self.data  # a fact of its own: it may have to travel from a worker to its parent
            raise

    async def _there(self) -> Mapping[str, str]:
        """Return what is in the database, as it is sealed."""
        return {row["name"].removeprefix(_FILES): str(row["value"]) for row in await self.database.all(_ALL_FILES)}

    async def _all_opened(self, machine: ClusterNode) -> Mapping[str, dict[str, bytes]]:
        there = await self._there()
        if shared.SEEDS not in there:
            reason = "there is nothing, so it is another database than that of who invited"
            raise SharedUnreadableError(name=shared.SEEDS, reason=reason, data=self.data)
        return {name: self._opened(machine, name, text) for name, text in there.items() if shared.is_name(name)}

    async def _push(self, machine: ClusterNode) -> None:
        there = await self._there()
        here = await asyncio.to_thread(shared.collected, self.data)
        here[shared.SEEDS] |= await self._seeds(machine, there)
        changes, different = self._leading(machine), False
        for name, files in here.items():
            before = there.get(name)
            if before is not None and self._is_same(machine, name, before, files):
                continue
            different = True
            nonce = self.entropy.token(NONCE_BYTES)
            sealed = seal(files, name, installation=machine.installation, key=machine.key, nonce=nonce)
            if len(sealed) > MAX_CHARS:  # which no machine opens
                raise SecretUnreadableError(path=self.data / name, reason="it is too large for other machines")
            key = f"{_FILES}{name}"
            if before is None:
                changes.run(_ADD_NEW, name=key, value=sealed)
            else:
                changes.run(_SET, expect=1, otherwise=_moved(), key_name=key, key_value=before, value=sealed)
        if different:
            changes.run(_PUT, name=_LAST, value=self._mark())
            await self.database.commit(changes)
        for name in here.keys() - {shared.SEEDS}:
            await asyncio.to_thread(shared.note, self.data / name, here[name])

    async def _seeds(self, machine: ClusterNode, there: Mapping[str, str]) -> Mapping[str, bytes]:
        """Have the seeds that are on record, and return them: they count also where this machine leads and has others.

        Whatever was signed by them, or follows from them, would be lost with them.
        """
        try:
            seeds = self._opened(machine, shared.SEEDS, there[shared.SEEDS])
        except (KeyError, SharedUnreadableError):  # the first to be there, or of a key that is no more
            return {}
        await asyncio.to_thread(shared.put, self.data, shared.SEEDS, seeds)
        return seeds

    def _is_same(self, machine: ClusterNode, name: str, sealed: str, files: Mapping[str, bytes]) -> bool:
        try:
            return self._opened(machine, name, sealed) == files
        except SharedUnreadableError:  # of a key that is no more
            return False

    async def _begin(self) -> ClusterNode:
        """Make this the first of several machines. Of two that do so at once one does, and both go by it."""
        machine = made(await id_of(self.database, self.entropy), self.entropy.token(KEY_BYTES), FIRST)
        facts = Changes().run(_ADD, name=f"{_HOST}{FIRST}", value=self._mark()).run(_ADD, name=_LEAD, value=FIRST)
        await self.database.commit(facts)
        try:
            atomic_files.create(self.data / FILE, render(machine))
        except FileExistsError:
            machine = machine_of(self.data) or machine
        return machine

    def _mark(self) -> str:
        """Return what this machine's name is taken by: its host, and something that no other has."""
        return f"{socket.gethostname()} {self.entropy.token(4).hex()}"

    async def _lead(self) -> str:
        """Return which machine leads. Raise `RecordsLostError` where this is not the database that they have."""
        if (row := await self.database.one(_FACT, name=_LEAD)) is not None:
            return str(row["value"])
        if await root_of(self.database) is None:
            raise RecordsLostError(path=self.data)
        raise RecordsLostError(path=self.data, how="has no record of its machines")


def _host(mark: object) -> str:
    return str(mark).partition(" ")[0]


def _moved() -> ChangedMeanwhileError:
    return ChangedMeanwhileError(what="Which machine leads, or what it has put there,")


async def leave_alone(data: Path, database: Database) -> None:
    """Leave nothing of other machines in a directory and its database, which is one that they cannot reach."""
    (data / FILE).unlink(missing_ok=True)
    await database.commit(Changes().run(_FORGET))
