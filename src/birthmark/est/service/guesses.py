"""Whose password is checked next: one at a time, those first who guessed least, in a share of the processor.

A check is slow on purpose. So right passwords follow each other at once, and after a wrong one there is a pause:
strangers who guess from many addresses together get a quarter of one core, whatever the number of workers.
"""

import asyncio
import heapq
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeAlias

from birthmark.clock import Clock
from birthmark.est.rules.limits import EstThrottledError

Rank: TypeAlias = tuple[bool, int, int]
"""Whether there is no such user, how many wrong guesses the user had at this address lately, and the address with all
users, those that wait too."""
SHARE = 0.25
MAX_WAITING = 512
_GUESS_S = 0.16
"""About what a wrong one takes, with its pause."""


@dataclass(slots=True)
class Guesses:
    """The queue before the slow check."""

    clock: Clock = field(repr=False)
    share: float = SHARE
    """Of one core, for wrong ones."""
    _waiting: list[tuple[Rank, int, asyncio.Future[None]]] = field(default_factory=list, init=False, repr=False)
    _waiting_of: Counter[str] = field(default_factory=Counter, init=False, repr=False)
    _numbers: "count[int]" = field(default_factory=count, init=False, repr=False)
    _is_busy: bool = field(default=False, init=False)

    async def check(self, address: str, rank: Rank, is_right: Callable[[], Awaitable[bool]]) -> bool:
        """Return what `is_right` says, at its turn: users there are come first, so that names that somebody makes up by
        the thousand keep no device waiting; then fewer wrong guesses, then whose address waits for less.

        Raise `EstThrottledError` for who was sent away.
        """
        is_unknown, of_user, of_address = rank
        self._waiting_of[address] += 1
        try:
            await self._turn((is_unknown, of_user, of_address + self._waiting_of[address] - 1))
        finally:
            self._waiting_of[address] -= 1
            if not self._waiting_of[address]:
                del self._waiting_of[address]
        began, right = self.clock.monotonic(), False
        try:
            right = await is_right()
        finally:
            took = self.clock.monotonic() - began
            self._next(0.0 if right else took * (1 / self.share - 1))
        return right

    async def _turn(self, rank: Rank) -> None:
        if not self._is_busy:
            self._is_busy = True
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (rank, next(self._numbers), turn))
        if len(self._waiting) > MAX_WAITING:
            self._send_away()
        try:
            await turn
        except asyncio.CancelledError:
            # It may have been given the turn at this very moment; or sent away, and then there is none to pass on.
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._next(0.0)
            raise

    def _send_away(self) -> None:
        worst = max(self._waiting)
        self._waiting.remove(worst)
        heapq.heapify(self._waiting)
        if not worst[2].done():
            facts: dict[str, Any] = {
                "who": "All who ask by password together",
                "burst": MAX_WAITING,
                "every_s": _GUESS_S,
            }
            worst[2].set_exception(EstThrottledError(retry_after_s=1, wait_s=1, **facts))

    def _next(self, pause_s: float) -> None:
        if pause_s > 0:
            asyncio.get_running_loop().call_later(pause_s, self._next, 0.0)
            return
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._is_busy = False
