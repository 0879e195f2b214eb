"""Fair scheduler for work that exceeds the time slice of its owner.

A peer may send faster than its packets are processed, in reads, records or packets of any size. Processing therefore
stops after `SLICE_S`, and the rest is queued here. All queued owners share `TURN_S` between two I/O polls of the event
loop. Light clients are never queued and are served within one or two loop iterations.

Turns belong to owners: one for each key, or for each address without a key, however many connections it has. Work of
one owner runs sequentially in its turn.

Work outside the turns is accounted for each owner: a read, a close, a step of a task. A round ends with the next loop
iteration. Once all owners together have used a turn in a round, owners that have used a slice continue in their turns.

After a step longer than two turns, its owner pauses for the same time. A new connection takes about 20 I/O polls and
would otherwise wait for as many such steps.
"""

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import suppress
from functools import partial
from types import coroutine
from typing import Any, ClassVar, Protocol, TypeVar
from weakref import WeakKeyDictionary

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 1024 * 1024
"""Response size at which a page ends, possibly with fewer rows than requested."""
SLICE_S = 0.001
TURN_S = 0.004
MAX_REST_S = 0.1
_BEFORE_A_SLICE = SLICE_S / 2  # no slice is used up by then
_KEPT = 0.9  # decay of an expensive step's cost, if the next is less
_NOT = -1.0

now = time.perf_counter  # cost uses the real clock, whatever time a server is given


T = TypeVar("T")


class OwnedWork(Protocol):
    """Work that belongs to an owner."""

    @property
    def owner(self) -> str: ...


class _Work:
    """Work that is accounted step by step: to the connection's owner until the request is authenticated."""

    __slots__ = ("_asker", "_whose")

    def __init__(self, whose: OwnedWork) -> None:
        self._whose, self._asker = whose, ""

    @property
    def owner(self) -> str:
        return self._asker or self._whose.owner

    def is_for(self, owner: str) -> None:
        self._asker = owner


class Backlog:
    """Scheduler of one event loop."""

    _of_loops: ClassVar["WeakKeyDictionary[asyncio.AbstractEventLoop, Backlog]"] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[Callable[[], None]]] = OrderedDict()  # by owner, next turn first
        self._is_called = False
        self._lent = 0.0  # for tasks woken in this turn that run after it
        self._dear: dict[str, float] = {}  # waiting owners' step costs, if above one time slice
        self._rests: dict[str, float] = {}  # end time by owner
        self._used: dict[str, float] = {}  # by owner, this round
        self._spent = 0.0  # total of all owners
        self._since = _NOT  # start of the current work
        self._has_turn = False  # for this work
        self._is_ending = False  # the round
        self._work: _Work | None = None
        """The work whose task is running."""

    @classmethod
    def running(cls) -> "Backlog":
        """Return the scheduler of the running loop."""
        loop = asyncio.get_running_loop()
        if (known := cls._of_loops.get(loop)) is None:
            known = cls._of_loops[loop] = cls()
        return known

    def __contains__(self, owner: str) -> bool:
        """Return whether an owner has queued work."""
        return owner in self._waiting

    def __bool__(self) -> bool:
        """Return whether any work is queued."""
        return bool(self._waiting)

    def add(self, go_on: Callable[[], None], owner: str) -> None:
        """Queue `go_on` behind the owner's other work; it runs for at most one slice."""
        self._waiting.setdefault(owner, deque()).append(go_on)
        self._call()

    def add_next(self, go_on: Callable[[], None], owner: str) -> None:
        """Queue `go_on` ahead of the owner's other work, so that started work finishes first."""
        self._waiting.setdefault(owner, deque()).appendleft(go_on)
        self._call()

    def run_in_turns(self, steps: Generator[None, None, T], owner: str) -> asyncio.Future[T]:
        """Run steps to completion in the owner's turns; the future receives their result.

        Work of one owner finishes in the order in which it was started.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def go_on() -> None:
            until = now() + SLICE_S
            try:
                while not done.cancelled():
                    next(steps)
                    if now() > until:
                        self.add_next(go_on, owner)
                        return
            except StopIteration as end:
                done.set_result(end.value)
            except asyncio.CancelledError:  # of a foreign future that a step awaited
                done.cancel()
            except Exception as error:  # noqa: BLE001 - reported to waiters
                done.set_exception(error)
            steps.close()

        self.add(go_on, owner)
        return done

    async def run_decision(self, steps: Generator[None, None, T], owner: str) -> T:
        """Return the result of steps, run in the owner's turns except for the first, which takes no time."""
        try:
            next(steps)
        except StopIteration as end:
            known: T = end.value
            return known
        return await self.run_in_turns(steps, owner)

    def is_behind(self, owner: str) -> bool:
        """Return whether an owner's next work must wait.

        True if the owner used its slice of a full round, pauses after a long step, or has queued work.
        """
        is_over = self._spent > TURN_S and self._has_used_slice(owner)
        return owner in self._waiting or is_over or (owner in self._rests and self._rest_of(owner) > 0)

    def _rest_of(self, owner: str) -> float:
        until = self._rests.get(owner)
        return 0.0 if until is None else until - now()

    def _has_used_slice(self, owner: str) -> bool:
        return self._used.get(owner, 0.0) > SLICE_S

    @property
    def is_full(self) -> bool:
        """Return whether the current round is used up, so that long work must wait for its turn."""
        return self._spent > TURN_S

    @property
    def current_owner(self) -> str:
        """Owner of the running task; empty for the server's own tasks."""
        return "" if self._work is None else self._work.owner

    @property
    def is_slice_exceeded(self) -> bool:
        """Return whether the running step of a task has exceeded a slice."""
        return self._work is not None and self._since != _NOT and now() - self._since > SLICE_S

    def assign_to(self, owner: str) -> None:
        """Account the running task to `owner` from now on: the authenticated caller, whatever the connection."""
        if self._work is not None:
            self._work.is_for(owner)

    def begin(self) -> None:
        """Start to account work outside of turns."""
        self._since, self._has_turn = now(), False

    def end(self, owner: str) -> None:
        """Account the work since `begin` to `owner`."""
        since, self._since = self._since, _NOT
        if since == _NOT:
            return
        worked, used = now() - since, self._used
        used[owner] = used.get(owner, 0.0) + worked
        spent = self._spent = self._spent + worked
        if worked > SLICE_S and owner in self._waiting:
            self._dear[owner] = max(worked, _KEPT * self._dear.get(owner, 0.0))
        if worked > 2 * TURN_S and owner:
            self._rests[owner] = since + worked + min(worked, MAX_REST_S)
        if spent > _BEFORE_A_SLICE and not self._is_ending:  # most iterations end no round
            self._is_ending = True
            asyncio.get_running_loop().call_soon(self._end_round)

    def _end_round(self) -> None:
        self._used.clear()
        if self._rests:
            self._rests = {owner: until for owner, until in self._rests.items() if until > now()}
        self._spent, self._is_ending = 0.0, False

    async def account_steps(self, work: Awaitable[T], whose: OwnedWork) -> T:
        """Await `work` and account each of its steps to its owner."""
        return await self._counted(work, whose)

    @coroutine
    def _counted(self, work: Awaitable[T], whose: OwnedWork) -> Generator[Any, Any, T]:
        steps, counted = work.__await__(), _Work(whose)
        problem: BaseException | None = None
        while True:
            self.begin()
            self._work = counted
            try:
                waited = steps.send(None) if problem is None else steps.throw(problem)
            except StopIteration as end:
                value: T = end.value
                return value
            finally:
                self._work = None
                self.end(counted.owner)
            try:
                yield waited
                problem = None
            except BaseException as error:  # noqa: BLE001 - raised inside
                problem = error

    async def wait_for_turn(self, owner: str) -> None:
        """Wait for the owner's turn; return at once unless the owner is behind.

        The work after it may take as long as one step. Call this again before the next step.
        """
        has_turn = False
        if self._since != _NOT:
            has_turn = self._has_turn
            self.end(owner)
            self._since = now()
        if self._has_used_slice(owner) if has_turn else self.is_behind(owner):
            await self._next(owner)
            while (rest := self._rest_of(owner)) > 0:
                await asyncio.sleep(rest)
                await self._next(owner)
            self._has_turn = True

    def start(self, turn: Coroutine[Any, Any, T], work: Awaitable[T], whose: OwnedWork) -> asyncio.Task[T]:
        """Start a task of `turn`, which awaits `work` in its owner's turn; close both if it is cancelled before."""
        task = asyncio.get_running_loop().create_task(self.account_steps(turn, whose))
        task.add_done_callback(partial(_close_unstarted, work, turn))
        return task

    async def _next(self, owner: str) -> None:
        ready = asyncio.get_running_loop().create_future()

        def go_on() -> None:
            if not ready.done():
                self._lent += max(SLICE_S, self._dear.get(owner, 0.0))
                self._used[owner] = 0.0
                ready.set_result(None)

        self.add(go_on, owner)
        await ready

    def _call(self) -> None:
        """Schedule one turn, never two: work added before it runs in it or in the next one."""
        if self._waiting and not self._is_called:
            self._is_called = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._lent = 0.0
        until = now() + TURN_S
        try:
            while self._waiting and now() + self._lent <= until:
                self._run_slice(*self._waiting.popitem(last=False))
        finally:  # in any case, so that others never wait forever
            self._is_called = False
            self._call()

    def _run_slice(self, owner: str, waiting: "deque[Callable[[], None]] | None") -> None:
        """Run an owner's queued work for one slice, so that many small items progress like a few."""
        until = now() + self._lent + SLICE_S
        while waiting is not None:
            go_on = waiting.popleft()
            if waiting:
                self._waiting[owner] = waiting
            try:
                go_on()
            except (Exception, asyncio.CancelledError):  # others must not wait forever
                log.exception("net.bug")
            if now() + self._lent >= until:
                return
            waiting = self._waiting.pop(owner, None)
        self._dear.pop(owner, None)


class _Owner:
    """Owner identified only by name, without a connection."""

    __slots__ = ("owner",)

    def __init__(self, owner: str) -> None:
        self.owner = owner


def begin_task(work: Awaitable[T]) -> asyncio.Future[T]:
    """Start a task that is accounted to the owner of the current request and runs in that owner's turns."""
    backlog = Backlog.running()
    if owner := backlog.current_owner:
        return asyncio.ensure_future(backlog.account_steps(work, _Owner(owner)))
    return asyncio.ensure_future(work)


def count_for(owner: str) -> None:
    """Account the current request to its authenticated caller from now on, whatever the connection."""
    with suppress(RuntimeError):  # no loop, no waiting work
        Backlog.running().assign_to(owner)


async def wait_for_caller_turn() -> None:
    """Wait for the turn of the current request's owner, before work that runs long without interruption."""
    backlog = Backlog.running()
    if owner := backlog.current_owner:
        await backlog.wait_for_turn(owner)


def _close_unstarted(work: Awaitable[Any], turn: Coroutine[Any, Any, Any], task: asyncio.Task[Any]) -> None:
    if task.cancelled():
        for one in (work, turn):
            if isinstance(one, Coroutine):
                one.close()


class Slices:
    """Time slices for a long task among few: the loop serves others after each slice."""

    def __init__(self, steps: int) -> None:
        self._steps = self._left = steps
        self._until = now() + SLICE_S

    async def step(self) -> None:
        """Yield to other tasks if the slice is used up; checked every fixed number of steps."""
        self._left -= 1
        if not self._left:
            self._left = self._steps
            if now() > self._until:
                await asyncio.sleep(0)
                self._until = now() + SLICE_S


async def yield_turn() -> None:
    """Yield to the owner's next turn if the current request has run longer than a slice.

    Call this between the parts of work that may be long.
    """
    if (backlog := Backlog.running()).is_slice_exceeded:
        await backlog.wait_for_turn(backlog.current_owner)


async def collect_page(items: AsyncIterator[T], size_of: Callable[[T], int], limit: int = MAX_ANSWER_BYTES) -> list[T]:
    """Return items, created in turns, up to the first that exceeds `most` bytes in total.

    At least one item is returned if there is any.
    """
    found: list[T] = []
    size = 0
    async for item in items:
        found.append(item)
        if (size := size + size_of(item)) > limit:
            break
        await yield_turn()
    return found


async def iterate_async(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield items as they are created on demand."""
    for item in items:
        yield item
