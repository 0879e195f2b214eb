"""Direct methods: names, timeouts, sizes ("Understand and invoke direct methods from IoT Hub")."""

from typing import Any

import msgspec

from birthmark.errors import InvalidRequestError, NotFoundError, UnavailableError
from birthmark.iothub.wire import MethodCall
from birthmark.untrusted_json_and_text import decode_json, is_deeper

MAX_PAYLOAD_BYTES = 128 * 1024
MAX_WAIT_S, MIN_RESPONSE_S = 300, 5
MAX_LEVELS = 64
_MAX_NAME = 100


class MethodInvalidError(InvalidRequestError):
    """The direct method call is not valid."""

    code = "iothub.method_invalid"
    message = "The method call is not valid: {detail}"
    cause = "The method call to {device_id} is not valid: {detail}."
    fix = (
        "Limit the method name to 100 characters and the payload to 128 KiB. Use a response timeout of 5 to 300 s "
        "and a connection timeout of 0 to 300 s. To show the options: `birthmark hub method {device_id} --help`"
    )
    detail: str
    device_id: str


class DeviceNotOnlineError(NotFoundError):
    """The device is not online."""

    code = "iothub.device_not_online"
    message = "Device {device_id} is not online"
    cause = "Device {device_id} is not connected, or has not subscribed to direct methods."
    fix = (
        "Connect the device with a program that handles methods, or make the call wait with --connect-timeout 60 "
        "(connectTimeoutInSeconds). List devices and their connection states: `birthmark hub device ls`"
    )
    device_id: str


class MethodTimeoutError(UnavailableError):
    """The device did not respond to the method call."""

    code = "iothub.method_timeout"
    message = "Device {device_id} did not respond within {seconds} s"
    cause = "Device {device_id} did not respond to the method {method} within {seconds} s. The method may have run."
    fix = (
        "Increase the response timeout, or check that the device's program responds to every call with a status. To "
        "show recent messages from the device: `birthmark hub messages {device_id}`"
    )
    device_id: str
    method: str
    seconds: int


class MethodAnswerInvalidError(UnavailableError):
    """The device's response to the method call is not valid."""

    code = "iothub.method_answer_invalid"
    message = "Device {device_id} responded to the method with {detail}"
    cause = "Device {device_id} ran the method, but responded with {detail}."
    fix = (
        "Change the device's program to respond with JSON in UTF-8. To show recent messages from the device: "
        "`birthmark hub messages {device_id}`"
    )
    detail: str
    device_id: str


def read_answer(payload: bytes, device_id: str) -> Any:
    """Return a device's method response, None if it is empty. Raise `MethodAnswerInvalidError`."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise MethodAnswerInvalidError(device_id=device_id, detail=f"more than {MAX_PAYLOAD_BYTES} bytes")
    try:
        shown = decode_json(payload) if payload.strip() else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MethodAnswerInvalidError(device_id=device_id, detail="a payload that is not JSON") from error
    if is_deeper(shown, MAX_LEVELS):
        raise MethodAnswerInvalidError(device_id=device_id, detail=f"JSON of more than {MAX_LEVELS} levels")
    return shown


def check_call(call: MethodCall, device_id: str) -> None:
    """Raise an error for an invalid method call."""
    problem = None
    name = call.method_name
    if not 0 < len(name) <= _MAX_NAME or any(letter in "/#+?" or letter < "!" for letter in name):
        problem = "methodName is empty, too long, or has a space, slash, wildcard or question mark"
    elif not MIN_RESPONSE_S <= call.response_timeout_in_seconds <= MAX_WAIT_S:
        problem = "responseTimeoutInSeconds is not 5 to 300"
    elif not 0 <= call.connect_timeout_in_seconds <= MAX_WAIT_S:
        problem = "connectTimeoutInSeconds is not 0 to 300"
    elif len(msgspec.json.encode(call.payload)) > MAX_PAYLOAD_BYTES:
        problem = "the payload is larger than 128 KiB"
    if problem is not None:
        raise MethodInvalidError(device_id=device_id, detail=problem)
