"""Operator API for pages of this process: the same routes, rights and approvals, without HTTP.

Pages use it for all data and make no access decisions: a page can do no more than an API client.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from starlette.responses import JSONResponse, Response

from birthmark.auth.principals import Caller
from birthmark.iam.idempotency import IdempotencyStore, StillBeingDoneError
from birthmark.iam.idempotency_model import IdempotentRequest as OnceRequest
from birthmark.iam.missing_right_errors import RightMissingError
from birthmark.operator_api.api_router import (
    ApiContext,
    ApiRequest,
    Endpoint,
    Rows,
    authorize,
    build_approval_request,
    credential_of,
    respond_once,
    seen,
)
from birthmark.operator_api.name_validation import OperatorRequestError

_SAFE = "/:@"
_PATIENCE_S, _AGAIN_S = 10.0, 0.1


@dataclass(frozen=True, slots=True)
class SignedInUser:
    """The user of a page, and the client address."""

    caller: Caller
    address: str


class InProcessClient:
    """Client of a route table."""

    def __init__(self, table: Sequence[Endpoint], context: ApiContext) -> None:
        self._table = {(one.method, one.template): one for one in table}
        self._context = context

    async def ask(self, caller: SignedInUser, path: str, /, *names: str, **query: Any) -> Any:
        """Return the result of a GET; `names` are the path parameters. Raise the errors of the route."""
        endpoint = self._table["GET", path]
        asked = _asked(endpoint, caller, names, {name: value for name, value in query.items() if value is not None})
        return await _value(endpoint, asked)

    async def look(self, caller: SignedInUser, path: str, /, *names: str, **query: Any) -> Any:
        """Return the same, or None if the user lacks the right."""
        try:
            return await self.ask(caller, path, *names, **query)
        except RightMissingError:
            return None

    async def read(self, caller: SignedInUser, path: str, body: Mapping[str, Any], *names: str) -> Any:
        """Return the result of a read-only POST."""
        endpoint = self._table["POST", path]
        return await _value(endpoint, _asked(endpoint, caller, names, {}, body))

    def may(self, caller: SignedInUser, method: str, path: str, *names: str) -> None:
        """Raise `RightMissingError` if the user lacks the right, before an operation starts."""
        endpoint = self._table[method, path]
        authorize(endpoint, caller.caller, dict(zip(endpoint.names, names, strict=True)))

    async def do(self, caller: SignedInUser, deed: "ApiOperation") -> Any:
        """Execute an operation, once per key. Raise the errors of the route and the request for approval."""
        endpoint = self._table[deed.method, deed.path]
        asked = _asked(endpoint, caller, deed.names, deed.query, deed.body)

        async def carry_out() -> Response:
            if self._context.second is not None and endpoint.is_final is not None and await endpoint.is_final(asked):
                await self._context.second(
                    caller.caller, build_approval_request(endpoint, _path(endpoint, asked, deed.query), asked)
                )
            value = await _value(endpoint, asked)
            return JSONResponse({"items": value.items} if isinstance(value, Rows) else value)

        if self._context.once is None or not deed.key:
            response = await carry_out()
        else:
            path, body = _path(endpoint, asked, deed.query), msgspec.json.encode(asked.body)
            request = OnceRequest(
                str(caller.caller.actor), credential_of(caller.caller), deed.key, deed.method, path, body
            )
            response = await _wait_for_response(self._context.once, request, carry_out)
        return json.loads(bytes(response.body) or b"null")


@dataclass(frozen=True, slots=True)
class ApiOperation:
    """An operation of a page: route, parameters, and the key of the submitted form."""

    method: str
    path: str
    names: Sequence[str] = ()
    body: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""


def _asked(
    endpoint: Endpoint,
    caller: SignedInUser,
    names: Sequence[str],
    query: Mapping[str, Any],
    body: Mapping[str, Any] | None = None,
) -> ApiRequest:
    named = dict(zip(endpoint.names, names, strict=True))
    authorize(endpoint, caller.caller, named)
    try:
        given = msgspec.convert(dict(query), endpoint.query, strict=False)
        content = msgspec.convert(dict(body or {}), endpoint.body, strict=False)
    except msgspec.MsgspecError as error:
        raise OperatorRequestError(detail=str(error)) from error
    return ApiRequest(named, given, content, caller.caller, caller.address)


async def _value(endpoint: Endpoint, request: ApiRequest) -> Any:
    value = await endpoint.handler(request)
    return seen(value, endpoint, request.caller) if isinstance(value, Rows) else value


async def _wait_for_response(
    once: IdempotencyStore, request: OnceRequest, carry_out: Callable[[], Awaitable[Response]]
) -> Response:
    """Return the stored response to the same form, also if its operation is in progress.

    After a double click, the second request receives it.
    """
    now = asyncio.get_running_loop().time
    until = now() + _PATIENCE_S
    while True:
        try:
            return await respond_once(once, request, carry_out)
        except StillBeingDoneError:
            if now() > until:
                raise
        await asyncio.sleep(_AGAIN_S)


def _path(endpoint: Endpoint, request: ApiRequest, query: Mapping[str, Any]) -> str:
    """Return the path as an API client would request it, so that an approval applies to both."""
    path = endpoint.template.format_map({name: quote(value, safe=_SAFE) for name, value in request.names.items()})
    return path + (f"?{urlencode(dict(query))}" if query else "")
