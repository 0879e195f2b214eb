"""Requests with an Idempotency-Key at the operator interface, on both engines."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from starlette.requests import Request

from birthmark.actor import Actor
from birthmark.auth.permission_statements import Right, Rights
from birthmark.auth.principals import Caller
from birthmark.errors import ConflictError, UnavailableError
from birthmark.iam import idempotency_model
from birthmark.iam.idempotency import KEPT_FOR, LONGEST, MAX_ANSWER_CHARS, MOST_OF_ONE, IdempotencyStore
from birthmark.iam.idempotency_model import key_of
from birthmark.iam.model import RoleAssignment, UserRole
from birthmark.operator_api.api_router import ApiContext, ApiRequest, Endpoint, operator_mount
from birthmark.operator_api.openapi import openapi
from birthmark.store import Database, open_database
from birthmark.store.table_statements import find
from support.fakes import FakeClock
from support.server.asgi import Answer
from support.server.asgi import request as ask

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


class Thing(msgspec.Struct, forbid_unknown_fields=True):
    """What to make, and how that ends."""

    name: str = "pump"


async def nothing_else() -> None: ...


def refuse(error: Exception) -> Callable[[], Awaitable[None]]:
    """Return what ends with an error."""

    async def ends() -> None:
        raise error

    return ends


@dataclass
class Shop:
    """Where things are made, and who asks there."""

    once: IdempotencyStore
    clock: FakeClock
    made: list[str] = field(default_factory=list)
    then: Callable[[], Awaitable[None]] = nothing_else
    answer: str = ""

    async def make(self, asked: ApiRequest) -> Any:
        self.made.append(asked.body.name)
        await self.then()
        return {"made": asked.body.name, "number": len(self.made), "text": self.answer}

    async def remove(self, _asked: ApiRequest) -> None:
        self.made.pop()

    async def post(self, key: str | None = "k1", name: str = "pump", method: str = "POST", who: str = "anna") -> Answer:
        table = [
            Endpoint("POST", "/things", Right.OPERATE, "Make.", self.make, Thing, status=201),
            Endpoint("DELETE", "/things", Right.OPERATE, "Remove.", self.remove, status=204),
            Endpoint("POST", "/open", None, "Anybody.", self.make, Thing, is_open=True),
            Endpoint("POST", "/look", Right.READ, "Look.", self.make, Thing),
        ]
        path = "/operator/v1/things"
        if method in {"open", "look"}:
            method, path = "POST", f"/operator/v1/{method}"
        headers = {"authorization": who} | ({} if key is None else {"idempotency-key": key})
        body = json.dumps({"name": name}).encode() if method == "POST" else b""
        mount = operator_mount(identify, table, openapi, ApiContext(once=self.once))
        return await ask(mount, method, f"http://x{path}", headers=headers, body=body)


def identify(request: Request) -> Caller:
    user, _, token = request.headers["authorization"].partition("/")
    rights = Rights(((RoleAssignment(user, UserRole.OPERATOR, "*").statement,),))
    return Caller(Actor(f"user:{user}", {"token": token, "from": "192.0.2.1"}), rights, user)


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    clock = FakeClock()
    database = await open_database(database_url, clock)
    yield Shop(IdempotencyStore(database, clock), clock)
    await database.close()


def code_of(answer: Answer) -> str:
    return str(json.loads(answer.text)["code"])


async def test_a_request_that_is_sent_again_is_not_carried_out_again(shop: Shop) -> None:
    first, again = await shop.post(), await shop.post()
    assert (first.status, again.status) == (201, 201)
    assert json.loads(again.text) == json.loads(first.text)
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert shop.made == ["pump"]


async def test_an_answer_without_a_body_comes_again_too(shop: Shop) -> None:
    shop.made += ["a", "b"]
    first, again = [await shop.post(method="DELETE") for _ in range(2)]
    assert (first.status, again.status, again.text) == (204, 204, "")
    assert shop.made == ["a"]


async def test_without_a_key_or_with_another_it_is_carried_out_each_time(shop: Shop) -> None:
    for key in ("k1", "k2", None, None):
        assert (await shop.post(key)).status == 201
    assert len(shop.made) == 4


async def test_a_key_is_of_who_asks_and_of_one_token(shop: Shop) -> None:
    for who in ("anna/wide", "anna/narrow", "ben/wide"):
        assert json.loads((await shop.post(who=who)).text)["number"] == len(shop.made)
    assert len(shop.made) == 3


async def test_a_key_that_stands_for_another_request_is_refused(shop: Shop) -> None:
    await shop.post()
    answer = await shop.post(name="valve")
    assert (answer.status, code_of(answer)) == (422, "operator.idempotency_key_used")
    assert shop.made == ["pump"]


async def test_a_refusal_did_nothing_and_may_be_tried_again(shop: Shop) -> None:
    shop.then = refuse(ConflictError())
    assert (await shop.post()).status == 409
    shop.then = nothing_else
    assert (await shop.post()).status == 201


async def test_what_ended_without_an_answer_may_have_been_done(shop: Shop) -> None:
    shop.then = refuse(UnavailableError())
    assert (await shop.post()).status == 503
    shop.then = nothing_else
    answer = await shop.post()
    assert (answer.status, code_of(answer)) == (409, "operator.outcome_unknown")
    assert "may have been done" in json.loads(answer.text)["detail"]
    assert shop.made == ["pump"]


async def test_of_two_at_the_same_moment_one_is_carried_out(shop: Shop) -> None:
    going, go = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        going.set()
        await go.wait()

    shop.then = wait
    first = asyncio.create_task(shop.post())
    await going.wait()
    second = await shop.post()
    go.set()
    assert (await first).status == 201
    assert (second.status, code_of(second)) == (409, "operator.still_being_done")
    answers = await asyncio.gather(*(shop.post("k2") for _ in range(8)))
    assert {answer.status for answer in answers} <= {201, 409}
    assert len(shop.made) == 2


async def test_one_whose_server_ended_is_unknown_after_the_longest_time_a_request_takes(shop: Shop) -> None:
    async def cut() -> None:
        raise asyncio.CancelledError

    shop.then = cut
    with pytest.raises(asyncio.CancelledError):
        await shop.post()
    shop.then = nothing_else
    assert code_of(await shop.post()) == "operator.still_being_done"
    shop.clock.move(LONGEST)
    assert code_of(await shop.post()) == "operator.outcome_unknown"
    shop.clock.move(KEPT_FOR)
    assert (await shop.post()).status == 201


async def test_an_answer_is_kept_sealed_and_for_a_day(shop: Shop) -> None:
    shop.answer = "a secret that is shown once"
    await shop.post()
    assert shop.answer in (await shop.post()).text
    shop.clock.move(KEPT_FOR)
    shop.answer = ""
    assert json.loads((await shop.post()).text)["number"] == 2
    assert len(await rows(shop.once.database)) == 1


async def test_an_answer_that_is_too_long_is_not_kept_and_that_is_said(shop: Shop) -> None:
    shop.answer = "x" * MAX_ANSWER_CHARS
    assert (await shop.post()).status == 201
    answer = await shop.post()
    assert code_of(answer) == "operator.outcome_unknown"
    assert "was completed" in json.loads(answer.text)["detail"]


async def test_so_many_keys_of_one_are_kept_and_no_more(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("birthmark.iam.idempotency.MOST_OF_ONE", 2)
    assert [(await shop.post(f"k{n}")).status for n in range(3)] == [201, 201, 429]
    assert (await shop.post("k1")).status == 201
    assert (await shop.post("k9", who="anna/another")).status == 429
    assert (await shop.post(who="ben")).status == 201
    shop.clock.move(KEPT_FOR + timedelta(seconds=1))
    assert (await shop.post("k3")).status == 201
    assert MOST_OF_ONE == 10_000


async def test_who_is_not_known_has_no_keys_and_a_look_needs_none(shop: Shop) -> None:
    answer = await shop.post(method="open")
    assert (answer.status, code_of(answer)) == (400, "operator.request_invalid")
    assert [(await shop.post(method="look")).status for _ in range(2)] == [200, 200]
    assert len(shop.made) == 2


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "\t", 'a"b', "ä"])
async def test_a_key_that_is_none_is_refused_by_name(shop: Shop, key: str) -> None:
    answer = await shop.post(key)
    assert (answer.status, code_of(answer)) == (400, "operator.request_invalid")
    assert "Idempotency-Key" in answer.text
    assert shop.made == []


def test_a_key_stands_in_quotation_marks_or_bare() -> None:
    assert key_of('"8e03978e-40d5"') == key_of(" 8e03978e-40d5 ") == "8e03978e-40d5"


async def rows(database: Database) -> list[Any]:
    return list(await database.all(find(idempotency_model.kept, idempotency_model.kept.c.digest != "")))
