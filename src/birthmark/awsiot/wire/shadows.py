"""Shadow documents: requests to values, values to responses and events.

See the developer guide, "Device Shadow service documents". Times are whole seconds since 1970. Metadata has a timestamp
for every value and for every array element.
"""

import codecs
from collections.abc import Mapping
from math import isinf
from typing import Any

import msgspec

from birthmark.awsiot.model import Shadow
from birthmark.documents import DocumentSection, delta, submitted
from birthmark.errors import InvalidRequestError
from birthmark.untrusted_json_and_text import decode_json

MAX_TOKEN_BYTES = 64
MAX_LEVELS = 8
_MICROS = 1_000_000
_encode = msgspec.json.Encoder().encode


class ShadowInvalidError(InvalidRequestError):
    """The shadow request is not valid; `detail` is the error text of AWS IoT Core."""

    code = "awsiot.shadow_invalid"
    message = "{detail}"
    cause = "A shadow request was rejected: {detail}."
    fix = (
        "A state contains only the objects desired and reported, each with up to 8 levels. Arrays cannot contain "
        "null, and names cannot begin with $. A clientToken has up to 64 bytes. To send a valid update: `birthmark "
        "aws shadow {thing} --desired '{{\"on\": true}}'`"
    )
    detail: str
    thing: str = "hello"


class ShadowEncodingError(InvalidRequestError):
    """The shadow request is not UTF-8."""

    code = "awsiot.shadow_encoding"
    message = "Unsupported documented encoding; supported encoding is UTF-8"
    cause = "A shadow request was not encoded as UTF-8."
    fix = (
        'Encode the document as UTF-8, as this command does: `birthmark aws shadow {thing} --desired \'{{"name": '
        '"ä"}}\'`'
    )
    thing: str = "hello"


class ShadowRequest(msgspec.Struct, frozen=True):
    """A shadow request: the document, and the client token for its responses."""

    document: dict[str, Any]
    token: str | None = None
    size: int = 0


def parse_request(payload: bytes) -> ShadowRequest:
    """Parse a shadow request; an empty payload is `{}`.

    Raise `ShadowInvalidError` or `ShadowEncodingError`.
    """
    try:
        document = _decode(payload.removeprefix(codecs.BOM_UTF8) or b"{}")  # RFC 8259 section 8.1
    except RecursionError as error:
        raise too_deep() from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        if not _is_utf8(payload):
            raise ShadowEncodingError from error
        raise ShadowInvalidError(detail="Payload contains invalid json") from error
    if not isinstance(document, dict):
        raise ShadowInvalidError(detail="Payload contains invalid json")
    token = document.get("clientToken")
    if token is not None and (not isinstance(token, str) or len(token.encode()) > MAX_TOKEN_BYTES):
        raise ShadowInvalidError(detail="Invalid clientToken")
    return ShadowRequest(document, token, len(payload))


def _overflow_to_text(digits: str) -> float | str:
    """Return a number, or AWS's text for a number outside the range of a double."""
    value = float(digits)
    if not isinf(value):
        return value
    return "Infinity" if value > 0 else "-Infinity"


_decode = msgspec.json.Decoder(float_hook=_overflow_to_text).decode  # noqa: TID251 - numbers beyond a double are text


def too_deep() -> ShadowInvalidError:
    """Return the error for a document with too many nesting levels."""
    return ShadowInvalidError(detail=f"JSON contains too many levels of nesting; maximum is {MAX_LEVELS}")


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


def state_size(state: Mapping[str, Any]) -> int:
    """Return the size of a state as compact UTF-8 JSON."""
    return len(_encode(state))


def sections_body(desired: DocumentSection, reported: DocumentSection) -> bytes:
    """Return the column value of a shadow; it is JSON because numbers may exceed 64 bits."""
    return _encode((desired, reported))


def sections_of(body: bytes) -> tuple[DocumentSection, DocumentSection]:
    """Return the sections that a column stores."""
    sections: tuple[DocumentSection, DocumentSection] = decode_json(body, tuple[DocumentSection, DocumentSection])
    return sections


# ---- replies and publications


def shadow_json(shadow: Shadow, timestamp: int, token: str | None = None) -> bytes:
    """Return a complete shadow document with its delta."""
    whole = _snapshot(shadow)
    missing, _ = delta(shadow.desired, shadow.reported)
    if missing:
        whole["state"]["delta"] = missing
    return _encode(whole | _at(timestamp, token))


def update_json(shadow: Shadow, patch: Mapping[str, Any], timestamp: int, token: str | None) -> bytes:
    """Return the response to an update: the submitted state and its timestamps."""
    metadata = {
        name: _dated(values, submitted(shadow.sections[name].stamps, values))
        for name, values in patch.items()
        if values is not None
    }
    return _encode({"state": patch, "metadata": metadata, "version": shadow.version} | _at(timestamp, token))


def documents_json(before: Shadow, after: Shadow, timestamp: int, token: str | None) -> bytes:
    """Return the message body with a shadow before and after a change."""
    return _encode({"previous": _snapshot(before), "current": _snapshot(after)} | _at(timestamp, token))


def delta_json(shadow: Shadow, timestamp: int, token: str | None) -> bytes | None:
    """Return the delta between desired and reported state, or None if there is no difference."""
    missing, stamps = delta(shadow.desired, shadow.reported)
    if not missing:
        return None
    head = {"version": shadow.version, "timestamp": timestamp // _MICROS}
    return _encode(head | {"state": missing, "metadata": _dated(missing, stamps)} | _with(token))


def deleted_json(version: int, timestamp: int, token: str | None) -> bytes:
    """Return the message body that confirms a deletion."""
    return _encode({"version": version} | _at(timestamp, token))


def rejected_json(status: int, message: str, timestamp: int, token: str | None) -> bytes:
    """Return a rejected response."""
    return _encode({"code": status, "message": message} | _at(timestamp, token))


def _snapshot(shadow: Shadow) -> dict[str, Any]:
    """Return state, metadata and version of a shadow; sections without values are omitted."""
    sections = shadow.sections
    return {
        "state": {name: one.values for name, one in sections.items() if one.values},
        "metadata": {name: _dated(one.values, one.stamps) for name, one in sections.items() if one.values},
        "version": shadow.version,
    }


def _at(timestamp: int, token: str | None) -> dict[str, Any]:
    return {"timestamp": timestamp // _MICROS} | _with(token)


def _with(token: str | None) -> dict[str, str]:
    return {} if token is None else {"clientToken": token}


def _dated(values: Mapping[str, Any], stamps: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _date(values[name], stamp) for name, stamp in stamps.items()}


def _date(value: Any, stamp: Any) -> Any:
    if isinstance(value, dict):
        return _dated(value, stamp[2])
    return _within(value, {"timestamp": stamp[0] // _MICROS})


def _within(value: Any, date: Mapping[str, int]) -> Any:
    """Return the metadata of a value: all elements of an array share a timestamp."""
    if isinstance(value, list):
        return [_within(one, date) for one in value]
    if isinstance(value, dict):
        return {name: _within(one, date) for name, one in value.items()}
    return date


def shadow_values(shadow: Shadow) -> dict[str, Any]:
    """Return the searchable values of a shadow."""
    return {name: one.values for name, one in shadow.sections.items() if one.values} | {"version": shadow.version}
