"""Adaptive concurrency for a target: fewer and later requests after throttling, more requests after success.

As in TCP, throttling halves the limit, and a complete round without throttling adds one. Vendors state quotas per
minute (Azure DPS) or per second (AWS IoT), and share them among all clients of an account.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from birthmark.clock_and_entropy import Clock, Entropy, SystemClock, SystemEntropy
from birthmark.errors import ThrottledError

T = TypeVar("T")
_ATTEMPTS = 8
_MOST_S = 60.0
_DICE = 2**16
_WORTH_TELLING_S = 4.0
Says: TypeAlias = Callable[[float], None]
"""Called from any thread with the seconds for which requests pause."""


def silent(_seconds: float) -> None:
    """Report nothing."""


@dataclass(slots=True)
class AdaptiveConcurrency:
    """Number of concurrent requests, and the time from which they may be sent (monotonic seconds).

    It adapts to the outcome of each request.
    """

    most: int = 8
    limit: int = 8
    resume_at: float = 0.0
    _since: int = 0
    """Number of responses since the limit changed."""
    _halved_at: float = -1.0
    rounds: int = 0
    """Number of consecutive rounds without a response."""

    def answered(self) -> None:
        """Record a successful response."""
        self._since, self.rounds = self._since + 1, 0
        if self._since >= self.limit < self.most:
            self.limit, self._since = self.limit + 1, 0

    def throttled(self, now: float, attempt: int, wait_s: float, dice: float) -> None:
        """Record a throttled request on its attempt number `attempt`; `dice` is from 0 to 1.

        Requests in flight are often throttled together, which counts once.
        """
        if now >= self._halved_at:
            self.limit, self._since, self.rounds = max(1, self.limit // 2), 0, self.rounds + 1
        pause = min(_MOST_S, max(wait_s, 2.0 ** max(attempt, self.rounds)))
        self.resume_at = max(self.resume_at, now + pause * (0.5 + dice / 2 if not wait_s else 1 + dice / 4))
        self._halved_at = self.resume_at


class PacedTarget:
    """Requests to a target at an adaptive rate, from several threads."""

    def __init__(
        self, limit: int, clock: Clock | None = None, entropy: Entropy | None = None, says: Says = silent
    ) -> None:
        self._says = says
        self._clock, self._entropy = clock or SystemClock(), entropy or SystemEntropy()
        self.pace = AdaptiveConcurrency(limit, limit)
        self._turn = threading.Condition()
        self._asking = 0
        self._is_over = False

    def ask(self, question: Callable[[], T], may_repeat: Callable[[], bool] = lambda: True) -> T:
        """Return the result of the request. Retry after a `ThrottledError`; raise it if throttling persists.

        It persists if this request, or all requests of all threads, were throttled too often.
        """
        attempt, refused = 0, None
        while True:
            with self._taking_turns():
                if refused is not None and self._is_over:  # the retry is due later, but the run ended
                    raise refused
                try:
                    answer = question()
                except ThrottledError as error:
                    attempt += 1
                    self._learn(attempt, error.retry_after_s)
                    if max(attempt, self.pace.rounds) >= _ATTEMPTS or self._is_over or not may_repeat():
                        raise
                    refused = error
                else:
                    with self._turn:
                        self.pace.answered()
                    return answer

    def stop(self) -> None:
        """Stop: no thread waits for a retry any longer."""
        with self._turn:
            self._is_over = True
            self._turn.notify_all()

    @contextmanager
    def _taking_turns(self) -> Iterator[None]:
        with self._turn:
            # Read the clock once a round: a caller that waits without limit waits for a running request, which wakes
            # it.
            while not self._is_over and ((wait_s := self._wait_s()) > 0 or self._asking >= self.pace.limit):
                self._turn.wait(wait_s or None)
            self._asking += 1
        try:
            yield
        finally:
            with self._turn:
                self._asking -= 1
                self._turn.notify_all()

    def _wait_s(self) -> float:
        return max(0.0, self.pace.resume_at - self._clock.monotonic())

    def _learn(self, attempt: int, wait_s: float) -> None:
        dice = int.from_bytes(self._entropy.token(2)) / _DICE
        with self._turn:
            before = self.pace.rounds
            self.pace.throttled(self._clock.monotonic(), attempt, wait_s, dice)
            pause_s = self._wait_s() if self.pace.rounds > before else 0  # of several in flight, one reports
        if pause_s >= _WORTH_TELLING_S:
            self._says(pause_s)
