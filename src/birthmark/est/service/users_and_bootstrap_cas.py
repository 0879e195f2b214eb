"""Operators' management of EST users and bootstrap CAs, each change audited."""

import asyncio
import contextlib
import hashlib
import hmac
from dataclasses import dataclass, field

from birthmark.auth.password_digests import hash_generated, hash_password
from birthmark.auth.principals import is_user_name
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.errors import ConflictError, InvalidRequestError, NotFoundError
from birthmark.est import store
from birthmark.est.model import BootstrapCa, EstUser
from birthmark.fair_semaphore import FairSemaphore
from birthmark.pki.certificates import Certificate, Thumbprint
from birthmark.pki.names_and_registration_ids import fold, parse_registration_id
from birthmark.store import Changes, Database
from birthmark.store.pagination import every

_NONCE_BYTES = 16
_PASSWORD_BYTES = 24


class UserNameInvalidError(InvalidRequestError):
    """The user name is not valid."""

    code = "est.user_name_invalid"
    cause = "A user name must have 1 to 128 printable characters and no colon."
    fix = "Choose another name: `birthmark pki user create device-1 --device device-1`."


class UserExistsError(ConflictError):
    """An EST user with this name exists already."""

    code = "est.user_exists"
    cause = "An EST user named '{name}' already exists."
    fix = "To set another password, first delete the user: `birthmark pki user rm {name} --yes`"
    name: str


class UserUnknownError(NotFoundError):
    """The EST user does not exist."""

    code = "est.user_unknown"
    cause = "The EST user '{name}' does not exist."
    fix = "List users: `birthmark pki user ls`."
    name: str


class NotABootstrapCaError(InvalidRequestError):
    """The certificate is not a CA certificate."""

    code = "est.not_a_bootstrap_ca"
    cause = "'{subject}' is not a CA certificate."
    fix = "Use the manufacturer's CA certificate, not a device certificate: `birthmark pki manufacturer create CA.pem`."
    subject: str


class BootstrapCaUnknownError(NotFoundError):
    """The bootstrap CA does not exist."""

    code = "est.bootstrap_ca_unknown"
    cause = "No accepted bootstrap CA has the thumbprint {thumbprint}."
    fix = "List accepted bootstrap CAs: `birthmark pki manufacturer ls`."
    thumbprint: str


@dataclass(frozen=True, slots=True)
class EstCredentials:
    """Users with passwords, and CAs whose certificates bootstrap devices."""

    database: Database = field(repr=False)
    clock: Clock = field(repr=False)
    entropy: Entropy = field(repr=False)
    _digesting: FairSemaphore = field(default_factory=lambda: FairSemaphore(1), init=False, repr=False)
    """A digest takes 16 MiB and some hundredths of a second, so only one runs at a time, fairly across actors."""

    async def add_user(
        self, name: str, password: str, *, device_id: str | None, actor: str, nonce: bytes | None = None
    ) -> EstUser:
        """Create a user. Raise `UserNameInvalidError` or `UserExistsError`."""
        if not is_user_name(name):
            raise UserNameInvalidError
        if await self.database.one(store.USER, name=name) is not None:
            raise UserExistsError(name=name)
        if nonce is None:
            async with self._digesting.of(str(actor)):
                digest = await asyncio.to_thread(hash_password, password, self.entropy)
        else:
            digest = hash_generated(password)
        user = EstUser(name, digest, device_id, self.clock.now())
        changes = Changes().run(store.ADD_USER, nonce=nonce, **store.USER_RECORDS.row(user))
        await self.database.commit(changes.audit(actor, "est.user.add", name, device_id=device_id))
        return user

    async def ensure_user(self, device_id: str, *, seed: bytes, actor: str) -> tuple[EstUser, str]:
        """Return the user bound to one device, with its password; created at the first call, the same afterwards.

        The password is derived from `seed`, a secret of this server, and a nonce of the user's row. It can be printed
        again, and a recreated user gets another one. Raise `UserExistsError` if an operator's own user has that name,
        `RegistrationIdInvalidError`.
        """
        parse_registration_id(device_id)
        name = device_id.replace(":", "%3A")  # HTTP Basic ends user names at a colon
        for _ in range(2):
            row = await self.database.one(store.USER, name=name)
            if row is not None:
                if row["nonce"] is None or row["device_id"] != device_id:
                    raise UserExistsError(name=name)
                await self.database.commit(Changes().audit(actor, "est.user.show", name, device_id=device_id))
                return store.USER_RECORDS.of(row), _password_of(seed, name, row["nonce"])
            nonce = self.entropy.token(_NONCE_BYTES)
            with contextlib.suppress(ConflictError):  # another process created it at the same moment: read that
                password = _password_of(seed, name, nonce)
                return await self.add_user(name, password, device_id=device_id, actor=actor, nonce=nonce), password
        raise UserExistsError(name=name)

    async def user(self, name: str) -> EstUser | None:
        """Return a user."""
        row = await self.database.one(store.USER, name=name)
        return None if row is None else store.USER_RECORDS.of(row)

    async def users(self, after: str, limit: int) -> list[EstUser]:
        """Return users after the name `after`, sorted by name."""
        rows = await self.database.all(store.USERS_PAGE, after=after, limit=limit)
        return [store.USER_RECORDS.of(row) for row in rows]

    async def of_device(self, name: str) -> list[EstUser]:
        """Return the users that are bound to a device, in any spelling: its passwords and its tokens."""
        rows = await every(self.database, store.USERS_OF_DEVICE_PAGE, "name", folded=name.lower())
        found = [store.USER_RECORDS.of(row) for row in rows]
        return [one for one in found if fold(one.device_id or "") == fold(name)]

    async def for_all(self) -> list[EstUser]:
        """Return the users that are not bound to a device."""
        return [store.USER_RECORDS.of(row) for row in await every(self.database, store.USERS_FOR_ALL_PAGE, "name")]

    async def remove_user(self, name: str, *, actor: str) -> None:
        """Remove a user. Raise `UserUnknownError`."""
        changes = Changes().run(store.REMOVE_USER, expect=1, otherwise=UserUnknownError(name=name), name=name)
        await self.database.commit(changes.audit(actor, "est.user.remove", name))

    async def accept_ca(self, certificate: Certificate, *, any_name: bool, actor: str) -> BootstrapCa:
        """Add a CA whose certificates bootstrap devices; a repeated call updates `any_name`."""
        if not certificate.is_ca:
            raise NotABootstrapCaError(subject=certificate.subject_text)
        accepted, thumbprint = BootstrapCa(certificate, any_name), certificate.thumbprint
        row = store.BOOTSTRAP_RECORDS.row(accepted)
        changes = Changes().run(store.ADD_BOOTSTRAP_CA, thumbprint=thumbprint, added_at=self.clock.micros(), **row)
        subject = certificate.subject_text
        changes.audit(actor, "est.bootstrap.add", subject, thumbprint=thumbprint.hex(), any_name=any_name)
        await self.database.commit(changes)
        return accepted

    async def bootstrap_cas(self) -> list[BootstrapCa]:
        """Return all bootstrap CAs, in order of acceptance."""
        return await accepted_cas(self.database)

    async def remove_ca(self, thumbprint: Thumbprint, *, actor: str) -> None:
        """Remove a bootstrap CA. Raise `BootstrapCaUnknownError`."""
        name = thumbprint.hex()
        unknown = BootstrapCaUnknownError(thumbprint=name)
        changes = Changes().run(store.REMOVE_BOOTSTRAP_CA, expect=1, otherwise=unknown, thumbprint=thumbprint)
        await self.database.commit(changes.audit(actor, "est.bootstrap.remove", name))


async def accepted_cas(database: Database) -> list[BootstrapCa]:
    """Return all bootstrap CAs, in order of acceptance."""
    rows = await every(database, store.BOOTSTRAP_CAS_PAGE, "thumbprint", after=b"")
    return [store.BOOTSTRAP_RECORDS.of(row) for row in sorted(rows, key=lambda row: row["added_at"])]


def _password_of(seed: bytes, name: str, nonce: bytes) -> str:
    return hmac.digest(seed, name.encode() + b"\0" + nonce, hashlib.sha256)[:_PASSWORD_BYTES].hex()
