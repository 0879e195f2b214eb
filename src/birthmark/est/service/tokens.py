"""Enrollment tokens: user and password for one device, one key, and a while."""

from dataclasses import dataclass, field
from datetime import timedelta

from birthmark.auth.passwords import hash_made
from birthmark.clock import Clock, Entropy, Steadiness
from birthmark.errors import InvalidRequestError
from birthmark.est import store
from birthmark.est.model import User
from birthmark.pki.names import parse_registration_id
from birthmark.store import Changes, Database, to_micros

MAX_LIFETIME = timedelta(days=366)
_NAME_BYTES, _PASSWORD_BYTES = 6, 18
_KEPT = timedelta(days=30)
_FOR_A_DAY = timedelta(days=1)
"""A narrowed access token may create enrollment tokens of this lifetime at most."""


class TokenLifetimeError(InvalidRequestError):
    """A token lives a second to a year."""

    code = "est.token_lifetime"
    cause = "A token was to live {seconds} s; it may live 1 s to 366 days."
    fix = "Give another time: `birthmark pki token create {device_id} --lifetime 24h`"
    device_id: str
    seconds: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """Makes them; they are users, listed and taken back as such."""

    database: Database = field(repr=False)
    clock: Clock = field(repr=False)
    entropy: Entropy = field(repr=False)
    _steadiness: Steadiness = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_steadiness", Steadiness(self.clock))

    async def add(self, device_id: str, lifetime: timedelta, *, actor: str) -> tuple[User, str]:
        """Return a new token and its password. Raise `TokenLifetimeError`, `RegistrationIdInvalidError`."""
        parse_registration_id(device_id)
        if not timedelta(seconds=1) <= lifetime <= MAX_LIFETIME:
            raise TokenLifetimeError(seconds=int(lifetime.total_seconds()), device_id=device_id)
        now, password = self.clock.now(), self.entropy.token(_PASSWORD_BYTES).hex()
        name = f"token-{self.entropy.token(_NAME_BYTES).hex()}"
        user = User(name, hash_made(password), device_id, now, now + lifetime, is_one_time=True)
        changes = Changes()
        if self._steadiness.is_steady():
            changes.run(store.PURGE_TOKENS, before=to_micros(now - _KEPT))
        changes.run(store.ADD_USER, nonce=None, **store.USER_RECORDS.row(user))
        told: dict[str, object] = {"device_id": device_id, "expires_at": (now + lifetime).isoformat()}
        if lifetime > _FOR_A_DAY:
            told["lasting"] = True
        changes.audit(actor, "est.token.add", name, **told)
        await self.database.commit(changes)
        return user, password
