"""One watch for all links that wait for the same new messages."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator

from birthmark.supervised_tasks import note


class SharedWatch:
    """Wakes its links when messages may be available; runs while there are links."""

    def __init__(self, wait: Callable[[], Awaitable[bool]], what: str) -> None:
        """`wait` returns after some time, and whether there may be messages; `what` names it in the log."""
        self._wait = wait
        self._what = what
        self._task: asyncio.Task[None] | None = None
        self._links: set[asyncio.Event] = set()

    @contextlib.contextmanager
    def waking(self, link: asyncio.Event) -> Iterator[None]:
        """Set a link's event whenever messages may be available."""
        self._links.add(link)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._watch())
        try:
            yield
        finally:
            self._links.discard(link)
            if not self._links and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _watch(self) -> None:
        while True:
            try:
                if await self._wait():
                    for link in self._links:
                        link.set()
            except Exception as error:  # noqa: BLE001 - any error: links also look by themselves
                note(self._what, error)
                await asyncio.sleep(1.0)
