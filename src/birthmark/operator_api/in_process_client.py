"""The operator interface for the pages of this process: the same routes, rights and second persons, without HTTP.

A page shows what somebody may see by it, and decides nothing by itself: what a program may not, no page does.
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
from birthmark.iam.authorization import RightMissingError
from birthmark.iam.idempotency import IdempotencyStore, StillBeingDoneError
from birthmark.iam.idempotency_model import IdempotentRequest as OnceRequest
from birthmark.operator_api.api_router import (
    ApiContext,
    ApiRequest,
    Endpoint,
    Rows,
    answered_once,
    authorize,
    seen,
    told_by,
    wanted,
)
from birthmark.operator_api.name_validation import OperatorRequestError

_SAFE = "/:@"
_PATIENCE_S, _AGAIN_S = 10.0, 0.1


@dataclass(frozen=True, slots=True)
class SignedInUser:
    """Who looks at a page, and from where."""

    caller: Caller
    address: str


class InProcessClient:
    """Asks the routes of a table."""

    def __init__(self, table: Sequence[Endpoint], beside: ApiContext) -> None:
        self._table = {(one.method, one.template): one for one in table}
        self._beside = beside

    async def ask(self, who: SignedInUser, path: str, /, *names: str, **query: Any) -> Any:
        """Return what a GET of a path answers: `names` are those in its braces. Raise what the route raises."""
        endpoint = self._table["GET", path]
        asked = _asked(endpoint, who, names, {name: value for name, value in query.items() if value is not None})
        return await _value(endpoint, asked)

    async def look(self, who: SignedInUser, path: str, /, *names: str, **query: Any) -> Any:
        """Return the same; None where that one may not look."""
        try:
            return await self.ask(who, path, *names, **query)
        except RightMissingError:
            return None

    async def read(self, who: SignedInUser, path: str, body: Mapping[str, Any], *names: str) -> Any:
        """Return what a POST answers that changes nothing."""
        endpoint = self._table["POST", path]
        return await _value(endpoint, _asked(endpoint, who, names, {}, body))

    def may(self, who: SignedInUser, method: str, path: str, *names: str) -> None:
        """Raise `RightMissingError` where somebody may not, before anything of it begins."""
        endpoint = self._table[method, path]
        authorize(endpoint, who.caller, dict(zip(endpoint.names, names, strict=True)))

    async def do(self, who: SignedInUser, deed: "ApiOperation") -> Any:
        """Carry something out, once for each key. Raise what the route raises, and what a second person is asked by."""
        endpoint = self._table[deed.method, deed.path]
        asked = _asked(endpoint, who, deed.names, deed.query, deed.body)

        async def carry_out() -> Response:
            if self._beside.second is not None and endpoint.is_final is not None and await endpoint.is_final(asked):
                await self._beside.second(who.caller, wanted(endpoint, _path(endpoint, asked, deed.query), asked))
            value = await _value(endpoint, asked)
            return JSONResponse({"items": value.items} if isinstance(value, Rows) else value)

        if self._beside.once is None or not deed.key:
            response = await carry_out()
        else:
            path, body = _path(endpoint, asked, deed.query), msgspec.json.encode(asked.body)
            request = OnceRequest(str(who.caller.actor), told_by(who.caller), deed.key, deed.method, path, body)
            response = await _answered_at_last(self._beside.once, request, carry_out)
        return json.loads(bytes(response.body) or b"null")


@dataclass(frozen=True, slots=True)
class ApiOperation:
    """What a page asks to be done: a route and what it takes, and the key of the form that was sent."""

    method: str
    path: str
    names: Sequence[str] = ()
    body: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""


def _asked(
    endpoint: Endpoint,
    who: SignedInUser,
    names: Sequence[str],
    query: Mapping[str, Any],
    body: Mapping[str, Any] | None = None,
) -> ApiRequest:
    named = dict(zip(endpoint.names, names, strict=True))
    authorize(endpoint, who.caller, named)
    try:
        given = msgspec.convert(dict(query), endpoint.query, strict=False)
        content = msgspec.convert(dict(body or {}), endpoint.body, strict=False)
    except msgspec.MsgspecError as error:
        raise OperatorRequestError(detail=str(error)) from error
    return ApiRequest(named, given, content, who.caller, who.address)


async def _value(endpoint: Endpoint, asked: ApiRequest) -> Any:
    value = await endpoint.handler(asked)
    return seen(value, endpoint, asked.caller) if isinstance(value, Rows) else value


async def _answered_at_last(
    once: IdempotencyStore, request: OnceRequest, carry_out: Callable[[], Awaitable[Response]]
) -> Response:
    """Return what was answered to the same form, also where that is being done: who pressed twice sees the last one."""
    now = asyncio.get_running_loop().time
    until = now() + _PATIENCE_S
    while True:
        try:
            return await answered_once(once, request, carry_out)
        except StillBeingDoneError:
            if now() > until:
                raise
        await asyncio.sleep(_AGAIN_S)


def _path(endpoint: Endpoint, asked: ApiRequest, query: Mapping[str, Any]) -> str:
    """Return the path as a program would ask for it: a second person's word is for both."""
    path = endpoint.template.format_map({name: quote(value, safe=_SAFE) for name, value in asked.names.items()})
    return path + (f"?{urlencode(dict(query))}" if query else "")
