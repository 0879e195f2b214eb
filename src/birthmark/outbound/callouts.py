"""Callouts to external programs: one JSON POST, one response.

Concurrent and waiting calls per program are limited.
"""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Hashable, Mapping
from typing import Protocol
from urllib.parse import urlsplit

from birthmark.errors import ThrottledError
from birthmark.fair_semaphore import FairSemaphore
from birthmark.outbound.http_client import NotAnsweredError

PATIENCE_S = 5.0
MAX_ANSWER_BYTES = 64 * 1024
MOST_AT_ONCE, MOST_WAITING, MOST_OF_ONE = 16, 64, 32
"""Limits per program: concurrent calls, all calls, and calls of one caller.

The last two include concurrent calls.
"""
_MAX_KNOWN = 1024


class QuestionsWaitError(ThrottledError):
    """Too many requests are waiting for an external program."""

    code = "outbound.questions_wait"
    cause = "{host} responds too slowly: {most} requests are waiting for its response."
    fix = "Retry, as the SDKs do automatically. If the error persists, make the external program respond faster."
    for_a_person = "the external program is the user's own"
    host: str
    most: int


class Ask(Protocol):
    """HTTP client interface of callouts."""

    async def fetch(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, limit: int
    ) -> tuple[int, bytes]:
        """Return status and body of a response. Raise a `BirthmarkError` if there is none."""
        ...


class _CalloutQueue:
    """Callers of one program: some active, others waiting, in fair order."""

    __slots__ = ("asking", "turns")

    def __init__(self) -> None:
        self.turns = FairSemaphore(MOST_AT_ONCE)
        self.asking: Counter[str] = Counter()


class CalloutClient:
    """Calls external programs; each has its own queue, so that a slow one does not delay the others."""

    def __init__(self, outside: Ask) -> None:
        self._outside = outside
        self._lines: OrderedDict[Hashable, _CalloutQueue] = OrderedDict()

    async def ask(
        self, line: Hashable, whose: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes]:
        """Return status and body of the response of the program at `url`.

        Callers of one `line` share a queue; `whose` identifies the caller for fair scheduling.

        Raise `NotAnsweredError`, `QuestionsWaitError` if the wait is too long, or the reason why the call is not
        permitted.
        """
        host, own = urlsplit(url).hostname or "", self._line(line)
        if (most := own.asking.total()) >= MOST_WAITING or (most := own.asking[whose]) >= MOST_OF_ONE:
            raise QuestionsWaitError(host=host, most=most, retry_after_s=1)
        own.asking[whose] += 1
        is_asked = False
        try:
            async with asyncio.timeout(PATIENCE_S) as patience, own.turns.of(whose):
                is_asked = True
                patience.reschedule(asyncio.get_running_loop().time() + PATIENCE_S)
                return await self._outside.fetch("POST", url, headers, body, MAX_ANSWER_BYTES)
        except TimeoutError as error:
            if not is_asked:
                raise QuestionsWaitError(host=host, most=own.asking.total(), retry_after_s=1) from error
            raise NotAnsweredError(host=host, reason=f"no answer in {PATIENCE_S:g} s") from error
        finally:
            own.asking[whose] -= 1
            own.asking += Counter()  # drops zero entries

    def _line(self, line: Hashable) -> _CalloutQueue:
        """Return a queue; the oldest empty queues are dropped."""
        own = self._lines.setdefault(line, _CalloutQueue())
        self._lines.move_to_end(line)
        while len(self._lines) > _MAX_KNOWN:
            oldest = next((name for name, one in self._lines.items() if not one.asking and one is not own), None)
            if oldest is None:
                break
            del self._lines[oldest]
        return own
