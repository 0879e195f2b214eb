"""Custom authorizers: their registry and authorization by their functions."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from birthmark.awsiot.domain_events import AuthorizerChanged
from birthmark.awsiot.model import Authorizer, parse_authorizer_name
from birthmark.awsiot.ports import FunctionCaller, Functions
from birthmark.awsiot.rules.custom_authorizers import (
    MAX_KEYS,
    NAME,
    SIGNATURE,
    AuthorizerRefusedError,
    AuthorizerRequest,
    AuthorizerVerdict,
    check_token,
    event_of,
    signing_key_of,
    verdict_of,
)
from birthmark.awsiot.rules.policy import ConnectionPermissions
from birthmark.awsiot.rules.policy_variables import ConnectionContext, facts_of
from birthmark.awsiot.service.authorizer_throttle import AuthorizerThrottle
from birthmark.awsiot.service.base import AccountService
from birthmark.awsiot.service.device_authorization import AuthorizerContext, ConnectionGrant, NoCertificateError
from birthmark.awsiot.service.lambda_functions import FunctionFailedError
from birthmark.awsiot.service.tags import NO_TAGS, Tags, tag_deletes, written
from birthmark.awsiot.store import authorizers_and_role_aliases as store
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.clock_and_entropy import new_uuid
from birthmark.errors import ChangedMeanwhileError, ConflictError, ForbiddenError, NotFoundError
from birthmark.net.quota_key import share_of
from birthmark.outbound.callouts import QuestionsWaitError
from birthmark.store import Changes
from birthmark.store.pagination import Page, page_of

_CREATE = "aws iot create-authorizer --generate-cli-skeleton"


class UnknownAuthorizerError(NotFoundError):
    """The authorizer does not exist, or there is no default authorizer."""

    code = "awsiot.unknown_authorizer"
    message = "Authorizer {authorizer} not found"
    fix = "List authorizers: `aws iot list-authorizers`. Names are case-sensitive."
    authorizer: str


class AuthorizerExistsError(ConflictError):
    """The name is in use, or another authorizer is the default."""

    code = "awsiot.authorizer_exists"
    message = "Authorizer {authorizer} already exists"
    fix = (
        "Update the existing authorizer, or choose another name. Show the existing authorizer: `aws iot "
        "describe-authorizer --authorizer-name {authorizer}`"
    )
    authorizer: str


class AuthorizerInUseError(ConflictError):
    """The authorizer is ACTIVE or the default."""

    code = "awsiot.authorizer_in_use"
    message = "The authorizer {authorizer} cannot be deleted: {detail}"
    fix = "First, deactivate the authorizer or clear the default: `{command}`"
    authorizer: str
    command: str
    detail: str


class AuthorizerInactiveError(ForbiddenError):
    """The authorizer is not ACTIVE."""

    code = "awsiot.authorizer_inactive"
    message = "The authorizer is not active"
    cause = "A client ({thing}) used the authorizer {authorizer}, which is INACTIVE."
    fix = "Activate the authorizer: `aws iot update-authorizer --authorizer-name {authorizer} --status ACTIVE`."
    authorizer: str
    thing: str


class NoAuthorizerError(NoCertificateError):
    """The client presented no certificate and selected no authorizer."""

    code = "awsiot.no_authorizer"
    cause = (
        "A client ({thing}) connected with a user name, a password, or ALPN mqtt, but without a valid certificate. "
        "The client named no authorizer, and no default authorizer is set."
    )
    fix = (
        "Name an authorizer in the user name (NAME?x-amz-customauthorizer-name=AUTHORIZER), or set a default "
        "authorizer. List authorizers: `aws iot list-authorizers`."
    )


@dataclass(slots=True)
class Authorizers(AccountService):
    """The authorizers of the account, and their decisions."""

    functions: Functions
    unauthenticated: AuthorizerThrottle = field(init=False)

    def __post_init__(self) -> None:
        self.unauthenticated = AuthorizerThrottle(self.clock)

    async def get(self, name: str) -> Authorizer:
        """Return an authorizer. Raise `UnknownAuthorizerError`."""
        if (row := await self.database.one(store.GET_AUTHORIZER, name=name)) is None:
            raise UnknownAuthorizerError(authorizer=name[:128])
        return store.AUTHORIZERS.of(row)

    async def page(self, after: str, limit: int, *, ascending: bool, is_active: bool | None) -> Page[Authorizer]:
        """Return a page of authorizers by name, optionally only those with one status."""
        if is_active is None:
            asked = store.LIST_AUTHORIZERS if ascending else store.LIST_AUTHORIZERS_DOWN
            more = {}
        else:
            asked = store.OF_STATE if ascending else store.OF_STATE_DOWN
            more = {"active": int(is_active)}
        rows = await self.database.all(asked, after=after, limit=limit + 1, **more)
        return page_of([store.AUTHORIZERS.of(row) for row in rows], limit, [row["name"] for row in rows])

    async def create(self, authorizer: Authorizer, *, tags: Tags = NO_TAGS, actor: str) -> None:
        """Create an authorizer. Raise `AuthorizerExistsError`, `SigningKeyInvalidError`."""
        parse_authorizer_name(authorizer.name)
        _check(authorizer)
        now = self.clock.now()
        exists = AuthorizerExistsError(authorizer=authorizer.name)
        row = store.AUTHORIZERS.row(replace(authorizer, created_at=now, modified_at=now))
        changes = Changes().run(store.ADD_AUTHORIZER, expect=1, otherwise=exists, **row)
        changes.merge(written("authorizer", authorizer.name, tags))
        await self.database.commit(changes.audit(actor, "awsiot.authorizer_create", authorizer.name))

    async def change(self, name: str, *, actor: str, **changed: object) -> Authorizer:
        """Change the attributes of an authorizer that are not None."""
        known = await self.get(name)
        given = {key: value for key, value in changed.items() if value is not None}
        made: Authorizer = replace(known, modified_at=self.clock.now(), version=known.version + 1, **given)  # type: ignore[arg-type]  # of the fields' own types
        _check(made)
        row = store.AUTHORIZERS.row(made)
        columns = ("function_arn", "token_key_name", "signing_keys", "active", "caches_http", "modified_at", "version")
        meanwhile = ChangedMeanwhileError(what=f"The authorizer {name}")
        told = {column: row[column] for column in columns}
        changes = Changes().run(
            store.UPDATE_AUTHORIZER, expect=1, otherwise=meanwhile, key_name=name, key_version=known.version, **told
        )
        changes.event(AuthorizerChanged(name, made.is_active))
        status = "ACTIVE" if made.is_active else "INACTIVE"
        await self.database.commit(changes.audit(actor, "awsiot.authorizer_change", name, status=status))
        return made

    async def delete(self, name: str, *, actor: str) -> None:
        """Delete an authorizer that is INACTIVE. Raise `UnknownAuthorizerError`, `AuthorizerInUseError`."""
        known = await self.get(name)
        if await self._default_name() == name:
            command = "aws iot clear-default-authorizer"
            raise AuthorizerInUseError(authorizer=name, detail="it is the default", command=command)
        if known.is_active:
            command = f"aws iot update-authorizer --authorizer-name {name} --status INACTIVE"
            raise AuthorizerInUseError(authorizer=name, detail="it is ACTIVE", command=command)
        meanwhile = ChangedMeanwhileError(what=f"The authorizer {name}")
        changes = Changes().run(
            store.DELETE_AUTHORIZER, expect=1, otherwise=meanwhile, name=name, version=known.version
        )
        changes.event(AuthorizerChanged(name, is_active=False)).merge(tag_deletes("authorizer", name))
        await self.database.commit(changes.audit(actor, "awsiot.authorizer_delete", name))

    async def set_default(self, name: str, *, actor: str) -> Authorizer:
        """Set the default authorizer.

        Raise `UnknownAuthorizerError`; `AuthorizerExistsError` for another one.
        """
        known = await self.get(name)
        there = await self._default_name()
        if there is not None and there != name:
            raise AuthorizerExistsError(authorizer=there)
        unknown = UnknownAuthorizerError(authorizer=name)
        changes = Changes().run(store.AUTHORIZER_IS_THERE, expect=1, otherwise=unknown, key_name=name)
        if there is None:
            exists = ChangedMeanwhileError(what="The default authorizer")
            changes.run(store.ADD_DEFAULT, expect=1, otherwise=exists, kind=store.AUTHORIZER, name=name)
        await self.database.commit(changes.audit(actor, "awsiot.default_authorizer_set", name))
        return known

    async def clear_default(self, *, actor: str) -> None:
        """Clear the default authorizer. Raise `UnknownAuthorizerError`."""
        none = UnknownAuthorizerError(authorizer="default")
        changes = Changes().run(store.CLEAR_DEFAULT, expect=1, otherwise=none, kind=store.AUTHORIZER)
        await self.database.commit(changes.audit(actor, "awsiot.default_authorizer_clear", store.AUTHORIZER))

    async def default(self) -> Authorizer:
        """Return the default authorizer. Raise `UnknownAuthorizerError`."""
        if (name := await self._default_name()) is None:
            raise UnknownAuthorizerError(authorizer="default")
        return await self.get(name)

    async def _default_name(self) -> str | None:
        row = await self.database.one(store.GET_DEFAULT, kind=store.AUTHORIZER)
        return None if row is None else str(row["name"])

    # ---- deciding

    async def authorize(self, presented: AuthorizerRequest, visitor: ConnectionContext) -> ConnectionGrant:
        """Return the permissions of a client from its authorizer.

        Raise why it is denied, or why no function is called.
        """
        name = presented.value(NAME) or await self._default_name()
        if name is None:
            raise (NoAuthorizerError if presented.asks else NoCertificateError)(thing=presented.thing)
        authorizer = await self.get(name)
        connection_id = new_uuid(self.entropy)
        event = self._event(authorizer, presented, connection_id)
        self.unauthenticated.begin(name, presented.address)
        try:
            grant = await self._granted(authorizer, event, presented, visitor, FunctionCaller.UNAUTHENTICATED)
        except FunctionFailedError as error:
            if isinstance(error.__cause__, QuestionsWaitError):
                self.unauthenticated.refund_attempt(name, presented.address)
            raise
        self.unauthenticated.record_success(name, presented.address)
        return grant

    async def reauthorize(self, grant: ConnectionGrant) -> ConnectionGrant:
        """Return the function's current result for an authorized client. Raise why it must disconnect."""
        authorized = grant.authorized
        assert authorized is not None  # noqa: S101 - by an authorizer
        authorizer = await self.get(authorized.authorizer)
        event = self._event(authorizer, authorized.presented, authorized.connection_id)
        return await self._granted(authorizer, event, authorized.presented, authorized.visitor, FunctionCaller.KNOWN)

    async def check_stands(self, name: str, thing: str) -> None:
        """Raise if a client's authorizer could no longer authorize any client."""
        if not (await self.get(name)).is_active:
            raise AuthorizerInactiveError(authorizer=name, thing=thing)

    async def try_out(
        self, name: str, presented: AuthorizerRequest, token: str | None, signature: str | None, *, actor: str
    ) -> AuthorizerVerdict:
        """Return the function's verdict on these credentials, as a test."""
        authorizer = await self.get(name)
        if is_verified := not authorizer.signing_disabled:
            check_token(authorizer, token, signature, presented.thing)
        event = event_of(presented, token, new_uuid(self.entropy), is_verified=is_verified)
        return verdict_of(
            authorizer, await self.functions.call(authorizer.function_arn, event, FunctionCaller.PERSON, actor)
        )

    def _event(self, authorizer: Authorizer, presented: AuthorizerRequest, connection_id: str) -> Mapping[str, object]:
        """Return the event for the function. Raise why no function is called."""
        if not authorizer.is_active:
            raise AuthorizerInactiveError(authorizer=authorizer.name, thing=presented.thing)
        token = None if authorizer.token_key_name is None else presented.value(authorizer.token_key_name)
        if is_verified := not authorizer.signing_disabled:
            check_token(authorizer, token, presented.value(SIGNATURE), presented.thing)
        return event_of(presented, token, connection_id, is_verified=is_verified)

    async def _granted(
        self,
        authorizer: Authorizer,
        event: Mapping[str, object],
        presented: AuthorizerRequest,
        visitor: ConnectionContext,
        caller: FunctionCaller,
    ) -> ConnectionGrant:
        answer = await self.functions.call(authorizer.function_arn, event, caller, share_of(presented.address))
        verdict = verdict_of(authorizer, answer)
        if not verdict.is_authenticated:
            raise AuthorizerRefusedError(
                authorizer=authorizer.name, function=authorizer.function_arn, thing=presented.thing
            )
        permissions = ConnectionPermissions(verdict.policies, facts_of(None, visitor))
        connection = event["connectionMetadata"]
        assert isinstance(connection, dict)  # noqa: S101 - as created
        by = AuthorizerContext(authorizer.name, presented, visitor, connection["id"], verdict, authorizer.caches_http)
        principal = f"authorizer/{authorizer.name}/{verdict.principal}"
        return ConnectionGrant(principal, None, None, permissions, receives=permissions.receives, authorized=by)


def _check(authorizer: Authorizer) -> None:
    if len(authorizer.signing_keys) > MAX_KEYS:
        raise BodyInvalidError(detail=f"tokenSigningPublicKeys has more than {MAX_KEYS} keys", command=_CREATE)
    for name, pem in authorizer.signing_keys.items():
        signing_key_of(name, pem)
    if not authorizer.signing_disabled and not (authorizer.signing_keys and authorizer.token_key_name):
        detail = "tokenKeyName and tokenSigningPublicKeys are needed unless signingDisabled is true"
        raise BodyInvalidError(detail=detail, command=_CREATE)
