"""Twin requests, their responses, and direct method calls as AMQP messages (facts of the device SDKs)."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec

from birthmark.amqp.message import AmqpMessage, DataBody, MessageProperties, write_message
from birthmark.amqp.values import Int, Symbol
from birthmark.errors import InvalidRequestError
from birthmark.iothub.wire.amqp_values import body_of, text_of

_OPERATION, _RESOURCE, _VERSION, _STATUS = map(Symbol, ("operation", "resource", "version", "status"))
REPORTED = "/properties/reported"
_DESIRED = "/properties/desired"
NOTIFICATIONS = "/notifications/twin/properties/desired"
_METHOD_NAME, _METHOD_STATUS = "IoThub-methodname", "IoThub-status"
_MAX_STATUS = 2**31


class DeviceRequestError(InvalidRequestError):
    """A device's request over AMQP is not valid."""

    code = "iothub.device_amqp_request_invalid"
    message = "The request is not valid: {detail}"
    cause = "A request of device {device_id} over AMQP is not valid: {detail}."
    fix = "Use a device SDK. To show the twin: `birthmark hub twin {device_id}`"
    detail: str
    device_id: str


class TwinOperation(StrEnum):
    """What a device asks of its twin."""

    GET = "GET"
    REPORT = "PATCH"
    SUBSCRIBE = "PUT"
    UNSUBSCRIBE = "DELETE"


_RESOURCES = {
    TwinOperation.REPORT: REPORTED,
    TwinOperation.SUBSCRIBE: NOTIFICATIONS,
    TwinOperation.UNSUBSCRIBE: NOTIFICATIONS,
}


@dataclass(frozen=True, slots=True)
class TwinRequest:
    """A twin request; `correlation` is the response's correlation ID, `version` the expected one."""

    operation: TwinOperation
    correlation: Any
    patch: bytes = b""
    version: int | None = None


def correlation_of(message: AmqpMessage) -> Any:
    """Return the correlation ID of a request's response, in its own AMQP type."""
    properties = message.properties
    return properties.message_id if properties.correlation_id is None else properties.correlation_id


def parse_twin_request(name: str, message: AmqpMessage) -> TwinRequest:
    """Return a device's request. Raise `DeviceRequestError`."""

    def refused(detail: str) -> DeviceRequestError:
        return DeviceRequestError(device_id=name, detail=detail)

    asked = message.message_annotations
    try:
        operation = TwinOperation(text_of("operation", asked.get(_OPERATION), refused).upper())
    except ValueError as error:
        raise refused("its operation is not GET, PATCH, PUT or DELETE") from error
    resource = text_of("resource", asked.get(_RESOURCE), refused)
    if resource.lower() != _RESOURCES.get(operation, resource.lower()):
        raise refused(f"{operation} is not possible for the resource {resource[:100]!r}")
    version = asked.get(_VERSION)
    if version is not None and (isinstance(version, bool) or not isinstance(version, int)):
        raise refused("its version is not a number")
    patch = body_of(message, refused) if operation is TwinOperation.REPORT else b""
    return TwinRequest(operation, correlation_of(message), patch, None if version is None else int(version))


def render_twin_response(correlation: Any, status: int, body: bytes = b"", version: int | None = None) -> bytes:
    """Return the response to a twin request."""
    annotations: dict[Any, Any] = {_STATUS: Int(status)}
    if version is not None:
        annotations[_VERSION] = version
    properties = MessageProperties(correlation_id=correlation)
    return write_message(AmqpMessage(DataBody((body,)), properties, message_annotations=annotations))


def render_twin_error(correlation: Any, status: int, number: int, message: str) -> bytes:
    """Return the response to a twin request that was refused."""
    return render_twin_response(correlation, status, msgspec.json.encode({"errorCode": number, "message": message}))


def render_desired(patch: bytes, version: int) -> bytes:
    """Return the notification of changed desired properties."""
    annotations: dict[Any, Any] = {_RESOURCE: _DESIRED, _VERSION: version}
    return write_message(AmqpMessage(DataBody((patch,)), message_annotations=annotations))


def render_method_call(rid: str, method: str, payload: bytes) -> bytes:
    """Return a direct method call; `rid` is hexadecimal."""
    properties = MessageProperties(correlation_id=UUID(int=int(rid, 16)))
    return write_message(AmqpMessage(DataBody((payload,)), properties, {_METHOD_NAME: method}))


@dataclass(frozen=True, slots=True)
class MethodResponse:
    """A device's response to the call `rid`."""

    rid: str
    status: int
    payload: bytes


def parse_method_response(name: str, message: AmqpMessage) -> MethodResponse:
    """Return a device's response. Raise `DeviceRequestError`."""

    def refused(detail: str) -> DeviceRequestError:
        return DeviceRequestError(device_id=name, detail=detail)

    status, correlation = message.application_properties.get(_METHOD_STATUS), message.properties.correlation_id
    if isinstance(status, bool) or not isinstance(status, int) or abs(status) >= _MAX_STATUS:
        raise refused("a method response has no IoThub-status that is a number")
    try:
        rid = _uuid_of(correlation)
    except (TypeError, ValueError) as error:
        raise refused("a method response has no correlation ID that is a UUID") from error
    return MethodResponse(f"{rid.int:x}", int(status), body_of(message, refused))  # a plain number, for other workers


def _uuid_of(correlation: Any) -> UUID:
    """Return a UUID that was sent as such, as its bytes, or as text. Raise `TypeError`, `ValueError`."""
    if isinstance(correlation, UUID):
        return correlation
    if isinstance(correlation, bytes):
        return UUID(bytes=correlation)
    if not isinstance(correlation, str):
        raise TypeError
    return UUID(correlation)
