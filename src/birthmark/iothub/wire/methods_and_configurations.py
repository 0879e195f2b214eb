"""Direct method calls and configurations in service requests."""

import re
from typing import Any

import msgspec

from birthmark.iothub.wire.times_and_body_validation import BodyInvalidError, check_members
from birthmark.untrusted_json_and_text import read_json


class ConfigurationContent(msgspec.Struct, rename="camel"):
    """Configuration content for a device and its modules, by twin path."""

    device_content: dict[str, Any] | None = None
    modules_content: dict[str, dict[str, Any]] | None = None


def parse_content(body: bytes) -> ConfigurationContent:
    """Return the content of a configuration. Raise `BodyInvalidError`."""
    content = read_json(body, ConfigurationContent, BodyInvalidError)
    check_members(body, ConfigurationContent)
    return content


class MethodCall(msgspec.Struct, rename="camel"):
    """A direct method call in a service request."""

    method_name: str
    payload: Any = None
    response_timeout_in_seconds: int = 30
    connect_timeout_in_seconds: int = 0


class SentMethodCall(msgspec.Struct, rename="camel"):
    """The same as sent, with seconds as number or text: the Azure CLI sends them quoted."""

    method_name: str
    payload: Any = None
    response_timeout_in_seconds: int | str = 30
    connect_timeout_in_seconds: int | str = 0
    timeout_in_seconds: int | str | None = None
    """Response timeout in the 2016 API."""


def parse_method_call(body: bytes) -> MethodCall:
    """Return the call. Raise `BodyInvalidError`."""
    said = read_json(body, SentMethodCall, BodyInvalidError)
    check_members(body, SentMethodCall)
    return method_call_of(said)


def method_call_of(said: SentMethodCall) -> MethodCall:
    """Return a call with its seconds as numbers. Raise `BodyInvalidError`."""
    response = said.response_timeout_in_seconds if said.timeout_in_seconds is None else said.timeout_in_seconds
    waits = (response, said.connect_timeout_in_seconds)
    return MethodCall(said.method_name, said.payload, *map(_seconds, waits))


def _seconds(said: int | str) -> int:
    if isinstance(said, int):
        return said
    if not re.fullmatch("[0-9]{1,9}", said):
        raise BodyInvalidError(detail=f"{said[:64]!r} is not a number of seconds")
    return int(said)
