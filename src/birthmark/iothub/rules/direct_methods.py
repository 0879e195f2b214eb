"""Direct methods: names, timeouts, sizes ("Understand and invoke direct methods from IoT Hub")."""

from typing import Any

import msgspec

from birthmark.errors import InvalidRequestError, NotFoundError, UnavailableError
from birthmark.iothub.wire import MethodCall
from birthmark.untrusted_text import decode_json, is_deeper

MAX_PAYLOAD_BYTES = 128 * 1024
MAX_WAIT_S, MIN_RESPONSE_S = 300, 5
MAX_LEVELS = 64
_MAX_NAME = 100


class MethodInvalidError(InvalidRequestError):
    """A call that cannot be made."""

    code = "iothub.method_invalid"
    message = "The method call is not valid: {detail}"
    cause = "The method of {device_id} was not called: {detail}."
    fix = (
        "A call names a method of up to 100 characters and has up to 128 KiB of payload; it waits 5 to 300 seconds for "
        "the answer and 0 to 300 for the device: `birthmark hub method {device_id} --help`"
    )
    detail: str
    device_id: str


class DeviceNotOnlineError(NotFoundError):
    """The device is not there to be called."""

    code = "iothub.device_not_online"
    message = "Device {device_id} is not online"
    cause = "Device {device_id} is not connected, or did not subscribe to methods."
    fix = (
        "Connect it with a program that handles methods, or let the call wait for it: --connect-timeout 60 "
        "(connectTimeoutInSeconds). Who is there: `birthmark hub device ls`"
    )
    device_id: str


class MethodTimeoutError(UnavailableError):
    """The device did not answer."""

    code = "iothub.method_timeout"
    message = "Device {device_id} did not answer in {seconds} s"
    cause = "The method {method} of {device_id} was called, and no answer came in {seconds} s. It may have run."
    fix = (
        "Give the device more time, or look at its program, which answers every call with a status. What it said "
        "lately: `birthmark hub messages {device_id}`"
    )
    device_id: str
    method: str
    seconds: int


class MethodAnswerInvalidError(UnavailableError):
    """The device's answer is none that a service could be given."""

    code = "iothub.method_answer_invalid"
    message = "Device {device_id} answered the method with {detail}"
    cause = "{device_id} answered a method call with {detail}. The method ran."
    fix = "Have its program answer with JSON in UTF-8. What it said lately: `birthmark hub messages {device_id}`"
    detail: str
    device_id: str


def read_answer(payload: bytes, device_id: str) -> Any:
    """Return what a device answered, None for nothing. Raise `MethodAnswerInvalidError`."""
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
    """Raise why a call cannot be made."""
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
