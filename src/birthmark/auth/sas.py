"""Shared access signatures, as created by Azure's SDKs (IoT Hub documentation, "Control access with SAS tokens").

    SharedAccessSignature sr={resource}&sig={base64 HMAC-SHA256}&se={epoch seconds}[&skn={policy}]

The order of the fields is arbitrary. The signature covers the raw `sr` text of the token, a line feed, and `se`. SDKs
differ in percent-encoding and letter case, so the signature is verified over the raw text. The resource is compared
decoded and case-insensitively. .NET and IoT Edge encode a device or module ID before they encode the audience, so each
segment may be decoded once or twice. `sig` may contain an unescaped slash, and a plus sign is literal.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import quote, unquote

from birthmark.errors import UnauthenticatedError

PREFIX = "SharedAccessSignature "
SKEW = timedelta(minutes=5)
MAX_TOKEN_CHARS = 4096
_SCHEME = re.compile(r"^(?:sb|amqps?|https)://")  # Event Hubs clients and uamqp sign a URL
_PORT = re.compile(r"^([^/:]+|\[[^/\]]+\]):[0-9]{1,5}(?=/|$)")


class SasMalformedError(UnauthenticatedError):
    """The text is not a shared access signature."""

    code = "sas.malformed"
    message = "The shared access signature cannot be read: {detail}"
    fix = (
        "Let the SDK create the token from the server's connection string. To set the connection string: `eval "
        '"$(birthmark env)"`'
    )
    detail: str


class SasExpiredError(UnauthenticatedError):
    """The token has expired."""

    code = "sas.expired"
    cause = "The token expired at {expiry}; this server's clock shows {now}."
    fix = (
        "Create a new token; the SDKs do so automatically. If the device's clock is wrong, synchronize it (NTP) with "
        "this server's clock. To print the server's time: `date -u`"
    )
    expiry: str
    now: str


class SasSignatureError(UnauthenticatedError):
    """The signature does not match."""

    code = "sas.signature_mismatch"
    cause = "The token for {resource} is not signed with a registered key."
    fix = "Use the registered key. To get the server's connection strings, which contain this key: `{command}`"
    command: str = 'eval "$(birthmark env)"'
    resource: str


class SasScopeError(UnauthenticatedError):
    """The token is for another resource."""

    code = "sas.wrong_resource"
    cause = "The token's audience (sr) is {resource}; the request is for {expected}."
    fix = (
        "Sign a token for the audience {expected}, or for a path above this audience. The SDKs use the host in the "
        'connection string. To set the connection string: `eval "$(birthmark env)"`'
    )
    expected: str
    resource: str


@dataclass(frozen=True, slots=True)
class SasToken:
    """A parsed, unverified SAS token."""

    signed_resource: str
    signature: bytes = field(repr=False)
    expiry_s: int
    policy: str | None

    @property
    def resource(self) -> str:
        """The resource decoded, in lower case, for comparing."""
        return unquote(self.signed_resource).lower()


def parse_sas(text: str) -> SasToken:
    """Return the token in an Authorization header or MQTT password. Raise `SasMalformedError`."""
    if len(text) > MAX_TOKEN_CHARS:
        raise SasMalformedError(detail=f"longer than {MAX_TOKEN_CHARS} characters")
    if not text.startswith(PREFIX):
        raise SasMalformedError(detail="it does not start with SharedAccessSignature")
    fields: dict[str, str] = {}
    for part in text[len(PREFIX) :].strip().split("&"):
        name, equals, value = part.partition("=")
        if not equals or name in fields:
            raise SasMalformedError(detail=f"field {name[:10]!r} has no value or is repeated")
        fields[name] = value
    try:
        signature = base64.b64decode(unquote(fields["sig"]), validate=True)
        expiry = int(fields["se"])
        return SasToken(fields["sr"], signature, expiry, unquote(fields["skn"]) if fields.get("skn") else None)
    except KeyError as error:
        raise SasMalformedError(detail=f"field {error.args[0]} is missing") from error
    except ValueError as error:
        raise SasMalformedError(detail="sig is not base64, or se not a number") from error


def render_sas(resource: str, sign: Callable[[bytes], bytes], expiry: datetime, policy: str | None = None) -> str:
    """Return a token for `resource` until `expiry`, signed by `sign` (see `hmac_sha256`)."""
    encoded, expiry_s = quote(resource, safe=""), int(expiry.timestamp())
    signature = quote(base64.b64encode(sign(f"{encoded}\n{expiry_s}".encode())), safe="")
    text = f"{PREFIX}sr={encoded}&sig={signature}&se={expiry_s}"
    return text if policy is None else f"{text}&skn={quote(policy, safe='')}"


def hmac_sha256(key: bytes) -> Callable[[bytes], bytes]:
    """Return a function that signs with a local key."""
    return lambda data: hmac.digest(key, data, hashlib.sha256)


def check_sas(token: SasToken, keys: Sequence[bytes], now: datetime) -> None:
    """Check the signature against `keys` and the expiry against `now`. Raise `UnauthenticatedError`."""
    check_signature(token, keys)
    check_expiry(token, now)


def check_signature(token: SasToken, keys: Sequence[bytes]) -> None:
    """Raise `SasSignatureError` unless one of `keys` signed it."""
    signed = f"{token.signed_resource}\n{token.expiry_s}".encode()
    good = False
    for key in keys:  # try every key so that timing does not reveal the match
        good |= hmac.compare_digest(hmac.digest(key, signed, hashlib.sha256), token.signature)
    if not good:
        raise SasSignatureError(resource=unquote(token.signed_resource))


def check_expiry(token: SasToken, now: datetime) -> None:
    """Raise `SasExpiredError` if the token expired, with tolerance for clock skew."""
    if now - SKEW > _moment(token.expiry_s, now):
        raise SasExpiredError(expiry=_moment(token.expiry_s, now).isoformat(), now=now.isoformat())


def check_resource(token: SasToken, expected: Sequence[str]) -> None:
    """Verify that the token is for one of `expected` or a parent resource, by path segment.

    The host matches with any port or none, and as part of a URL, as SDKs sign the host of their connection string.
    """
    segments = _segments(token.resource.rstrip("/"))
    for candidate in expected:
        wanted = _segments(candidate.lower())
        pairs = zip(segments, wanted, strict=False)
        if len(segments) <= len(wanted) and all(one in {given, unquote(given).lower()} for given, one in pairs):
            return
    raise SasScopeError(resource=token.resource, expected=expected[0])


def _segments(resource: str) -> list[str]:
    return _PORT.sub(r"\1", _SCHEME.sub("", resource)).split("/")


def derive_device_key(group_key: bytes, registration_id: str) -> bytes:
    """Return a device's key, derived from its group's key (DPS documentation, "Derive a device key")."""
    return hmac.digest(group_key, registration_id.encode(), hashlib.sha256)


def _moment(expiry_s: int, now: datetime) -> datetime:
    try:
        return datetime.fromtimestamp(expiry_s, now.tzinfo)
    except (OverflowError, ValueError, OSError):
        return datetime.max.replace(tzinfo=now.tzinfo) if expiry_s > 0 else datetime.min.replace(tzinfo=now.tzinfo)
