"""Until every worker has handled an event: what a revocation waits for.

A worker that is told answers, and has then forgotten what it knew and ended what it has to. One that does not answer is
told again for as long as its lease runs; then it is dead, and may do nothing more that counts, whatever it remembers.
One that joins later reads everything anew.

Not here: how it is told, and what its lease is (an adapter's).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from birthmark.errors import BirthmarkError


async def confirmed_by(
    workers: Iterable[str],
    tell: Callable[[str], Awaitable[bool]],
    is_alive: Callable[[str], Awaitable[bool]],
    pause: Callable[[], Awaitable[None]],
) -> None:
    """Return when each of `workers` has handled what it was told, or its lease has run out.

    `workers` are those that lived after what is told was committed. `tell` says whether an answer came in its time;
    `lives` whether the lease still runs, and while it cannot say (`BirthmarkError`) the worker counts as alive. There
    is a `pause` before a worker is told again.
    """

    async def is_owed(worker: str) -> bool:
        if await tell(worker):
            return False
        try:
            return await is_alive(worker)
        except BirthmarkError:
            return True

    async def has_confirmed(worker: str) -> None:
        while await is_owed(worker):
            await pause()

    await asyncio.gather(*(has_confirmed(worker) for worker in workers))
