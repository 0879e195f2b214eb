"""What an operator does: users and bootstrap CAs on record, each change audited."""

import contextlib
import hashlib
import hmac

from birthmark.auth.passwords import hash_password
from birthmark.auth.principals import Principal
from birthmark.clock import Clock, Entropy
from birthmark.errors import ConflictError, InvalidRequestError, NotFoundError
from birthmark.est import store
from birthmark.est.model import BootstrapCa, User
from birthmark.pki.certificates import Certificate, Thumbprint
from birthmark.pki.names import parse_registration_id
from birthmark.store import Changes, Database, to_micros

_MAX_NAME_CHARS = 128
_NONCE_BYTES = 16
_PASSWORD_BYTES = 24


class UserNameInvalidError(InvalidRequestError):
    """This user name cannot be used."""

    code = "est.user_name_invalid"
    cause = "A user name has 1 to 128 printable characters and no colon."
    fix = "Choose another name: `birthmark est user add device-1 --device device-1`."


class UserExistsError(ConflictError):
    """There is such a user already."""

    code = "est.user_exists"
    cause = "There is an EST user '{name}' already."
    fix = "Remove it first (`birthmark est user remove {name}`) to set another password."
    name: str


class UserUnknownError(NotFoundError):
    """There is no such user."""

    code = "est.user_unknown"
    cause = "There is no EST user '{name}'."
    fix = "`birthmark est user list` shows those on record."
    name: str


class NotABootstrapCaError(InvalidRequestError):
    """This is not a CA certificate."""

    code = "est.not_a_bootstrap_ca"
    cause = "'{subject}' is not a CA certificate."
    fix = "Give the maker's CA certificate, not a device's: `birthmark est bootstrap add CA.pem`."
    subject: str


class BootstrapCaUnknownError(NotFoundError):
    """There is no such bootstrap CA."""

    code = "est.bootstrap_ca_unknown"
    cause = "No accepted bootstrap CA has the thumbprint {thumbprint}."
    fix = "`birthmark est bootstrap list` shows those on record."
    thumbprint: str


async def add_user(
    name: str,
    password: str,
    *,
    device_id: str | None,
    principal: Principal,
    database: Database,
    clock: Clock,
    entropy: Entropy,
    nonce: bytes | None = None,
) -> User:
    """Put a user on record. Raise `UserNameInvalidError` or `UserExistsError`."""
    if not 0 < len(name) <= _MAX_NAME_CHARS or not name.isprintable() or ":" in name:
        raise UserNameInvalidError
    if await database.one(store.USER, name=name) is not None:
        raise UserExistsError(name=name)
    user = User(name, hash_password(password, entropy), device_id, clock.now())
    changes = Changes().run(store.ADD_USER, nonce=nonce, **store.USER_RECORDS.row(user))
    await database.commit(changes.audit(principal.actor, "est.user.add", name, device_id=device_id))
    return user


async def ensure_credential(
    device_id: str, *, seed: bytes, principal: Principal, database: Database, clock: Clock, entropy: Entropy
) -> tuple[User, str]:
    """Return the user that is bound to one device, with its password; made at the first call, the same afterwards.

    The password follows from `seed`, a secret of this server, and a nonce of the user's row: it can be printed again,
    and a user that was removed comes back with another one. Raise `UserExistsError` if an operator's own user has that
    name, `RegistrationIdInvalidError`.
    """
    parse_registration_id(device_id)
    name = device_id.replace(":", "%3A")  # HTTP Basic ends a user name at a colon
    for _ in range(2):
        row = await database.one(store.USER, name=name)
        if row is not None:
            if row["nonce"] is None or row["device_id"] != device_id:
                raise UserExistsError(name=name)
            return store.USER_RECORDS.of(row), _password_of(seed, name, row["nonce"])
        nonce = entropy.token(_NONCE_BYTES)
        with contextlib.suppress(ConflictError):  # another process made it at the same moment: read what it made
            await add_user(
                name,
                _password_of(seed, name, nonce),
                device_id=device_id,
                principal=principal,
                database=database,
                clock=clock,
                entropy=entropy,
                nonce=nonce,
            )
    raise UserExistsError(name=name)


def _password_of(seed: bytes, name: str, nonce: bytes) -> str:
    return hmac.digest(seed, name.encode() + b"\0" + nonce, hashlib.sha256)[:_PASSWORD_BYTES].hex()


async def list_users(database: Database) -> list[User]:
    return [store.USER_RECORDS.of(row) for row in await database.all(store.USERS)]


async def remove_user(name: str, *, principal: Principal, database: Database) -> None:
    """Raise `UserUnknownError`."""
    unknown = UserUnknownError(name=name)
    changes = Changes().run(store.REMOVE_USER, expect=1, otherwise=unknown, name=name)
    await database.commit(changes.audit(principal.actor, "est.user.remove", name))


async def accept_bootstrap_ca(
    certificate: Certificate, *, any_name: bool, principal: Principal, database: Database, clock: Clock
) -> BootstrapCa:
    """Let certificates of this CA introduce devices; doing it again changes `any_name`."""
    if not certificate.is_ca:
        raise NotABootstrapCaError(subject=certificate.subject_text)
    changes = Changes().run(
        store.ADD_BOOTSTRAP_CA,
        thumbprint=certificate.thumbprint,
        der=certificate.der,
        any_name=int(any_name),
        added_at=to_micros(clock.now()),
    )
    changes.audit(
        principal.actor,
        "est.bootstrap.add",
        certificate.subject_text,
        thumbprint=certificate.thumbprint.hex(),
        any_name=any_name,
    )
    await database.commit(changes)
    return BootstrapCa(certificate, any_name)


async def list_bootstrap_cas(database: Database) -> list[BootstrapCa]:
    return [store.BOOTSTRAP_RECORDS.of(row) for row in await database.all(store.BOOTSTRAP_CAS)]


async def remove_bootstrap_ca(thumbprint: Thumbprint, *, principal: Principal, database: Database) -> None:
    """Raise `BootstrapCaUnknownError`."""
    name = thumbprint.hex()
    unknown = BootstrapCaUnknownError(thumbprint=name)
    changes = Changes().run(store.REMOVE_BOOTSTRAP_CA, expect=1, otherwise=unknown, thumbprint=thumbprint)
    await database.commit(changes.audit(principal.actor, "est.bootstrap.remove", name))
