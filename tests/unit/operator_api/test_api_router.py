"""The operator interface's table: roles, pages, bodies, problems, and what describes it."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import msgspec
import msgspec.inspect as mi
import pytest
from starlette.requests import Request

from birthmark.actor import Actor
from birthmark.auth.permission_statements import Right, Rights
from birthmark.auth.principals import Caller
from birthmark.errors import BirthmarkError, ChangedMeanwhileError
from birthmark.iam.model import RoleAssignment, UserRole
from birthmark.net import fair_scheduler
from birthmark.operator_api.api_router import (
    PROBLEM,
    STATUS,
    ApiRequest,
    Endpoint,
    LineStream,
    OperatorTokenError,
    PageQuery,
    Rows,
    as_event,
    operator_mount,
    problem,
)
from birthmark.operator_api.openapi import openapi
from support.server.asgi import Answer
from support.server.asgi import request as ask
from support.tools_pages import operator_page, operator_table


class Wanted(msgspec.Struct):
    """A thing to make."""

    name: str
    size: int = 1


async def listing(asked: ApiRequest) -> Rows:
    found = [{"n": n} for n in range(5) if str(n) > asked.query.after][: asked.query.limit]
    return Rows(found, str(found[-1]["n"]) if len(found) == asked.query.limit else None)


async def make(asked: ApiRequest) -> Any:
    return {"made": asked.body.name, "in": asked["room"]}


class Fails(msgspec.Struct):
    """Whether a line is the last for a refusal."""

    fails: bool = False


async def counting(asked: ApiRequest) -> LineStream:
    async def parts() -> AsyncIterator[Mapping[str, Any]]:
        yield {"n": 0}
        if asked.query.fails:
            raise ChangedMeanwhileError
        yield {"n": 1}

    return LineStream(parts())


async def remove(_asked: ApiRequest) -> None: ...


TABLE = [
    Endpoint("GET", "/things", Right.READ, "A page.", listing, query=PageQuery),
    Endpoint("POST", "/rooms/{room:path}/things", Right.OPERATE, "Make one.", make, Wanted, status=201),
    Endpoint("DELETE", "/things", Right.ADMINISTER, "Remove all.", remove, status=204),
    Endpoint("GET", "/lines", Right.READ, "Line by line.", counting, query=Fails),
]
CALLERS = {
    token: Caller(Actor(token), Rights(((RoleAssignment(token, role, "*").statement,),)), token)
    for token, role in {"looks": UserRole.VIEWER, "works": UserRole.OPERATOR, "rules": UserRole.ADMIN}.items()
}


def identify(request: Request) -> Caller:
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    if token not in CALLERS:
        raise OperatorTokenError
    return CALLERS[token]


async def call(method: str, path: str, token: str = "rules", body: bytes = b"", **more: str) -> Answer:
    mount = operator_mount(identify, TABLE, openapi)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    told = {name.replace("_", "-"): value for name, value in more.items()}
    return await ask(mount, method, f"http://x/operator/v1{path}", headers=headers | told, body=body)


@pytest.mark.parametrize("token", ["", "other", "look", "looksX"])
async def test_nobody_without_a_token_learns_anything(token: str) -> None:
    answer = await call("GET", "/things", token)
    assert answer.status == 401
    assert answer.headers["content-type"] == PROBLEM
    assert json.loads(answer.text)["code"] == "operator.token_refused"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/things", {"looks", "works", "rules"}),
        ("POST", "/rooms/a/things", {"works", "rules"}),
        ("DELETE", "/things", {"rules"}),
    ],
)
async def test_a_role_may_what_it_and_those_below_it_may(method: str, path: str, allowed: set[str]) -> None:
    body = b'{"name": "a"}' if method == "POST" else b""
    answers = {token: (await call(method, path, token, body)).status for token in CALLERS}
    assert {token for token, status in answers.items() if status < 300} == allowed
    assert {status for token, status in answers.items() if token not in allowed} <= {403}


class Peer:
    owner = "user:looker"


async def test_a_list_of_large_rows_is_made_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(fair_scheduler, "now", lambda: next(ticks))  # each row takes longer than a slice
    monkeypatch.setattr(fair_scheduler, "SLICE_S", 1)
    monkeypatch.setattr(fair_scheduler, "TURN_S", 12)

    async def large(_asked: ApiRequest) -> Rows:
        return Rows([{"text": "x"} for _ in range(50)])

    mount = operator_mount(identify, [Endpoint("GET", "/large", Right.READ, "Large rows.", large)], openapi)
    headers = {"authorization": "Bearer rules"}
    asked, turns = ask(mount, "GET", "http://x/operator/v1/large", headers=headers), 0
    asking = asyncio.ensure_future(fair_scheduler.Backlog.running().account_steps(asked, Peer()))
    while not asking.done():
        turns += 1
        await asyncio.sleep(0)
    assert json.loads(asking.result().text) == {"items": [{"text": "x"}] * 50, "next": None}
    assert turns > 50 / 4


async def test_a_list_is_read_page_by_page() -> None:
    first = json.loads((await call("GET", "/things?limit=3")).text)
    assert first == {"items": [{"n": 0}, {"n": 1}, {"n": 2}], "next": "2"}
    assert json.loads((await call("GET", f"/things?limit=3&after={first['next']}")).text) == {
        "items": [{"n": 3}, {"n": 4}],
        "next": None,
    }


@pytest.mark.parametrize("query", ["limit=0", "limit=251", "limit=x", "page=2"])
async def test_a_query_that_no_route_takes_is_named(query: str) -> None:
    answer = await call("GET", f"/things?{query}")
    assert answer.status == 400
    assert query.partition("=")[0] in json.loads(answer.text)["detail"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"name": 1}', b"\xff", b"[" * 5000])
async def test_a_body_that_is_not_of_the_route_is_refused(body: bytes) -> None:
    answer = await call("POST", "/rooms/a/things", body=body)
    assert answer.status == 400
    assert json.loads(answer.text)["code"] == "operator.request_invalid"


async def test_an_empty_name_in_a_path_is_refused() -> None:
    answer = await call("POST", "/rooms//things", body=b'{"name": "x"}')
    assert (answer.status, "`room`, a part of the path, is empty" in answer.text) == (400, True)


async def test_a_name_in_a_path_may_hold_slashes() -> None:
    answer = await call("POST", "/rooms/a/b/things", body=b'{"name": "c"}')
    assert json.loads(answer.text) == {"made": "c", "in": "a/b"}


async def test_lines_end_with_a_word_that_says_so() -> None:
    answer = await call("GET", "/lines")
    assert [json.loads(line) for line in answer.text.splitlines()] == [{"n": 0}, {"n": 1}, {"end": True}]


async def test_a_refusal_between_lines_is_the_last_of_them() -> None:
    answer = await call("GET", "/lines?fails=true")
    first, last = [json.loads(line) for line in answer.text.splitlines()]
    assert (first, last["problem"]["code"], last["problem"]["status"]) == ({"n": 0}, "resource.changed", 409)


async def test_nothing_to_say_is_no_content() -> None:
    assert ((await call("DELETE", "/things")).status, (await call("DELETE", "/things")).body) == (204, b"")


def test_a_refusal_is_a_problem_with_code_and_fix() -> None:
    told = json.loads(bytes(problem(OperatorTokenError()).body))
    assert told["type"] == "urn:birthmark:operator.token_refused"
    assert told["status"] == 401
    assert told["fix"] == OperatorTokenError().explain_fix()


def test_every_kind_of_refusal_has_a_status() -> None:
    assert {kind for kind in BirthmarkError.__subclasses__() if kind.__module__ == "birthmark.errors"} == set(STATUS)


def test_the_document_has_every_route_with_its_right_body_and_query() -> None:
    document = openapi(operator_table())
    assert document["openapi"] == "3.1.0"
    for one in operator_table():
        told = document["paths"][one.template][one.method.lower()]
        assert told["x-right"] == (one.right.value if one.right else "none")
        assert [p["name"] for p in told["parameters"] if p.get("in") == "path"] == one.names
        takes_a_key = {"$ref": "#/components/parameters/Once"} in told["parameters"]
        assert takes_a_key == (one.method != "GET" and one.right is not Right.READ and not one.is_open)
        assert ("requestBody" in told) == (one.method in {"POST", "PATCH", "PUT"} and bool(one.body.__struct_fields__))
    references = json.dumps(document).split('"$ref": "#/components/schemas/')[1:]
    assert {part.partition('"')[0] for part in references} <= document["components"]["schemas"].keys()


async def test_the_served_document_is_the_same() -> None:
    assert json.loads((await call("GET", "/openapi.json", "")).text) == json.loads(json.dumps(openapi(TABLE)))


def test_what_only_looks_changes_nothing() -> None:
    assert all(one.right in {Right.READ, None} for one in operator_table() if one.method == "GET")
    viewers = {one.template for one in operator_table() if one.right is Right.READ and one.method != "GET"}
    assert viewers == {
        "/audit/verify",
        "/figures/prove",
        "/inventory/standing",
        "/dps/{name}/enrollments/check",
        "/aws/rules-test",
        "/hubs/{name}/route-test",
    }


METERED = {"payload", "sql", "condition", "body", "properties", "system", "twin", "heads", "certificate"}
"""Read by what counts its cost, or has a bound of its own."""


def unbounded(kind: mi.Type, name: str = "") -> Iterator[str]:
    match kind:
        case mi.StrType(max_length=None) | mi.DictType():
            yield name
        case mi.StructType(fields=fields):
            for field in fields:
                yield from unbounded(field.type, field.name)
        case mi.ListType(item_type=item):
            yield from unbounded(item, name)
        case mi.UnionType(types=types):
            for one in types:
                yield from unbounded(one, name)
        case _:
            pass


def test_what_a_viewer_may_send_has_bounds() -> None:
    asked = [one for one in operator_table() if one.right is Right.READ and one.method != "GET"]
    assert {name for one in asked for name in unbounded(mi.type_info(one.body))} <= METERED


async def test_a_value_of_a_query_has_a_bound() -> None:
    answer = await call("GET", f"/things?after={'a' * 8193}")
    assert (answer.status, "`after` has more than 8192 characters" in answer.text) == (400, True)


def test_the_page_is_that_of_the_table() -> None:
    written, made = operator_page()
    assert written == made, "run: python tools/make_operator_api.py"


async def test_lines_are_server_sent_events_for_who_accepts_them() -> None:
    answer = await call("GET", "/lines", accept="text/event-stream")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.text == 'data: {"n": 0}\n\ndata: {"n": 1}\n\nevent: end\ndata: {"end": true}\n\n'


async def test_who_was_cut_off_says_after_what_in_a_header() -> None:
    after_c = await call("GET", "/things?after=a", accept="text/event-stream", last_event_id="c")
    assert after_c.text == (await call("GET", "/things?after=c")).text
    plain = await call("GET", "/things?after=a", last_event_id="c")
    assert plain.text == (await call("GET", "/things?after=a")).text


async def test_who_has_an_answer_already_gets_no_second_one() -> None:
    first = await call("GET", "/things")
    again = await call("GET", "/things", if_none_match=f'"other", W/{first.headers["etag"]}')
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert (await call("GET", "/things?limit=1", if_none_match=first.headers["etag"])).status == 200


async def test_a_condition_that_is_not_kept_is_refused_by_name() -> None:
    refused = await call("DELETE", "/things", if_match='"a"')
    assert (refused.status, "If-Match" in refused.text) == (400, True)


def test_a_server_sent_event_has_its_place_as_its_id_and_silence_is_a_comment() -> None:
    assert as_event({"place": "abc", "event": {"type": "t"}}) == 'id: abc\ndata: {"type": "t"}\n\n'
    assert as_event({}) == ":\n\n"
    assert as_event({"problem": {"code": "c"}}).startswith("event: problem\ndata: ")


async def test_what_waits_is_given_up_when_whoever_asked_goes() -> None:
    began, over = asyncio.Event(), asyncio.Event()

    async def wait(_asked: ApiRequest) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            over.set()

    mount = operator_mount(identify, [Endpoint("POST", "/x", Right.READ, "Wait.", wait, waits=True)], openapi)
    scope = {"type": "http", "method": "POST", "path": "/operator/v1/x", "root_path": "", "query_string": b""}
    messages = [{"type": "http.request", "body": b""}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await began.wait()
        return {"type": "http.disconnect"}

    async def send(_message: Any) -> None: ...

    await asyncio.wait_for(mount(scope | {"headers": [(b"authorization", b"Bearer looks")]}, receive, send), 5)
    assert over.is_set()


async def test_what_waits_is_given_up_when_whoever_asked_may_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("birthmark.operator_api.api_router.LOOK_AGAIN_S", 0.01)
    over, known = asyncio.Event(), dict(CALLERS)
    monkeypatch.setitem(globals(), "CALLERS", known)

    async def wait(_asked: ApiRequest) -> None:
        known.pop("looks")
        try:
            await asyncio.Event().wait()
        finally:
            over.set()

    mount = operator_mount(identify, [Endpoint("POST", "/x", Right.READ, "Wait.", wait, waits=True)], openapi)
    headers = {"authorization": "Bearer looks"}
    answer = await asyncio.wait_for(ask(mount, "POST", "http://x/operator/v1/x", headers=headers), 5)
    assert answer.status == 401
    assert over.is_set()


async def test_the_document_of_the_interface_is_made_once() -> None:
    numbers = itertools.count(1)
    mount = operator_mount(identify, [], lambda _: {"number": next(numbers)})
    answers = [await ask(mount, "GET", "http://x/operator/v1/openapi.json") for _ in range(2)]
    assert [json.loads(one.body) for one in answers] == [{"number": 1}] * 2
