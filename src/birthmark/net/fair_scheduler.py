"""What peers have left to do when their slice of the loop's time is used up: a little at each turn, in turn.

A peer may send faster than its packets are decided on, in a read, a record or a packet as it likes. So nobody works
longer than `SLICE_S` at once; the rest is added here, and all who wait here have `TURN_S` together between two looks of
the loop at its sockets. Whoever asks for little is never here and is served within a turn or two of the loop.

The turns are the owners': one for each key, or address without one, however many connections it has. Those of an owner
have its turn one after the other.

What an owner works outside of its turns is counted together, whatever does it: a read, an end, a step of a task. When
all together have worked for a turn in this round, which ends with the next turn of the loop, whoever has had a slice of
it goes on in its turns.

After a step that took longer than two turns its owner rests for as long: a new connection takes some twenty looks of
the loop, and would wait for as many such steps.
"""

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from contextlib import suppress
from types import coroutine
from typing import Any, ClassVar, Protocol, TypeVar
from weakref import WeakKeyDictionary

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 1024 * 1024
"""What a page of an answer has before it ends with fewer rows than were asked for."""
SLICE_S = 0.001
TURN_S = 0.004
MAX_REST_S = 0.1
_BEFORE_A_SLICE = SLICE_S / 2  # nobody has used one by then
_KEPT = 0.9  # of what a dear step cost, when the next one costs less
_NOT = -1.0

now = time.perf_counter  # what work costs is measured by the real clock, whatever time a server is told


T = TypeVar("T")


class OwnedWork(Protocol):
    """What somebody owns."""

    @property
    def owner(self) -> str: ...


class _Work:
    """What is counted, step by step: its peer's until somebody proves to ask by it."""

    __slots__ = ("_asker", "_whose")

    def __init__(self, whose: OwnedWork) -> None:
        self._whose, self._asker = whose, ""

    @property
    def owner(self) -> str:
        return self._asker or self._whose.owner

    def is_for(self, owner: str) -> None:
        self._asker = owner


class Backlog:
    """Of one event loop."""

    _of_loops: ClassVar["WeakKeyDictionary[asyncio.AbstractEventLoop, Backlog]"] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[Callable[[], None]]] = OrderedDict()  # by owner, whose turn is next first
        self._is_called = False
        self._lent = 0.0  # to tasks that were woken in this turn and work after it
        self._dear: dict[str, float] = {}  # what steps of those who wait cost, where that is more than a slice
        self._rests: dict[str, float] = {}  # by owner, until when
        self._used: dict[str, float] = {}  # by owner, in this round
        self._spent = 0.0  # of it, by all of them
        self._since = _NOT  # when what is at work began
        self._has_turn = False  # what is at work
        self._is_ending = False  # the round
        self._work: _Work | None = None
        """Whose task takes a step."""

    @classmethod
    def running(cls) -> "Backlog":
        """Return the one of the running loop."""
        loop = asyncio.get_running_loop()
        if (known := cls._of_loops.get(loop)) is None:
            known = cls._of_loops[loop] = cls()
        return known

    def __contains__(self, owner: str) -> bool:
        """Say whether something of an owner's waits."""
        return owner in self._waiting

    def __bool__(self) -> bool:
        """Say whether anything waits."""
        return bool(self._waiting)

    def add(self, go_on: Callable[[], None], owner: str) -> None:
        """Have `go_on` called in its owner's turn, behind what waits of it; it works for a slice at most."""
        self._waiting.setdefault(owner, deque()).append(go_on)
        self._call()

    def add_first(self, go_on: Callable[[], None], owner: str) -> None:
        """Have `go_on` called in its owner's next turn, before all that wait of it: what was begun is ended first."""
        self._waiting.setdefault(owner, deque()).appendleft(go_on)
        self._call()

    def work(self, steps: Generator[None, None, T], owner: str) -> asyncio.Future[T]:
        """Take steps to their end in an owner's turns; the future has what they return.

        What was begun first is ended first: of one owner, steps keep the order in which they came here.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def go_on() -> None:
            until = now() + SLICE_S
            try:
                while not done.cancelled():
                    next(steps)
                    if now() > until:
                        self.add_first(go_on, owner)
                        return
            except StopIteration as end:
                done.set_result(end.value)
            except asyncio.CancelledError:  # of somebody else's future, which a step asked
                done.cancel()
            except Exception as error:  # noqa: BLE001 - told to whoever waits
                done.set_exception(error)
            steps.close()

        self.add(go_on, owner)
        return done

    async def decided(self, steps: Generator[None, None, T], owner: str) -> T:
        """Return what steps come to, taken in an owner's turns but for the first, which takes no time."""
        try:
            next(steps)
        except StopIteration as end:
            known: T = end.value
            return known
        return await self.work(steps, owner)

    def is_behind(self, owner: str) -> bool:
        """Say whether an owner's next work has to wait.

        It used its slice of a full round, or rests, or something of it waits.
        """
        is_over = self._spent > TURN_S and self._has_used_slice(owner)
        return owner in self._waiting or is_over or self._rest_of(owner) > 0

    def _rest_of(self, owner: str) -> float:
        until = self._rests.get(owner)
        return 0.0 if until is None else until - now()

    def _has_used_slice(self, owner: str) -> bool:
        return self._used.get(owner, 0.0) > SLICE_S

    @property
    def is_full(self) -> bool:
        """Say whether all together have used a turn in this round: what takes long by itself waits for its own."""
        return self._spent > TURN_S

    @property
    def at_work(self) -> str:
        """The owner of the task that takes a step; of nobody's, which is the server's own, nothing."""
        return "" if self._work is None else self._work.owner

    @property
    def is_long(self) -> bool:
        """Say whether a task's step has taken longer than a slice by now."""
        return self._work is not None and self._since != _NOT and now() - self._since > SLICE_S

    def is_for(self, owner: str) -> None:
        """Count the task that takes a step as this owner's from here on: who asks, wherever it comes from."""
        if self._work is not None:
            self._work.is_for(owner)

    def begin(self) -> None:
        """Note that from here on an owner works, outside of its turns."""
        self._since, self._has_turn = now(), False

    def end(self, owner: str) -> None:
        """Count what was worked since `begin`."""
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
        if spent > _BEFORE_A_SLICE and not self._is_ending:  # most loops never end a round
            self._is_ending = True
            asyncio.get_running_loop().call_soon(self._end_round)

    def _end_round(self) -> None:
        self._used.clear()
        if self._rests:
            self._rests = {owner: until for owner, until in self._rests.items() if until > now()}
        self._spent, self._is_ending = 0.0, False

    async def counted(self, work: Awaitable[T], whose: OwnedWork) -> T:
        """Await something, and count each of its steps as its owner's."""
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
            except BaseException as error:  # noqa: BLE001 - thrown into it
                problem = error

    async def turn(self, owner: str) -> None:
        """Return in an owner's turn: at once while it is not behind.

        What follows may take as long as one step does; before the next one this is asked again.
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
        """Have one turn called, and never a second: what is added meanwhile has its turn in it, or in the next."""
        if self._waiting and not self._is_called:
            self._is_called = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._lent = 0.0
        until = now() + TURN_S
        try:
            while self._waiting and now() + self._lent <= until:
                self._slice_of(*self._waiting.popitem(last=False))
        finally:  # whatever ended it, the others are not to wait for ever
            self._is_called = False
            self._call()

    def _slice_of(self, owner: str, waiting: "deque[Callable[[], None]] | None") -> None:
        """Go on with what waits of an owner for a slice: who has much that is small gets as far as who has little."""
        until = now() + self._lent + SLICE_S
        while waiting is not None:
            go_on = waiting.popleft()
            if waiting:
                self._waiting[owner] = waiting
            try:
                go_on()
            except (Exception, asyncio.CancelledError):  # the others are not to wait for ever
                log.exception("net.bug")
            if now() + self._lent >= until:
                return
            waiting = self._waiting.pop(owner, None)
        self._dear.pop(owner, None)


class _Owner:
    """An owner that is known by its name alone, without a connection."""

    __slots__ = ("owner",)

    def __init__(self, owner: str) -> None:
        self.owner = owner


def begin_task(work: Awaitable[T]) -> asyncio.Future[T]:
    """Begin a task that works for the owner whose request begins it, and in that owner's turns, as the request does."""
    backlog = Backlog.running()
    if owner := backlog.at_work:
        return asyncio.ensure_future(backlog.counted(work, _Owner(owner)))
    return asyncio.ensure_future(work)


def count_for(owner: str) -> None:
    """Count the request that is being decided on as its asker's from here on, whatever connection it came by."""
    with suppress(RuntimeError):  # no loop: nothing else waits
        Backlog.running().is_for(owner)


async def asker_turn() -> None:
    """Return in the turn of the owner whose request is decided on, before work that takes long in one piece."""
    backlog = Backlog.running()
    if owner := backlog.at_work:
        await backlog.turn(owner)


class Slices:
    """For a task that has long to work, and is one of a few: the loop looks at everybody else after each slice."""

    def __init__(self, steps: int) -> None:
        self._steps = self._left = steps
        self._until = now() + SLICE_S

    async def step(self) -> None:
        """Let others have their turn when a slice is used up, which is looked at after so many steps."""
        self._left -= 1
        if not self._left:
            self._left = self._steps
            if now() > self._until:
                await asyncio.sleep(0)
                self._until = now() + SLICE_S


async def give_way() -> None:
    """Go on in the next turn of the owner whose request this is, where it has worked for longer than a slice at once.

    For work that may be long, between its parts.
    """
    if (backlog := Backlog.running()).is_long:
        await backlog.turn(backlog.at_work)


async def fitting(items: AsyncIterator[T], size_of: Callable[[T], int], most: int = MAX_ANSWER_BYTES) -> list[T]:
    """Return items up to the one by which they have more bytes than `most`, made in turns; one where there is one."""
    found: list[T] = []
    size = 0
    async for item in items:
        found.append(item)
        if (size := size + size_of(item)) > most:
            break
        await give_way()
    return found


async def each(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield items that are made as they are asked for."""
    for item in items:
        yield item
