"""Parse and verify provider responses: metadata, keys and ID tokens (OpenID Connect Core 1.0).

authlib and joserfc are imported where they are used: a server without a provider starts without them.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from birthmark.iam.oidc_model import OidcIdentity, Provider, ProviderAwayError, ProviderRefusedError
from birthmark.untrusted_json_and_text import decode_json, printable

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
"""Accepted algorithms: signatures with the provider's own key only; no `none`, no shared secret."""
_LEEWAY_S = 60
_MAX_SUBJECT = 255
_MOST_KEYS = 64


class Metadata(msgspec.Struct, frozen=True):
    """Fields used of a provider's metadata (OpenID Connect Discovery 1.0 section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False


class OidcTokens(msgspec.Struct, frozen=True):
    """Fields used of a token response."""

    id_token: str
    access_token: str = ""


def read_metadata(body: bytes, provider: Provider) -> Metadata:
    """Return a provider's metadata. Raise `ProviderAwayError` for another issuer or invalid endpoints."""
    found: Metadata = _read(body, Metadata, provider)
    if found.issuer != provider.issuer:
        raise _away(provider, "it returned another issuer")
    plain = urlsplit(provider.issuer).scheme == "http"
    endpoints = [found.authorization_endpoint, found.token_endpoint, found.jwks_uri]
    for url in endpoints if found.userinfo_endpoint is None else [*endpoints, found.userinfo_endpoint]:
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise _away(provider, "it returned invalid endpoints") from error
        good = parts.scheme == "https" or (plain and parts.scheme == "http")
        if not (good and parts.hostname and url.isascii() and url.isprintable() and " " not in url):
            raise _away(provider, "it returned invalid endpoints")
    return found


def read_keys(body: bytes, provider: Provider) -> "KeySet":
    """Return a provider's keys, without those of unknown types. Raise `ProviderAwayError`."""
    from joserfc.errors import JoseError  # noqa: PLC0415 - see above
    from joserfc.jwk import KeySet  # noqa: PLC0415 - see above

    listed = _read(body, dict[str, Any], provider).get("keys")
    if not isinstance(listed, list):
        raise _away(provider, "it returned no keys")
    keys = []
    for one in listed[:_MOST_KEYS]:
        try:
            keys += KeySet.import_key_set({"keys": [one]}).keys
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    return KeySet(keys)


def read_tokens(body: bytes, provider: Provider) -> OidcTokens:
    """Return the tokens in a provider's response. Raise `ProviderAwayError`."""
    found: OidcTokens = _read(body, OidcTokens, provider)
    return found


def read_claims(body: bytes, provider: Provider) -> dict[str, Any]:
    """Return the claims of a userinfo response. Raise `ProviderAwayError`."""
    found: dict[str, Any] = _read(body, dict[str, Any], provider)
    return found


def verify_id_token(tokens: OidcTokens, keys: "KeySet", provider: Provider, nonce: str, now: datetime) -> OidcIdentity:
    """Verify an ID token's audience, validity and nonce, and return its identity. Raise `ProviderRefusedError`."""
    from authlib.oauth2.rfc6749.errors import OAuth2Error  # noqa: PLC0415 - see above
    from authlib.oidc.core import CodeIDToken  # noqa: PLC0415 - see above
    from joserfc import jwt  # noqa: PLC0415 - see above
    from joserfc.errors import JoseError  # noqa: PLC0415 - see above

    try:
        read = jwt.decode(tokens.id_token, keys, algorithms=list(ALGORITHMS))
        params = {"client_id": provider.client_id, "nonce": nonce, "access_token": tokens.access_token}
        options = {"iss": {"essential": True, "value": provider.issuer}, "aud": {"value": provider.client_id}}
        CodeIDToken(read.claims, read.header, options, params).validate(int(now.timestamp()), _LEEWAY_S)
    except (JoseError, OAuth2Error, ValueError, TypeError, KeyError) as error:
        detail = printable(str(error))[:200]
        raise ProviderRefusedError(name=provider.name, detail=f"its ID token: {detail}") from error
    subject = read.claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT or read.claims.get("nonce") != nonce:
        raise ProviderRefusedError(name=provider.name, detail="its ID token contains no subject")
    return OidcIdentity(subject, read.claims, tokens.access_token)


def name_of(identity: OidcIdentity, provider: Provider) -> str | None:
    """Return the user name in the configured claim, or None."""
    value = identity.claims.get(provider.claim) if provider.claim else None
    if not isinstance(value, str):
        return None
    if provider.claim != "email":
        return value
    name, _, domain = value.rpartition("@")
    is_theirs = identity.claims.get("email_verified") is True and domain.lower() in provider.domains
    return name if is_theirs else None


def groups_of(claims: Mapping[str, Any], provider: Provider) -> set[str]:
    """Return the groups in the claims; every user is in `*`."""
    found = claims.get(provider.group_claim)
    return {"*", *(one for one in (found if isinstance(found, list) else [found]) if isinstance(one, str))}


def _read(body: bytes, kind: Any, provider: Provider) -> Any:
    try:
        return decode_json(body, kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _away(provider, "its response has an unexpected form") from error


def _away(provider: Provider, reason: str) -> ProviderAwayError:
    return ProviderAwayError(name=provider.name, issuer=provider.issuer, reason=reason)
