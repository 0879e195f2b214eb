"""Shared parts of the wire format: times and body validation."""

from datetime import datetime
from typing import Any

import msgspec

from birthmark.errors import InvalidRequestError
from birthmark.unknown_field_detection import find_unread_member
from birthmark.untrusted_json_and_text import read_json

NEVER = "0001-01-01T00:00:00Z"
to_json = msgspec.json.Encoder().encode


class BodyInvalidError(InvalidRequestError):
    """The request body is not valid."""

    code = "iothub.body_invalid"
    message = "The request body is not valid: {detail}"
    cause = "The request body is not valid: {detail}."
    fix = (
        "Correct the request body, or the file that contains it. To compare it with devices in the registry: "
        "`birthmark hub device ls --json`"
    )
    detail: str


def check_members(body: bytes, kind: Any, told: frozenset[str] = frozenset()) -> None:
    """Raise `BodyInvalidError` for the first member unknown to `kind`; read-only members in `told` are permitted."""
    if (member := find_unread_member(read_json(body, object, BodyInvalidError), kind, told)) is not None:
        raise BodyInvalidError(detail=f"{member} is not served here, leave it out")


def operation_time(moment: datetime) -> str:
    """Return the end time of a request; SDKs parse milliseconds."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def registry_time(moment: datetime) -> str:
    """Return a time in the registry's format."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f0Z")


class TwinProperties(msgspec.Struct):
    """The two sections of a twin, as they are sent."""

    desired: Any = None
    reported: Any = None
