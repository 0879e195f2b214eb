"""Bodies and headers of Azure Resource Manager: requests to values, values to JSON.

In:   `{"properties": {"certificate": …, "isVerified": …}}`, `{"certificate": …}`, `{"name": …}`, and `If-Match`. Out:
resources with `id`, `name`, `type`, `etag`, `properties`; refusals as `{"error": {"code", "message"}}`.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.utils import format_datetime
from typing import Any, TypeVar

import msgspec

from birthmark.azure_arm.model import PROVIDER, ArmRequest, ArmResourceKind
from birthmark.errors import InvalidRequestError
from birthmark.pki.certificates import Certificate, parse_any
from birthmark.pki.registered_ca_certificate import NOTHING, CaCertificate
from birthmark.unknown_field_detection import find_unread_member
from birthmark.untrusted_json_and_text import read_json

_VERSION = re.compile(r"20[0-9]{2}-[01][0-9]-[0-3][0-9](-preview)?")
_MAX_SHOWN = 64
_T = TypeVar("_T")
LOCATION = "local"
"""Location of every service."""


class ApiVersionError(InvalidRequestError):
    """The api-version is missing or not valid."""

    code = "management.api_version"
    message = "The api-version query parameter (?api-version=) is required for all requests, for example 2022-12-12"
    cause = "A management call presented {presented} as its api-version."
    fix = (
        "Let the SDK send the api-version, or append `?api-version=2022-12-12` to the URL. Without an SDK, use a "
        "command such as: `birthmark dps ca ls`"
    )
    presented: str


class BodyInvalidError(InvalidRequestError):
    """The body or a header is not valid."""

    code = "management.request_invalid"
    message = "The request is not valid: {detail}"
    cause = "A management call is not valid: {detail}."
    fix = (
        "Send the fields of the SDK's model: the certificate as base64 or PEM, and the etag from the last read. To "
        "show the corresponding commands: `birthmark dps ca --help`, `birthmark hub ca --help`, `birthmark hub route "
        "--help`"
    )
    detail: str


class _Properties(msgspec.Struct, rename="camel"):
    certificate: str
    is_verified: bool | None = None


class _Body(msgspec.Struct):
    properties: _Properties


class _Proof(msgspec.Struct):
    certificate: str


class _Name(msgspec.Struct):
    name: str


class _OptionalName(msgspec.Struct):
    name: str | None = None


class _ConsumerGroup(msgspec.Struct):
    properties: _OptionalName | None = None


def check_version(text: str | None) -> None:
    """Raise `ApiVersionError` unless the API version is a date."""
    if text is None or _VERSION.fullmatch(text) is None:
        raise ApiVersionError(presented="nothing" if text is None else ascii(text[:_MAX_SHOWN]))


def etag_of(if_match: str | None, if_none_match: str | None) -> str | None:
    """Return the ETag condition of a change: None for any state, `NOTHING` if the resource must not exist."""
    if if_none_match is not None:
        if if_none_match.strip() != "*" or if_match is not None:
            raise BodyInvalidError(detail="If-None-Match accepts only *, without If-Match")
        return NOTHING
    return None if if_match is None else if_match.strip().removeprefix("W/").strip('"')


def needed(etag: str | None) -> str:
    """Return a required ETag. Raise `BodyInvalidError` if it is missing."""
    if not etag:
        raise BodyInvalidError(detail="If-Match is missing: the etag that the certificate was read with, or *")
    return etag


def parse_certificate(body: bytes) -> tuple[Certificate, bool | None]:
    """Return the CA certificate of a body and its `isVerified` flag, or None without the flag."""
    asked = _read(body, _Body)
    return _certificate(asked.properties.certificate), asked.properties.is_verified


def parse_proof(body: bytes) -> Certificate:
    """Return the verification certificate in a request body."""
    return _certificate(_read(body, _Proof).certificate)


def parse_name(body: bytes) -> str:
    """Return the name in an availability request."""
    return read_json(body, _Name, BodyInvalidError).name


# Fields of the SDKs' models that only the service writes.
_READ_ONLY = frozenset({"id", "name", "type", "etag", "systemData"})
_WRITTEN = frozenset({"subject", "expiry", "thumbprint", "created", "updated", "verificationCode"})


def _read(body: bytes, kind: type[_T]) -> _T:
    given = read_json(body, dict[str, Any], BodyInvalidError)
    asked = {name: value for name, value in given.items() if name not in _READ_ONLY}
    if isinstance(inner := asked.get("properties"), dict):
        asked["properties"] = {name: value for name, value in inner.items() if name not in _WRITTEN}
    if (member := find_unread_member(asked, kind)) is not None:
        raise BodyInvalidError(detail=f"{member} is not served here, leave it out")
    return read_json(body, kind, BodyInvalidError)


def _certificate(text: str) -> Certificate:
    """Parse a certificate in an SDK's encoding: PEM, base64 of DER, or base64 of PEM."""
    try:
        inner = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return parse_any(text)
    return parse_any(inner)


def certificate_json(request: ArmRequest, authority: CaCertificate, *, with_code: bool = False) -> dict[str, Any]:
    """Return a CA certificate; include the verification code only in the response that generates it."""
    certificate = authority.certificate
    properties: dict[str, Any] = {
        "subject": certificate.subject_text,
        "expiry": _rfc1123(certificate.not_after),
        "thumbprint": certificate.x5t_sha1.hex().upper(),
        "isVerified": authority.is_verified,
        "certificate": base64.b64encode(certificate.der).decode("ascii"),
        "created": _rfc1123(authority.created_at),
        "updated": _rfc1123(authority.updated_at),
    }
    if with_code:
        properties["verificationCode"] = authority.verification_code
    return {
        "id": f"{request.id_of(request.service)}/certificates/{authority.name}",
        "name": authority.name,
        "type": f"{PROVIDER}/{request.kind.segment}/Certificates",
        "etag": authority.etag,
        "properties": properties,
    }


def service_json(
    request: ArmRequest, name: str, sku: Mapping[str, Any], properties: Mapping[str, Any], revision: int = 0
) -> dict[str, Any]:
    """Return the JSON of a service; `revision` is the revision of its routes."""
    return {
        "id": request.id_of(name),
        "name": name,
        "type": f"{PROVIDER}/{request.kind.segment}",
        "location": LOCATION,
        "tags": {},
        "etag": etag_of_service(name, revision),
        "sku": sku,
        "properties": {"state": "Active", "provisioningState": "Succeeded", **properties},
    }


def etag_of_service(name: str, revision: int) -> str:
    """Return the ETag of a service; it changes with the routes."""
    return base64.b64encode((f"{name}/{revision}" if revision else name).encode()).decode("ascii")


def key_json(policy: str, rights: str, keys: Sequence[bytes]) -> dict[str, Any]:
    """Return the JSON of a policy's keys."""
    primary, secondary = (base64.b64encode(key).decode("ascii") for key in keys)
    return {"keyName": policy, "primaryKey": primary, "secondaryKey": secondary, "rights": rights}


def consumer_group_json(request: ArmRequest, name: str, created_at: datetime) -> dict[str, Any]:
    """Return the JSON of a consumer group."""
    return {
        "id": f"{request.id_of(request.service)}/eventHubEndpoints/events/ConsumerGroups/{name}",
        "name": name,
        "type": f"{PROVIDER}/{request.kind.segment}/EventHubEndpoints/ConsumerGroups",
        "etag": None,
        "properties": {"created": _rfc1123(created_at)},
    }


def check_consumer_group(body: bytes, name: str) -> None:
    """Raise `BodyInvalidError` if the body of a consumer group has another name; it may be empty."""
    asked = _read(body, _ConsumerGroup) if body.strip() else _ConsumerGroup()
    if asked.properties is not None and asked.properties.name not in {None, name}:
        raise BodyInvalidError(detail="properties.name differs from the name in the path")


def quota_json(name: str, used: int, most: int) -> dict[str, Any]:
    """Return the JSON of a quota."""
    return {"name": name, "currentValue": used, "maxValue": most}


def event_endpoint_json(hub: str, host: str, partitions: int, keep_days: int) -> dict[str, Any]:
    """Return the JSON of a hub's Event Hubs-compatible endpoint."""
    return {
        "retentionTimeInDays": keep_days,
        "partitionCount": partitions,
        "partitionIds": [str(number) for number in range(partitions)],
        "path": hub,
        "endpoint": f"sb://{host}/",
    }


def free_json(kind: ArmResourceKind, *, is_free: bool) -> dict[str, Any]:
    """Return the name availability response."""
    if is_free:
        return {"nameAvailable": True}
    what = "hub" if kind is ArmResourceKind.HUB else "provisioning service"
    return {"nameAvailable": False, "reason": "AlreadyExists", "message": f"A {what} with this name already exists"}


def error_json(code: str, message: str) -> dict[str, Any]:
    """Return the JSON of an error."""
    return {"error": {"code": code, "message": message}}


def _rfc1123(timestamp: datetime) -> str:
    return format_datetime(timestamp, usegmt=True)
