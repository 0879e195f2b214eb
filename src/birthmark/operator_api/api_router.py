"""Operator API as a table: every route with its right, parameters and response.

One table serves the requests, the OpenAPI document and the reference page. Lists are paged: `after` takes the `next` of
the previous page. Errors are problem documents (RFC 9457) with the refusal's code and fix.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated, Any, TypeAlias

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, Router

from birthmark import errors
from birthmark.actor import Actor
from birthmark.auth.permission_statements import Right
from birthmark.auth.principals import UNAUTHENTICATED, Caller, Principal
from birthmark.errors import BirthmarkError, UnauthenticatedError
from birthmark.iam.approvals_model import MAX_BODY, ApprovalRequest
from birthmark.iam.idempotency import FAILED, IdempotencyStore
from birthmark.iam.idempotency_model import MAX_KEY_CHARS, IdempotentRequest, key_of
from birthmark.iam.missing_right_errors import require_right
from birthmark.iam.model import SERVER
from birthmark.net.fair_scheduler import begin_task, yield_turn
from birthmark.net.http_route_wrappers import Handler, LazyApp, refusing, with_complete_body
from birthmark.operator_api.name_validation import OperatorRequestError
from birthmark.supervised_tasks import cancel_and_wait
from birthmark.untrusted_json_and_text import decode_json

ROOT = "/operator/v1"
PROBLEM = "application/problem+json"
IDEMPOTENCY_KEY, REPLAYED = "idempotency-key", "idempotency-replayed"
NDJSON, SSE = "application/x-ndjson", "text/event-stream"
SIGN_OF_LIFE_S = 10.0
LOOK_AGAIN_S = 0.5
"""Maximum time in seconds that a line stream continues after its reader's right was revoked."""
_NOT_KEPT = {"cache-control": "no-store"}
_TAG_DIGITS = 32
_as_json = partial(json.dumps, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")

Identify: TypeAlias = Callable[[Request], Caller]
SecondPerson: TypeAlias = Callable[[Caller, ApprovalRequest], Awaitable[None]]
Refused: TypeAlias = Callable[[BirthmarkError, str], None]
"""Receives each refusal of a user request, with the client address."""
Describe: TypeAlias = Callable[[Sequence["Endpoint"]], Mapping[str, Any]]

STATUS: Mapping[type[BirthmarkError], int] = {
    errors.InvalidRequestError: 400,
    errors.UnauthenticatedError: 401,
    errors.ForbiddenError: 403,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.PolicyError: 422,
    errors.ThrottledError: 429,
    errors.UnavailableError: 503,
}


class OperatorTokenError(UnauthenticatedError):
    """The operator token is missing or wrong."""

    code = "operator.token_refused"
    cause = "The request to the operator interface does not contain the token of the server's data directory."
    fix = (
        "Run the commands as the user that owns the data directory, so that they send the token. With curl, begin "
        'the request with this command: `sed "s/^/Authorization: Bearer /" '
        '"${{BIRTHMARK_DATA:-$HOME/.local/share/birthmark}}/operator.token" | curl -H @-`. If the token file was '
        "changed, restart the server."
    )


class EmptyBody(msgspec.Struct, forbid_unknown_fields=True):
    """Request without parameters and body."""


Seconds = Annotated[int, msgspec.Meta(ge=-(10**9), le=10**9)]
"""A lifetime in seconds, before the component validates its range."""


class PageQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Page of a list."""

    after: str = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=250)] = 100


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One request: path parameters, query and body as the route's types, and the caller."""

    names: Mapping[str, str]
    query: Any
    body: Any
    caller: Caller
    address: str = ""

    def require_permission(self, right: Right, scope: str) -> None:
        """Raise `RightMissingError` if the caller lacks a right that depends on the body."""
        require_right(self.caller, right, scope)

    @property
    def actor(self) -> Actor:
        return self.caller.actor

    @property
    def principal(self) -> Principal:
        return self.caller.principal

    def __getitem__(self, name: str) -> str:
        return self.names[name]


async def always(_asked: ApiRequest) -> bool:
    """Return True: every request to the route is irreversible."""
    return True


MAX_QUERY_CHARS = 8192
"""Maximum length of each query value; a parser may have its own limit."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A list or one page of it: `next` is the `after` of the next page."""

    items: Sequence[Mapping[str, Any]]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class LineStream:
    """Streamed parts, one JSON line each; the last is followed by `{"end": true}` or a problem document.

    A stream without either was truncated. Empty parts keep an idle connection alive. Clients that accept
    `text/event-stream` receive server-sent events, whose IDs are positions to resume from (`Last-Event-ID`).
    """

    parts: AsyncIterator[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route. `path` has its parameters in braces; `{name:path}` also matches slashes."""

    method: str
    path: str
    right: Right | None
    """Required right in the route's scope; None for any authenticated caller."""
    summary: str
    handler: Callable[[ApiRequest], Awaitable[Any]]
    body: type[msgspec.Struct] = EmptyBody
    query: type[msgspec.Struct] = EmptyBody
    status: int = 200
    waits: bool = False
    """Whether the request may take long and is canceled when the client disconnects."""
    rows_at: str = ""
    """Template for the scope of each list row; the caller sees only the rows that they may read."""
    is_open: bool = False
    """Whether the route requires no authentication."""
    is_final: Callable[[ApiRequest], Awaitable[bool]] | None = None
    """Returns whether a request is irreversible and therefore requires approval (dual control)."""

    @property
    def is_repeatable(self) -> bool:
        """Whether the route is safe to repeat because it changes nothing."""
        return self.method == "GET" or self.right is Right.READ

    @property
    def names(self) -> list[str]:
        return _PARAMETER.findall(self.path)

    @property
    def template(self) -> str:
        """The path in OpenAPI notation."""
        return _PARAMETER.sub(r"{\1}", self.path)

    def place(self, names: Mapping[str, str]) -> str:
        """Return the scope in which the right is required, from the path parameters."""
        kind = next((kind for root, kind in _PLACES.items() if self.path.startswith(root)), SERVER)
        return kind.format_map(names)


_PLACES = {"/hubs/{name}": "hub/{name}", "/dps/{name}": "dps/{name}", "/aws/": "aws"}


@dataclass(frozen=True, slots=True)
class ApiContext:
    """Dependencies of all routes: approvals, idempotency store, and the refusal sink."""

    second: SecondPerson | None = None
    once: IdempotencyStore | None = None
    """Idempotency store; without it, requests with an `Idempotency-Key` are refused."""
    refused: Refused | None = None


def operator_mount(
    identify: Identify, table: Sequence[Endpoint], describe: Describe, context: ApiContext = ApiContext()
) -> Mount:
    """Return the mount of the operator API; `identify` authenticates the caller."""
    document = cache(lambda: bytes(JSONResponse(describe(table)).body))  # built once: no sign-in needed

    async def openapi(_request: Request) -> Response:
        return Response(document(), media_type="application/json")

    def routes() -> Router:
        every = [Route(one.path, _answering(one, identify, context), methods=[one.method]) for one in table]
        return Router([Route("/openapi.json", openapi, methods=["GET"]), *every])

    return Mount(ROOT, LazyApp(routes))


def problem(error: BirthmarkError) -> Response:
    """Return an error as a problem document."""
    document = told(error)
    return JSONResponse(document, document["status"], media_type=PROBLEM)


def told(error: BirthmarkError) -> dict[str, Any]:
    """Return the problem document of an error, also used as a line of a stream."""
    cause, fix = error.explain_for_display()
    return {
        "type": f"urn:birthmark:{error.code}",
        "title": str(error),
        "status": next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS),
        "detail": cause,
        "code": error.code,
        "fix": fix,
    }


async def _written(
    lines: LineStream, check: Callable[[], None], write: Callable[[Mapping[str, Any]], str]
) -> AsyncIterator[str]:
    try:
        async for part in _stream_while_authorized(lines.parts, check):
            yield write(part)
    except BirthmarkError as error:
        yield write({"problem": told(error)})
    else:
        yield write({"end": True})


def as_line(part: Mapping[str, Any]) -> str:
    """Return a part as a JSON line."""
    return json.dumps(part) + "\n"


def as_event(part: Mapping[str, Any]) -> str:
    """Format a part as a server-sent event (WHATWG HTML 9.2); an empty part becomes a comment."""
    if not part:
        return ":\n\n"
    kind = next((name for name in ("end", "problem") if name in part), "")
    lines = [f"event: {kind}"] if kind else []
    lines += [f"id: {part['place']}"] if "place" in part else []
    return "\n".join([*lines, f"data: {json.dumps(part.get('event', part))}", "", ""])


async def _stream_while_authorized(
    parts: AsyncIterator[Mapping[str, Any]], check: Callable[[], None]
) -> AsyncIterator[Mapping[str, Any]]:
    """Yield parts while the reader is still authorized; `check` raises if not."""
    ending: asyncio.Future[Mapping[str, Any]] | None = None
    try:
        while True:
            ending = ending or begin_task(anext(parts))
            is_there = (await asyncio.wait((ending,), timeout=LOOK_AGAIN_S))[0]
            check()
            if is_there:
                coming, ending = ending, None
                try:
                    yield coming.result()
                except StopAsyncIteration:
                    return
    finally:
        await cancel_and_wait(ending)


def _answering(endpoint: Endpoint, identify: Identify, context: ApiContext) -> Handler:
    carry_out = _carrying_out(endpoint, identify, context.second)

    async def answer(request: Request) -> Response:
        caller = UNAUTHENTICATED if endpoint.is_open else identify(request)
        if not endpoint.is_open:
            authorize(endpoint, caller, request.path_params)
        asked = await _asked(endpoint, request, caller)
        if endpoint.is_repeatable or IDEMPOTENCY_KEY not in request.headers:
            return await carry_out(request, asked)
        if context.once is None or endpoint.is_open:
            raise OperatorRequestError(
                detail="Idempotency-Key is not supported here: the user of the request is unknown"
            )
        return await respond_once(
            context.once, await _parse_idempotency_key(request, caller), lambda: carry_out(request, asked)
        )

    def render(error: BirthmarkError, request: Request) -> Response:
        if context.refused is not None and isinstance(error, errors.ForbiddenError):
            context.refused(error, request.client.host if request.client else "")
        return problem(error)

    return refusing(with_complete_body(answer), render)


def _carrying_out(
    endpoint: Endpoint, identify: Identify, second: SecondPerson | None
) -> Callable[[Request, ApiRequest], Awaitable[Response]]:
    async def carry_out(request: Request, asked: ApiRequest) -> Response:
        if second is not None and endpoint.is_final is not None and await endpoint.is_final(asked):
            path = request.url.path.removeprefix(ROOT) + (f"?{request.url.query}" if request.url.query else "")
            await second(asked.caller, build_approval_request(endpoint, path, asked))
            _check_again(endpoint, identify, request)
        if endpoint.method != "GET" and "if-match" in request.headers:
            raise OperatorRequestError(detail="If-Match is not supported here: the change applies to the current state")
        check = partial(_check_again, endpoint, identify, request)
        answering = answered(asked, check, request.headers)
        response = await (respond_unless_disconnected(request, answering, check) if endpoint.waits else answering)
        response.headers["cache-control"] = "no-store"  # browsers also call it, and cache if allowed
        return response

    async def answered(request: ApiRequest, check: Callable[[], None], values: Mapping[str, str]) -> Response:
        value = await endpoint.handler(request)
        if isinstance(value, LineStream):
            is_sse = SSE in values.get("accept", "")
            written = _written(value, check, as_event if is_sse else as_line)
            return StreamingResponse(written, endpoint.status, _NOT_KEPT, SSE if is_sse else NDJSON)
        if value is None:
            return Response(status_code=204)
        if isinstance(value, Rows):
            made = await _list_of(seen(value, endpoint, request.caller), endpoint.status)
        else:
            made = JSONResponse(value, endpoint.status)
        return with_entity_tag(made, values) if endpoint.method == "GET" else made

    return carry_out


async def _list_of(rows: Rows, status: int) -> Response:
    """Return a list as JSON, encoded row by row in the caller's turns because rows may be large."""
    items = []
    for row in rows.items:
        items.append(_as_json(row))
        await yield_turn()
    content = f'{{"items":[{",".join(items)}],"next":{_as_json(rows.next)}}}'
    return Response(content, status, media_type=JSONResponse.media_type)


async def _parse_idempotency_key(request: Request, caller: Caller) -> IdempotentRequest:
    """Return a request with its idempotency key. Raise `OperatorRequestError`."""
    given = request.headers.getlist(IDEMPOTENCY_KEY)
    key = key_of(given[0]) if len(given) == 1 else None
    if key is None:
        most = f"1 to {MAX_KEY_CHARS} printable ASCII characters"
        raise OperatorRequestError(
            detail=f"Idempotency-Key must occur once and contain {most}, with or without quotation marks"
        )
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return IdempotentRequest(str(caller.actor), credential_of(caller), key, request.method, path, await request.body())


def credential_of(caller: Caller) -> str:
    """Return the caller's credential: a token or a session."""
    return "&".join(f"{name}={value}" for name, value in sorted(caller.actor.told.items()) if name != "from")


async def respond_once(
    once: IdempotencyStore, request: IdempotentRequest, carry_out: Callable[[], Awaitable[Response]]
) -> Response:
    """Return the stored response to an identical earlier request, or execute the request and store it."""
    begun = await once.begin(request)
    if begun.status is not None:
        content = (begun.answer or "").encode()
        return Response(content, begun.status, _NOT_KEPT | {REPLAYED: "true"}, "application/json" if content else None)
    try:
        response = await carry_out()
    except errors.UnavailableError:
        await once.store_response(begun, FAILED, None)  # its effects, if any, are unknown
        raise
    except BirthmarkError:
        await once.forget(begun)
        raise
    except Exception:
        await once.store_response(begun, FAILED, None)
        raise
    await once.store_response(begun, response.status_code, bytes(response.body).decode())
    return response


def with_entity_tag(answer: Response, values: Mapping[str, str]) -> Response:
    """Return a response with its entity tag, or 304 if the client's copy is current (RFC 9110, 13.1.2)."""
    tag = f'"{hashlib.sha256(bytes(answer.body)).hexdigest()[:_TAG_DIGITS]}"'
    answer.headers["etag"] = tag
    known = [one.strip().removeprefix("W/") for one in values.get("if-none-match", "").split(",")]
    return Response(status_code=304, headers={"etag": tag}) if tag in known else answer


def _check_again(endpoint: Endpoint, identify: Identify, request: Request) -> None:
    """Raise if the caller is no longer authenticated or authorized."""
    if not endpoint.is_open:
        authorize(endpoint, identify(request), request.path_params)


def build_approval_request(endpoint: Endpoint, path: str, request: ApiRequest) -> ApprovalRequest:
    """Return a request as shown to the approver: the parsed fields only, without ignored ones."""
    body, place = msgspec.json.encode(request.body).decode(), endpoint.place(request.names)
    if len(body) > MAX_BODY:
        raise OperatorRequestError(detail=f"more than {MAX_BODY} characters cannot be reviewed for approval")
    return ApprovalRequest(endpoint.summary, endpoint.method, path, body, endpoint.right or Right.ADMINISTER, place)


async def respond_unless_disconnected(
    request: Request, answering: Coroutine[Any, Any, Response], check: Callable[[], None] | None = None
) -> Response:
    """Return the response to a request with a complete body; cancel it if the client disconnects.

    `check` raises if the caller is no longer authorized, which also cancels it.
    """
    asking, leaving = begin_task(answering), asyncio.create_task(_left(request))
    pause = None if check is None else LOOK_AGAIN_S
    try:
        while not (await asyncio.wait((asking, leaving), timeout=pause, return_when=asyncio.FIRST_COMPLETED))[0]:
            if check is not None:
                check()
        return asking.result() if asking.done() else Response(status_code=503)  # never delivered
    finally:
        await cancel_and_wait(asking, leaving)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def seen(rows: Rows, endpoint: Endpoint, caller: Caller) -> Rows:
    """Return the rows that the caller may read."""
    if not endpoint.rows_at:
        return rows
    may = (row for row in rows.items if caller.rights.allow(Right.READ, endpoint.rows_at.format_map(row)))
    return Rows(list(may), rows.next)


def authorize(endpoint: Endpoint, caller: Caller, names: Mapping[str, str]) -> None:
    """Raise `RightMissingError` if the caller lacks the route's right."""
    if endpoint.right is not None and not endpoint.rows_at:
        require_right(caller, endpoint.right, endpoint.place(names))


async def _asked(endpoint: Endpoint, request: Request, caller: Caller) -> ApiRequest:
    """Parse query and body into the route's types. Raise `OperatorRequestError` that names the error."""
    if empty := [name for name, given in request.path_params.items() if not given.strip()]:
        raise OperatorRequestError(detail=f"`{empty[0]}`, a part of the path, is empty")
    raw = await request.body()
    said = dict(request.query_params)
    last = request.headers.get("last-event-id") if SSE in request.headers.get("accept", "") else None
    if last and "after" in endpoint.query.__struct_fields__:
        said["after"] = last  # a reconnect repeats the query, and adds this position
    if (long := next((name for name, text in said.items() if len(text) > MAX_QUERY_CHARS), None)) is not None:
        raise OperatorRequestError(detail=f"`{long[:64]}` has more than {MAX_QUERY_CHARS} characters")
    try:
        query = msgspec.convert(said, endpoint.query, strict=False)
        body = decode_json(raw or b"{}", endpoint.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise OperatorRequestError(detail=str(error)) from error
    return ApiRequest(request.path_params, query, body, caller, request.client.host if request.client else "")
