"""AWS Signature Version 4, verification (AWS General Reference, "Signing AWS API requests").

In:   a request as received: raw path and query, raw header values, the body. Out:  the signer and the service, once
`check_signature` returned.

    Authorization: AWS4-HMAC-SHA256 Credential=ID/DATE/REGION/SERVICE/aws4_request, SignedHeaders=…, Signature=HEX
    ?X-Amz-Algorithm=…&X-Amz-Credential=…&X-Amz-Date=…[&X-Amz-Expires=…]&X-Amz-SignedHeaders=…&X-Amz-Signature=…

The signature covers the path as received, percent-encoded once more (every service but S3). The body's digest is
computed here and never read from a header. Some MQTT clients over WebSocket exclude the session token from the
signature, so a presigned query is verified both ways.

Not here: the owner and the rights of an access key (the services).
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from urllib.parse import quote, unquote

from birthmark.errors import InvalidRequestError, UnauthenticatedError
from birthmark.untrusted_json_and_text import whole_number

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW = timedelta(minutes=5)
_MAX_EXPIRES_S = 7 * 86_400
MAX_AUTHORIZATION_CHARS = 4096
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_CREDENTIAL = re.compile(r"([A-Za-z0-9_]{4,128})/([0-9]{8})/([A-Za-z0-9-]{1,64})/([A-Za-z0-9-]{1,64})/aws4_request")
_PARAMETER = re.compile(r"\s*(Credential|SignedHeaders|Signature)=([^\s,]*)\s*")
_HEADER_NAMES = re.compile(r"[a-z0-9-]+(;[a-z0-9-]+){0,63}")
_STAMP = "%Y%m%dT%H%M%SZ"
_TIME = re.compile(r"[0-9]{8}T[0-9]{6}Z", re.ASCII)


class SignatureMissingError(UnauthenticatedError):
    """Missing Authentication Token."""

    code = "sigv4.missing"
    cause = "The request has no AWS signature; this operation requires an access key."
    fix = (
        "Configure the client with this server's access key. To set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: "
        '`eval "$(birthmark env)"`. Omit --no-sign-request.'
    )


class SignatureMalformedError(InvalidRequestError):
    """The signature is not valid."""

    code = "sigv4.malformed"
    message = "The signature is incomplete: {detail}"
    cause = "The AWS signature is not valid: {detail}."
    fix = (
        "Sign the request with an AWS SDK, as this command does: `aws iot list-things`. A proxy must not change "
        "Authorization, X-Amz-Date, or the query string."
    )
    detail: str


class AccessKeyUnknownError(UnauthenticatedError):
    """The security token included in the request is invalid."""

    code = "sigv4.unknown_access_key"
    cause = "This server has no access key {access_key_id}."
    fix = (
        'Use this server\'s access key: `eval "$(birthmark env)"`. The environment variable AWS_ACCESS_KEY_ID '
        "overrides an AWS CLI profile, unless --profile selects the profile."
    )
    access_key_id: str


class SignatureMismatchError(UnauthenticatedError):
    """The signature was created with another secret, or over another request than the one received."""

    code = "sigv4.signature_mismatch"
    message = (
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access "
        "Key and signing method."
    )
    cause = "The request was not signed with the secret of access key {access_key_id}, or was changed in transit."
    fix = (
        'Use the secret of this access key: `eval "$(birthmark env)"`. If the secret is correct, check for a proxy '
        "that changes the Host header, the path's percent-encoding, or the body."
    )
    access_key_id: str


class ClockSkewError(UnauthenticatedError):
    """The request was signed too long ago, or in the future."""

    code = "sigv4.clock_skew"
    message = "Signature {word}: {signed_at} is more than 5 min. from {now}"
    cause = (
        "The request was signed at {signed_at}; this server's clock shows {now}. The permitted difference is 5 minutes."
    )
    fix = (
        "Set the clock of the signing machine or of this server (NTP), so that both machines print the same time: "
        "`date -u`"
    )
    now: str
    signed_at: str
    word: str
    access_key_id: str


class WrongServiceError(UnauthenticatedError):
    """Credential should be scoped to correct service."""

    code = "sigv4.wrong_service"
    cause = "The request was signed for the service {service}; this server provides {served}."
    fix = (
        "Use this server only for the AWS IoT services. To replace AWS_ENDPOINT_URL with AWS_ENDPOINT_URL_IOT and "
        'the two related variables: `unset AWS_ENDPOINT_URL; eval "$(birthmark env)"`'
    )
    served: str
    service: str
    access_key_id: str


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """Signed parts of a request. Path and query are raw, header names lowercase."""

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    body: bytes = field(default=b"", repr=False)

    def values(self, name: str) -> list[str]:
        return [value for known, value in self.headers if known == name]

    def session_token(self) -> str | None:
        """Return the session token of temporary credentials, from a header or a presigned query."""
        found = self.values("x-amz-security-token") or [
            value for name, value in _pairs(self.query) if name == "X-Amz-Security-Token"
        ]
        return found[0] if found else None


@dataclass(frozen=True, slots=True)
class Signature:
    """An unverified signature. Created by `parse_signature`."""

    access_key_id: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    digest: str = field(repr=False)
    signed_at: datetime
    expires: timedelta | None
    is_presigned: bool


def is_signed(authorization: str, query: str) -> bool:
    """Return whether a request carries a signature of this kind."""
    return authorization.startswith(ALGORITHM) or f"X-Amz-Algorithm={ALGORITHM}" in query


def parse_signature(request: SignedRequest) -> Signature:
    """Return the claimed signature. Raise `SignatureMissingError` or `SignatureMalformedError`."""
    authorization = ", ".join(request.values("authorization"))
    if authorization.startswith(ALGORITHM):
        if len(authorization) > MAX_AUTHORIZATION_CHARS:
            raise _malformed("the Authorization header is too long")
        found = (_PARAMETER.fullmatch(part) for part in authorization[len(ALGORITHM) :].split(","))
        parts = {match[1]: match[2] for match in found if match is not None}
        stamp = next(iter(request.values("x-amz-date")), "")
        made = _signature(parts, stamp, None, is_presigned=False)
        if "x-amz-date" not in made.signed_headers:
            raise _malformed("X-Amz-Date is not among the signed headers")
        return made
    query = dict(_pairs(request.query))
    if query.get("X-Amz-Algorithm") != ALGORITHM:
        raise SignatureMissingError
    parts = {name: query.get(f"X-Amz-{name}", "") for name in ("Credential", "SignedHeaders", "Signature")}
    return _signature(parts, query.get("X-Amz-Date", ""), query.get("X-Amz-Expires"), is_presigned=True)


def check_signature(
    request: SignedRequest, signature: Signature, secret: str, now: datetime, *, services: Iterable[str]
) -> None:
    """Verify that the secret's holder signed this request recently. Raise `UnauthenticatedError`."""
    served = sorted(services)
    if signature.service not in served:
        raise WrongServiceError(
            service=signature.service, served=", ".join(served), access_key_id=signature.access_key_id
        )
    of_itself = ({"X-Amz-Signature", "X-Amz-Security-Token"}, {"X-Amz-Signature"}) if signature.is_presigned else ((),)
    digests = (_digest(request, signature, secret, frozenset(left_out)) for left_out in of_itself)
    if not any(hmac.compare_digest(digest, signature.digest) for digest in digests):
        raise SignatureMismatchError(access_key_id=signature.access_key_id)
    # Check after the signature: only a holder of the secret learns the server's time.
    earliest, latest = signature.signed_at - SKEW, signature.signed_at + max(SKEW, signature.expires or SKEW)
    if not earliest <= now <= latest:
        word = "expired" if now > latest else "not yet current"
        raise ClockSkewError(
            word=word,
            signed_at=f"{signature.signed_at:%Y-%m-%d %H:%M:%S} UTC",
            now=f"{now:%Y-%m-%d %H:%M:%S} UTC",
            access_key_id=signature.access_key_id,
        )


def canonical_request(request: SignedRequest, signed_headers: Sequence[str], left_out: frozenset[str]) -> str:
    """Return the canonical request, which is signed; `left_out` are the query parameters that it excludes."""
    headers = "".join(
        f"{name}:{','.join(' '.join(value.split()) for value in request.values(name))}\n" for name in signed_headers
    )
    return "\n".join(
        (
            request.method.upper(),
            quote(_without_dots(request.path), safe="/~"),
            _canonical_query(request.query, left_out),
            headers,
            ";".join(signed_headers),
            hashlib.sha256(request.body).hexdigest(),
        )
    )


@lru_cache(maxsize=1024)
def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """Return the signing key of one day, region, and service; clients reuse it all day."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _digest(request: SignedRequest, signature: Signature, secret: str, left_out: frozenset[str]) -> str:
    canonical = canonical_request(request, signature.signed_headers, left_out)
    scope = f"{signature.date}/{signature.region}/{signature.service}/aws4_request"
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
    text = f"{ALGORITHM}\n{signature.signed_at:{_STAMP}}\n{scope}\n{digest}"
    key = signing_key(secret, signature.date, signature.region, signature.service)
    return hmac.digest(key, text.encode(), "sha256").hex()


def _signature(parts: Mapping[str, str], stamp: str, expires: str | None, *, is_presigned: bool) -> Signature:
    credential = _CREDENTIAL.fullmatch(parts.get("Credential", ""))
    if credential is None:
        raise _malformed("Credential is not ID/DATE/REGION/SERVICE/aws4_request")
    if _SIGNATURE.fullmatch(parts.get("Signature", "")) is None:
        raise _malformed("Signature is not 64 hex digits")
    names = parts.get("SignedHeaders", "")
    if _HEADER_NAMES.fullmatch(names) is None or "host" not in names.split(";"):
        raise _malformed("SignedHeaders does not name the host header")
    try:
        # Takes a fifth of the time of strptime.
        signed_at = datetime.fromisoformat(stamp if _TIME.fullmatch(stamp) is not None else "")
    except ValueError as error:
        raise _malformed("X-Amz-Date is missing or not a time like 20260601T120000Z") from error
    if not stamp.startswith(credential[2]):
        raise _malformed("the date in Credential is not that of X-Amz-Date")
    seconds = None if expires is None else whole_number(expires)
    if expires is not None and seconds is None:
        raise _malformed("X-Amz-Expires is not a number of seconds")
    until = None if seconds is None else timedelta(seconds=min(seconds, _MAX_EXPIRES_S))
    return Signature(
        credential[1],
        credential[2],
        credential[3],
        credential[4],
        tuple(names.split(";")),
        parts["Signature"],
        signed_at,
        until,
        is_presigned,
    )


def _malformed(detail: str) -> SignatureMalformedError:
    return SignatureMalformedError(detail=detail)


def _pairs(query: str) -> Iterable[tuple[str, str]]:
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name:
            yield unquote(name), unquote(value)


def _canonical_query(query: str, left_out: frozenset[str]) -> str:
    strict = "-_.~"
    encoded = sorted(
        (quote(name, safe=strict), quote(value, safe=strict)) for name, value in _pairs(query) if name not in left_out
    )
    return "&".join(f"{name}={value}" for name, value in encoded)


def _without_dots(path: str) -> str:
    """Remove dot segments (RFC 3986 section 5.2.4) and empty segments, as AWS's signers do."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in {"", "."}:
            kept.append(segment)
    return "/" + "/".join(kept) + ("/" if kept and path.endswith("/") else "")
