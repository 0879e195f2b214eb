"""OpenID Connect sign-in: authorization code with PKCE, state and nonce (RFC 9700), separate per provider.

A provider's subject is linked to a user once: by an invitation, by the configured claim, or as a new user with a
configured role. After that, only the link counts.
"""

import asyncio
import base64
import hmac
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from birthmark.actor import Actor
from birthmark.clock_and_entropy import Entropy
from birthmark.errors import PolicyError, UnavailableError
from birthmark.iam import sign_in_model as store
from birthmark.iam.model import RoleAssignment, is_valid_user_name
from birthmark.iam.oidc_model import (
    Fetch,
    OidcIdentity,
    PendingOidcLogin,
    Provider,
    ProviderAwayError,
    ProviderRefusedError,
    ProviderUnknownError,
    UserNotRegisteredError,
)
from birthmark.iam.oidc_responses import (
    Metadata,
    groups_of,
    name_of,
    read_claims,
    read_keys,
    read_metadata,
    read_tokens,
    verify_id_token,
)
from birthmark.iam.password_sign_in import SignIn
from birthmark.iam.sign_in_model import Browser, OidcLink
from birthmark.net.quota_key import share_of
from birthmark.store import Changes

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

_FRESH_S, _AGAIN_S = 3600.0, 10.0
_MOST_BYTES = 256 * 1024
_MOST_AT_ONCE, _MOST_OF_ADDRESS = 8, 3
_SECRET_BYTES = 32
_OK = 200
_MAX_SHOWN = 100
GOOD_FOR = timedelta(minutes=10)


@dataclass(slots=True)
class _ProviderClient:
    """Cached metadata and keys of a provider, and when they were fetched."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    busy: int = 0
    metadata: Metadata | None = None
    keys: "KeySet | None" = None
    asked_at: float = -_FRESH_S
    problem: str = ""


@dataclass(slots=True)
class Providers:
    """OpenID Connect providers of the configuration."""

    sign_in: SignIn = field(repr=False)
    entropy: Entropy = field(repr=False)
    outside: Fetch = field(repr=False)
    all: Sequence[Provider] = ()
    _known: dict[str, _ProviderClient] = field(default_factory=dict, init=False, repr=False)
    _coming: Counter[str] = field(default_factory=Counter, init=False, repr=False)
    """Sign-ins in progress at the provider, by quota key of the address."""

    def provider(self, name: str) -> Provider:
        """Return a provider. Raise `ProviderUnknownError`."""
        for one in self.all:
            if one.name == name:
                return one
        raise ProviderUnknownError(name=name[:_MAX_SHOWN])

    async def begin(self, name: str, redirect_uri: str, path: str, code: str) -> tuple[str, PendingOidcLogin]:
        """Return the authorization URL and the state for the browser to keep.

        Raise `ProviderAwayError`, `ProviderUnknownError`.
        """
        from authlib.oauth2.rfc6749.parameters import prepare_grant_uri  # noqa: PLC0415 - see `oidc_responses`
        from authlib.oauth2.rfc7636 import create_s256_code_challenge  # noqa: PLC0415 - as above

        provider = self.provider(name)
        metadata, _ = await self._get_provider_data(provider)
        state, nonce, verifier = (self._secret() for _ in range(3))
        url: str = prepare_grant_uri(
            metadata.authorization_endpoint,
            client_id=provider.client_id,
            response_type="code",
            redirect_uri=redirect_uri,
            scope=" ".join(provider.scopes),
            state=state,
            nonce=nonce,
            code_challenge=create_s256_code_challenge(verifier),
            code_challenge_method="S256",
        )
        return url, PendingOidcLogin(name, state, nonce, verifier, path, code)

    async def finish(
        self, name: str, values: Mapping[str, str], login: PendingOidcLogin | None, redirect_uri: str, browser: Browser
    ) -> str:
        """Complete a sign-in and return a new session.

        Raise `ProviderRefusedError`, `ProviderAwayError`, `NobodyOnRecordError`, `InvitationRefusedError`.
        """
        provider, share = self.provider(name), share_of(browser.address)
        metadata, _ = await self._get_provider_data(provider)
        code = _code_of(values, login, provider, metadata)
        assert login is not None  # noqa: S101 - otherwise rejected
        # An unauthenticated client may forge the browser's state, so it must not use up other users' quota.
        if self._coming[share] >= _MOST_OF_ADDRESS:
            reason = "too many sign-ins from this address are in progress"
            raise ProviderAwayError(name=provider.name, issuer=provider.issuer, reason=reason)
        self._coming[share] += 1
        try:
            known = await self._exchange_code(provider, metadata, code, login, redirect_uri)
            return await self._create_session(provider, metadata, known, login.code, browser)
        finally:
            self._coming[share] -= 1
            if not self._coming[share]:
                del self._coming[share]

    async def _create_session(
        self, provider: Provider, metadata: Metadata, identity: OidcIdentity, code: str, browser: Browser
    ) -> str:
        """Create a session of the linked user; link the user first if needed."""
        people, how = self.sign_in.people, f"oidc:{provider.name}"
        row = await people.database.one(store.LINK, issuer=provider.issuer, subject=identity.subject)
        if row is not None and not code:
            link = store.LINKS.of(row)
            gone = UserNotRegisteredError(name=provider.name, detail="the link was removed")
            held = people.guard_user(link.user)
            held.run(store.IS_LINKED, expect=1, otherwise=gone, key_issuer=link.issuer, key_subject=link.subject)
            text = self.sign_in.sessions.begin(held, link.user, how, link.let_in_by, browser)
            await people.commit(held, link.user)
            return text
        if not code:
            identity = await self._add_userinfo_claims(provider, metadata, identity)
        user, let_in_by, changes = await self._resolve_user(provider, identity, code, browser)
        link = OidcLink(provider.issuer, identity.subject, user, provider.name, let_in_by, people.clock.now())
        changes.run(store.REMOVE_LINK, user_name=user, provider=provider.name)
        taken = UserNotRegisteredError(name=provider.name, detail="that account belongs to another user here")
        changes.run(store.ADD_LINK, expect=1, otherwise=taken, **store.LINKS.row(link))
        changes.audit(Actor(f"user:{user}", {"from": browser.address}), "people.link", user, provider=provider.name)
        text = self.sign_in.sessions.begin(changes, user, how, let_in_by, browser)
        await people.commit(changes, user)
        return text

    async def _resolve_user(
        self, provider: Provider, identity: OidcIdentity, code: str, browser: Browser
    ) -> tuple[str, str, Changes]:
        """Return the user to link, the actor who admitted the user, and the changes."""
        people, by = self.sign_in.people, f"oidc:{provider.name}"
        if code:
            invitation = await self.sign_in.invited(code)
            return invitation.user, invitation.made_by, self.sign_in.redeeming(invitation)
        name = name_of(identity, provider)
        if name is None:
            raise UserNotRegisteredError(name=provider.name, detail="its response does not identify a user")
        if people.has_user(name):
            linked = [store.LINKS.of(row) for row in await people.database.all(store.LINKS_OF, user_name=name)]
            if any(one.provider == provider.name for one in linked):
                raise UserNotRegisteredError(
                    name=provider.name, detail="another account at the provider is already linked to that user"
                )
            return name, by, people.guard_user(name)
        groups = groups_of(identity.claims, provider)
        roles = [role for group, given in provider.roles.items() if group in groups for role in given]
        if not roles or not is_valid_user_name(name):
            raise UserNotRegisteredError(name=provider.name, detail="the user does not exist here")
        grants = [RoleAssignment(name, role, place) for role, place in roles if people.has_place(place)]
        if not grants:
            raise UserNotRegisteredError(name=provider.name, detail="its roles have scopes that do not exist")
        actor = Actor(by, {"from": browser.address})
        return name, by, people.making(name, grants, actor=actor)

    # Provider requests

    async def _exchange_code(
        self, provider: Provider, metadata: Metadata, code: str, login: PendingOidcLogin, redirect_uri: str
    ) -> OidcIdentity:
        """Exchange the code for a verified identity. Raise `ProviderRefusedError`, `ProviderAwayError`."""
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
        form |= {"code_verifier": login.verifier, "client_id": provider.client_id}
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        if provider.secret is not None:
            if "client_secret_basic" in metadata.token_endpoint_auth_methods_supported:
                pair = f"{quote(provider.client_id, safe='')}:{quote(provider.secret, safe='')}"
                headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
            else:
                form["client_secret"] = provider.secret
        status, body = await self._fetched(provider, "POST", metadata.token_endpoint, headers, urlencode(form).encode())
        if status != _OK:
            raise ProviderRefusedError(name=provider.name, detail=f"its token endpoint returned {status}")
        tokens, now = read_tokens(body, provider), self.sign_in.people.clock.now()
        _, keys = await self._get_provider_data(provider)
        try:
            return verify_id_token(tokens, keys, provider, login.nonce, now)
        except ProviderRefusedError:
            again = await self._get_provider_data(provider, but=keys)  # it may have a new key since
            if again[1] is keys:
                raise
            return verify_id_token(tokens, again[1], provider, login.nonce, now)

    async def _add_userinfo_claims(
        self, provider: Provider, metadata: Metadata, identity: OidcIdentity
    ) -> OidcIdentity:
        """Return the identity with missing claims from the userinfo endpoint (Core, section 5.4)."""
        wanted = {provider.claim, provider.group_claim if provider.roles else None} - {None, *identity.claims}
        if not wanted or metadata.userinfo_endpoint is None or not identity.access_token:
            return identity
        headers = {"accept": "application/json", "authorization": f"Bearer {identity.access_token}"}
        status, body = await self._fetched(provider, "GET", metadata.userinfo_endpoint, headers, b"")
        if status != _OK:
            raise ProviderRefusedError(name=provider.name, detail=f"its userinfo endpoint returned {status}")
        claims = read_claims(body, provider)
        if claims.get("sub") != identity.subject:
            raise ProviderRefusedError(name=provider.name, detail="its userinfo endpoint returned another user")
        return replace(identity, claims={**claims, **identity.claims})

    async def _get_provider_data(self, provider: Provider, but: "KeySet | None" = None) -> "tuple[Metadata, KeySet]":
        """Return a provider's cached metadata and keys; fetch them if they are stale or the keys are `but`.

        Raise `ProviderAwayError`; a provider that did not respond is not retried immediately.
        """
        of = self._known.setdefault(provider.name, _ProviderClient())
        async with of.turn:
            age_s = self.sign_in.people.clock.monotonic() - of.asked_at
            is_wanted = age_s > _FRESH_S or (age_s > _AGAIN_S and (of.keys is None or of.keys is but))
            if is_wanted:
                of.asked_at = self.sign_in.people.clock.monotonic()
                try:
                    of.metadata, of.keys = await self._read(provider)
                except ProviderAwayError as error:
                    of.problem, of.metadata, of.keys = error.reason, None, None
            if of.metadata is None or of.keys is None:
                raise ProviderAwayError(name=provider.name, issuer=provider.issuer, reason=of.problem)
            return of.metadata, of.keys

    async def _read(self, provider: Provider) -> "tuple[Metadata, KeySet]":
        from authlib.oidc.discovery import get_well_known_url  # noqa: PLC0415 - see `oidc_responses`

        accept, found = {"accept": "application/json"}, []
        url: str = get_well_known_url(provider.issuer, external=True)
        metadata: Metadata | None = None
        for _ in range(2):
            status, body = await self._fetched(provider, "GET", url, accept, b"")
            if status != _OK:
                raise ProviderAwayError(name=provider.name, issuer=provider.issuer, reason=f"it returned {status}")
            found.append(body)
            if metadata is None:
                metadata = read_metadata(body, provider)
                url = metadata.jwks_uri
        assert metadata is not None  # noqa: S101 - just read
        return metadata, read_keys(found[1], provider)

    async def _fetched(
        self, provider: Provider, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes]:
        of, away = (
            self._known.setdefault(provider.name, _ProviderClient()),
            {"name": provider.name, "issuer": provider.issuer},
        )
        if of.busy >= _MOST_AT_ONCE:
            raise ProviderAwayError(**away, reason="too many sign-ins are in progress")
        of.busy += 1
        try:
            return await self.outside.fetch(method, url, headers, body, _MOST_BYTES)
        except (UnavailableError, PolicyError) as error:
            raise ProviderAwayError(**away, reason=error.explain_cause().rstrip(".")) from error
        finally:
            of.busy -= 1

    def _secret(self) -> str:
        return base64.urlsafe_b64encode(self.entropy.token(_SECRET_BYTES)).decode().rstrip("=")


def _code_of(values: Mapping[str, str], login: PendingOidcLogin | None, provider: Provider, metadata: Metadata) -> str:
    """Return the authorization code of a redirect. Raise `ProviderRefusedError` if this server did not start it."""

    def refused(detail: str) -> ProviderRefusedError:
        return ProviderRefusedError(name=provider.name, detail=detail)

    if login is None or login.provider != provider.name:
        raise refused("the sign-in was not started in this browser, or more than 10 minutes ago")
    if not hmac.compare_digest(values.get("state", "").encode(), login.state.encode()):
        raise refused("it belongs to another sign-in (state)")
    issuer = values.get("iss")
    if issuer != provider.issuer and (issuer is not None or metadata.authorization_response_iss_parameter_supported):
        raise refused("it is from another provider (iss)")  # RFC 9207 section 2.4
    if error := values.get("error"):
        raise refused(f"it returned {error[:_MAX_SHOWN]!a}")
    if not (code := values.get("code")):
        raise refused("it contains no code")
    return code
