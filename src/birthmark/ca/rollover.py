"""Exchanging the root of a running installation, step by step, each gated on what was measured.

The state is one row, each step a conditional write of it; what the server signs and trusts follows the row, also after
a start and after a step of which nobody can tell whether it is kept. A device counts as knowing both roots when it was
handed them on a connection that proved who it is.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from birthmark.ca import rollover_store as store
from birthmark.ca.directory import CaLostError
from birthmark.ca.events import RolloverMoved
from birthmark.ca.hierarchy import Generation, Hierarchy
from birthmark.ca.rules.rollover import (
    NoRolloverError,
    Phase,
    RolloverProgress,
    RolloverRunningError,
    RolloverState,
    step_back,
    step_forward,
)
from birthmark.clock import Clock
from birthmark.errors import BirthmarkError, ChangedMeanwhileError
from birthmark.pki.certificates import Certificate, Thumbprint
from birthmark.pki.names import fold
from birthmark.ref import Ref
from birthmark.store import Changes, Database, Statement, from_micros, to_micros
from birthmark.store.database import Row
from birthmark.store.reloading_cache import ReloadingCache
from birthmark.supervised_tasks import beside

ROOT_FACT = "ca.root"
_MAX_REMEMBERED = 65_536


class RootGroups(Protocol):
    """The enrollment groups of provisioning services, which trust CAs of a generation."""

    async def without(self, old: Generation, new: Generation) -> Sequence[str]:
        """Return the groups that know a CA of `old` and none of `new`."""
        ...

    async def trusting(self, of: Generation, actor: str, *, is_trusted: bool) -> Changes:
        """Return what ends, or begins again, the trust in the CAs of a generation."""
        ...


class Roots(Protocol):
    """Where generations are kept."""

    def generation(self, root: Thumbprint) -> Generation:
        """Return the one with this root. Raise `CaLostError`."""
        ...

    def make(self, old: Generation) -> Generation:
        """Return a new one, and certificates of each root's key by the other; one that nobody took up is used."""
        ...

    def abandon(self, root: Thumbprint) -> None:
        """Do not take this one up again; an exchange to it that goes on all the same is not hindered."""
        ...

    def links(self, new: Generation) -> tuple[Certificate, Certificate]:
        """Return the new root's key certified by the old root, and the old one's by the new."""
        ...


class SharedGenerations(Protocol):
    """The files of generations where other machines have them too."""

    async def check_leads(self) -> None:
        """Raise `ConflictError` where another machine makes roots."""
        ...

    async def give(self, generation: Generation) -> Changes:
        """Let the other machines have all of it, and return what a commit begins with that tells of it.

        That holds only while this machine makes roots. Raise `ConflictError` where another does.
        """
        ...

    async def settle(self) -> None:
        """Give to the other machines what is here, or take what they have."""
        ...


class _OneMachine:
    """Nobody else has the files."""

    async def check_leads(self) -> None: ...

    async def give(self, generation: Generation) -> Changes:
        del generation
        return Changes()

    async def settle(self) -> None: ...


@dataclass(slots=True)
class Rollovers:
    """The one exchange that is going on, if there is one."""

    hierarchy: Hierarchy
    roots: Roots = field(repr=False)
    database: Database = field(repr=False)
    clock: Clock = field(repr=False)
    groups: Ref[RootGroups] = field(default_factory=Ref, init=False, repr=False)
    changed: Callable[[], None] = field(default=lambda: None, repr=False)
    """Is called when other CAs sign or are trusted: what was made of them has to be made anew."""
    shared: SharedGenerations = field(default_factory=_OneMachine, repr=False)
    _current: RolloverState | None = field(default=None, init=False)
    _noted: OrderedDict[str, None] = field(default_factory=OrderedDict, init=False, repr=False)
    _loading: ReloadingCache = field(init=False, repr=False)
    _making: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        self._loading = ReloadingCache(self.database, self._follow_record, RolloverMoved)

    async def load(self) -> None:
        """Take over the state on record."""
        await self._loading.load()

    async def stop(self) -> None:
        """End what reads it in the background."""
        await self._loading.stop()

    @property
    def is_running(self) -> bool:
        return self._current is not None and self._current.phase is not Phase.FINISHED

    @property
    def current(self) -> RolloverState | None:
        """The exchange, where there is one or was."""
        return self._current

    async def status(self) -> tuple[RolloverState | None, RolloverProgress]:
        """Return the exchange, and what is measured now; without one, of the devices there are."""
        current = self._current
        if current is None:
            return None, await self._measured(None, self.hierarchy.generations[0], None, ())
        new = self.roots.generation(current.new)
        if current.phase is Phase.FINISHED:  # the old one's files may be in a safe
            return current, await self._measured(current, None, new, ())
        old = self.roots.generation(current.old)
        left = () if (groups := self.groups.get()) is None else await groups.without(old, new)
        return current, await self._measured(current, old, new, left)

    async def start(self, actor: str) -> RolloverState:
        """Make the new root, and trust both. Raise `RolloverRunningError`, `RootAwayError`, what `shared` raises."""
        async with self._making:  # of two that are made at once nobody would take up one
            return await self._start(actor)

    async def _start(self, actor: str) -> RolloverState:
        before = self._current
        if before is not None and before.phase is not Phase.FINISHED:
            raise _running(before)
        await self.shared.check_leads()
        old, now = self.hierarchy.generations[0], self.clock.now()
        new = await beside(lambda: self.roots.make(old))  # a token takes its time
        changes = await self.shared.give(new)  # before anybody is told of it
        version = 0 if before is None else before.version + 1
        made = RolloverState(old.anchor.thumbprint, new.anchor.thumbprint, Phase.OLD_SIGNS, now, now, version)
        row = store.RECORDS.row(made)
        if before is None:
            changes.run(store.ADD, id=store.ID, **row)
        else:
            moved = _moved()
            changes.run(store.REPLACE, expect=1, otherwise=moved, key_version=before.version, **row)
        changes.audit(actor, "ca.rollover.start", made.new.hex(), old=made.old.hex())
        await self._put_on_record(changes, made)
        return made

    async def step_forward(self, share: float, actor: str, seen: str | None = None) -> RolloverState:
        """Take the next step from the phase that was `seen`; None: from whichever there is.

        Raise why it is too early, `NoRolloverError` or `ChangedMeanwhileError`.
        """
        current, progress = await self._running(seen)
        return await self._move(current, step_forward(current, progress, share, self.clock.now()), "next", actor)

    async def step_back(self, actor: str, seen: str | None = None) -> RolloverState | None:
        """Take the last step back; None when the exchange is over by that. Raise as `step_forward` does."""
        current, progress = await self._running(seen)
        before = step_back(current, progress, self.clock.now())
        if before is not None:
            try:
                return await self._move(current, before, "back", actor)
            except CaLostError as error:
                back = f"Restore its files: `cp -anT safe/ca {error.path}`. Then run this command again."
                error.quote(cause=f"The rollback requires the old root, which is no longer in {error.path}.", fix=back)
                raise
        await self.shared.check_leads()  # the root that is given up is marked in its directory
        changes = await self.shared.give(self.hierarchy.generations[0])
        changes.run(store.END, expect=1, otherwise=_moved(), key_version=current.version)
        changes.run(store.FORGET, new=current.new).audit(actor, "ca.rollover.back", current.new.hex(), phase="none")
        await self._put_on_record(changes, None)
        return None

    async def note_fetched(self, name: str) -> None:
        """Remember that a device was handed both roots."""
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
        if seen not in {None, current.phase.value}:  # of two operators the second looked before the first stepped
            raise _moved()
        return current, progress

    async def _move(self, current: RolloverState, to: RolloverState, verb: str, actor: str) -> RolloverState:
        facts = {"phase": to.phase.value, "changed_at": to_micros(to.changed_at), "version": to.version}
        changes = Changes().run(store.MOVE, expect=1, otherwise=_moved(), key_version=current.version, **facts)
        root = to.new if to.phase is Phase.FINISHED else to.old
        changes.run(store.SET_ROOT, key_name=ROOT_FACT, value=root.hex())
        changes.audit(actor, f"ca.rollover.{verb}", to.new.hex(), phase=to.phase.value)
        if Phase.FINISHED in {current.phase, to.phase}:  # else whoever has the old root's key goes on to be let in
            old, is_trusted = self.roots.generation(to.old), to.phase is not Phase.FINISHED
            if (groups := self.groups.get()) is not None:
                changes.merge(await groups.trusting(old, actor, is_trusted=is_trusted))
        await self._put_on_record(changes, to)
        return to

    async def _put_on_record(self, changes: Changes, to: RolloverState | None) -> None:
        """Commit, then follow; where that fails follow whatever is on record, as it may be kept all the same.

        A root is given up before: nobody would make up for it after a kill. On one that goes on it says nothing.
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
        await self.shared.settle()
        found = None if row is None else store.RECORDS.of(row)
        if found != before and self._current is before:  # else a step was taken after what was read
            self._take_over(found, self._read(found))

    def _read(self, rollover: RolloverState | None) -> Callable[[], None]:
        """Read what this state needs, and return what has everyone sign and trust by it, which cannot fail.

        Before it is on record: a file that is lost then leaves everything as it was.
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
        """Have everyone sign and trust by this state."""
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
        if current is not None and current.phase is Phase.NEW_SIGNS:  # those that still have to renew
            found = await self.database.aside(store.NAMES_BELOW, after=after, **left)
        else:
            found = await self.database.aside(store.MISSING, after=after, new=mark)
        return RolloverProgress(
            devices=(await self._one(store.DEVICES, after=after))["count"],
            fetched=(await self._one(store.FETCHED, after=after, new=mark))["count"],
            below_old=below_old["count"],
            below_new=(await self._one(store.LATEST_BELOW, after=after, **ahead))["count"],
            last_below_old=from_micros(below_old["until"]) if below_old["until"] else None,
            missing=[row["name"] for row in found],
            groups=groups,
        )

    async def _one(self, wanted: Statement, **key: Any) -> Row:
        (row,) = await self.database.aside(wanted, **key)  # a count is always there
        return row


def _running(rollover: RolloverState) -> RolloverRunningError:
    return RolloverRunningError(phase=rollover.phase.value, started_at=rollover.started_at.isoformat())


def _moved() -> ChangedMeanwhileError:
    return ChangedMeanwhileError(what="The exchange of the root")
