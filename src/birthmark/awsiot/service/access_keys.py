"""Access keys of operators' clients; few, so they are kept in memory."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from birthmark.auth.access_token_cloud_credentials import (
    NO_USERS,
    UserDirectory,
    is_user_policy,
    printable,
    token_and_service_of,
)
from birthmark.auth.principals import Caller
from birthmark.auth.sigv4 import AccessKeyUnknownError, Signature, SignedRequest, check_signature
from birthmark.awsiot.domain_events import AccessKeyAdded, AccessKeyRemoved
from birthmark.awsiot.model import AccessKey
from birthmark.awsiot.rules.policy import ConnectionPermissions, PolicyMalformedError, parse_policy
from birthmark.awsiot.rules.policy_variables import ConnectionContext, facts_of
from birthmark.awsiot.service.base import AccountService
from birthmark.awsiot.service.device_authorization import ConnectionGrant
from birthmark.awsiot.store import certificates_and_access_keys as store
from birthmark.errors import NotFoundError
from birthmark.net.fair_scheduler import count_for
from birthmark.store import Changes
from birthmark.store.pagination import every
from birthmark.store.reloading_cache import ReloadingCache

_ID_PREFIX = "AKIA"
_ID_BYTES, _SECRET_BYTES = 10, 30  # 16 base32 and 40 base64 characters, like AWS
_POLICY_FIX = (
    "Correct the policy. This example allows the key to list things: "
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:ListThings","Resource":"*"}]}'
)


class AccessKeyMissingError(NotFoundError):
    """The access key does not exist."""

    code = "awsiot.access_key_missing"
    message = "Access key {access_key_id} does not exist"
    fix = "List access keys: `birthmark aws key ls`."
    access_key_id: str


@dataclass(slots=True)
class AccessKeys(AccountService):
    """All access keys of the account; each may do everything in it, or what its policy allows.

    Users also sign requests here; their roles apply.
    """

    users: UserDirectory = NO_USERS
    _by_id: dict[str, AccessKey] = field(default_factory=dict, repr=False)
    _loading: ReloadingCache = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._loading = ReloadingCache(self.database, self._read, AccessKeyAdded, AccessKeyRemoved)

    async def load(self) -> None:
        """Load the access keys."""
        await self._loading.load()

    async def stop(self) -> None:
        """Stop the background refresh."""
        await self._loading.stop()

    async def _read(self) -> None:
        rows = await every(self.database, store.KEYS_PAGE, "id")
        rows.sort(key=lambda row: row["created_at"])
        self._by_id = {row["id"]: store.KEYS.of(row) for row in rows}

    async def add(self, name: str, *, actor: str, policy: str | None = None) -> AccessKey:
        """Create a key with full access or a policy. Raise `PolicyMalformedError`.

        Its secret is returned once and stored, as signature checks need it.
        """
        if policy is not None:
            try:
                parse_policy(name, policy, of_iam=True)
            except PolicyMalformedError as error:
                error.quote(fix=_POLICY_FIX)
                raise
        key = AccessKey(
            _ID_PREFIX + base64.b32encode(self.entropy.token(_ID_BYTES)).decode(),
            base64.b64encode(self.entropy.token(_SECRET_BYTES)).decode(),
            name,
            self.clock.now(),
            policy,
        )
        changes = Changes().run(store.ADD_KEY, **store.KEYS.row(key))
        changes.event(AccessKeyAdded(key.id)).audit(actor, "awsiot.key_add", key.id, name=name)
        await self._loading.committed(self.database.commit(changes))
        return key

    async def remove(self, key_id: str, *, actor: str) -> None:
        """Remove a key; requests signed with it are refused from now on. Raise `AccessKeyMissingError`."""
        missing = AccessKeyMissingError(access_key_id=key_id)
        changes = Changes().run(store.DROP_KEY, expect=1, otherwise=missing, id=key_id)
        self._by_id.pop(key_id, None)  # before the reply, which may be lost
        changes.event(AccessKeyRemoved(key_id)).audit(actor, "awsiot.key_remove", key_id)
        await self._loading.committed(self.database.commit(changes))

    def all(self) -> Sequence[AccessKey]:
        """Return every key, oldest first."""
        return tuple(self._by_id.values())

    def check_known(self, key_id: str) -> None:
        """Raise `AccessKeyUnknownError` for an unknown or deleted key."""
        if key_id not in self._by_id:
            raise AccessKeyUnknownError(access_key_id=printable(key_id))

    def authenticate(self, request: SignedRequest, signature: Signature, services: Iterable[str]) -> AccessKey:
        """Return the key that signed this request. Raise why the signature is invalid."""
        key = self._by_id.get(signature.access_key_id)
        if key is None:
            raise AccessKeyUnknownError(access_key_id=printable(signature.access_key_id))
        check_signature(request, signature, key.secret, self.clock.now(), services=services)
        return key

    def grant_of(self, key: AccessKey, address: str, account_id: str) -> ConnectionGrant:
        """Return the permissions of a key from this address."""
        if key.policy is None:
            return ConnectionGrant(key.id, None, None, None)
        facts = facts_of(
            None, ConnectionContext(None, None, address, ""), more={"aws:username": key.name, "aws:userid": key.id}
        )
        permissions = ConnectionPermissions([parse_policy(key.name, key.policy, of_iam=True)], facts)
        user = f"arn:aws:iam::{account_id}:user/{key.name or key.id}"
        return ConnectionGrant(key.id, None, None, permissions, receives=permissions.receives, user=user)

    def find_user(
        self, request: SignedRequest, signature: Signature, services: Iterable[str], address: str
    ) -> Caller | None:
        """Return the user who signed this request with an access token; None if the key belongs to no user.

        The key ID is the token's, and its secret the digest in hexadecimal. Raise an error if the signature is invalid.
        """
        if not is_user_policy(signature.access_key_id):
            return None
        user = self.users.find_user(token_and_service_of(signature.access_key_id)[0], address)
        if user is None:
            raise AccessKeyUnknownError(access_key_id=printable(signature.access_key_id))
        check_signature(request, signature, user.key.hex(), self.clock.now(), services=services)
        count_for(f"user:{user.caller.user}")
        return user.caller
