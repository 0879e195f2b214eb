"""Role aliases and temporary credentials for devices.

See the developer guide, "Authorizing direct calls to AWS services using AWS IoT Core credential provider".

The configuration defines the permissions of a role (`[roles]`); its ARN is stored as given.
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from birthmark.auth.sigv4 import Signature, SignedRequest, check_signature
from birthmark.awsiot.domain_events import RoleAliasRemoved
from birthmark.awsiot.model import CertificateId, RoleAlias, parse_alias_name
from birthmark.awsiot.rules.policy import AwsPolicy, ConnectionPermissions
from birthmark.awsiot.rules.policy_variables import ConnectionContext, facts_of
from birthmark.awsiot.rules.temporary_credentials import (
    DURATION_S,
    KEY_PREFIX,
    MAX_DURATION_S,
    MIN_DURATION_S,
    CredentialSession,
    SessionEndedError,
    secret_of,
    session_of,
    token_of,
)
from birthmark.awsiot.service.base import AccountService
from birthmark.awsiot.service.device_authorization import ConnectionGrant, Devices
from birthmark.awsiot.service.tags import NO_TAGS, Tags, tag_deletes, written
from birthmark.awsiot.store import authorizers_and_role_aliases as store
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.clock_and_entropy import new_uuid
from birthmark.errors import (
    BirthmarkError,
    ChangedMeanwhileError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
)
from birthmark.store import Changes
from birthmark.store.pagination import Page, page_of

_ID_BYTES, _SECRET_BYTES = 10, 32
_OWN = "sessions"
_CREATE = "aws iot create-role-alias --generate-cli-skeleton"


class UnknownRoleAliasError(NotFoundError):
    """The role alias does not exist."""

    code = "awsiot.unknown_role_alias"
    message = "Role alias {alias} not found"
    fix = "List role aliases: `aws iot list-role-aliases`. Names are case-sensitive."
    alias: str


class RoleAliasExistsError(ConflictError):
    """A role alias with this name exists already."""

    code = "awsiot.role_alias_exists"
    message = "Role alias {alias} already exists"
    fix = (
        "Update the existing role alias, or choose another name. Show the existing role alias: `aws iot "
        "describe-role-alias --role-alias {alias}`"
    )
    alias: str


class RoleNotMappedError(InvalidRequestError):
    """The configuration does not map this role to a policy."""

    code = "awsiot.role_not_mapped"
    message = "The server's configuration does not map the role {role} to a policy"
    cause = (
        "A device ({thing}) requested credentials with the role alias {alias}, but the configuration does not map "
        "{role} to a policy."
    )
    fix = (
        'To map the role, add [roles."{role}"] with policy_file = "…" to the configuration, and restart the server. '
        "Show the current settings: `birthmark server settings`"
    )
    alias: str
    role: str
    thing: str


@dataclass(frozen=True, slots=True)
class TemporaryCredentials:
    """Temporary credentials of a device."""

    access_key_id: str
    secret: str = field(repr=False)
    token: str = field(repr=False)
    expires_at: datetime


@dataclass(slots=True)
class RoleAliases(AccountService):
    """Role aliases of the account and the credentials issued through them."""

    devices: Devices
    roles: Mapping[str, AwsPolicy]
    """Policies of roles by ARN."""
    _master: bytes | None = field(default=None, init=False, repr=False)

    async def get(self, name: str) -> RoleAlias:
        """Return a role alias. Raise `UnknownRoleAliasError`."""
        if (row := await self.database.one(store.GET_ALIAS, name=name)) is None:
            raise UnknownRoleAliasError(alias=name[:128])
        return store.ALIASES.of(row)

    async def page(self, after: str, limit: int, *, ascending: bool) -> Page[RoleAlias]:
        """Return role aliases by name."""
        asked = store.LIST_ALIASES if ascending else store.LIST_ALIASES_DOWN
        rows = await self.database.all(asked, after=after, limit=limit + 1)
        return page_of([store.ALIASES.of(row) for row in rows], limit, [row["name"] for row in rows])

    async def create(
        self, name: str, role_arn: str, duration_s: int | None, *, tags: Tags = NO_TAGS, actor: str
    ) -> RoleAlias:
        """Create a role alias. Raise `RoleAliasExistsError`."""
        now = self.clock.now()
        lasts_s = DURATION_S if duration_s is None else _check_duration(duration_s)
        made = RoleAlias(parse_alias_name(name), new_uuid(self.entropy), role_arn, lasts_s, now, now)
        exists = RoleAliasExistsError(alias=name)
        changes = Changes().run(store.ADD_ALIAS, expect=1, otherwise=exists, **store.ALIASES.row(made))
        changes.merge(written("rolealias", name, tags))
        await self.database.commit(changes.audit(actor, "awsiot.role_alias_create", name, role=role_arn))
        return made

    async def change(self, name: str, role_arn: str | None, duration_s: int | None, *, actor: str) -> RoleAlias:
        """Change the role or duration of a role alias, for credentials issued from now on."""
        known = await self.get(name)
        made = replace(
            known,
            role_arn=known.role_arn if role_arn is None else role_arn,
            duration_s=known.duration_s if duration_s is None else _check_duration(duration_s),
            modified_at=self.clock.now(),
            version=known.version + 1,
        )
        row = store.ALIASES.row(made)
        told = {column: row[column] for column in ("role_arn", "duration_s", "modified_at", "version")}
        meanwhile = ChangedMeanwhileError(what=f"The role alias {name}")
        changes = Changes().run(
            store.UPDATE_ALIAS, expect=1, otherwise=meanwhile, key_name=name, key_version=known.version, **told
        )
        await self.database.commit(changes.audit(actor, "awsiot.role_alias_change", name, role=made.role_arn))
        return made

    async def delete(self, name: str, *, actor: str) -> None:
        """Delete a role alias and invalidate its credentials. Raise `UnknownRoleAliasError`."""
        unknown = UnknownRoleAliasError(alias=name[:128])
        changes = Changes().run(store.DELETE_ALIAS, expect=1, otherwise=unknown, name=name)
        changes.event(RoleAliasRemoved(name)).merge(tag_deletes("rolealias", name))
        await self.database.commit(changes.audit(actor, "awsiot.role_alias_delete", name))

    # ---- keys

    async def issue(self, name: str, visitor: ConnectionContext) -> TemporaryCredentials:
        """Return temporary credentials for a permitted device.

        Raise why they are refused: certificate, policies, a missing role alias, or an unmapped role.
        """
        parse_alias_name(name)
        grant = await self.devices.admit(visitor, is_over_https=True)
        thing = visitor.client_id or "over HTTPS"
        self.devices.check(grant, "iot:AssumeRoleWithCertificate", "rolealias", name, thing)
        alias = await self.get(name)
        if alias.role_arn not in self.roles:
            raise RoleNotMappedError(alias=name, role=alias.role_arn[:200], thing=thing)
        assert grant.certificate_id is not None  # noqa: S101 - a device has one
        assert visitor.leaf is not None  # noqa: S101 - as above
        known = None if grant.thing is None else await self.devices.things.find(grant.thing)
        until = int(self.clock.now().timestamp()) + alias.duration_s
        session = CredentialSession(
            KEY_PREFIX + base64.b32encode(self.entropy.token(_ID_BYTES)).decode(),
            name,
            alias.alias_id,
            alias.role_arn,
            grant.certificate_id,
            min(until, int(visitor.leaf.not_after.timestamp())),
            grant.thing or "",
            (known.type_name or "") if known is not None else "",
        )
        master = await self.secret()
        token = token_of(master, session)
        ends = datetime.fromtimestamp(session.expires_at, UTC)
        return TemporaryCredentials(session.key_id, secret_of(master, token), token, ends)

    async def authenticate(
        self, request: SignedRequest, signature: Signature, services: Iterable[str], address: str
    ) -> ConnectionGrant:
        """Return the permissions of temporary credentials that signed a request.

        Raise why they are invalid or expired.
        """
        master, token = await self.secret(), request.session_token()
        session = session_of(master, signature.access_key_id, token)
        assert token is not None  # noqa: S101 - otherwise rejected
        check_signature(request, signature, secret_of(master, token), self.clock.now(), services=services)
        await self.check_stands(session)
        more = {"credentials-iot:AwsCertificateId": session.certificate_id}
        more |= {"credentials-iot:ThingName": session.thing, "credentials-iot:ThingTypeName": session.thing_type}
        facts = facts_of(None, ConnectionContext(None, None, address, ""), more=more)
        permissions = ConnectionPermissions([self.roles[session.role_arn]], facts)
        grant = ConnectionGrant(
            session.principal, None, None, permissions, receives=permissions.receives, session=session
        )
        return replace(grant, user=f"{session.role_arn} ({session.principal})")

    async def check_stands(self, session: CredentialSession) -> None:
        """Raise `SessionEndedError` if credentials are no longer valid."""
        session.check_time(self.clock.now())
        ended = {"access_key_id": session.key_id, "alias": session.alias}
        if session.role_arn not in self.roles:
            raise SessionEndedError(why=f"the configuration does not map its role {session.role_arn[:200]}", **ended)
        await self._check_alias(session.alias, session.alias_id, **ended)
        try:
            known = await self.devices.check_stands(
                CertificateId(session.certificate_id), session.thing or "over HTTPS"
            )
        except UnavailableError:
            raise
        except BirthmarkError as error:
            raise SessionEndedError(why=error.explain_cause().removesuffix("."), **ended) from error
        if known.claim is not None:  # a claim certificate grants no more, nor do its old tokens
            raise SessionEndedError(why=f"its certificate {known.id} is now a claim certificate", **ended)

    async def check_principal(self, principal: str, client_id: str) -> None:
        """Raise if a client's credentials could not be issued now, as its role alias or certificate is gone."""
        _, alias, certificate_id = principal.split("/", 2)
        await self.get(alias)
        await self.devices.check_stands(CertificateId(certificate_id), client_id)

    async def _check_alias(self, name: str, alias_id: str, **ended: str) -> None:
        row = await self.database.one(store.GET_ALIAS, name=name)
        if row is None or row["alias_id"] != alias_id:
            raise SessionEndedError(why="its role alias was deleted", **ended)

    async def secret(self) -> bytes:
        """Return the secret behind session tokens and file URLs, shared by all workers and created on first use."""
        if self._master is None:
            if (row := await self.database.one(store.SESSION_SECRET, id=_OWN)) is None:
                made = base64.b64encode(self.entropy.token(_SECRET_BYTES)).decode()
                await self.database.commit(Changes().run(store.ADD_SESSION_SECRET, id=_OWN, secret=made))
                row = await self.database.one(store.SESSION_SECRET, id=_OWN)
            assert row is not None  # noqa: S101 - never deleted
            self._master = base64.b64decode(row["secret"])
        return self._master


def _check_duration(seconds: int) -> int:
    if not MIN_DURATION_S <= seconds <= MAX_DURATION_S:
        detail = f"credentialDurationSeconds is not {MIN_DURATION_S} to {MAX_DURATION_S}"
        raise BodyInvalidError(detail=detail, command=_CREATE)
    return seconds
