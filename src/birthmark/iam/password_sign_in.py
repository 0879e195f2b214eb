"""Password sign-in at a browser, with limits on guessing, and password management.

Three backoffs apply: per user and address, per user from unknown addresses, and per address over all users. From an
address where the user signed in before, only the first applies, so that guesses of others lock no user out. Unknown
user names are treated like known ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import ceil

from birthmark.actor import Actor
from birthmark.auth.password_check_scheduler import SHARE, PasswordAttempt, PasswordScheduler
from birthmark.auth.password_digests import hash_generated
from birthmark.auth.principals import MACHINE, Caller
from birthmark.errors import ChangedMeanwhileError, ThrottledError, UnauthenticatedError
from birthmark.iam import sign_in_model as store
from birthmark.iam.browser_sessions import BrowserSessions
from birthmark.iam.device_removal_quota import inviter_of
from birthmark.iam.login_backoff import Pauses
from birthmark.iam.model import MACHINE_USER, Invitation
from birthmark.iam.password_policy_and_hashes import Passwords, check_password
from birthmark.iam.service import InvitationRefusedError, People
from birthmark.iam.sign_in_model import Browser, Password
from birthmark.iam.store import ADD_INVITATION, INVITATION, INVITATIONS, REDEEM, REMOVE_INVITATIONS
from birthmark.net.quota_key import share_of
from birthmark.store import Changes, to_micros

OPENS_FOR = timedelta(minutes=2)
_OPENING, _OPENING_BYTES = "bmo", 32
_MAX_CHARS = 128
_MOST_ADDRESSES = 16
_FREE_HERE, _FREE_OF_USER, _FREE_OF_ADDRESS = 5, 20, 50
_ROWS, _ROW_EVERY_S = 60, 60.0
"""Limit of audit rows about wrong passwords: burst, then seconds per row."""


class SignInRefusedError(UnauthenticatedError):
    """User name or password is wrong."""

    code = "people.sign_in_refused"
    cause = "The user does not exist, or the password is wrong."
    fix = (
        "Try again. If you forgot the password, create a new invitation on the server's machine: `birthmark user "
        "invite NAME`"
    )
    for_a_person = "only the user knows the password"


class CurrentPasswordError(UnauthenticatedError):
    """The current password is missing or wrong."""

    code = "people.current_password"
    message = "The current password is missing or wrong"
    cause = "The current password of {user} is missing or wrong."
    fix = (
        "Enter the current password, or pass it in a file: `birthmark user password --current-file FILE`. If you "
        "forgot the password, create a new invitation on the server's machine: `birthmark user invite {user}`"
    )
    for_a_person = "only the user knows the password"
    user: str


class LinkRefusedError(UnauthenticatedError):
    """The link is unknown, used or expired."""

    code = "console.link_refused"
    cause = "A console link can be used only once, within two minutes. This link was already used or has expired."
    fix = "Create a new link on the server's machine: `birthmark console open`"
    for_a_person = "the user must open the new link in a browser"


class SignInPausedError(ThrottledError):
    """Sign-in is paused after too many wrong passwords."""

    code = "people.sign_in_paused"
    message = "Too many wrong passwords; retry in {wait_s} s"
    cause = (
        "Too many sign-in attempts from this address or for this user had a wrong password. Sign-in is paused for "
        "{wait_s} s."
    )
    fix = (
        "Retry after that time, or sign in from an address where the user has signed in before. Failures from other "
        "addresses do not pause sign-in from that address."
    )
    for_a_person = "the user must wait, then enter the correct password"
    wait_s: int


@dataclass(slots=True)
class SignIn:
    """Sign-in with a password, or with an invitation that sets one."""

    people: People = field(repr=False)
    sessions: BrowserSessions = field(repr=False)
    passwords: Passwords = field(repr=False)
    workers: int = 1
    """Number of workers: the guessing limit is shared between them."""
    _here: Pauses = field(init=False, repr=False)
    _of_user: Pauses = field(init=False, repr=False)
    _of_address: Pauses = field(init=False, repr=False)
    _guesses: PasswordScheduler = field(init=False, repr=False)
    _rows: float = field(default=_ROWS, init=False)
    _rows_at: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        frees = (_FREE_HERE, _FREE_OF_USER, _FREE_OF_ADDRESS)
        kept = (Pauses(ceil(free / self.workers), float(self.workers)) for free in frees)
        self._here, self._of_user, self._of_address = kept
        self._guesses = PasswordScheduler(self.people.clock, _sent_away, SHARE / self.workers)

    async def by_password(self, name: str, password: str, browser: Browser) -> str:
        """Sign in with a password and return a new session. Raise `SignInRefusedError`, `SignInPausedError`."""
        name = name[:_MAX_CHARS]
        row = await self._verify_password(name, password, browser.address)
        kept, share = row.hash, share_of(browser.address)
        addresses = (share, *(one for one in row.addresses if one != share))[:_MOST_ADDRESSES]
        if self.passwords.is_old(kept):
            kept = await self.passwords.digest(password)
        changed = store.PASSWORDS.row(replace(row, hash=kept, addresses=addresses))
        key = store.PASSWORDS.row(row)
        changes = self.people.guard_user(name).run(
            store.USE_PASSWORD,
            expect=1,
            otherwise=SignInRefusedError(),
            key_user_name=name,
            key_hash=key["hash"],
            hash=changed["hash"],
            addresses=changed["addresses"],
        )
        text = self.sessions.begin(changes, name, "password", row.let_in_by, browser)
        await self.people.commit(changes, name)
        return text

    async def has_password(self, name: str) -> bool:
        """Return whether the user has a password."""
        return await self._password(name) is not None

    async def invited(self, code: str) -> Invitation:
        """Return the valid invitation of a code. Raise `InvitationRefusedError`."""
        row = await self.people.database.one(INVITATION, digest=hash_generated(code[:_MAX_CHARS]))
        if row is None:
            raise InvitationRefusedError
        found = INVITATIONS.of(row)
        if found.ends_at <= self.people.clock.now() or found.user == MACHINE_USER:
            raise InvitationRefusedError
        return found

    async def accept(self, code: str, password: str, browser: Browser) -> str:
        """Redeem an invitation by setting the user's password; return a new session. Earlier sessions end.

        Raise `InvitationRefusedError`, `PasswordUnfitError`.
        """
        invitation = await self.invited(code)
        name = invitation.user
        check_password(password, name)
        digest = await self.passwords.digest(password)
        actor = Actor(f"user:{name}", {"from": browser.address})
        changes = self.redeeming(invitation).run(store.REMOVE_PASSWORD, user_name=name)
        await self._set(changes, name, digest, invitation.made_by, (share_of(browser.address),), actor=actor)
        text = self.sessions.begin(changes, name, "invitation", invitation.made_by, browser)
        self.sessions.forget(name)
        await self.people.commit(changes, name)
        return text

    def redeeming(self, invitation: Invitation) -> Changes:
        """Return changes that use up an invitation, guarded by the existence of its user."""
        return self.people.guard_user(invitation.user).run(
            REDEEM,
            expect=1,
            otherwise=InvitationRefusedError(),
            digest=invitation.digest,
            now=to_micros(self.people.clock.now()),
        )

    async def open(self, *, actor: str) -> tuple[str, datetime]:
        """Return the code of a single-use sign-in link for the local administrator, and its expiry."""
        code = f"{_OPENING}_{self.people.entropy.token(_OPENING_BYTES).hex()}"
        ends_at = self.people.clock.now() + OPENS_FOR
        changes = Changes().run(REMOVE_INVITATIONS, user_name=MACHINE_USER)
        changes.run(ADD_INVITATION, **INVITATIONS.row(Invitation(hash_generated(code), MACHINE_USER, ends_at, actor)))
        await self.people.database.commit(changes.audit(actor, "people.console_open", MACHINE_USER))
        return code, ends_at

    async def opened(self, code: str, browser: Browser) -> str:
        """Redeem a sign-in link and return a session of the local administrator. Raise `LinkRefusedError`."""
        digest = hash_generated(code[:_MAX_CHARS])
        row = await self.people.database.one(INVITATION, digest=digest)
        if row is None or INVITATIONS.of(row).user != MACHINE_USER:
            raise LinkRefusedError
        now = to_micros(self.people.clock.now())
        changes = Changes().run(REDEEM, expect=1, otherwise=LinkRefusedError(), digest=digest, now=now)
        text = self.sessions.begin(changes, MACHINE_USER, "console open", str(MACHINE.actor), browser)
        await self.people.commit(changes, MACHINE_USER)
        return text

    async def set_password(self, name: str, password: str, current: str, caller: Caller, address: str) -> None:
        """Set a user's password and end all sessions of that user.

        A user's own password requires the current one, if there is one. Raise `CurrentPasswordError`,
        `SignInPausedError`, `PasswordUnfitError`, `UserMissingError`.
        """
        changes = self.people.guard_user(name)
        check_password(password, name)
        let_in_by, addresses = inviter_of(caller.actor, caller.let_in_by), tuple[str, ...]()
        known: Password | None = await self._password(name)
        if caller.user == name:
            let_in_by = caller.let_in_by
            if known is not None:
                try:
                    known = await self._verify_password(name, current, address)
                except SignInRefusedError as error:
                    raise CurrentPasswordError(user=name) from error
                let_in_by, addresses = known.let_in_by, known.addresses
        digest = await self.passwords.digest(password)
        await self._set(changes, name, digest, let_in_by, addresses, actor=caller.actor, password=known)
        self.sessions.forget(name)
        await self.people.commit(changes, name)

    async def remove_password(self, name: str, *, actor: str) -> None:
        """Remove a user's password and end all sessions of that user."""
        changes = self.people.guard_user(name).run(store.REMOVE_PASSWORD, user_name=name)
        for statement in store.SIGNED_IN:
            changes.run(statement, user_name=name)
        changes.audit(actor, "people.password_remove", name)
        self.sessions.forget(name)
        await self.people.commit(changes, name)

    async def _set(
        self,
        changes: Changes,
        name: str,
        digest: str,
        let_in_by: str,
        addresses: tuple[str, ...],
        *,
        actor: str,
        password: Password | None = None,
    ) -> None:
        made = Password(name, digest, let_in_by, self.people.clock.now(), addresses)
        for statement in store.SIGNED_IN:
            changes.run(statement, user_name=name)
        again = ChangedMeanwhileError(what="The password")
        if password is not None:  # the one that was checked
            changes.run(store.DROP_PASSWORD, expect=1, otherwise=again, user_name=name, hash=password.hash)
        changes.run(store.ADD_PASSWORD, expect=1, otherwise=again, **store.PASSWORDS.row(made))
        changes.audit(actor, "people.password_set", name)

    async def _password(self, name: str) -> Password | None:
        row = await self.people.database.one(store.PASSWORD, user_name=name)
        return None if row is None else store.PASSWORDS.of(row)

    # Guessing

    async def _verify_password(self, name: str, password: str, address: str) -> Password:
        """Verify a user's password and return its row. Raise `SignInRefusedError`, `SignInPausedError`."""
        row, share = await self._password(name), share_of(address)
        kept = None if row is None else row.hash
        here = f"{name}\0{share}"
        counted: list[tuple[Pauses, str]] = [(self._here, here)]
        if row is None or share not in row.addresses:
            counted += [(self._of_user, name), (self._of_address, share)]
        self._check(counted)

        async def is_right() -> bool:
            self._check(counted)  # earlier ones in the queue were counted since
            right = await self.passwords.matches(password, kept)
            now = self.people.clock.monotonic()
            if not right:
                for pauses, who in counted:
                    pauses.failed(who, now)
            return right

        now = self.people.clock.monotonic()
        tries = [pauses.tries(who, now) for pauses, who in ((self._here, here), (self._of_address, share))]
        asked = PasswordAttempt(name, share, not self.people.has_user(name), self._of_user.tries(name, now), *tries)
        if not await self._guesses.check(asked, is_right) or row is None:
            await self._note_refused(name, address, self._here.tries(here, self.people.clock.monotonic()))
            raise SignInRefusedError
        self._here.passed(here)
        self._of_user.passed(name)  # not per address: an attacker may have an own user
        return row

    def _check(self, counted: Sequence[tuple[Pauses, str]]) -> None:
        now = self.people.clock.monotonic()
        wait_s = max(pauses.wait_s(who, now) for pauses, who in counted)
        if wait_s > 0:
            seconds = max(1, ceil(wait_s))
            raise SignInPausedError(wait_s=seconds, retry_after_s=seconds)

    async def _note_refused(self, name: str, address: str, count: int) -> None:
        """Audit a wrong password: the first failure, and each doubling of their number.

        At most one row a minute is written, however many clients guess. An unknown user name may be a password, so it
        is not recorded.
        """
        if count & (count - 1) or not self._has_room_for_row():
            return
        subject = name if self.people.has_user(name) else "unknown"
        changes = Changes().audit(
            Actor("stranger", {"from": address}), "people.sign_in_refused", subject, tries=max(count, 1)
        )
        await self.people.database.commit(changes)

    def _has_room_for_row(self) -> bool:
        now = self.people.clock.monotonic()
        self._rows = min(_ROWS, self._rows + (now - self._rows_at) / _ROW_EVERY_S)
        self._rows_at = now
        if self._rows < 1:
            return False
        self._rows -= 1
        return True


def _sent_away() -> SignInPausedError:
    return SignInPausedError(wait_s=1, retry_after_s=1)
