"""HTTP front end of the parent: merged health and metrics of all workers, and the operator interface of one."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from birthmark.errors import UnavailableError
from birthmark.net.accepted_connection import Connection
from birthmark.net.bounded_http import ASGIApp, Receive, Scope, Send
from birthmark.operator_api.api_router import NDJSON, ROOT, SSE, as_event, problem, respond_unless_disconnected, told
from birthmark.server.workers.worker_http_client import Headers, NotReachedError, WorkerRequest, WorkerResponse
from birthmark.server.workers.worker_process_configuration import door_of
from birthmark.supervised_tasks import cancel_and_wait
from birthmark.untrusted_json_and_text import decode_json
from birthmark.webconsole.enroll.limits import DROP

FIELD = b"birthmark-asker"
"""Internal header of the front end; it is removed from external requests."""
Field = tuple[bytes, bytes]


def field_of(scope: Scope) -> Sequence[Field]:
    """Return the header with the client's and server's address; empty if unknown."""
    ends = scope.get("client"), scope.get("server")
    return () if None in ends else [(FIELD, json.dumps(ends).encode())]


class ClientAddressMiddleware:
    """Middleware for a worker's Unix domain socket that applies the client address from the front end.

    Access to the socket requires access to the installation, so the header is trusted.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope.get("headers", ())
        said = next((value for name, value in headers if name == FIELD), None)
        if said is not None:
            client, server = json.loads(said)
            others = [one for one in headers if one[0] != FIELD]
            scope = {**scope, "client": tuple(client), "server": tuple(server), "headers": others}
        await self._app(scope, receive, send)


_LOOK_S = 5.0
_JOIN_S = 1.0
"""Timeout for the first line of each worker in a merged stream."""
_AGAIN_S = 0.2
_OF_A_CONNECTION = {b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade", b"date"}
_OF_THE_REQUEST = _OF_A_CONNECTION | {b"content-length", b"expect", FIELD}
_AWAY = "away"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_SSE = f"{SSE}; charset=utf-8".encode()
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_SAFE = {"GET", "HEAD"}
_SEEN_AT_EACH = f"{ROOT}/aws/monitor".encode()
_NOTHING_DONE = "Nothing was done"
_UNKNOWN = "The request may have been processed: check the result before you repeat it"


class WorkerAwayError(UnavailableError):
    """A worker of the server does not respond."""

    code = "server.worker_away"
    cause = "{worker} of this server ended or does not respond; workers restart unless the server ends. {outcome}."
    fix = "Wait until the server responds: `birthmark env --wait 60 --data {data}`. Then run the same command again."
    worker: str
    outcome: str
    data: Path


class WorkerView(Protocol):
    """A worker, as the parent uses it."""

    @property
    def name(self) -> str: ...

    @property
    def is_ready(self) -> bool: ...


class Front:
    """An ASGI application: merged health and metrics, and everything otherwise from the first ready worker."""

    def __init__(
        self,
        workers: Sequence[WorkerView],
        directory: Path,
        *,
        has_metrics: bool,
        is_restarting: Callable[[], bool] = lambda: False,
    ) -> None:
        """Create the front end.

        `is_restarting` returns whether a rolling restart is in progress, during which other workers serve.
        """
        self._workers = workers
        self._is_restarting = is_restarting
        self._directory = directory
        health = [Route("/healthz", self._alive), Route("/readyz", self._ready)]
        metrics = Route("/metrics", self._measured)
        self.probe: ASGIApp = Starlette(routes=[*health, metrics] if has_metrics else health)
        self._own: ASGIApp = Starlette(
            routes=[*health, metrics, Route("/{path:path}", self._forward, methods=_METHODS)]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._own(scope, receive, send)

    async def _alive(self, _request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def _ready(self, _request: Request) -> Response:
        is_planned, were_ready = self._is_restarting(), [worker.is_ready for worker in self._workers]
        answers = await asyncio.gather(*(self._request_worker(worker, b"/readyz") for worker in self._workers))
        parts = [_words(body) for _, body in answers]
        is_planned |= self._is_restarting()
        if is_planned:  # a stopping or starting worker reports missing listeners, and is not required to serve
            are_ready = [worker.is_ready and before for worker, before in zip(self._workers, were_ready, strict=True)]
            parts = [words if stays else {} for words, stays in zip(parts, are_ready, strict=True)]
        serving = [status == HTTPStatus.OK for (status, _), words in zip(answers, parts, strict=True) if words]
        is_ready = all(serving) and (bool(serving) if is_planned else len(serving) == len(parts))
        found: dict[str, Any] = {"ready": is_ready}
        for words in parts:
            found |= {
                name: word for name, word in words.items() if word == _AWAY or found.get(name, "ready") == "ready"
            }
        away = [worker.name for worker, words in zip(self._workers, parts, strict=True) if not words]
        found["workers"] = f"away: {', '.join(away)}" if away else "restarting" if is_planned else "ready"
        return JSONResponse(found, HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE)

    async def _measured(self, _request: Request) -> Response:
        answers = await asyncio.gather(*(self._request_worker(worker, b"/metrics") for worker in self._workers))
        pages = {
            w.name: body.decode()
            for w, (status, body) in zip(self._workers, answers, strict=True)
            if status == HTTPStatus.OK
        }
        return Response(merged(pages), media_type=_METRICS)

    async def _forward(self, request: Request) -> Response:
        """Forward a request to one worker, which knows the state of all; live streams merge all workers."""
        if (request.method, request.scope["path"]) == ("POST", DROP):
            return await self._dropped(request)
        return await respond_unless_disconnected(
            request, self._forward_to_worker(_question(request, await request.body()))
        )

    async def _dropped(self, request: Request) -> Response:
        """Stream an upload of a device list to a worker; it exceeds the buffer for unauthenticated clients."""
        try:
            return await self._forward_to_worker(replace(_question(request), pieces=_pieces(request)))
        except ClientDisconnect:
            return Response(status_code=503)  # never delivered

    async def _forward_to_worker(self, question: WorkerRequest) -> Response:
        """Return the response of the first ready worker, or of another one if the request was not processed."""
        for worker in self._ready_ones():
            try:
                answer = await question.send_to_socket(self._door(worker))
                if (b"content-type", _SSE) in answer.headers:
                    return _WorkerStreamResponse(self._stream(worker, answer, is_sse=True), answer)
                if (b"content-type", NDJSON.encode()) in answer.headers:
                    if question.target.partition(b"?")[0] != _SEEN_AT_EACH:
                        return _WorkerStreamResponse(self._stream(worker, answer), answer)
                    answer.close()  # it is reachable: query each one
                    return _WorkerStreamResponse(self._merge_streams(question), answer)
                with contextlib.closing(answer):
                    response = Response(await answer.content(), answer.status)
            except NotReachedError:
                continue
            except OSError:
                if question.method in _SAFE:
                    continue
                return self._away(f"Worker {worker.name}", _UNKNOWN)
            response.raw_headers = _kept(answer.headers)
            return response
        return self._away()

    async def _stream(
        self, worker: WorkerView, answer: WorkerResponse, *, is_sse: bool = False
    ) -> AsyncIterator[bytes]:
        try:
            async for lines in answer.lines():
                yield lines
        except OSError:
            cut = self._problem(f"Worker {worker.name}")
            yield as_event(cut).encode() if is_sse else self._format_interrupted_line(f"Worker {worker.name}")

    async def _merge_streams(self, question: WorkerRequest) -> AsyncIterator[bytes]:
        """Yield the lines of all workers as they arrive, including workers that become ready later, until none is left.

        A worker waits when its lines are not read, and counts the lines that it drops.
        """
        lines: asyncio.Queue[bytes] = asyncio.Queue(1)
        looks = {worker.name: _WorkerStream(question, self._door(worker), lines) for worker in self._ready_ones()}
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_JOIN_S):
                    for look in looks.values():
                        await look.has_begun.wait()
            while not lines.empty() or not all(look.is_over for look in looks.values()):
                for worker in self._ready_ones():
                    if worker.name not in looks or looks[worker.name].is_over:
                        looks[worker.name] = _WorkerStream(question, self._door(worker), lines)
                try:
                    async with asyncio.timeout(_AGAIN_S):
                        line = await lines.get()
                except TimeoutError:
                    continue
                yield line
            yield self._format_interrupted_line("Every worker")
        finally:
            await cancel_and_wait(*(look.hearing for look in looks.values()))

    async def _request_worker(self, worker: WorkerView, path: bytes) -> tuple[int, bytes]:
        """Return a worker's status and body; 503 and no body if it does not answer."""
        try:
            async with asyncio.timeout(_LOOK_S):
                return await WorkerRequest("GET", path).answered(self._door(worker))
        except OSError:
            return HTTPStatus.SERVICE_UNAVAILABLE, b""

    def _ready_ones(self) -> Iterator[WorkerView]:
        return (worker for worker in self._workers if worker.is_ready)

    def _door(self, worker: WorkerView) -> Path:
        return door_of(self._directory, worker.name)

    def _away(self, worker: str = "Every worker", outcome: str = _NOTHING_DONE) -> Response:
        response = problem(WorkerAwayError(worker=worker, outcome=outcome, data=self._directory))
        response.headers["retry-after"] = "1"
        return response

    def _format_interrupted_line(self, worker: str) -> bytes:
        """Return the final line of an interrupted stream."""
        return msgspec.json.encode(self._problem(worker)) + b"\n"

    def _problem(self, worker: str) -> dict[str, Any]:
        error = WorkerAwayError(worker=worker, outcome="The response was interrupted here", data=self._directory)
        return {"problem": told(error)}


class _WorkerStream:
    """The stream of one worker, until it ends."""

    def __init__(self, question: WorkerRequest, path: Path, lines: asyncio.Queue[bytes]) -> None:
        self.has_begun = asyncio.Event()
        self.hearing = asyncio.create_task(self._hear(question, path, lines))

    @property
    def is_over(self) -> bool:
        return self.hearing.done()

    async def _hear(self, question: WorkerRequest, path: Path, lines: asyncio.Queue[bytes]) -> None:
        try:
            async with asyncio.timeout(_LOOK_S):
                answer = await question.send_to_socket(path)
            with contextlib.closing(answer):
                async for some in answer.lines():
                    self.has_begun.set()
                    await lines.put(some)
        except OSError:
            pass  # its worker ended or is starting
        finally:
            self.has_begun.set()


class _WorkerStreamResponse(StreamingResponse):
    """A streaming response that closes its source when the client disconnects."""

    def __init__(self, parts: AsyncIterator[bytes], answer: WorkerResponse) -> None:
        super().__init__(parts, answer.status)
        self.raw_headers = _kept(answer.headers)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.close()


def _question(request: Request, body: bytes = b"") -> WorkerRequest:
    """Return the request unchanged: a decoded name would be decoded a second time by the worker."""
    scope = request.scope
    path = scope.get("raw_path") or quote(scope["path"]).encode()
    target = path + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    headers = [field for field in scope["headers"] if field[0] not in _OF_THE_REQUEST]
    return WorkerRequest(request.method, target, [*headers, *field_of(scope)], body)


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """Yield a body as it arrives; forwarded bytes no longer count as buffered."""
    connection: Connection | None = request.scope.get("extensions", {}).get("connection")
    async for piece in request.stream():
        yield piece
        if connection is not None:
            connection.mark_processed()


def _kept(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [field for field in headers if field[0] not in _OF_A_CONNECTION]


def _words(body: bytes) -> dict[str, str]:
    try:
        found = decode_json(body, dict[str, bool | str])
    except msgspec.MsgspecError:
        return {}
    return {name: word for name, word in found.items() if isinstance(word, str)}


_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (.*)$")


def merged(pages: Mapping[str, str]) -> str:
    """Return one page in Prometheus's text format from the pages of all workers; each sample gets a `worker` label."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for worker, page in pages.items():
        family = ""
        for line in page.splitlines():
            if line.startswith("#"):
                _, what, name, *_ = line.split(" ", 3)
                family = name
                known = heads.setdefault(family, [])
                if not any(one.startswith(f"# {what} ") for one in known):
                    known.append(line)
                samples.setdefault(family, [])
            elif found := _SAMPLE.match(line):
                name, labels, value = found.groups()
                told = f'worker="{worker}"' + (f",{labels}" if labels else "")
                samples.setdefault(family, []).append(f"{name}{{{told}}} {value}")
    return "".join(f"{line}\n" for family in samples for line in _block(heads.get(family, ()), samples[family]))


def _block(head: Iterable[str], samples: Iterable[str]) -> list[str]:
    return [*head, *samples]
