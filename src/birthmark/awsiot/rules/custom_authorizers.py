"""Custom authorizers: client credentials, function events, and valid responses.

See the developer guide, "Custom authentication and authorization".

In:   user name, headers, and query of a client, and a function's JSON response. Out:  the token after signature
verification, the event for the function, a verdict with parsed policies.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from birthmark.awsiot.model import Authorizer
from birthmark.awsiot.rules.policy import AwsPolicy, PolicyDeniedError, PolicyMalformedError, parse_policy
from birthmark.errors import ForbiddenError, InvalidRequestError, UnauthenticatedError
from birthmark.pki.single_certificate_checks import MAX_EXPONENT_BITS, MAX_RSA_BITS, MIN_RSA_BITS

NAME, SIGNATURE = "x-amz-customauthorizer-name", "x-amz-customauthorizer-signature"
MIN_TIME_S, MAX_TIME_S = 300, 86_400
MAX_DOCUMENTS, MAX_KEYS = 10, 10
MAX_TOKEN_CHARS = 6144
MAX_PARTS, _MAX_KEY_CHARS = 64, 3 * 128
"""Limits for user name and query: number of parts, as clients send, and the encoded length of a name.

The length allows a name of 128 characters.
"""
_MAX_PRINCIPAL = 128
_MAX_REASON = 200


class SigningKeyInvalidError(InvalidRequestError):
    """The token signing public key is not valid."""

    code = "awsiot.signing_key_invalid"
    message = "Invalid token signing public key {name}: {detail}"
    fix = (
        "Use an RSA public key of 2048 to 8192 bits in PEM format. To generate a key pair and print the public key: "
        "`(umask 077; set -C; openssl genrsa 2048 > token.key) && openssl rsa -in token.key -pubout`"
    )
    name: str
    detail: str


class TokenRefusedError(UnauthenticatedError):
    """The token's signature is missing or not valid."""

    code = "awsiot.token_refused"
    message = "The authorizer {authorizer} rejected the token"
    cause = (
        "A client ({thing}) used the authorizer {authorizer}, and {reason}. The authorizer's function was not called."
    )
    fix = (
        "Sign the token using RSA with SHA-256 and a key registered with the authorizer, then send the token and its "
        "signature. Show the token's name and the keys: `aws iot describe-authorizer --authorizer-name {authorizer}`."
    )
    authorizer: str
    reason: str
    thing: str


class AuthorizerRefusedError(ForbiddenError):
    """The authorizer's function denied the client."""

    code = "awsiot.authorizer_refused"
    cause = "The function {function} of the authorizer {authorizer} denied a client ({thing})."
    fix = (
        "Check the function's logic, and test the function with the client's credentials. Show the authorizer's "
        "function: `aws iot describe-authorizer --authorizer-name {authorizer}`"
    )
    authorizer: str
    function: str
    thing: str


class AuthorizerAnswerError(InvalidRequestError):
    """The authorizer's function returned an invalid response."""

    code = "awsiot.authorizer_answer_invalid"
    message = "The authorizer {authorizer} returned an invalid response"
    cause = "The function {function} of the authorizer {authorizer} returned an invalid response: {detail}."
    fix = (
        "Return isAuthenticated, principalId (letters and digits), policyDocuments (at most 10), "
        "refreshAfterInSeconds, and disconnectAfterInSeconds (both 300 to 86400). Show the authorizer's function: "
        "`aws iot describe-authorizer --authorizer-name {authorizer}`"
    )
    authorizer: str
    function: str
    detail: str


class AuthorizerDeniedError(PolicyDeniedError):
    """The policies from the authorizer's function do not allow this action."""

    code = "awsiot.authorizer_denied"
    cause = "The policies from the authorizer's function do not allow {action} on {resource}: {hint}."
    fix = (
        "Change the function to return a policy that allows {action} on {resource} and no policy that denies this "
        "action. Show the authorizer's function: `aws iot describe-authorizer --authorizer-name {authorizer}`"
    )
    authorizer: str


@dataclass(frozen=True, slots=True)
class AuthorizerRequest:
    """A client's credentials instead of a certificate; `client_id` only if provided."""

    thing: str
    """Client name in messages."""
    address: str
    server_name: str
    username: str | None = field(default=None, repr=False)
    password: bytes | None = field(default=None, repr=False)
    client_id: str | None = None
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    """HTTP headers by lowercase name."""
    query: str = field(default="", repr=False)
    is_mqtt: bool = True
    asks: bool = True
    """Whether the credentials request an authorizer."""

    def value(self, name: str) -> str | None:
        """Return a value by name from the user name, the query, or the headers."""
        _, _, of_name = (self.username or "").partition("?")
        for text in (of_name, self.query):
            for part in text.split("&", MAX_PARTS)[:MAX_PARTS]:
                key, has_value, value = part.partition("=")
                if has_value and len(key) <= _MAX_KEY_CHARS and unquote(key).lower() == name.lower():
                    return unquote(value)
        return None if self.headers is None else self.headers.get(name.lower())


@dataclass(frozen=True, slots=True)
class AuthorizerVerdict:
    """A function's verdict; a denial contains nothing more."""

    is_authenticated: bool
    principal: str = ""
    documents: tuple[str, ...] = ()
    policies: tuple[AwsPolicy, ...] = ()
    disconnect_s: int = MAX_TIME_S
    refresh_s: int = MAX_TIME_S


class _Answer(msgspec.Struct, rename="camel"):
    is_authenticated: bool
    principal_id: str = ""
    disconnect_after_in_seconds: int = MAX_TIME_S
    refresh_after_in_seconds: int = MAX_TIME_S
    policy_documents: list[str | dict[str, Any]] = []


@lru_cache(maxsize=256)
def signing_key_of(name: str, pem: str) -> rsa.RSAPublicKey:
    """Return the public key that verifies token signatures. Raise `SigningKeyInvalidError`."""
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SigningKeyInvalidError(name=name, detail="it is not a public key in PEM") from error
    if not isinstance(key, rsa.RSAPublicKey):
        raise SigningKeyInvalidError(name=name, detail="it is not an RSA key")
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise SigningKeyInvalidError(name=name, detail=f"it has {key.key_size} bits")
    if (bits := key.public_numbers().e.bit_length()) > MAX_EXPONENT_BITS:
        raise SigningKeyInvalidError(name=name, detail=f"its exponent has {bits} bits")
    return key


def check_token(authorizer: Authorizer, token: str | None, signature: str | None, thing: str) -> None:
    """Verify the token's signature. Raise `TokenRefusedError`."""
    reason = _why_not(authorizer, token, signature)
    if reason:
        raise TokenRefusedError(authorizer=authorizer.name, reason=reason, thing=thing)


def _why_not(authorizer: Authorizer, token: str | None, signature: str | None) -> str:
    if not token:
        return f"there was no token named {authorizer.token_key_name}"
    if len(token) > MAX_TOKEN_CHARS:
        return f"the token is longer than {MAX_TOKEN_CHARS} characters"
    if not signature:
        return f"there was no {SIGNATURE}"
    try:
        raw = base64.b64decode(signature.replace(" ", "+"), validate=True)
    except ValueError:
        return "the signature is not base64"
    for name, pem in authorizer.signing_keys.items():
        try:
            signing_key_of(name, pem).verify(raw, token.encode(), padding.PKCS1v15(), SHA256())
        except InvalidSignature:
            continue
        return ""
    return "none of its keys verifies the token's signature"


def event_of(
    presented: AuthorizerRequest, token: str | None, connection_id: str, *, is_verified: bool
) -> dict[str, Any]:
    """Return the event for the function."""
    data: dict[str, Any] = {"tls": {"serverName": presented.server_name}}
    if presented.headers is not None:
        data["http"] = {"headers": dict(presented.headers)}
        data["http"]["queryString"] = f"?{presented.query}" if presented.query else ""
    if presented.is_mqtt:
        said = {"username": presented.username, "clientId": presented.client_id}
        data["mqtt"] = {name: value for name, value in said.items() if value is not None}
        if presented.password is not None:
            data["mqtt"]["password"] = base64.b64encode(presented.password).decode()
    event: dict[str, Any] = {} if token is None else {"token": token}
    return event | {
        "signatureVerified": is_verified,
        "protocols": list(data),
        "protocolData": data,
        "connectionMetadata": {"id": connection_id},
    }


def verdict_of(authorizer: Authorizer, answer: Any) -> AuthorizerVerdict:
    """Return the verdict in a function's response. Raise `AuthorizerAnswerError`."""

    def wrong(detail: str) -> AuthorizerAnswerError:
        return AuthorizerAnswerError(authorizer=authorizer.name, function=authorizer.function_arn, detail=detail)

    try:
        read = msgspec.convert(answer, _Answer)
    except msgspec.ValidationError as error:
        raise wrong(str(error)[:_MAX_REASON]) from error
    if not read.is_authenticated:
        return AuthorizerVerdict(is_authenticated=False)
    principal = read.principal_id
    if not (0 < len(principal) <= _MAX_PRINCIPAL and principal.isascii() and principal.isalnum()):
        raise wrong("principalId must have 1 to 128 letters and digits")
    for name in ("disconnect_after_in_seconds", "refresh_after_in_seconds"):
        if not MIN_TIME_S <= getattr(read, name) <= MAX_TIME_S:
            first, *rest = name.split("_")
            raise wrong(f"{first}{''.join(map(str.title, rest))} is not {MIN_TIME_S} to {MAX_TIME_S}")
    if len(read.policy_documents) > MAX_DOCUMENTS:
        raise wrong(f"policyDocuments has more than {MAX_DOCUMENTS} entries")
    documents = tuple(one if isinstance(one, str) else json.dumps(one) for one in read.policy_documents)
    try:
        policies = tuple(
            parse_policy(f"{number} of the authorizer {authorizer.name}", document)
            for number, document in enumerate(documents, 1)
        )
    except PolicyMalformedError as error:
        raise wrong(str(error)[:_MAX_REASON]) from error
    times = read.disconnect_after_in_seconds, read.refresh_after_in_seconds
    return AuthorizerVerdict(True, principal, documents, policies, *times)  # noqa: FBT003 - value of isAuthenticated
