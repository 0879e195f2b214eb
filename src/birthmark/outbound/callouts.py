"""Questions to programs of the user: one POST of JSON, one answer; few at a time for each, and not many that wait."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Hashable, Mapping
from typing import Protocol
from urllib.parse import urlsplit

from birthmark.errors import ThrottledError
from birthmark.outbound.http_sender import NotAnsweredError
from birthmark.turns import FairSemaphore

PATIENCE_S = 5.0
MAX_ANSWER_BYTES = 64 * 1024
MOST_AT_ONCE, MOST_WAITING, MOST_OF_ONE = 16, 64, 32
"""The second and the third with those that are being asked."""
_MAX_KNOWN = 1024


class QuestionsWaitError(ThrottledError):
    """Too many requests are waiting for an external program."""

    code = "outbound.questions_wait"
    cause = "{host} responds too slowly: {most} requests are waiting for it."
    fix = "Retry, as the SDKs do automatically. If the error persists, make the program respond faster."
    for_a_person = "the program is the user's own"
    host: str
    most: int


class Ask(Protocol):
    """The way out."""

    async def fetch(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, most: int
    ) -> tuple[int, bytes]:
        """Return status and body of an answer. Raise a `BirthmarkError` where there is none."""
        ...


class _CalloutQueue:
    """Who asks one program: some do, and some wait, each asker in turn."""

    __slots__ = ("asking", "turns")

    def __init__(self) -> None:
        self.turns = FairSemaphore(MOST_AT_ONCE)
        self.asking: Counter[str] = Counter()


class Questions:
    """Asks programs; each has a line of its own, so that a slow one keeps nobody from the others."""

    def __init__(self, outside: Ask) -> None:
        self._outside = outside
        self._lines: OrderedDict[Hashable, _CalloutQueue] = OrderedDict()

    async def ask(
        self, line: Hashable, whose: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes]:
        """Return status and body of what the program at `url` answers.

        Askers of one `line` wait for each other; `whose` the question is says whose turn it takes.

        Raise `NotAnsweredError`, `QuestionsWaitError` where others keep it waiting for too long, or why it may not be
        asked.
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
            own.asking += Counter()  # forgets who asks nothing

    def _line(self, line: Hashable) -> _CalloutQueue:
        """Return a line; of those where nobody stands the oldest are forgotten."""
        own = self._lines.setdefault(line, _CalloutQueue())
        self._lines.move_to_end(line)
        while len(self._lines) > _MAX_KNOWN:
            oldest = next((name for name, one in self._lines.items() if not one.asking and one is not own), None)
            if oldest is None:
                break
            del self._lines[oldest]
        return own
