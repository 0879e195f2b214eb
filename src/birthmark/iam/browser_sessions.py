"""Browser sessions: created at sign-in, kept in memory like tokens, ended at once at every worker.

The browser holds `bms_ID_SECRET`, followed by the machine user where the session is bound to one. The server stores the
digest of the complete text. A session ends an hour after its last use, and half a day after its start.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from birthmark.actor import Actor
from birthmark.auth.password_digests import generated_matches, hash_generated
from birthmark.auth.principals import MACHINE, Caller
from birthmark.errors import NotFoundError, UnauthenticatedError
from birthmark.iam import sign_in_model as store
from birthmark.iam.model import MACHINE_USER
from birthmark.iam.service import People
from birthmark.iam.sign_in_model import Browser, BrowserSession
from birthmark.net.fair_scheduler import count_for
from birthmark.store import Changes, to_micros
from birthmark.store.pagination import every
from birthmark.untrusted_json_and_text import whole_number

IDLE, LONGEST = timedelta(hours=1), timedelta(hours=12)
_NOTED_EVERY = timedelta(minutes=5)
_LOOK_EVERY_S = 30.0
_BEGIN = "bms"
_ID_BYTES, _SECRET_BYTES = 6, 32
_MAX_CHARS, _MAX_LABEL = 128, 64
_MOST_OF_ONE = 20
_USER_AT = 3


class SessionEndedError(UnauthenticatedError):
    """The browser is not signed in."""

    code = "people.session_ended"
    cause = "The browser has no valid session: the user never signed in, or the session was ended or has expired."
    fix = "Sign in again on the page /signin of this server."
    for_a_person = "the user at the browser has to sign in"


class SessionMissingError(NotFoundError):
    """The session does not exist."""

    code = "people.session_missing"
    message = "Session {id} does not exist"
    fix = "List sessions: `birthmark session ls`"
    id: str


def machine_user_of(text: str) -> int | None:
    """Return the machine user that a session is bound to, from its text; None if it is not bound."""
    parts = text.split("_")
    return whole_number(parts[_USER_AT]) if len(parts) > _USER_AT else None


@dataclass(slots=True)
class BrowserSessions:
    """Browser sessions of all users."""

    people: People = field(repr=False)
    _all: dict[str, BrowserSession] = field(default_factory=dict, init=False, repr=False)
    _used: dict[str, datetime] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.people.read_too.append(self._read)

    async def _read(self) -> None:
        rows = await every(self.people.database, store.SESSIONS_PAGE, "id")
        self._all = {row["id"]: store.SESSIONS.of(row) for row in rows}

    # Who asks

    def caller(self, text: str, address: str, *, is_use: bool = True) -> Caller:
        """Return the caller of a session. Raise `SessionEndedError`.

        `is_use` is false for background requests of a page, which do not extend the session.
        """
        known, now = self._known(text), self.people.clock.now()
        if is_use and now - self._used_at(known) > _NOTED_EVERY:
            self._used[known.id] = now
        count_for(f"user:{known.user}")
        if known.user == MACHINE_USER:
            return replace(MACHINE, actor=Actor(MACHINE_USER, {"session": known.id, "from": address}))
        actor = self.people.actor(known.user, known.let_in_by, session=known.id, address=address)
        return Caller(actor, self.people.rights(known.user), known.user, let_in_by=known.let_in_by)

    def _known(self, text: str) -> BrowserSession:
        begin, _, rest = text[:_MAX_CHARS].partition("_")
        known = self._all.get(rest.partition("_")[0]) if begin == _BEGIN else None
        if known is None or not generated_matches(text, known.digest) or not self._is_alive(known):
            raise SessionEndedError
        return known

    def _is_alive(self, session: BrowserSession) -> bool:
        now = self.people.clock.now()
        is_there = session.user == MACHINE_USER or self.people.has_user(session.user)
        return is_there and now < session.ends_at and now < self._used_at(session) + IDLE

    def _used_at(self, session: BrowserSession) -> datetime:
        return max(session.used_at, self._used.get(session.id, session.used_at))

    async def keep_noting(self) -> None:
        """Periodically record which sessions were used, so that every worker knows."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            await self.note_used()

    async def note_used(self) -> None:
        """Store the last use of sessions."""
        used, self._used = self._used, {}
        alive = {name: at for name, at in used.items() if name in self._all}
        if not alive:
            return
        changes = Changes()
        for name, at in alive.items():
            changes.run(store.TOUCH_SESSION, key_id=name, used_at=to_micros(at))
        try:
            await self.people.commit(changes, self._all[next(iter(alive))].user)
        except BaseException:
            self._used = {**used, **self._used}
            raise

    # Creation and end

    def begin(self, changes: Changes, user: str, how: str, let_in_by: str, browser: Browser) -> str:
        """Add a new session to the changes and return the text for the browser."""
        name, now = self.people.entropy.token(_ID_BYTES).hex(), self.people.clock.now()
        text = f"{_BEGIN}_{name}_{self.people.entropy.token(_SECRET_BYTES).hex()}"
        text += "" if browser.machine_user is None else f"_{browser.machine_user}"
        address, agent, ends_at = browser.address, browser.agent[:_MAX_LABEL], now + LONGEST
        made = BrowserSession(name, user, hash_generated(text), how, address, agent, let_in_by, now, now, ends_at)
        for oldest in self.of(user)[: -(_MOST_OF_ONE - 1)]:
            changes.run(store.REMOVE_SESSION, id=oldest.id)
        if self.people.is_steady():
            changes.run(store.PURGE_SESSIONS, before=to_micros(now))
        changes.run(store.ADD_SESSION, **store.SESSIONS.row(made))
        who = MACHINE_USER if user == MACHINE_USER else f"user:{user}"
        changes.audit(Actor(who, {"from": address}), "people.sign_in", user, session=name, how=how)
        return text

    def of(self, user: str | None = None) -> Sequence[BrowserSession]:
        """Return active sessions, or those of one user, oldest first."""
        found = (one for one in self._all.values() if user in {None, one.user} and self._is_alive(one))
        return sorted(found, key=lambda one: (one.created_at, one.id))

    async def sign_out(self, text: str, address: str) -> None:
        """End the session; a session that has already ended is no error."""
        try:
            known = self._known(text)
        except SessionEndedError:
            return
        who = MACHINE_USER if known.user == MACHINE_USER else f"user:{known.user}"
        actor = Actor(who, {"session": known.id, "from": address})
        await self.end(known.id, of=known.user, actor=actor)

    async def end(self, name: str, *, of: str | None, actor: str) -> None:
        """End a session; with `of`, only a session of that user. Raise `SessionMissingError`."""
        known, missing = self._all.get(name), SessionMissingError(id=name[:_MAX_LABEL])
        if known is None or of not in {None, known.user}:
            raise missing
        changes = Changes().run(store.REMOVE_SESSION, expect=1, otherwise=missing, id=name)
        self._all.pop(name, None)  # before the reply, which may be lost
        await self.people.commit(changes.audit(actor, "people.session_end", known.user, id=name), known.user)

    async def end_all(self, user: str, *, actor: str) -> int:
        """End all sessions of a user and return their number."""
        ending = self.of(user)
        changes = Changes()
        for statement in store.SIGNED_IN:
            changes.run(statement, user_name=user)
        self.forget(user)
        await self.people.commit(changes.audit(actor, "people.session_end", user, id="*", count=len(ending)), user)
        return len(ending)

    def forget(self, user: str) -> None:
        """Invalidate a user's sessions in memory; they are reloaded after the change."""
        self._all = {name: one for name, one in self._all.items() if one.user != user}
