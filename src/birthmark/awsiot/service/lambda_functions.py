"""AWS Lambda functions by ARN: each maps to an address in the configuration (`[functions]`).

An event is sent as JSON by POST, signed like webhooks (Standard Webhooks); the response body is the function's result.
A late, non-2xx, oversized, or non-JSON response is a failure; redirects are not followed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from birthmark.awsiot.ports import FunctionCaller
from birthmark.clock_and_entropy import Clock, Entropy, new_uuid
from birthmark.errors import BirthmarkError, InvalidRequestError, UnavailableError
from birthmark.outbound.callouts import Ask, CalloutClient
from birthmark.outbound.http_client import NotAnsweredError
from birthmark.outbound.webhook_signature import headers_of
from birthmark.untrusted_json_and_text import decode_json

_MAX_TOLD = 200


class FunctionNotMappedError(InvalidRequestError):
    """The Lambda function is not mapped to a URL."""

    code = "awsiot.function_not_mapped"
    message = "The function {arn} is not mapped to a URL"
    cause = "The server must call {arn}, but the server's configuration does not map this function to a URL."
    fix = (
        'To map the function, add [functions."{arn}"] with url = "https://…" and secret_file = "…" to the '
        "configuration, and restart the server. Show the current settings: `birthmark server settings`"
    )
    arn: str


class FunctionFailedError(UnavailableError):
    """The Lambda function returned no valid response."""

    code = "awsiot.function_failed"
    message = "The function {arn} returned no valid response"
    cause = "The server called the function {arn} at {host}, which returned no valid response: {reason}."
    fix = (
        "Check the function, which receives an event in a POST request and must return status 200 with JSON within 5 "
        "s. Show each function's URL: `birthmark server settings`"
    )
    arn: str
    host: str
    reason: str


@dataclass(frozen=True, slots=True)
class LambdaFunction:
    """Address of a function, and the key that signs its calls."""

    url: str
    host: str
    secret: str = field(repr=False)


class MappedFunctions:
    """The functions that the configuration maps, by ARN."""

    def __init__(
        self,
        clock: Clock,
        entropy: Entropy,
        outside: Ask | None = None,
        functions: Mapping[str, LambdaFunction] | None = None,
    ) -> None:
        self._clock = clock
        self._entropy = entropy
        self._questions = None if outside is None else CalloutClient(outside)
        self._functions = functions or {}

    def is_mapped(self, arn: str) -> bool:
        """Return whether it has an address."""
        return arn in self._functions

    async def call(self, arn: str, event: Mapping[str, Any], caller: FunctionCaller, whose: str = "") -> Any:
        """Return a function's response to an event. Raise `FunctionNotMappedError`, `FunctionFailedError`.

        Each kind of caller has its own queue, in which callers (`whose`) take turns.
        """
        if (function := self._functions.get(arn)) is None or self._questions is None:
            raise FunctionNotMappedError(arn=arn[:_MAX_TOLD])
        body = json.dumps(event).encode()
        at_s = int(self._clock.now().timestamp())
        signed = headers_of(new_uuid(self._entropy), at_s, body, [function.secret])
        headers = {"content-type": "application/json", "user-agent": "birthmark", **signed}
        try:
            status, body = await self._questions.ask((arn, caller), whose, function.url, headers, body)
        except BirthmarkError as error:
            reason = error.reason if isinstance(error, NotAnsweredError) else error.explain_cause().removesuffix(".")
            raise FunctionFailedError(arn=arn, host=function.host, reason=reason) from error
        if not 200 <= status < 300:  # noqa: PLR2004 - RFC 9110: successful
            raise FunctionFailedError(arn=arn, host=function.host, reason=f"it answers {status}")
        try:
            return decode_json(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise FunctionFailedError(arn=arn, host=function.host, reason="its response is not JSON") from error
