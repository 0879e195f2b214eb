"""Group commit of concurrent changes, which both engines share."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.metric_catalog import SECONDS, SIZES, Distribution
from birthmark.store.database import Batch, Outcomes, SharedDatabase
from birthmark.store.unit_of_work import Changes
from birthmark.supervised_tasks import note

MOST_WRITES = 2000
"""Maximum number of writes per batch, not counting those of its last change."""


class GroupCommit:
    """Group commit: batches the changes of an event loop iteration, and those that arrive during the previous commit.

    `run` commits a batch and returns one outcome per change: None if it is durable, or the error for which nothing of
    it was committed.
    """

    def __init__(self, run: Callable[[Batch], asyncio.Future[Outcomes]]) -> None:
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._waiting: Batch = []
        self._busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.sharing = SharedDatabase()
        self._confirming: set[asyncio.Task[None]] = set()
        self.seconds = Distribution(SECONDS)
        self.sizes = Distribution(SIZES)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, changes: Changes) -> asyncio.Future[None]:
        """Queue `changes`; the future resolves when it is durable or refused."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((changes, future))
        if not self._busy:
            self._busy = True
            self._idle.clear()
            self._loop.call_soon(self._flush)
        return future

    async def settled(self) -> None:
        """Wait until nothing is queued or running."""
        await self._idle.wait()

    def _flush(self) -> None:
        batch, self._waiting = _split_batch(self._waiting)
        self.sizes.observe(len(batch))
        self._run(batch).add_done_callback(partial(self._done, batch, self._loop.time()))

    def _done(self, batch: Batch, began: float, finished: asyncio.Future[Outcomes]) -> None:
        self.seconds.observe(self._loop.time() - began)
        if self._waiting:
            self._loop.call_soon(self._flush)
        else:
            self._busy = False
            self._idle.set()
        bug = finished.exception()  # callers get it: our bugs must not hang them
        outcomes = [bug] * len(batch) if bug is not None else finished.result()
        settled = list(zip(batch, outcomes, strict=True))
        for is_sure in (True, False):
            happened = [
                heard
                for (changes, _), problem in settled
                if changes.events and _is_kept(problem) is is_sure
                for heard in enumerate(changes.events, changes.first_event)
            ]
            self.sharing.hear(happened, is_sure=is_sure)
        if (confirm := self.sharing.confirm) is not None:
            owed = [one for one in settled if _is_owed(*one)]
            if owed:
                settled = [one for one in settled if not _is_owed(*one)]
                numbered = [enumerate(changes.events, changes.first_event) for (changes, _), _ in owed]
                waiting = confirm([heard for events in numbered for heard in events if heard[1].is_remembered])
                confirming = self._loop.create_task(_complete_after_confirmation(waiting, owed))
                self._confirming.add(confirming)
                confirming.add_done_callback(self._confirming.discard)
        _answer(settled)


def _split_batch(waiting: Batch) -> tuple[Batch, Batch]:
    """Return the changes of the next batch, and the remaining ones.

    The size of a batch is bounded to limit the delay for others.
    """
    writes = 0
    for number, (changes, _) in enumerate(waiting, 1):
        writes += len(changes.writes)
        if writes >= MOST_WRITES:
            return waiting[:number], waiting[number:]
    return waiting, []


Settled = Sequence[tuple[tuple[Changes, "asyncio.Future[None]"], BaseException | None]]


async def _complete_after_confirmation(waiting: Awaitable[None], owed: Settled) -> None:
    """Complete revocations after all workers confirm them; other changes of the batch do not wait."""
    problem: BaseException | None = None
    try:
        await waiting
    except Exception as error:  # noqa: BLE001 - callers must not hang, nor assume that all heard it
        note("confirming a commit", error)
        problem = error
    _answer([(one, problem) for one, _ in owed])


def _is_owed(one: tuple[Changes, "asyncio.Future[None]"], problem: BaseException | None) -> bool:
    return problem is None and any(event.is_remembered for event in one[0].events)


def _answer(settled: Settled) -> None:
    for (_, future), problem in settled:
        if future.done():
            continue  # the caller was cancelled; the change is stored anyway
        if problem is None:
            future.set_result(None)
        else:
            future.set_exception(problem)


def _is_kept(problem: BaseException | None) -> bool | None:
    """Return whether a change was committed; None if it was refused, False if the result is unknown."""
    if problem is None:
        return True
    return None if isinstance(problem, BirthmarkError) and not isinstance(problem, UnavailableError) else False
