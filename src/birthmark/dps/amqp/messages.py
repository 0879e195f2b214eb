"""DPS messages over AMQP: requests, responses, and the errors of rejected requests."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

from birthmark.amqp.errors import AmqpCondition, AmqpError, AmqpErrorScope
from birthmark.amqp.message import (
    AmqpMessage,
    DataBody,
    MessageProperties,
    ValueBody,
    read_message,
    write_message,
)
from birthmark.amqp.values import Int, Symbol
from birthmark.dps import wire
from birthmark.dps.connections import RequestRefusal
from birthmark.errors import InvalidRequestError

MAX_MESSAGE_BYTES = wire.MAX_PAYLOAD_BYTES + 4096
"""A request with its largest payload and its properties."""
MAX_CORRELATION = 256
"""Characters of a correlation ID."""
_OPERATION, _OPERATION_ID, _RETRY_AFTER = "iotdps-operation-type", "iotdps-operation-id", "retry-after"
_MAX_SHOWN = 100
_CONDITIONS: Final[Mapping[int, str]] = {
    HTTPStatus.BAD_REQUEST: "com.microsoft:argument-error",
    HTTPStatus.UNAUTHORIZED: AmqpCondition.UNAUTHORIZED_ACCESS,
    HTTPStatus.FORBIDDEN: AmqpCondition.UNAUTHORIZED_ACCESS,
    HTTPStatus.NOT_FOUND: AmqpCondition.NOT_FOUND,
    HTTPStatus.CONFLICT: AmqpCondition.PRECONDITION_FAILED,
    HTTPStatus.PRECONDITION_FAILED: AmqpCondition.PRECONDITION_FAILED,
    HTTPStatus.TOO_MANY_REQUESTS: "com.microsoft:device-container-throttled",
    HTTPStatus.SERVICE_UNAVAILABLE: AmqpCondition.INTERNAL_ERROR,
}
"""Conditions of HTTP statuses. The SDK for Node.js retries after the last two only."""


class DpsAmqpRequestError(InvalidRequestError):
    """A request over AMQP is not valid."""

    code = "dps.amqp_request_invalid"
    message = "The request is not valid: {detail}"
    cause = "A registration request over AMQP is not valid: {detail}."
    fix = (
        "Use an Azure device SDK, or compare with a valid registration over MQTT or HTTPS: `birthmark device register`"
    )
    detail: str


class DpsOperation(StrEnum):
    """Values of `iotdps-operation-type`."""

    REGISTER = "iotdps-register"
    GET_OPERATION = "iotdps-get-operationstatus"
    GET_REGISTRATION = "iotdps-get-registration"


@dataclass(frozen=True, slots=True)
class DpsAmqpRequest:
    """A request of a device. The correlation ID keeps its AMQP type, because the response repeats it.

    The SDK for Java sends none.
    """

    operation: DpsOperation
    correlation: Any
    payload: bytes = b""
    operation_id: str = ""


def parse_request(payload: bytes) -> DpsAmqpRequest:
    """Return the request in a delivery. Raise `DpsAmqpRequestError`."""
    try:
        message = read_message(payload)
    except AmqpError as error:
        raise DpsAmqpRequestError(detail=error.description) from error
    correlation = message.properties.correlation_id
    if isinstance(correlation, str | bytes) and len(correlation) > MAX_CORRELATION:
        raise DpsAmqpRequestError(detail=f"its correlation ID has more than {MAX_CORRELATION} characters")
    name = str(message.application_properties.get(_OPERATION, ""))[:_MAX_SHOWN]
    if name not in set(DpsOperation):
        raise DpsAmqpRequestError(detail=f"{_OPERATION} is {name or 'missing'}")
    operation, operation_id = DpsOperation(name), message.application_properties.get(_OPERATION_ID, "")
    if operation is DpsOperation.GET_OPERATION:
        return DpsAmqpRequest(operation, correlation, operation_id=str(operation_id))
    return DpsAmqpRequest(operation, correlation, _payload_of(message))


def _payload_of(message: AmqpMessage) -> bytes:
    match message.body:
        case None | ValueBody(value=None):
            return b""
        case DataBody() as body:
            return body.payload
        case ValueBody(value=str() as text):
            return text.encode("utf-8", "surrogatepass")
        case ValueBody(value=bytes() as data):
            return data
        case _:
            raise DpsAmqpRequestError(detail="its body is not data")


def render_response(correlation: Any, answer: Mapping[str, Any]) -> bytes:
    """Return the message that answers a request."""
    properties = MessageProperties(correlation_id=correlation, content_type=Symbol("application/json"))
    return write_message(AmqpMessage(DataBody((json.dumps(answer).encode(),)), properties))


def error_of(refusal: RequestRefusal, scope: AmqpErrorScope = AmqpErrorScope.DELIVERY) -> AmqpError:
    """Return the AMQP error of a refusal: Azure's error body as the description, and when to retry."""
    retry_after_s = refusal.retry_after_s
    if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
        retry_after_s = wire.RETRY_AFTER_S
    info = {} if retry_after_s is None else {Symbol(_RETRY_AFTER): Int(retry_after_s)}
    return AmqpError(_CONDITIONS[refusal.status], json.dumps(refusal.body), scope=scope, info=info)
