"""What the parent answers: one health and one page of metrics for all workers, and the operator interface by one."""

import asyncio
import concurrent.futures
import http.client
import re
import threading
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from birthmark.console.door import DoorConnection
from birthmark.net.http import ASGIApp, Receive, Scope, Send
from birthmark.text import reason_of

_LOOK_S = 5.0
_ANSWER_S = 330.0  # a method call waits for five minutes
_PART = 65536
_OWN = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "content-length"}
_METRICS = "text/plain; version=0.0.4; charset=utf-8"


class Known(Protocol):
    """A worker, as its parent sees it."""

    @property
    def name(self) -> str: ...

    @property
    def is_ready(self) -> bool: ...


class Front:
    """An ASGI application: health of all, metrics of all, and whatever else from the first worker that is ready."""

    def __init__(self, workers: Sequence[Known], directory: Path, *, has_metrics: bool) -> None:
        self._workers = workers
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
        answers = await asyncio.gather(*(self._asked(worker, "/readyz") for worker in self._workers))
        told: dict[str, Any] = {"ready": all(status == HTTPStatus.OK for status, _ in answers)}
        parts = {}
        for worker, (_, body) in zip(self._workers, answers, strict=True):
            parts[worker.name] = _words(body)
        for name in dict.fromkeys(name for words in parts.values() for name in words):
            told[name] = "ready" if all(words.get(name) == "ready" for words in parts.values()) else "away"
        away = [name for name, words in parts.items() if not words]
        told["workers"] = "ready" if not away else f"away: {', '.join(away)}"
        return JSONResponse(told, HTTPStatus.OK if told["ready"] else HTTPStatus.SERVICE_UNAVAILABLE)

    async def _measured(self, _request: Request) -> Response:
        answers = await asyncio.gather(*(self._asked(worker, "/metrics") for worker in self._workers))
        pages = {
            w.name: body.decode()
            for w, (status, body) in zip(self._workers, answers, strict=True)
            if status == HTTPStatus.OK
        }
        return Response(merged(pages), media_type=_METRICS)

    async def _forward(self, request: Request) -> Response:
        """Let one worker answer, which knows what all of them know; but who looks on sees what passes at each."""
        if request.url.path.endswith(_SEEN_AT_EACH):
            return await self._forward_to_all(request)
        ready = next((worker for worker in self._workers if worker.is_ready), None)
        if ready is None:
            return PlainTextResponse("No worker is ready.\n", HTTPStatus.SERVICE_UNAVAILABLE, {"retry-after": "1"})
        body = await request.body()
        headers = {name: value for name, value in request.headers.items() if name not in _OWN}
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        door = DoorConnection(self._directory / "workers" / ready.name, _ANSWER_S)
        try:
            answer = await asyncio.to_thread(_ask, door, request.method, target, body, headers)
        except OSError as error:
            door.close()
            told = f"The worker {ready.name} does not answer: {reason_of(error)}.\n"
            return PlainTextResponse(told, HTTPStatus.SERVICE_UNAVAILABLE, {"retry-after": "1"})

        async def parts() -> AsyncIterator[bytes]:
            try:
                while part := await asyncio.to_thread(answer.read1, _PART):
                    yield part
            finally:
                door.close()

        kept = {name: value for name, value in answer.getheaders() if name.lower() not in _OWN}
        return StreamingResponse(parts(), answer.status, kept)

    async def _forward_to_all(self, request: Request) -> Response:
        """Answer with the lines of every worker, as they come; it ends when the first of them does."""
        ready = [worker for worker in self._workers if worker.is_ready]
        headers = {name: value for name, value in request.headers.items() if name not in _OWN}
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        doors = [DoorConnection(self._directory / "workers" / worker.name, _ANSWER_S) for worker in ready]
        asking = (asyncio.to_thread(_ask, door, "GET", target, b"", headers) for door in doors)
        answers = await asyncio.gather(*asking, return_exceptions=True)
        first = next((one for one in answers if isinstance(one, http.client.HTTPResponse)), None)
        if first is None:
            return PlainTextResponse("No worker is ready.\n", HTTPStatus.SERVICE_UNAVAILABLE, {"retry-after": "1"})
        lines: asyncio.Queue[bytes] = asyncio.Queue(_MOST_LINES)
        loop = asyncio.get_running_loop()

        def hear(answer: http.client.HTTPResponse) -> None:
            try:
                for line in answer:
                    asyncio.run_coroutine_threadsafe(lines.put(line), loop).result()
            except (OSError, ValueError, http.client.HTTPException, RuntimeError, concurrent.futures.CancelledError):
                pass  # its worker ended, or whoever looked on went
            finally:
                loop.call_soon_threadsafe(asyncio.ensure_future, lines.put(b""))

        async def parts() -> AsyncIterator[bytes]:
            hearing = [
                threading.Thread(target=hear, args=(one,), daemon=True)
                for one in answers
                if isinstance(one, http.client.HTTPResponse)
            ]
            try:
                for thread in hearing:
                    thread.start()
                while line := await lines.get():
                    yield line
            finally:
                for door in doors:
                    door.shut()

        kept = {name: value for name, value in first.getheaders() if name.lower() not in _OWN}
        return StreamingResponse(parts(), first.status, kept)

    async def _asked(self, worker: Known, path: str) -> tuple[int, bytes]:
        """Return what a worker answers; nothing where it does not."""
        door = DoorConnection(self._directory / "workers" / worker.name, _LOOK_S)

        def ask() -> tuple[int, bytes]:
            try:
                answer = _ask(door, "GET", path, b"", {})
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException):
                return HTTPStatus.SERVICE_UNAVAILABLE, b""
            finally:
                door.close()

        return await asyncio.to_thread(ask)


_SEEN_AT_EACH, _MOST_LINES = "/aws/monitor", 1000
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def _ask(
    door: DoorConnection, method: str, target: str, body: bytes, headers: Mapping[str, str]
) -> http.client.HTTPResponse:
    door.request(method, target, body or None, dict(headers))
    return door.getresponse()


def _words(body: bytes) -> dict[str, str]:
    try:
        found = msgspec.json.decode(body, type=dict[str, bool | str])
    except msgspec.MsgspecError:
        return {}
    return {name: word for name, word in found.items() if isinstance(word, str)}


_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (.*)$")


def merged(pages: Mapping[str, str]) -> str:
    """Return one page of Prometheus's text format from one of each worker, each sample with its `worker`."""
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
