"""Root rollover of a running installation, in steps that each require measured progress.

The state is a single row, and each step is a conditional write of it. Signing and trust follow the row, also after a
restart and after a step with an unknown result. A device counts as knowing both roots once it fetched them over an
authenticated connection.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from birthmark.ca import root_rollover_store as store
from birthmark.ca.ca_directory import CaLostError
from birthmark.ca.domain_events import RolloverMoved
from birthmark.ca.hierarchy import Generation, Hierarchy
from birthmark.ca.rules.root_rollover import (
    NoRolloverError,
    Phase,
    RolloverProgress,
    RolloverRunningError,
    RolloverState,
    step_back,
    step_forward,
)
from birthmark.clock_and_entropy import Clock
from birthmark.errors import BirthmarkError, ChangedMeanwhileError
from birthmark.late_reference import Ref
from birthmark.pki.certificates import Certificate, Thumbprint
from birthmark.pki.names_and_registration_ids import fold
from birthmark.store import Changes, Database, Statement, from_micros, to_micros
from birthmark.store.database import Row
from birthmark.store.reloading_cache import ReloadingCache
from birthmark.supervised_tasks import run_in_thread

ROOT_FACT = "ca.root"
_MAX_REMEMBERED = 65_536


class RootGroups(Protocol):
    """Enrollment groups of provisioning services, which trust the CAs of a generation."""

    async def find_groups_missing_ca(self, old: Generation, new: Generation) -> Sequence[str]:
        """Return the groups with a CA of `old` and no CA of `new`."""
        ...

    async def trust_changes(self, of: Generation, actor: str, *, is_trusted: bool) -> Changes:
        """Return the changes that remove or restore the trust in the CAs of a generation."""
        ...


class Roots(Protocol):
    """Storage of generations."""

    def generation(self, root: Thumbprint) -> Generation:
        """Return the generation with this root. Raise `CaLostError`."""
        ...

    def make(self, old: Generation) -> Generation:
        """Return a new generation with cross-certificates between both roots; reuse one that is not in use."""
        ...

    def abandon(self, root: Thumbprint) -> None:
        """Mark a generation as abandoned; a rollover to it that continues is not affected."""
        ...

    def links(self, new: Generation) -> tuple[Certificate, Certificate]:
        """Return both cross-certificates: the new root's key by the old root, and the reverse."""
        ...


class SharedGenerations(Protocol):
    """Files of generations in a cluster."""

    async def check_is_leader(self) -> None:
        """Raise `ConflictError` if another node is the leader."""
        ...

    async def publish_generation(self, generation: Generation) -> Changes:
        """Share a generation with the other nodes; return the changes that announce it in the same commit.

        They hold only while this node is the leader. Raise `ConflictError` if another node is.
        """
        ...

    async def synchronize(self) -> None:
        """Synchronize files with the other nodes: upload local changes, or download theirs."""
        ...


class _OneMachine:
    """Single-node implementation: no other node has the files."""

    async def check_is_leader(self) -> None: ...

    async def publish_generation(self, generation: Generation) -> Changes:
        del generation
        return Changes()

    async def synchronize(self) -> None: ...


@dataclass(slots=True)
class Rollovers:
    """The current root rollover, if any."""

    hierarchy: Hierarchy
    roots: Roots = field(repr=False)
    database: Database = field(repr=False)
    clock: Clock = field(repr=False)
    groups: Ref[RootGroups] = field(default_factory=Ref, init=False, repr=False)
    changed: Callable[[], None] = field(default=lambda: None, repr=False)
    """Called when the signing or trusted CAs change, so that derived data is rebuilt."""
    shared: SharedGenerations = field(default_factory=_OneMachine, repr=False)
    _current: RolloverState | None = field(default=None, init=False)
    _noted: OrderedDict[str, None] = field(default_factory=OrderedDict, init=False, repr=False)
    _loading: ReloadingCache = field(init=False, repr=False)
    _making: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        self._loading = ReloadingCache(self.database, self._follow_record, RolloverMoved)

    async def load(self) -> None:
        """Apply the stored state."""
        await self._loading.load()

    async def stop(self) -> None:
        """Stop the background reads."""
        await self._loading.stop()

    @property
    def is_running(self) -> bool:
        return self._current is not None and self._current.phase is not Phase.FINISHED

    @property
    def current(self) -> RolloverState | None:
        """The current or finished rollover, if any."""
        return self._current

    async def status(self) -> tuple[RolloverState | None, RolloverProgress]:
        """Return the rollover and its measured progress; without a rollover, counts of the existing devices."""
        current = self._current
        if current is None:
            return None, await self._measured(None, self.hierarchy.generations[0], None, ())
        new = self.roots.generation(current.new)
        if current.phase is Phase.FINISHED:  # the old files may be in a safe
            return current, await self._measured(current, None, new, ())
        old = self.roots.generation(current.old)
        left = () if (groups := self.groups.get()) is None else await groups.find_groups_missing_ca(old, new)
        return current, await self._measured(current, old, new, left)

    async def start(self, actor: str) -> RolloverState:
        """Create the new root, and trust both.

        Raise `RolloverRunningError`, `RootAwayError`, or the errors of `shared`.
        """
        async with self._making:  # of two created at once, one would go unused
            return await self._start(actor)

    async def _start(self, actor: str) -> RolloverState:
        before = self._current
        if before is not None and before.phase is not Phase.FINISHED:
            raise _running(before)
        await self.shared.check_is_leader()
        old, now = self.hierarchy.generations[0], self.clock.now()
        new = await run_in_thread(lambda: self.roots.make(old))  # a token is slow
        changes = await self.shared.publish_generation(new)  # before any announcement
        version = 0 if before is None else before.version + 1
        made = RolloverState(old.anchor.thumbprint, new.anchor.thumbprint, Phase.OLD_SIGNS, now, now, version)
        row = store.RECORDS.row(made)
        if before is None:
            changes.run(store.ADD, id=store.ID, **row)
        else:
            moved = _moved()
            changes.run(store.REPLACE, expect=1, otherwise=moved, key_version=before.version, **row)
        changes.audit(actor, "ca.rollover.start", made.new.hex(), old=made.old.hex())
        await self._commit_state(changes, made)
        return made

    async def step_forward(self, share: float, actor: str, seen: str | None = None) -> RolloverState:
        """Advance the rollover from the phase in `seen`; None accepts any phase.

        Raise the error of an unmet requirement, `NoRolloverError` or `ChangedMeanwhileError`.
        """
        current, progress = await self._running(seen)
        return await self._move(current, step_forward(current, progress, share, self.clock.now()), "next", actor)

    async def step_back(self, actor: str, seen: str | None = None) -> RolloverState | None:
        """Undo the last step; return None if that ends the rollover. Raise the errors of `step_forward`."""
        current, progress = await self._running(seen)
        before = step_back(current, progress, self.clock.now())
        if before is not None:
            try:
                return await self._move(current, before, "back", actor)
            except CaLostError as error:
                back = f"Restore its files: `cp -anT safe/ca {error.path}`. Then run this command again."
                error.quote(cause=f"The rollback requires the old root, which is no longer in {error.path}.", fix=back)
                raise
        await self.shared.check_is_leader()  # its directory marks a discarded root
        changes = await self.shared.publish_generation(self.hierarchy.generations[0])
        changes.run(store.END, expect=1, otherwise=_moved(), key_version=current.version)
        changes.run(store.FORGET, new=current.new).audit(actor, "ca.rollover.back", current.new.hex(), phase="none")
        await self._commit_state(changes, None)
        return None

    async def note_fetched(self, name: str) -> None:
        """Record that a device fetched both roots."""
        current = self._current
        if current is None or current.phase is Phase.FINISHED or (folded := fold(name)) in self._noted:
            return
        at = self.clock.micros()
        await self.database.commit(Changes().run(store.ADD_FETCHED, new=current.new, name=folded, at=at))
        self._noted[folded] = None
        if len(self._noted) > _MAX_REMEMBERED:
            self._noted.popitem(last=False)

    # ---- inside

    async def _running(self, seen: str | None) -> tuple[RolloverState, RolloverProgress]:
        current, progress = await self.status()
        if current is None:
            raise NoRolloverError
        if seen not in {None, current.phase.value}:  # another operator stepped after this check
            raise _moved()
        return current, progress

    async def _move(self, current: RolloverState, to: RolloverState, verb: str, actor: str) -> RolloverState:
        facts = {"phase": to.phase.value, "changed_at": to_micros(to.changed_at), "version": to.version}
        changes = Changes().run(store.MOVE, expect=1, otherwise=_moved(), key_version=current.version, **facts)
        root = to.new if to.phase is Phase.FINISHED else to.old
        changes.run(store.SET_ROOT, key_name=ROOT_FACT, value=root.hex())
        changes.audit(actor, f"ca.rollover.{verb}", to.new.hex(), phase=to.phase.value)
        if Phase.FINISHED in {current.phase, to.phase}:  # otherwise a holder of the old root's key keeps access
            old, is_trusted = self.roots.generation(to.old), to.phase is not Phase.FINISHED
            if (groups := self.groups.get()) is not None:
                changes.merge(await groups.trust_changes(old, actor, is_trusted=is_trusted))
        await self._commit_state(changes, to)
        return to

    async def _commit_state(self, changes: Changes, to: RolloverState | None) -> None:
        """Commit a state, then apply it.

        On failure apply the stored state, because the commit may have succeeded. A root is abandoned before the commit,
        because nothing would do so after a crash. The mark has no effect on a rollover that continues.
        """
        become = self._read(to)
        if to is None and self._current is not None:
            self.roots.abandon(self._current.new)
        try:
            await self.database.commit(changes.event(RolloverMoved(self.hierarchy.anchor.thumbprint.hex())))
        except BirthmarkError as problem:
            await self._loading.failed(problem)
            raise
        self._take_over(to, become)

    async def _follow_record(self) -> None:
        before = self._current
        row = await self.database.one(store.GET, id=store.ID)
        await self.shared.synchronize()
        found = None if row is None else store.RECORDS.of(row)
        if found != before and self._current is before:  # otherwise a later step has happened
            self._take_over(found, self._read(found))

    def _read(self, rollover: RolloverState | None) -> Callable[[], None]:
        """Load the files that a state needs; return a call that applies it and cannot fail.

        This runs before the commit: a missing file then leaves everything unchanged.
        """
        become, before = self.hierarchy.become, self._current
        if rollover is None:
            return partial(become, self.roots.generation(before.old)) if before is not None else lambda: None
        new = self.roots.generation(rollover.new)
        if rollover.phase is Phase.FINISHED:
            return partial(become, new)
        old, links = self.roots.generation(rollover.old), self.roots.links(new)
        if rollover.phase is Phase.OLD_SIGNS:
            return partial(become, old, new, links)
        return partial(become, new, old, links, links[0])

    def _take_over(self, rollover: RolloverState | None, become: Callable[[], None]) -> None:
        """Apply this state to signing and trust."""
        self._current = rollover
        self._noted.clear()
        become()
        self.changed()

    async def _measured(
        self, current: RolloverState | None, old: Generation | None, new: Generation | None, groups: Sequence[str]
    ) -> RolloverProgress:
        after = self.clock.micros()
        mark = b"" if new is None else new.anchor.thumbprint
        left = store.issuers_of(() if old is None else old.certificates)
        ahead = store.issuers_of(() if new is None else new.certificates)
        below_old = await self._one(store.LATEST_BELOW, after=after, **left)
        if current is not None and current.phase is Phase.NEW_SIGNS:  # devices that still must renew
            found = await self.database.read_in_background(store.NAMES_BELOW, after=after, **left)
        else:
            found = await self.database.read_in_background(store.MISSING, after=after, new=mark)
        return RolloverProgress(
            devices=(await self._one(store.DEVICES, after=after))["count"],
            fetched=(await self._one(store.FETCHED, after=after, new=mark))["count"],
            below_old=below_old["count"],
            below_new=(await self._one(store.LATEST_BELOW, after=after, **ahead))["count"],
            last_below_old=from_micros(below_old["until"]) if below_old["until"] else None,
            missing=[row["name"] for row in found],
            groups=groups,
        )

    async def _one(self, statement: Statement, **key: Any) -> Row:
        (row,) = await self.database.read_in_background(statement, **key)  # a count always exists
        return row


def _running(rollover: RolloverState) -> RolloverRunningError:
    return RolloverRunningError(phase=rollover.phase.value, started_at=rollover.started_at.isoformat())


def _moved() -> ChangedMeanwhileError:
    return ChangedMeanwhileError(what="The root rollover")
