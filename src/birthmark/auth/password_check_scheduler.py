"""Password check scheduler: one check at a time, fewest wrong guesses first, with a limited CPU share.

A check is slow on purpose. Correct passwords follow each other immediately; a wrong one is followed by a pause. All
unauthenticated clients together therefore get a quarter of one core, whatever the number of workers and addresses.
Users take turns: guesses at one user, from any number of addresses, delay only that user.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from birthmark.clock_and_entropy import Clock
from birthmark.errors import BirthmarkError


class PasswordAttempt(NamedTuple):
    """Password attempt: user, address, and recent wrong guesses."""

    user: str
    address: str
    is_unknown: bool = False
    """Whether the user does not exist."""
    of_user: int = 0
    """Recent wrong guesses for this user, from any address."""
    of_user_here: int = 0
    of_address: int = 0


SHARE = 0.25
MAX_WAITING = 512
GUESS_S = 0.16
"""Approximate duration of a wrong guess, including its pause."""


class _QueuedAttempt(NamedTuple):
    """A queued attempt, ordered within its user."""

    of_user_here: int
    of_address: int
    number: int
    asked: PasswordAttempt
    turn: asyncio.Future[None]


@dataclass(slots=True)
class PasswordScheduler:
    """Queue of password attempts before the slow hash check."""

    clock: Clock = field(repr=False)
    sent_away: Callable[[], BirthmarkError] = field(repr=False)
    """Creates the error for a rejected attempt."""
    share: float = SHARE
    """Share of one core for wrong guesses."""
    _waiting: dict[str, list[_QueuedAttempt]] = field(default_factory=dict, init=False, repr=False)
    _waiting_of: Counter[str] = field(default_factory=Counter, init=False, repr=False)
    _numbers: "count[int]" = field(default_factory=count, init=False, repr=False)
    _is_busy: bool = field(default=False, init=False)

    async def check(self, attempt: PasswordAttempt, is_right: Callable[[], Awaitable[bool]]) -> bool:
        """Return the result of `is_right` once the attempt is scheduled.

        Existing users have priority, so that made-up names delay none of them. Next are users with fewer wrong guesses
        and fewer queued attempts. Last are addresses with fewer wrong guesses and fewer queued attempts.

        Raise the error of `sent_away` if the attempt is rejected.
        """
        self._waiting_of[attempt.address] += 1
        try:
            await self._turn(attempt)
        finally:
            self._waiting_of[attempt.address] -= 1
            if not self._waiting_of[attempt.address]:
                del self._waiting_of[attempt.address]
        began, right = self.clock.monotonic(), False
        try:
            right = await is_right()
        finally:
            took = self.clock.monotonic() - began
            self._next(0.0 if right else took * (1 / self.share - 1))
        return right

    async def _turn(self, attempt: PasswordAttempt) -> None:
        if not self._is_busy:
            self._is_busy = True
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        of_address = attempt.of_address + self._waiting_of[attempt.address] - 1
        one = _QueuedAttempt(attempt.of_user_here, of_address, next(self._numbers), attempt, turn)
        self._waiting.setdefault(attempt.user, []).append(one)
        if sum(map(len, self._waiting.values())) > MAX_WAITING:
            self._send_away()
        try:
            await turn
        except asyncio.CancelledError:
            # The turn may arrive at this moment and must be passed on; a cancelled waiter has none.
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._next(0.0)
            raise

    def _order(self, user: str) -> tuple[object, ...]:
        best = min(self._waiting[user])
        return best.asked.is_unknown, best.asked.of_user, len(self._waiting[user]), best[:3]

    def _taken(self, user: str, attempt: _QueuedAttempt) -> asyncio.Future[None]:
        self._waiting[user].remove(attempt)
        if not self._waiting[user]:
            del self._waiting[user]
        return attempt.turn

    def _send_away(self) -> None:
        user = max(self._waiting, key=self._order)
        worst = self._taken(user, max(self._waiting[user]))
        if not worst.done():
            worst.set_exception(self.sent_away())

    def _next(self, pause_s: float) -> None:
        if pause_s > 0:
            asyncio.get_running_loop().call_later(pause_s, self._next, 0.0)
            return
        while self._waiting:
            user = min(self._waiting, key=self._order)
            turn = self._taken(user, min(self._waiting[user]))
            if not turn.done():
                turn.set_result(None)
                return
        self._is_busy = False
