"""`[oidc.NAME]`: identity providers for user sign-in."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from birthmark.errors import UnavailableError
from birthmark.iam.model import EVERYWHERE, UserRole, is_place, is_valid_user_name
from birthmark.iam.oidc_model import Provider
from birthmark.text_file_encodings import decode_text, format_conversion_fix
from birthmark.untrusted_json_and_text import reason_of

_ROLE = re.compile(r"(?P<role>[a-z-]+)(?: at (?P<place>\S+))?")
_MAX_BYTES = 4096


class SecretFileError(UnavailableError):
    """The secret of a provider cannot be read."""

    code = "server.oidc_secret_unusable"
    cause = "The file {path}, set in oidc.{name}.client_secret_file, cannot be used: {reason}."
    fix = "Write the provider's secret to the file on a single line. To check the file: `ls -l {path}`"
    for_a_person = "only the provider has the secret"
    name: str
    path: Path
    reason: str


class Oidc(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An OpenID Connect provider."""

    issuer: str
    client_id: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    client_secret_file: str | None = None
    title: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    """Display name on the sign-in page."""
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    claim: str | None = None
    """Claim that holds the name of an existing user."""
    domains: tuple[str, ...] = ()
    """Allowed domains of verified addresses, if the claim is `email`."""
    group_claim: str = "groups"
    roles: dict[str, str] = {}
    """Roles by group (`*` for all users): `ROLE` or `ROLE at PLACE`, for users that the first sign-in creates."""


def mistakes_of_oidc(providers: Mapping[str, Oidc], *, allows_plain: bool) -> Iterator[tuple[str, str]]:
    """Yield key and accepted values for values that have the right type but are invalid."""
    for name, one in providers.items():
        at = f"oidc.{name}"
        if not is_valid_user_name(name):
            yield at, "must consist of letters, digits and - . _"
        if not _is_issuer(one.issuer):
            yield f"{at}.issuer", "must be https://HOST/…, exactly as the provider publishes it"
        elif not one.issuer.startswith("https:") and not allows_plain:
            yield f"{at}.issuer", "must be https://HOST/…; http:// is for a network that [outbound] allow names"
        if "openid" not in one.scopes:
            yield f"{at}.scopes", 'must have "openid" among them'
        if (one.claim == "email") != bool(one.domains):
            yield f"{at}.domains", 'must be set if claim = "email", and only then: the accepted email domains'
        if one.roles and one.claim is None:
            yield f"{at}.roles", "requires a claim, which provides the names of new users"
        for group, text in one.roles.items():
            if _role_of(text) is None:
                yield f"{at}.roles.{group}", "must be ROLE or ROLE at PLACE, such as viewer at hub/birthmark"


def providers_of(settings: Mapping[str, Oidc]) -> Sequence[Provider]:
    """Return the providers, with their secrets. Raise `SecretFileError`."""
    return [
        Provider(
            name,
            one.title or name,
            one.issuer,
            one.client_id,
            _secret(name, one.client_secret_file),
            one.scopes,
            one.claim,
            [domain.lower() for domain in one.domains],
            one.group_claim,
            {group: [role] for group, text in one.roles.items() if (role := _role_of(text)) is not None},
        )
        for name, one in sorted(settings.items())
    ]


def _is_issuer(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in {"https", "http"} and bool(parts.hostname) and not parts.query and not parts.fragment


def _role_of(text: str) -> tuple[UserRole, str] | None:
    found = _ROLE.fullmatch(text)
    if found is None or found["role"] not in set(UserRole):
        return None
    place = found["place"] or EVERYWHERE
    return (UserRole(found["role"]), place) if is_place(place) else None


def _secret(name: str, file: str | None) -> str | None:
    if file is None:
        return None
    path = Path(file).expanduser()
    raw = b""
    try:
        with path.open("rb") as opened:
            raw = opened.read(_MAX_BYTES)
        found = decode_text(raw).strip()
    except OSError as error:
        raise SecretFileError(name=name, path=path, reason=reason_of(error)) from error
    except UnicodeDecodeError as error:
        refusal = SecretFileError(name=name, path=path, reason="it is not UTF-8")
        refusal.quote(fix=f"{format_conversion_fix(path, raw, is_secret=True)}.")
        raise refusal from error
    if not found:
        raise SecretFileError(name=name, path=path, reason="it is empty")
    if not found.isprintable():
        raise SecretFileError(name=name, path=path, reason="it holds more than one line, or a control character")
    return found
