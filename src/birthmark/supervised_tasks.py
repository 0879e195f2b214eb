"""Supervised background tasks: an error is logged and counted, and the work continues.

An unawaited task would otherwise fail silently.
"""

import asyncio
import contextlib
import contextvars
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from birthmark.errors import BirthmarkError

log = logging.getLogger(__name__)
T = TypeVar("T")

Leads = Callable[[], Awaitable[bool]]
"""Returns whether this worker is the one that performs a task for all workers."""

AGAIN_S, MOST_S = 1.0, 60.0
_WAITING = ThreadPoolExecutor(max_workers=64, thread_name_prefix="waiting")
FAILURES: Counter[str] = Counter()
"""Number of failures in this process, by task name."""


async def always() -> bool:
    """Return True: a worker without others is the leader."""
    return True


def note(name: str, error: BaseException) -> None:
    """Log and count an error of a background task."""
    FAILURES[name] += 1
    if isinstance(error, BirthmarkError):
        log.warning("background.failed", extra={"work": name, "code": error.code, "reason": error.explain_cause()})
    else:
        log.error("background.failed", extra={"work": name}, exc_info=error)


def start_supervised(name: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    """Run an endless task until cancelled; restart it after failures with increasing delays."""

    async def keep() -> None:
        wait_s, loop = AGAIN_S, asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await await_third_party(work())
            except Exception as error:  # noqa: BLE001 - any error: the work continues
                note(name, error)
            if loop.time() - began > MOST_S:
                wait_s = AGAIN_S
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, MOST_S)

    return asyncio.get_running_loop().create_task(keep())


async def told(name: str, work: Awaitable[None]) -> None:
    """Await a task once; log its error."""
    try:
        await await_third_party(work)
    except Exception as error:  # noqa: BLE001 - as above
        note(name, error)


async def await_third_party(work: Awaitable[T]) -> T:
    """Await third-party code; if it was cancelled internally rather than by us, treat that as its error.

    Raise `RuntimeError` in that case: `CancelledError` would end the waiting task as if its cancellation had been
    requested.
    """
    try:
        return await work
    except asyncio.CancelledError as error:
        waiter = asyncio.current_task()
        if waiter is None or waiter.cancelling():
            raise
        raise RuntimeError("it waited for something that was cancelled") from error


async def run_in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a thread. On cancellation, wait for the work to end."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        raise


async def waiting(work: Callable[[], T]) -> T:
    """Run work that waits for an external party, which may not respond, in a separate thread pool.

    Asyncio's default pool has few threads, six on two cores, and passwords, lists and database reads need them.
    """
    run = contextvars.copy_context().run
    return await asyncio.get_running_loop().run_in_executor(_WAITING, run, work)


async def cancel_and_wait(*tasks: asyncio.Future[Any] | None) -> None:
    """Cancel tasks and wait until they end.

    Cancellation repeats until then: an awaited operation may convert it into another error, which the task logs before
    it continues.
    """
    waiting = {task for task in tasks if task is not None}
    while waiting:
        for task in waiting:
            task.cancel()
        over, waiting = await asyncio.wait(waiting, timeout=AGAIN_S)
        await asyncio.gather(*over, return_exceptions=True)  # retrieves their errors, which are not used
