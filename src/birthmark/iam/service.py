"""Users, roles, tokens and invitations, all kept in memory."""

import base64
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from birthmark.actor import Actor
from birthmark.auth.access_token_cloud_credentials import UserCredential
from birthmark.auth.password_digests import generated_matches, hash_generated
from birthmark.auth.permission_statements import NOTHING, Right, Rights
from birthmark.auth.principals import Caller
from birthmark.clock_and_entropy import Clock, ClockStability, Entropy
from birthmark.errors import ConflictError, InvalidRequestError, NotFoundError, UnauthenticatedError
from birthmark.iam import approvals_model, sign_in_model, store
from birthmark.iam.approvals_model import SamePersonError, require_local_invitation
from birthmark.iam.device_removal_quota import DAY, MOST_A_DAY, holder_of, takes_of
from birthmark.iam.domain_events import PeopleChanged
from birthmark.iam.lasting_access_grants import restrict_to_one_device, restrict_wide_policies
from birthmark.iam.missing_right_errors import require_right
from birthmark.iam.model import (
    MACHINE_USER,
    RESERVED,
    SERVER,
    AccessToken,
    Invitation,
    RoleAssignment,
    User,
    UserRole,
    is_place,
)
from birthmark.iam.role_scope_ports import ANYWHERE, Commit, PlaceMissingError, ScopeDirectory
from birthmark.net.fair_scheduler import count_for
from birthmark.rate_limits import RateLimits
from birthmark.store import Changes, Database, to_micros
from birthmark.store.pagination import every
from birthmark.store.reloading_cache import ReloadingCache

INVITED_FOR = timedelta(days=2)
SIGNED_IN_FOR = timedelta(days=30)
MAX_LIFETIME = timedelta(days=366)
_ABOUT = timedelta(minutes=1)  # the end is reported before creation
_TOKEN, _INVITATION = "bmt", "bmi"
_ID_BYTES, _SECRET_BYTES = 6, 24
_MAX_CHARS = 128
_MAX_LABEL = 64
_MOST_OF_ONE = 200
_DAY_S = 86_400
_AWS = "aws"


class UserMissingError(NotFoundError):
    """The user does not exist."""

    code = "people.user_missing"
    message = "User {name} does not exist"
    fix = "List users: `birthmark user ls`. To create this user: `birthmark user create {name} --role viewer`"
    name: str


class UserExistsError(ConflictError):
    """The user already exists."""

    code = "people.user_exists"
    message = "User {name} already exists"
    fix = "Show the user: `birthmark user show {name}`. To invite the user again: `birthmark user invite {name}`"
    name: str


class NameReservedError(InvalidRequestError):
    """The name is reserved."""

    code = "people.name_reserved"
    cause = "The name {name} is reserved for the local administrator, an unauthenticated client, or the server itself."
    fix = "Choose another name. List users: `birthmark user ls`"
    name: str


class PlaceInvalidError(InvalidRequestError):
    """Not a scope for roles."""

    code = "people.place_invalid"
    cause = (
        "The scope {place} is not valid for a role. Valid scopes are '*' (everywhere), 'server', 'aws', 'hub/NAME' "
        "and 'dps/NAME'."
    )
    fix = "List scopes: `birthmark hub ls`, `birthmark dps ls`"
    place: str


class GrantMissingError(NotFoundError):
    """The user does not have this role at this scope."""

    code = "people.grant_missing"
    message = "{name} does not have the role {role} at {place}"
    fix = "Show the roles of {name}: `birthmark user show {name}`"
    name: str
    place: str
    role: str


class InvitationRefusedError(UnauthenticatedError):
    """The invitation is unknown, used or expired."""

    code = "people.invitation_refused"
    cause = "The invitation code is invalid or expired. Invitations are valid for two days and can be used once."
    fix = "Ask the inviting user to create a new invitation: `birthmark user invite NAME`"
    for_a_person = "the inviting user must create a new invitation"


class TokenRefusedError(UnauthenticatedError):
    """The token is unknown, revoked or expired."""

    code = "people.token_refused"
    cause = "The token in the request is unknown, revoked or expired."
    fix = "Request a new invitation, then sign in with the invitation file: `birthmark login FILE`"
    for_a_person = "this step requires an invitation or a signed-in user"


class TokenMissingError(NotFoundError):
    """The token does not exist."""

    code = "people.token_missing"
    message = "Token {id} does not exist"
    fix = "List tokens: `birthmark token ls`"
    id: str


class TokenLifetimeError(InvalidRequestError):
    """The lifetime of a token must be between a minute and a year."""

    code = "people.token_lifetime"
    cause = "The requested token lifetime is {seconds} s; it must be between 1 minute and 366 days."
    fix = "Use another lifetime: `birthmark token create --user {user} --lifetime 30d`"
    seconds: int
    user: str


class TooManyTokensError(ConflictError):
    """The user has the maximum number of tokens."""

    code = "people.too_many_tokens"
    cause = "{user} has {count} active tokens, or created {count} tokens within a day, which is the maximum."
    fix = "Delete an unused token, or wait 8 minutes. To list the tokens: `birthmark token ls`"
    for_a_person = "only the user knows which tokens are unused"
    count: int
    user: str


class CreatedToken(NamedTuple):
    """A new token with its text, which is displayed only once."""

    token: AccessToken
    text: str


@dataclass(slots=True)
class People:
    """Users, with their roles and access tokens."""

    database: Database = field(repr=False)
    clock: Clock = field(repr=False)
    entropy: Entropy = field(repr=False)
    most_taken: int = MOST_A_DAY
    """Maximum device removals per user and day; 0 for no limit."""
    places: ScopeDirectory = field(default=ANYWHERE, repr=False)
    read_too: list[Callable[[], Awaitable[None]]] = field(default_factory=list, init=False, repr=False)
    """Callbacks that reload related caches whenever users are reloaded."""
    _users: dict[str, User] = field(default_factory=dict, init=False, repr=False)
    _grants: Mapping[str, Sequence[RoleAssignment]] = field(default_factory=dict, init=False, repr=False)
    _tokens: dict[str, AccessToken] = field(default_factory=dict, init=False, repr=False)
    _rights: dict[str, Rights] = field(default_factory=dict, init=False, repr=False)
    _loading: ReloadingCache = field(init=False, repr=False)
    _steadiness: ClockStability = field(init=False, repr=False)
    _made: RateLimits = field(init=False, repr=False)
    """Rate of token creation per user: even a deleted token leaves rows in the audit trail."""

    def __post_init__(self) -> None:
        self._made = RateLimits(burst=_MOST_OF_ONE, per_s=_MOST_OF_ONE / _DAY_S, max_addresses=16384)
        self._steadiness = ClockStability(self.clock)
        self._loading = ReloadingCache(self.database, self._read, PeopleChanged)

    async def load(self) -> None:
        """Load the users."""
        await self._loading.load()

    async def stop(self) -> None:
        """Stop the background reload."""
        await self._loading.stop()

    async def _read(self) -> None:
        users = {row["name"]: store.USERS.of(row) for row in await every(self.database, store.USERS_PAGE, "name")}
        grants: dict[str, list[RoleAssignment]] = defaultdict(list)
        for row in await self.database.all(store.ALL_GRANTS):
            grant = store.GRANTS.of(row)
            grants[grant.user].append(grant)
        tokens = {row["id"]: store.TOKENS.of(row) for row in await every(self.database, store.TOKENS_PAGE, "id")}
        self._users, self._grants, self._tokens = users, grants, tokens
        self._rights = {name: Rights((tuple(one.statement for one in grants[name]),)) for name in users}
        for read in self.read_too:
            await read()

    # Who asks

    def caller(self, text: str, address: str) -> Caller:
        """Authenticate a token and return its caller. Raise `TokenRefusedError`."""
        known = self._known(text)
        count_for(f"user:{known.user}")
        return self._caller(known, address)

    def _caller(self, token: AccessToken, address: str) -> Caller:
        is_bound = token.statement is not None
        is_narrowed = is_bound or token.lifetime < SIGNED_IN_FOR - _ABOUT
        actor = self.actor(token.user, token.made_by, token=token.id, address=address)
        if is_narrowed:
            actor = Actor(str(actor), actor.told, restrict_to_one_device(actor.takes))
        caller = Caller(actor, self.rights_of(token), token.user, is_narrowed, is_bound, token.made_by)
        if not caller.rights.allow(Right.OPERATE, _AWS):
            takes = restrict_wide_policies(actor.takes, partial(require_right, caller, Right.OPERATE, _AWS))
            caller = replace(caller, actor=Actor(str(actor), actor.told, takes))
        return caller

    def rights_of(self, token: AccessToken) -> Rights:
        """Return the rights of a token: those of its user, within the token's limits."""
        rights = self.rights(token.user)
        return rights if token.statement is None else rights.within((token.statement,))

    def actor(self, user: str, let_in_by: str, *, address: str, **told: str) -> Actor:
        """Return a user as actor of audit rows, with address and details; device removals count against the quota."""
        takes = takes_of(holder_of(user, let_in_by), self.most_taken, self.clock.now()) if self.most_taken else None
        return Actor(f"user:{user}", {**told, "from": address}, takes)

    def actor_now(self, actor: str, rights: Sequence[Right], scope: str) -> str:
        """Return the actor of work that continues without a request; a user's removals count against the quota.

        Raise `RightMissingError` for a user who has not all of the rights any more. Other actors are unchanged.
        """
        kind, _, name = actor.partition(":")
        if kind != "user":
            return actor
        let_in_by = next((one.made_by for one in self._tokens.values() if one.user == name), "")
        made = self.actor(name, let_in_by, address="")
        for right in rights:
            require_right(Caller(made, self.rights(name), name), right, scope)
        return Actor(str(made), {}, made.takes)

    def rights(self, name: str) -> Rights:
        """Return a user's rights; none for an unknown user."""
        return self._rights.get(name, NOTHING)

    def find_user(self, token_id: str, address: str) -> UserCredential | None:
        """Return the credential of a token for request signing, or None.

        The token's digest is the user's signing key.
        """
        known = self._tokens.get(token_id)
        if known is None or known.ends_at <= self.clock.now():
            return None
        return UserCredential(self._caller(known, address), base64.b64decode(known.digest.rpartition("$")[2]))

    def _known(self, text: str) -> AccessToken:
        begin, _, rest = text[:_MAX_CHARS].partition("_")
        name, _, _ = rest.partition("_")
        known = self._tokens.get(name) if begin == _TOKEN else None
        if known is None or not generated_matches(text, known.digest) or known.ends_at <= self.clock.now():
            raise TokenRefusedError
        return known

    # Users

    def all(self) -> Sequence[User]:
        """Return every user, by name."""
        return sorted(self._users.values(), key=lambda one: one.name)

    def user(self, name: str) -> User:
        """Return a user. Raise `UserMissingError`."""
        if (found := self._users.get(name)) is None:
            raise UserMissingError(name=name[:_MAX_LABEL])
        return found

    def has_user(self, name: str) -> bool:
        """Return whether the user exists."""
        return name in self._users

    def is_steady(self) -> bool:
        """Return whether the clock is stable enough to purge expired records."""
        return self._steadiness.is_steady()

    def grants(self, name: str) -> Sequence[RoleAssignment]:
        """Return a user's role assignments."""
        return self._grants.get(name, ())

    async def create(self, name: str, role: UserRole | None, scope: str, *, actor: str) -> User:
        """Create a user with a role at a scope. Raise `UserExistsError`, `PlaceInvalidError`, `PlaceMissingError`."""
        grants = [] if role is None else [RoleAssignment(name, role, scope)]
        await self.commit(self.making(name, grants, actor=actor), name)
        return self.user(name)

    def making(self, name: str, grants: Sequence[RoleAssignment], *, actor: str) -> Changes:
        """Return the changes that create a user.

        Raise `UserExistsError`, `NameReservedError` and the errors of `grant`.
        """
        exists = UserExistsError(name=name)
        if name in self._users:
            raise exists
        if name.lower() in RESERVED:
            raise NameReservedError(name=name)
        user = User(name, self.clock.now(), str(actor))
        changes = Changes().run(store.ADD_USER, expect=1, otherwise=exists, **store.USERS.row(user))
        changes.audit(actor, "people.user_create", name)
        for one in grants:
            self._grant(changes, one, actor)
        return changes

    async def remove(self, name: str, *, actor: str) -> None:
        """Delete a user and revoke the user's tokens. Raise `UserMissingError`."""
        missing = UserMissingError(name=name)
        changes = Changes().run(store.REMOVE_USER, expect=1, otherwise=missing, name=name)
        changes.run(store.PURGE_ALLOWANCES, before=to_micros(self.clock.now()))  # this user's stays for its day
        own = (store.REMOVE_INVITATIONS, store.REMOVE_TOKENS, store.REMOVE_GRANTS)
        for statement in (*own, *sign_in_model.REMOVE_OF):
            changes.run(statement, user_name=name)
        changes.run(approvals_model.REMOVE_OF, user_name=name).run(approvals_model.REMOVE_BY, decided_by=name)
        self._rights.pop(name, None)  # before the reply, which may be lost
        await self.commit(changes.audit(actor, "people.user_remove", name), name)

    async def grant(self, name: str, role: UserRole, scope: str, *, actor: str) -> None:
        """Assign a role at a scope to a user; idempotent.

        Raise `UserMissingError`, `PlaceInvalidError`, `PlaceMissingError`.
        """
        changes = self.guard_user(name)
        self._grant(changes, RoleAssignment(name, role, scope), actor)
        await self.commit(changes, name)

    async def revoke(self, name: str, role: UserRole, scope: str, *, actor: str) -> None:
        """Remove a role at a scope from a user. Raise `UserMissingError`, `GrantMissingError`."""
        self.user(name)
        missing = GrantMissingError(name=name, role=role.value, place=scope)
        row = store.GRANTS.row(RoleAssignment(name, role, scope))
        changes = Changes().run(store.REMOVE_GRANT, expect=1, otherwise=missing, **row)
        self._rights.pop(name, None)  # until its rights are read
        await self.commit(changes.audit(actor, "people.role_remove", name, role=role.value, place=scope), name)

    async def allow(self, name: str, more: int, *, by: Caller) -> int:
        """Allow a user more device removals today; return how many are left. `by` is another user.

        Raise `UserMissingError`, `SamePersonError`, `LetInByPersonError`.
        """
        self.user(name)
        if by.user == name:
            raise SamePersonError(user=name, right=Right.ADMINISTER.value, place=SERVER)
        require_local_invitation(by)
        now = self.clock.now()
        row: dict[str, Any] = {"user_name": name, "remaining": self.most_taken + more, "until": to_micros(now + DAY)}
        changes = self.guard_user(name).run(store.ALLOW, **row, more=more, now=to_micros(now))
        await self.database.commit(changes.audit(by.actor, "people.allow", name, more=more))
        left = await self.database.one(store.ALLOWANCE, user_name=name)
        return self.most_taken if left is None else int(left["remaining"])

    async def remove_scope(self, scope: str, changes: Changes, commit: Commit, *, actor: str) -> None:
        """Commit the removal of a scope with its roles, tokens and approvals.

        None of them applies to a later scope of the same name.
        """
        for one in (grant for grants in self._grants.values() for grant in grants if grant.place == scope):
            changes.audit(actor, "people.role_remove", one.user, role=one.role.value, place=scope)
        for token in (token for token in self.tokens() if token.place == scope):
            changes.audit(actor, "people.token_remove", token.user, id=token.id)
        for statement in (store.REMOVE_GRANTS_AT, store.REMOVE_TOKENS_AT, approvals_model.REMOVE_AT):
            changes.run(statement, place=scope)
        await self._loading.committed(commit(changes.event(PeopleChanged(user="*"))))

    # Invitations

    async def invite(self, name: str, *, actor: str, by: str | None = None) -> tuple[str, datetime]:
        """Return a single-use sign-in code for a user, and its expiry. Raise `UserMissingError`.

        Earlier invitations are revoked. `by` is the inviter, where it is not `actor`.
        """
        code, ends_at = self._secret(_INVITATION), self.clock.now() + INVITED_FOR
        changes = self.guard_user(name).run(store.REMOVE_INVITATIONS, user_name=name)
        changes.run(
            store.ADD_INVITATION,
            **store.INVITATIONS.row(Invitation(hash_generated(code), name, ends_at, str(by or actor))),
        )
        changes.audit(actor, "people.invite", name, ends_at=ends_at.isoformat())
        await self.database.commit(changes)
        return code, ends_at

    async def redeem(self, code: str, label: str, address: str) -> CreatedToken:
        """Redeem an invitation and return a token. Raise `InvitationRefusedError`."""
        digest = hash_generated(code[:_MAX_CHARS])
        row = await self.database.one(store.INVITATION, digest=digest)
        if row is None or store.INVITATIONS.of(row).user == MACHINE_USER:
            raise InvitationRefusedError
        invited, now = store.INVITATIONS.of(row), self.clock.now()
        changes = Changes().run(
            store.REDEEM, expect=1, otherwise=InvitationRefusedError(), digest=digest, now=to_micros(now)
        )
        actor = Actor(f"user:{invited.user}", {"from": address})
        made = self.token_in(changes, invited.user, label, now + SIGNED_IN_FOR, made_by=invited.made_by, actor=actor)
        await self.commit(changes, invited.user)
        return made

    # Tokens

    def tokens(self, name: str | None = None) -> Sequence[AccessToken]:
        """Return all tokens, or those of one user, oldest first."""
        found = (one for one in self._tokens.values() if name is None or one.user == name)
        return sorted(found, key=lambda one: (one.created_at, one.id))

    async def add_token(
        self,
        name: str,
        label: str,
        lifetime: timedelta,
        role: UserRole | None,
        scope: str | None,
        *,
        actor: str,
        by: str | None = None,
    ) -> CreatedToken:
        """Create a token of a user, limited to `role` and `scope` where these are given.

        `by` is the actor who admits the user with the token, if it is not `actor`.

        Raise `TokenLifetimeError`, `TooManyTokensError`, `PlaceInvalidError`, `PlaceMissingError`, `UserMissingError`.
        """
        if not timedelta(minutes=1) <= lifetime <= MAX_LIFETIME:
            raise TokenLifetimeError(seconds=int(lifetime.total_seconds()), user=name)
        if not self._made.has_room(name, self.clock.monotonic()):
            raise TooManyTokensError(count=_MOST_OF_ONE, user=name)
        changes, made_by = self.guard_user(name), str(by or actor)
        ends_at = self.clock.now() + lifetime
        if scope is not None:
            changes.merge(self._counting_on_place(scope))
        made = self.token_in(changes, name, label, ends_at, role=role, scope=scope, made_by=made_by, actor=actor)
        await self.commit(changes, name)
        return made

    async def remove_token(self, token_id: str, *, of: str | None, actor: str) -> None:
        """Revoke a token; with `of`, only a token of that user. Raise `TokenMissingError`."""
        missing = TokenMissingError(id=token_id[:_MAX_LABEL])
        known = self._tokens.get(token_id)
        if known is None or of not in {None, known.user}:
            raise missing
        changes = Changes().run(store.REMOVE_TOKEN, expect=1, otherwise=missing, id=token_id)
        self._tokens.pop(token_id, None)  # before the reply, which may be lost
        await self.commit(changes.audit(actor, "people.token_remove", known.user, id=token_id), known.user)

    def token_in(
        self,
        changes: Changes,
        user: str,
        label: str,
        ends_at: datetime,
        *,
        role: UserRole | None = None,
        scope: str | None = None,
        made_by: str,
        actor: str,
    ) -> CreatedToken:
        """Add the creation of a token to the changes and return the token. Raise `TooManyTokensError`."""
        name = self.entropy.token(_ID_BYTES).hex()
        text = self._secret(f"{_TOKEN}_{name}")
        now = self.clock.now()
        if sum(one.user == user and one.ends_at > now for one in self._tokens.values()) >= _MOST_OF_ONE:
            raise TooManyTokensError(count=_MOST_OF_ONE, user=user)
        token = AccessToken(name, user, hash_generated(text), label[:_MAX_LABEL], role, scope, now, ends_at, made_by)
        if self.is_steady():
            changes.run(store.PURGE_TOKENS, before=to_micros(now))
        changes.run(store.ADD_TOKEN, **store.TOKENS.row(token))
        told = {} if role is None and scope is None else {"role": role and role.value, "place": scope}
        changes.audit(actor, "people.token_add", user, id=name, label=token.label, ends_at=ends_at.isoformat(), **told)
        return CreatedToken(token, text)

    def _secret(self, begin: str) -> str:
        return f"{begin}_{self.entropy.token(_SECRET_BYTES).hex()}"

    def has_place(self, scope: str) -> bool:
        """Return whether the scope exists."""
        try:
            self._counting_on_place(scope)
        except PlaceMissingError:
            return False
        return True

    def _counting_on_place(self, scope: str) -> Changes:
        if not is_place(scope):
            raise PlaceInvalidError(place=scope[:_MAX_LABEL])
        return self.places.guard_scope(scope)

    def _grant(self, changes: Changes, grant: RoleAssignment, actor: str) -> None:
        changes.merge(self._counting_on_place(grant.place))
        changes.run(store.ADD_GRANT, **store.GRANTS.row(grant))
        changes.audit(actor, "people.role_add", grant.user, role=grant.role.value, place=grant.place)

    def guard_user(self, name: str) -> Changes:
        """Return a write guard that requires the user to exist."""
        self.user(name)
        return Changes().run(store.IS_THERE, expect=1, otherwise=UserMissingError(name=name), key_name=name)

    async def commit(self, changes: Changes, user: str) -> None:
        """Commit changes to a user and reload at every worker. Raise the errors of the commit."""
        await self._loading.committed(self.database.commit(changes.event(PeopleChanged(user=user))))
