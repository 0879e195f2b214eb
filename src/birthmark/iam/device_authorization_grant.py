"""Device authorization grant for commands on other machines (RFC 8628).

The command displays a code, and a user enters it in a browser. The page displays the requesting machine and its
address, and the user approves or rejects the request. The command polls with its own secret. It receives a token as
from an invitation.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil
from typing import Any, NamedTuple

from birthmark.actor import Actor
from birthmark.auth.password_digests import hash_generated
from birthmark.auth.principals import Caller
from birthmark.errors import ForbiddenError, NotFoundError, ThrottledError
from birthmark.iam import sign_in_model as store
from birthmark.iam.login_backoff import Pauses
from birthmark.iam.password_sign_in import SignInPausedError
from birthmark.iam.service import SIGNED_IN_FOR, CreatedToken, People
from birthmark.iam.sign_in_model import PendingDeviceLogin
from birthmark.net.quota_key import share_of
from birthmark.store import Changes, to_micros

HOLDS, EVERY_S = timedelta(minutes=10), 2
_SLOWER_S, _SLOWEST_S, _EARLY = 5, 60, timedelta(seconds=0.5)
_ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
"""Alphabet without vowels, so that no code is a word (RFC 8628 section 6.1): 8 characters are 34 bits."""
_CODE_CHARS, _SECRET_BYTES, _MAX_CHARS, _MAX_LABEL = 8, 32, 128, 64
_MOST, _MOST_OF_ADDRESS = 500, 10
_LIKELY = 256 // len(_ALPHABET) * len(_ALPHABET)
_FREE = 5


class CodeUnknownError(NotFoundError):
    """No sign-in request has this code."""

    code = "people.code_unknown"
    message = "No sign-in request has this code"
    cause = "No sign-in request has this code: the code was already used, expired after 10 minutes, or is mistyped."
    fix = "Check the code, or start again: `birthmark login URL`"
    for_a_person = "the user has to sign in with the command and in the browser"


class CodeRejectedError(ForbiddenError):
    """The user at the browser rejected the sign-in."""

    code = "people.code_rejected"
    cause = "{user} rejected the sign-in request of this command."
    fix = "Contact {user}. To request the sign-in again: `birthmark login URL`"
    for_a_person = "another user has to approve the sign-in"
    user: str


class TooManyAskingError(ThrottledError):
    """Too many sign-in requests are pending."""

    code = "people.too_many_asking"
    cause = "{count} sign-in requests are pending from this address or in total, which is the limit."
    fix = "Retry in 10 minutes, or sign in with an invitation: `birthmark login FILE`"
    for_a_person = "the pending requests expire with time"
    count: int


class DeviceCodeGrant(NamedTuple):
    """Response to a command that starts the device authorization grant."""

    secret: str
    code: str
    ends_at: datetime


@dataclass(slots=True)
class DeviceCodeFlow:
    """Pending device authorizations."""

    people: People = field(repr=False)
    _guesses: Pauses = field(default_factory=lambda: Pauses(_FREE), init=False, repr=False)

    async def begin(self, label: str, address: str) -> DeviceCodeGrant:
        """Start a device authorization and return its codes; `address` is the command's. Raise `TooManyAskingError`."""
        now = self.people.clock.now()
        waiting = [store.ASKING.of(row) for row in await self.people.database.all(store.ALL_ASKING, now=to_micros(now))]
        here = [one for one in waiting if share_of(one.address) == share_of(address)]
        leaves = _leaving(waiting, len(here)) if len(waiting) >= _MOST else None
        if len(here) >= _MOST_OF_ADDRESS or (leaves is None and len(waiting) >= _MOST):
            raise TooManyAskingError(count=len(waiting), retry_after_s=ceil(HOLDS.total_seconds() / 10))
        secret, code = self.people.entropy.token(_SECRET_BYTES).hex(), self._code()
        made = PendingDeviceLogin(
            hash_generated(secret), code, label[:_MAX_LABEL], address, now + HOLDS, EVERY_S, now - HOLDS
        )
        again = TooManyAskingError(count=len(waiting), retry_after_s=1)  # duplicate code, practically impossible
        changes = Changes().run(store.PURGE_ASKING, now=to_micros(now))
        if leaves is not None:
            changes.run(store.GIVE_UP_ASKING, digest=leaves.digest)
        changes.run(store.ADD_ASKING, expect=1, otherwise=again, **store.ASKING.row(made))
        await self.people.database.commit(changes)
        return DeviceCodeGrant(secret, printable_code(code), made.ends_at)

    async def find(self, typed: str, caller: Caller) -> PendingDeviceLogin:
        """Return the pending sign-in of a user code. Raise `CodeUnknownError`, `SignInPausedError`."""
        who, now = str(caller.user), self.people.clock.monotonic()
        if (wait_s := ceil(self._guesses.wait_s(who, now))) > 0:
            raise SignInPausedError(wait_s=wait_s, retry_after_s=wait_s)
        row = await self.people.database.one(store.ASKING_BY_CODE, code=_normalize_code(typed))
        found = None if row is None else store.ASKING.of(row)
        if found is None or found.user is not None or found.ends_at <= self.people.clock.now():
            self._guesses.failed(who, now)
            raise CodeUnknownError
        self._guesses.passed(who)
        return found

    async def decide(self, typed: str, caller: Caller, *, is_agreed: bool) -> PendingDeviceLogin:
        """Approve or reject the sign-in of a command. Raise `CodeUnknownError`, `SignInPausedError`."""
        found, now = await self.find(typed, caller), self.people.clock.now()
        changes = self.people.guard_user(str(caller.user)).run(
            store.DECIDE_ASKING,
            expect=1,
            otherwise=CodeUnknownError(),
            key_digest=found.digest,
            now=to_micros(now),
            user_name=caller.user,
            let_in_by=caller.let_in_by,
            is_agreed=int(is_agreed),
        )
        action = "people.command_let_in" if is_agreed else "people.command_refused"
        changes.audit(caller.actor, action, str(caller.user), label=found.label, at=found.address)
        await self.people.database.commit(changes)
        return found

    async def poll_token(self, secret: str, address: str) -> CreatedToken | int:
        """Return the token of an approved command, once; until the decision, the seconds to the next poll.

        Raise `CodeUnknownError`, `CodeRejectedError`.
        """
        row = await self.people.database.one(store.ASKING_BY_DIGEST, digest=hash_generated(secret[:_MAX_CHARS]))
        found, now = None if row is None else store.ASKING.of(row), self.people.clock.now()
        if found is None or found.ends_at <= now:
            raise CodeUnknownError
        if found.user is None:
            return await self._record_poll(found, now)
        taking: Mapping[str, Any] = {"digest": found.digest, "is_agreed": int(bool(found.is_agreed))}
        changes = self.people.guard_user(found.user)
        changes.run(store.TAKE_ASKING, expect=1, otherwise=CodeUnknownError(), now=to_micros(now), **taking)
        if not found.is_agreed:
            await self.people.database.commit(changes)
            raise CodeRejectedError(user=found.user)
        actor, let_in_by = Actor(f"user:{found.user}", {"from": address}), str(found.let_in_by)
        made = self.people.token_in(
            changes, found.user, found.label, now + SIGNED_IN_FOR, made_by=let_in_by, actor=actor
        )
        await self.people.commit(changes, found.user)
        return made

    async def _record_poll(self, login: PendingDeviceLogin, now: datetime) -> int:
        """Record a poll; a client that polls too early gets a longer interval (RFC 8628 section 3.5).

        Once the interval is at its maximum, early polls are no longer recorded.
        """
        is_early = now - login.asked_at < timedelta(seconds=login.interval_s) - _EARLY
        if is_early and login.interval_s + _SLOWER_S > _SLOWEST_S:
            return login.interval_s
        interval_s = login.interval_s + _SLOWER_S if is_early else login.interval_s
        key: dict[str, Any] = {"key_digest": login.digest, "key_asked_at": to_micros(login.asked_at)}
        changes = Changes().run(store.SLOW_ASKING, asked_at=to_micros(now), interval_s=interval_s, **key)
        await self.people.database.commit(changes)
        return interval_s

    def _code(self) -> str:
        """Return a random code of uniformly distributed characters."""
        found = ""
        while len(found) < _CODE_CHARS:
            usable = (byte for byte in self.people.entropy.token(_CODE_CHARS) if byte < _LIKELY)
            found += "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in usable)
        return found[:_CODE_CHARS]


def _leaving(waiting: Sequence[PendingDeviceLogin], here: int) -> PendingDeviceLogin | None:
    """Return the pending sign-in to evict when all slots are taken, or None.

    It is the oldest of the address with the most, if that has more than the new request's address. So no client can
    fill the slots of others, however many addresses it has.
    """
    counts = Counter(share_of(one.address) for one in waiting)
    undecided = [one for one in waiting if one.user is None and counts[share_of(one.address)] > here + 1]
    return min(undecided, key=lambda one: (-counts[share_of(one.address)], one.ends_at), default=None)


def printable_code(code: str) -> str:
    """Return a code formatted for display."""
    half = len(code) // 2
    return f"{code[:half]}-{code[half:]}"


def _normalize_code(typed: str) -> str:
    """Return the code from user input, without separators."""
    return "".join(char for char in typed[:_MAX_CHARS].upper() if char in _ALPHABET)
