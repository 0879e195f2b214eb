"""The page of metrics that a parent makes of its workers' pages, and what it asks them for others."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from birthmark.server.workers.parent_http_front_end import FIELD, ClientAddressMiddleware, Front, merged

ONE = """# HELP birthmark_refusals_total Refusals.
# TYPE birthmark_refusals_total counter
birthmark_refusals_total{code="a"} 1.0
# HELP birthmark_up Up.
# TYPE birthmark_up gauge
birthmark_up 1.0
"""
TWO = """# HELP birthmark_refusals_total Refusals.
# TYPE birthmark_refusals_total counter
birthmark_refusals_total{code="a"} 4.0
birthmark_refusals_total{code="b, \\"c\\"} 2"} 1e+06
"""


def test_each_sample_has_its_worker_and_each_family_stands_together() -> None:
    families = list(text_string_to_metric_families(merged({"w1": ONE, "w2": TWO})))
    assert [family.name for family in families] == ["birthmark_refusals", "birthmark_up"]
    assert [(one.labels, one.value) for one in families[0].samples] == [
        ({"worker": "w1", "code": "a"}, 1.0),
        ({"worker": "w2", "code": "a"}, 4.0),
        ({"worker": "w2", "code": 'b, "c"} 2'}, 1e6),
    ]
    assert [(one.labels, one.value) for one in families[1].samples] == [({"worker": "w1"}, 1.0)]


def test_of_no_worker_there_is_nothing() -> None:
    assert merged({}) == ""


OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
LINES = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(*lines: bytes) -> bytes:
    text = b"".join(line + b"\n" for line in lines)
    return b"%x\r\n%b\r\n" % (len(text), text)


@dataclass
class FakeWorker:
    """A worker's door: what is asked there, and what is answered; then it breaks off, unless it `stays`."""

    name: str
    answer: bytes = OK
    stays: bool = False
    is_ready: bool = True
    asked: list[bytes] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        self.asked.append(head.partition(b" HTTP/")[0])
        writer.write(self.answer)
        if self.stays:
            while await reader.read(1000):
                pass
            self.left.set()
        writer.close()

    @asynccontextmanager
    async def served(self, directory: Path) -> AsyncIterator[None]:
        door = directory / "workers" / self.name
        door.mkdir(parents=True)
        async with await asyncio.start_unix_server(self.met, door / "operator.sock"):
            yield


@dataclass
class Caller:
    """Somebody who asks the front, and may leave."""

    front: Front
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    came: asyncio.Event = field(default_factory=asyncio.Event)
    leaves: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, target: bytes, method: str = "GET", **more: Any) -> "Caller":
        path, _, query = target.partition(b"?")
        scope = {"type": "http", "method": method, "path": "/any", "raw_path": path, "query_string": query}
        messages = [{"type": "http.request", "body": b""}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await self.leaves.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            self.body += message.get("body", b"")
            self.came.set()

        await asyncio.wait_for(self.front(scope | {"headers": []} | more, receive, send), 10)
        return self

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


Serve = Callable[..., Any]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Serve workers, and return who asks the front before them."""
    async with AsyncExitStack() as stack:

        async def served(
            *workers: FakeWorker, away: tuple[str, ...] = (), restarting: Sequence[bool] = (False,)
        ) -> Caller:
            """`restarting`: what is said of it, one after the other, and the last one from then on."""
            for worker in workers:
                await stack.enter_async_context(worker.served(tmp_path))
            nobody, said = [FakeWorker(name) for name in away], list(restarting)
            is_restarting = lambda: said.pop(0) if len(said) > 1 else said[0]  # noqa: E731
            return Caller(Front([*nobody, *workers], tmp_path, has_metrics=True, is_restarting=is_restarting))

        yield served


@pytest.mark.parametrize("name", [b"pump%2541", b"a%2Fb", b"a%3Fb", b"a%23b", b"gr%C3%BCn", b"a%20b"])
async def test_a_worker_is_asked_for_what_was_asked_byte_by_byte(serve: Serve, name: bytes) -> None:
    worker = FakeWorker("w1")
    target = b"/operator/v1/hubs/h/devices/" + name + b"?q=" + name
    caller = await (await serve(worker)).ask(target, "DELETE")
    assert (caller.status, worker.asked) == (200, [b"DELETE " + target])


async def test_a_path_of_which_the_bytes_are_not_known_is_quoted(serve: Serve) -> None:
    worker = FakeWorker("w1")
    await (await serve(worker)).ask(b"", path="/a%41 ü?#/b", raw_path=None)
    assert worker.asked == [b"GET /a%2541%20%C3%BC%3F%23/b"]


async def test_many_calls_that_wait_let_others_pass(serve: Serve) -> None:
    worker = FakeWorker("w1", b"", stays=True)
    caller = await serve(worker)
    waiting = [asyncio.create_task(Caller(caller.front).ask(b"/x")) for _ in range(40)]
    while len(worker.asked) < len(waiting):
        await asyncio.sleep(0)
    worker.answer = OK
    assert (await caller.ask(b"/x")).status == 200
    for task in waiting:
        task.cancel()


async def test_a_caller_that_leaves_ends_the_call_at_its_worker(serve: Serve) -> None:
    worker = FakeWorker("w1", b"", stays=True)
    caller = await serve(worker)
    asking = asyncio.create_task(caller.ask(b"/x", "POST"))
    while not worker.asked:
        await asyncio.sleep(0)
    caller.leaves.set()
    await asking
    await asyncio.wait_for(worker.left.wait(), 5)


async def test_who_follows_and_leaves_ends_the_lines_at_their_worker(serve: Serve) -> None:
    worker = FakeWorker("w1", LINES + chunk(b"1"), stays=True)
    caller = await serve(worker)
    asking = asyncio.create_task(caller.ask(b"/x"))
    while not caller.body:
        await asyncio.sleep(0)
    caller.leaves.set()
    await asking
    await asyncio.wait_for(worker.left.wait(), 5)


@pytest.mark.parametrize("broken", [b"", OK[:-1], b"nonsense\r\n\r\n", OK[:30]])
async def test_a_get_that_breaks_is_put_to_another_worker(serve: Serve, broken: bytes) -> None:
    caller = await serve(FakeWorker("w1", broken), FakeWorker("w2"))
    assert (await caller.ask(b"/x")).body == b"{}"


async def test_what_no_worker_got_is_put_to_another(serve: Serve) -> None:
    worker = FakeWorker("w2")
    caller = await serve(worker, away=("w1",))
    await caller.ask(b"/x", "POST")
    assert (caller.status, worker.asked) == (200, [b"POST /x"])


async def test_what_a_worker_may_have_done_is_asked_of_no_other(serve: Serve) -> None:
    other = FakeWorker("w2")
    caller = await (await serve(FakeWorker("w1", OK[:-1]), other)).ask(b"/x", "POST")
    assert (caller.status, other.asked) == (503, [])
    assert "may have been processed" in json.loads(caller.body)["detail"]


async def test_where_no_worker_is_a_problem_says_what_to_type(serve: Serve) -> None:
    caller = await (await serve(away=("w1", "w2"))).ask(b"/x")
    problem = json.loads(caller.body)
    assert (caller.status, problem["code"], caller.headers["retry-after"]) == (503, "server.worker_away", "1")
    assert caller.headers["content-type"] == "application/problem+json"
    assert "`birthmark env --wait 60 --data " in problem["fix"]


@pytest.mark.parametrize("rest", [b"", b"zz\r\n", b'9\r\n{"half'])
async def test_lines_that_break_off_end_in_order(serve: Serve, rest: bytes) -> None:
    caller = await (await serve(FakeWorker("w1", LINES + chunk(b"1", b"2") + rest))).ask(b"/x")
    assert caller.lines[:2] == [1, 2]
    assert [line["problem"]["code"] for line in caller.lines[2:]] == ["server.worker_away"]


MONITOR = b"/operator/v1/aws/monitor?filter=%23"


async def test_who_looks_on_sees_a_worker_that_comes_later_and_one_that_goes_does_not_end_it(serve: Serve) -> None:
    stays, late = FakeWorker("w1", LINES + chunk(b"1"), stays=True), FakeWorker("w2", LINES + chunk(b"2"))
    late.is_ready = False
    caller = await serve(stays, late)
    asking = asyncio.create_task(caller.ask(MONITOR))
    while not caller.body:
        await asyncio.sleep(0)
    late.is_ready = True
    while caller.lines.count(2) != 2:
        await asyncio.sleep(0.01)
    assert not asking.done()
    caller.leaves.set()
    await asking


async def test_who_looks_on_is_told_when_nobody_is_left(serve: Serve) -> None:
    caller = await (await serve(FakeWorker("w1", LINES), FakeWorker("w2", LINES))).ask(MONITOR)
    assert [line["problem"]["code"] for line in caller.lines] == ["server.worker_away"]


async def test_who_looks_on_without_a_right_gets_the_workers_own_answer(serve: Serve) -> None:
    refused = b"HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\n{}"
    caller = await (await serve(FakeWorker("w1", refused))).ask(MONITOR)
    assert (caller.status, caller.body) == (401, b"{}")


async def test_what_nobody_said_is_not_away(serve: Serve) -> None:
    told = b'{"ready":true,"database":"ready","hold":"away"}'
    worker = FakeWorker("w2", b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(told), told))
    caller = await (await serve(worker, away=("w1",))).ask(b"/readyz", path="/readyz")
    assert caller.status == 503
    assert caller.lines == [{"ready": False, "database": "ready", "hold": "away", "workers": "away: w1"}]


@pytest.mark.parametrize(("second", "shown"), [("ready", "alone"), ("away", "away")])
async def test_the_worst_that_a_worker_says_of_a_part_is_shown(serve: Serve, second: str, shown: str) -> None:
    workers = [FakeWorker(name, told(200, ready=True, bus=word)) for name, word in (("w1", "alone"), ("w2", second))]
    caller = await (await serve(*workers)).ask(b"/readyz", path="/readyz")
    assert (caller.status, caller.lines[0]["bus"]) == (200, shown)


def told(status: int, **words: object) -> bytes:
    body = json.dumps(words).encode()
    return b"HTTP/1.1 %d Said\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


@pytest.mark.parametrize(
    ("is_restarting", "left_is_ready", "status", "workers"),
    [
        (True, False, 200, "away: w1"),  # it was told to end, and says so
        (True, True, 503, "restarting"),  # it was not, and its listeners are away
        (False, False, 503, "ready"),
    ],
)
async def test_only_a_worker_that_was_told_to_end_may_be_unready_while_others_serve(
    serve: Serve, is_restarting: bool, left_is_ready: bool, status: int, workers: str
) -> None:
    leaving = FakeWorker("w1", told(503, ready=False, listeners="away"), is_ready=left_is_ready)
    serves = FakeWorker("w2", told(200, ready=True, listeners="ready"))
    caller = await serve(leaving, serves, restarting=[is_restarting])
    await caller.ask(b"/readyz", path="/readyz")
    assert (caller.status, caller.lines[0]["workers"]) == (status, workers)


async def test_a_worker_that_came_again_while_all_were_asked_counts_by_nothing_it_said_before(serve: Serve) -> None:
    leaving = FakeWorker("w1", told(503, ready=False, listeners="away"), is_ready=False)
    caller = await serve(leaving, FakeWorker("w2", told(200, ready=True, listeners="ready")), restarting=[True, False])
    asking = asyncio.create_task(caller.ask(b"/readyz", path="/readyz"))
    while not leaving.asked:
        await asyncio.sleep(0)
    leaving.is_ready = True
    await asking
    assert caller.status == 200


@dataclass
class Reader(FakeWorker):
    """A worker that reads a body to its end, or answers after so many bytes of it."""

    answers_after: int | None = None
    body: bytes = b""

    async def met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append(await reader.readuntil(b"\r\n\r\n"))
        with contextlib.suppress(ValueError, asyncio.IncompleteReadError, OSError):  # who dropped it went
            while size := int(await reader.readline(), 16):
                self.body += (await reader.readexactly(size + 2))[:-2]
                if self.answers_after is not None and len(self.body) >= self.answers_after:
                    break
            writer.write(self.answer)
        writer.close()


async def dropped(caller: Caller, pieces: Sequence[bytes | None]) -> tuple[int, int]:
    """Drop a list in pieces, nothing is a browser that goes; return the status, and how many pieces were taken."""
    rest = list(pieces)

    async def receive() -> Any:
        piece = rest.pop(0) if rest else None
        await asyncio.sleep(0)
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(rest)}

    statuses = []

    async def send(message: Any) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    path = "/enroll/drop"
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    headers = [(b"content-length", b"%d" % sum(len(one or b"") for one in pieces)), (b"cookie", b"a=b")]
    await asyncio.wait_for(caller.front(scope | {"headers": headers}, receive, send), 10)
    return statuses[0], len(pieces) - len(rest)


async def test_a_list_is_passed_on_while_it_comes(serve: Serve) -> None:
    pieces = [bytes([at]) * 60_000 for at in range(20)]
    worker = Reader("w1")
    assert await dropped(await serve(worker), pieces) == (200, 20)
    assert worker.body == b"".join(pieces)
    assert (b"cookie: a=b" in worker.asked[0], b"content-length" in worker.asked[0]) == (True, False)


async def test_a_list_that_is_refused_is_not_read_on(serve: Serve) -> None:
    worker = Reader("w1", answer=OK.replace(b"200 OK", b"400 Bad Request"), answers_after=1)
    status, taken = await dropped(await serve(worker), [b"x" * 60_000] * 2000)
    assert status == 400
    assert taken < 2000


async def test_who_goes_in_the_middle_of_a_list_ends_it(serve: Serve) -> None:
    worker = Reader("w1")
    assert await dropped(await serve(worker), [b"x" * 1000, None]) == (503, 2)
    assert worker.body == b"x" * 1000


async def test_a_list_that_no_worker_takes_is_told(serve: Serve) -> None:
    assert (await dropped(await serve(away=("w1",)), [b"x"]))[0] == 503


async def test_a_worker_is_told_who_asks_by_the_front_alone(serve: Serve) -> None:
    worker, heard = FakeWorker("w1"), []
    caller = await serve(worker)
    forged = [(FIELD, b'[["192.0.2.1", 1], ["127.0.0.1", 2]]'), (b"host", b"localhost")]
    await caller.ask(b"/people", headers=forged, client=("127.0.0.1", 4711), server=("127.0.0.1", 8080))

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        heard.append((scope["client"], scope["server"], scope["headers"]))

    headers = [
        (name.lower(), value)
        for name, _, value in (line.partition(b": ") for line in worker.heads[0].split(b"\r\n")[1:-2])
    ]
    assert [value for name, value in headers if name == FIELD] == [b'[["127.0.0.1", 4711], ["127.0.0.1", 8080]]']
    await ClientAddressMiddleware(app)({"type": "http", "client": None, "server": None, "headers": headers}, None, None)  # type: ignore[arg-type]
    assert heard[0][:2] == (("127.0.0.1", 4711), ("127.0.0.1", 8080))
    assert FIELD not in dict(heard[0][2])
