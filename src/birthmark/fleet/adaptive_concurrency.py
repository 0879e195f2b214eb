"""How fast a target is asked: fewer at once, and later, when it says that it is too much; more again when it does not.

As TCP does it: half as many after a refusal, one more after a whole round without any. Vendors tell their quotas a
minute (Azure DPS) or a second (AWS IoT), and share them with whoever else works at the same account.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from birthmark.clock import Clock, Entropy, SystemClock, SystemEntropy
from birthmark.errors import ThrottledError

T = TypeVar("T")
_ATTEMPTS = 8
_MOST_S = 60.0
_DICE = 2**16
_WORTH_TELLING_S = 4.0
Says: TypeAlias = Callable[[float], None]
"""Told, by any thread, for how many seconds nobody will ask."""


def silent(_seconds: float) -> None:
    """Say nothing."""


@dataclass(slots=True)
class AdaptiveConcurrency:
    """How many may ask at once, and from when on (monotonic seconds). Told what became of each question."""

    most: int = 8
    limit: int = 8
    resume_at: float = 0.0
    _since: int = 0
    """How many were answered since the limit changed."""
    _halved_at: float = -1.0
    rounds: int = 0
    """How often in a row nothing was answered."""

    def answered(self) -> None:
        """Learn that a question was answered."""
        self._since, self.rounds = self._since + 1, 0
        if self._since >= self.limit < self.most:
            self.limit, self._since = self.limit + 1, 0

    def throttled(self, now: float, attempt: int, wait_s: float, dice: float) -> None:
        """Learn that it was too much, the `attempt`th time for this question; `dice` is from 0 to 1.

        Several that were under way are told the same at once: that counts once.
        """
        if now >= self._halved_at:
            self.limit, self._since, self.rounds = max(1, self.limit // 2), 0, self.rounds + 1
        pause = min(_MOST_S, max(wait_s, 2.0 ** max(attempt, self.rounds)))
        self.resume_at = max(self.resume_at, now + pause * (0.5 + dice / 2 if not wait_s else 1 + dice / 4))
        self._halved_at = self.resume_at


class PacedTarget:
    """Asks a target at a pace that it bears, from several threads."""

    def __init__(
        self, most: int, clock: Clock | None = None, entropy: Entropy | None = None, says: Says = silent
    ) -> None:
        self._says = says
        self._clock, self._entropy = clock or SystemClock(), entropy or SystemEntropy()
        self.pace = AdaptiveConcurrency(most, most)
        self._turn = threading.Condition()
        self._asking = 0
        self._is_over = False

    def ask(self, question: Callable[[], T], may_repeat: Callable[[], bool] = lambda: True) -> T:
        """Return what the question returns. Ask again after a `ThrottledError`; raise it when it does not end.

        It does not end when this question was refused so often, or all were, whoever asked.
        """
        attempt, refused = 0, None
        while True:
            with self._taking_turns():
                if refused is not None and self._is_over:  # it was to come later, and there is no later
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
        """Let nobody wait for another turn: the run is over."""
        with self._turn:
            self._is_over = True
            self._turn.notify_all()

    @contextmanager
    def _taking_turns(self) -> Iterator[None]:
        with self._turn:
            # The clock is read once a round: whoever waits without end waits for one who asks, and is told.
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
            pause_s = self._wait_s() if self.pace.rounds > before else 0  # of several under way, one tells it
        if pause_s >= _WORTH_TELLING_S:
            self._says(pause_s)
