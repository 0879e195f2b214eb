"""Whose password is checked next: one at a time, those first who guessed least, in a share of the processor.

A check is slow on purpose. So right passwords follow each other at once, and after a wrong one there is a pause:
strangers who guess from many addresses together get a quarter of one core, whatever the number of workers. Users take
turns: whoever guesses at one, from however many addresses, keeps those of that one waiting and no other.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from birthmark.clock import Clock
from birthmark.errors import BirthmarkError


class PasswordAttempt(NamedTuple):
    """Whose password is asked for, from where, and the wrong guesses of lately."""

    user: str
    address: str
    is_unknown: bool = False
    """There is no such user."""
    of_user: int = 0
    """At this user, from anywhere."""
    of_user_here: int = 0
    of_address: int = 0


SHARE = 0.25
MAX_WAITING = 512
GUESS_S = 0.16
"""About what a wrong one takes, with its pause."""


class _QueuedAttempt(NamedTuple):
    """One that waits; those of one user are compared."""

    of_user_here: int
    of_address: int
    number: int
    asked: PasswordAttempt
    turn: asyncio.Future[None]


@dataclass(slots=True)
class PasswordScheduler:
    """The queue before the slow check."""

    clock: Clock = field(repr=False)
    sent_away: Callable[[], BirthmarkError] = field(repr=False)
    """What is told to whoever is sent away."""
    share: float = SHARE
    """Of one core, for wrong ones."""
    _waiting: dict[str, list[_QueuedAttempt]] = field(default_factory=dict, init=False, repr=False)
    _waiting_of: Counter[str] = field(default_factory=Counter, init=False, repr=False)
    _numbers: "count[int]" = field(default_factory=count, init=False, repr=False)
    _is_busy: bool = field(default=False, init=False)

    async def check(self, asked: PasswordAttempt, is_right: Callable[[], Awaitable[bool]]) -> bool:
        """Return what `is_right` says, at its turn: users there are come first, so that names that somebody makes up by
        the thousand keep nobody waiting; then users at whom fewer wrong guesses were made, and of whom fewer wait;
        then fewer wrong guesses at this address, and whose address waits for less.

        Raise what `sent_away` makes for who was sent away.
        """
        self._waiting_of[asked.address] += 1
        try:
            await self._turn(asked)
        finally:
            self._waiting_of[asked.address] -= 1
            if not self._waiting_of[asked.address]:
                del self._waiting_of[asked.address]
        began, right = self.clock.monotonic(), False
        try:
            right = await is_right()
        finally:
            took = self.clock.monotonic() - began
            self._next(0.0 if right else took * (1 / self.share - 1))
        return right

    async def _turn(self, asked: PasswordAttempt) -> None:
        if not self._is_busy:
            self._is_busy = True
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        of_address = asked.of_address + self._waiting_of[asked.address] - 1
        one = _QueuedAttempt(asked.of_user_here, of_address, next(self._numbers), asked, turn)
        self._waiting.setdefault(asked.user, []).append(one)
        if sum(map(len, self._waiting.values())) > MAX_WAITING:
            self._send_away()
        try:
            await turn
        except asyncio.CancelledError:
            # It may have been given the turn at this very moment; or sent away, and then there is none to pass on.
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._next(0.0)
            raise

    def _order(self, user: str) -> tuple[object, ...]:
        best = min(self._waiting[user])
        return best.asked.is_unknown, best.asked.of_user, len(self._waiting[user]), best[:3]

    def _taken(self, user: str, one: _QueuedAttempt) -> asyncio.Future[None]:
        self._waiting[user].remove(one)
        if not self._waiting[user]:
            del self._waiting[user]
        return one.turn

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
