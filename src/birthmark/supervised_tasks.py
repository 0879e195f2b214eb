"""What runs in the background, supervised: a mistake in it is logged and counted, and the work goes on.

A task whose end nobody waits for would take its work along in silence.
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
"""Says whether this worker does what one does for all."""

AGAIN_S, MOST_S = 1.0, 60.0
_WAITING = ThreadPoolExecutor(max_workers=64, thread_name_prefix="waiting")
FAILURES: Counter[str] = Counter()
"""How often each kind of work of this process failed, by its name."""


async def always() -> bool:
    """Lead, as a worker without others does."""
    return True


def note(name: str, error: BaseException) -> None:
    """Log and count what went wrong in the background."""
    FAILURES[name] += 1
    if isinstance(error, BirthmarkError):
        log.warning("background.failed", extra={"work": name, "code": error.code, "reason": error.explain_cause()})
    else:
        log.error("background.failed", extra={"work": name}, exc_info=error)


def kept(name: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    """Run what never ends by itself until the task is cancelled; where it fails, begin it again, ever less often."""

    async def keep() -> None:
        wait_s, loop = AGAIN_S, asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await of_another(work())
            except Exception as error:  # noqa: BLE001 - whatever it is, the work goes on
                note(name, error)
            if loop.time() - began > MOST_S:
                wait_s = AGAIN_S
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, MOST_S)

    return asyncio.get_running_loop().create_task(keep())


async def told(name: str, work: Awaitable[None]) -> None:
    """Do something to its end, once; note what goes wrong."""
    try:
        await of_another(work)
    except Exception as error:  # noqa: BLE001 - as above
        note(name, error)


async def of_another(work: Awaitable[T]) -> T:
    """Wait for what a program of another's does. What it was cancelled by, and not we, is a mistake of its own.

    Raise `RuntimeError` for that: `CancelledError` would end whoever waits, as if that had been asked for.
    """
    try:
        return await work
    except asyncio.CancelledError as error:
        waiter = asyncio.current_task()
        if waiter is None or waiter.cancelling():
            raise
        raise RuntimeError("it waited for something that was cancelled") from error


async def beside(work: Callable[[], T]) -> T:
    """Do in a thread what would keep the loop waiting. Who is cancelled meanwhile ends after it."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        raise


async def waiting(work: Callable[[], T]) -> T:
    """Do in a thread what waits for somebody else, who may be silent.

    Asyncio has few threads, six on two cores, and passwords, lists and reads of the database need them.
    """
    run = contextvars.copy_context().run
    return await asyncio.get_running_loop().run_in_executor(_WAITING, run, work)


async def ended(*tasks: asyncio.Future[Any] | None) -> None:
    """Cancel tasks and return when they are over.

    They are asked again until they are: what they wait for may answer a cancellation with an error of its own, which
    they note, and go on.
    """
    waiting = {task for task in tasks if task is not None}
    while waiting:
        for task in waiting:
            task.cancel()
        over, waiting = await asyncio.wait(waiting, timeout=AGAIN_S)
        await asyncio.gather(*over, return_exceptions=True)  # what they ended with is known to nobody else
