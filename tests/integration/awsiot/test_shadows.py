"""Shadows on both databases: conditional on what was read, told in order, remembered after their deletion."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from birthmark.awsiot.error_mapping import shadow_rejection
from birthmark.awsiot.model import ThingName
from birthmark.awsiot.mqtt.reserved_topic_requests import ReservedTopics
from birthmark.awsiot.rules import shadows as rules
from birthmark.awsiot.rules.shadows import (
    MAX_SHADOWS,
    REMEMBERED_S,
    ShadowMissingError,
    ShadowShareUsedError,
    ShadowTooLargeError,
    ShadowVersionError,
    TooManyShadowsError,
)
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.shadows import ShadowService
from birthmark.awsiot.store.shadows import shadows
from birthmark.awsiot.wire.shadows import parse_request
from birthmark.broker.model import BrokerMessage, Done
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.store import statement
from birthmark.store.core_tables import audit
from support.aws.account import an_aws_account
from support.fakes import FakeClock
from support.store.between import before_the_next_commit

pytestmark = pytest.mark.integration
THING = ThingName("t")
_ALL = statement(select(shadows.c.name).limit(100))
_AUDIT = statement(select(audit.c.action, audit.c.subject).order_by(audit.c.seq).limit(100))


class Listener:
    """Hears everything; what waits for `gate` is not safe before."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.problem: BaseException | None = None
        self.gate: asyncio.Event | None = None
        self.deaf_to = ""

    def may_have_subscribers(self, topic: str) -> bool:
        return not self.deaf_to or not topic.endswith(self.deaf_to)

    def publish(self, messages: Sequence[BrokerMessage], done: Done) -> Awaitable[None] | None:
        self.heard += [(one.topic.removeprefix("$aws/things/t/shadow/"), json.loads(one.payload)) for one in messages]
        assert all((one.qos, one.publisher, one.retain) == (1, "", False) for one in messages)
        if self.gate is None:
            done(self.problem)
            return None
        gate = self.gate

        async def later() -> None:
            await gate.wait()
            done(self.problem)

        return later()

    @property
    def topics(self) -> list[str]:
        return [topic for topic, _ in self.heard]


class World:
    def __init__(self, aws: AwsIot, clock: FakeClock) -> None:
        self.aws, self.clock, self.listener = aws, clock, Listener()
        aws.shadows.audience = lambda: self.listener

    def another_worker(self) -> ShadowService:
        """Return shadows over the same database, that take no turns with the account's."""
        return ShadowService(self.aws.things.database, self.clock, self.aws.index, lambda: self.listener)

    async def update(self, name: str = "", version: int | None = None, **state: Any) -> dict[str, Any]:
        body = {"state": state, "clientToken": "t"} | ({} if version is None else {"version": version})
        return dict(json.loads(await self.aws.shadows.update(THING, name, parse_request(json.dumps(body).encode()))))

    async def delete(self, name: str = "") -> dict[str, Any]:
        return dict(json.loads(await self.aws.shadows.delete(THING, name, parse_request(b""))))


@asynccontextmanager
async def a_world(database_url: str) -> AsyncIterator[World]:
    async with an_aws_account(database_url) as (aws, clock):
        yield World(aws, clock)


async def test_a_change_is_kept_and_told_in_order(database_url: str) -> None:
    async with a_world(database_url) as world:
        with pytest.raises(ShadowMissingError):
            await world.aws.shadows.get(THING, "")
        answer = await world.update(desired={"a": 10**30}, reported={"a": "\0"})
        assert (answer["version"], answer["clientToken"]) == (1, "t")
        assert world.listener.topics == ["update/accepted", "update/documents", "update/delta"]
        assert world.listener.heard[0][1] == answer
        await world.update(desired=None)
        assert world.listener.topics[3:] == ["update/accepted", "update/documents"]
        known = await world.aws.shadows.get(THING, "")
        assert (known.version, known.desired.values, known.reported.values) == (2, {}, {"a": "\0"})
        assert (await world.delete())["version"] == 2
        assert world.listener.heard[-1][0] == "delete/accepted"


async def test_what_is_refused_changes_nothing_and_is_told_to_nobody(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.update(desired={"a": 1})
        heard = list(world.listener.heard)
        with pytest.raises(ShadowVersionError):
            await world.update(version=2, desired={"a": 2})
        with pytest.raises(ShadowTooLargeError):
            await world.update(desired={"a": "x" * 9000})
        with pytest.raises(ShadowMissingError):
            await world.delete("other")
        assert (await world.aws.shadows.get(THING, "")).version == 1
        assert world.listener.heard == heard


async def test_a_thing_has_so_many_shadows_and_others_their_own(database_url: str) -> None:
    async with a_world(database_url) as world:
        request, other = parse_request(b'{"state": {"reported": {"a": 1}}}'), ThingName("other")
        for number in range(MAX_SHADOWS):
            await world.aws.shadows.update(THING, f"s{number}", request)
        with pytest.raises(TooManyShadowsError) as refused:
            await world.aws.shadows.update(THING, "one-more", request)
        assert shadow_rejection(refused.value)[0] == 429
        await world.aws.shadows.update(THING, "s1", request)  # what is there is changed as ever
        await world.aws.shadows.update(THING, "", request)
        await world.aws.shadows.update(other, "one-more", request)
        await world.aws.shadows.delete(THING, "s1", request)
        await world.aws.shadows.update(THING, "one-more", request)


async def test_a_device_makes_so_many_shadows_of_things_that_nobody_registered(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MAX_UNREGISTERED", 3)
    request = parse_request(b'{"state": {"reported": {"a": 1}}}')
    async with a_world(database_url) as world:
        shadows = world.aws.shadows
        for name in ("a", "b", "c", "a"):  # what is there is changed as ever
            await shadows.update(ThingName(name), "", request, principal="one")
        for name in ("", "named"):
            with pytest.raises(ShadowShareUsedError) as refused:
                await shadows.update(ThingName("d"), name, request, principal="one")
        assert shadow_rejection(refused.value)[0] == 429
        await shadows.update(ThingName("e"), "", request, principal="two")
        await shadows.update(ThingName("f"), "", request, actor="test")
        await world.aws.things.create(ThingName("d"), {}, None, None, actor="test")
        await shadows.update(ThingName("d"), "", request, principal="one")


async def test_the_last_room_of_the_disk_is_for_no_shadow_that_is_new(database_url: str) -> None:
    request = parse_request(b'{"state": {"reported": {"a": 1}}}')
    async with a_world(database_url) as world:
        await world.update(reported={"a": 1})
        database: Any = world.aws.things.database
        database.find_disk_full_error = UnavailableError
        await world.update(reported={"a": 2})
        with pytest.raises(UnavailableError):
            await world.aws.shadows.update(ThingName("new"), "", request, principal="one")


async def test_names_that_come_and_go_are_bounded_until_they_are_forgotten(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MAX_REMEMBERED", 5)
    async with a_world(database_url) as world:
        request = parse_request(b'{"state": {"reported": {"a": 1}}}')
        for number in range(5):
            await world.aws.shadows.update(THING, f"s{number}", request)
            await world.aws.shadows.delete(THING, f"s{number}", request)
        with pytest.raises(TooManyShadowsError):
            await world.aws.shadows.update(THING, "one-more", request)
        world.clock.move(timedelta(seconds=REMEMBERED_S + 1))
        await world.aws.shadows.update(THING, "one-more", request)


async def test_a_clock_that_is_ahead_for_a_moment_forgets_no_version(database_url: str) -> None:
    async with a_world(database_url) as world:
        request = parse_request(b'{"state": {"reported": {"a": 1}}}')
        for name in ("first", "second"):
            await world.aws.shadows.update(THING, name, request)
        await world.aws.shadows.delete(THING, "first", request)
        world.clock.jump(timedelta(seconds=REMEMBERED_S + 1))
        await world.aws.shadows.delete(THING, "second", request)
        world.clock.jump(-timedelta(seconds=REMEMBERED_S + 1))
        await world.aws.shadows.update(THING, "first", request)
        assert (await world.aws.shadows.get(THING, "first")).version == 2


async def test_updates_at_once_are_all_made_one_after_the_other(database_url: str) -> None:
    async with a_world(database_url) as world:
        await asyncio.gather(*(world.update(reported={f"k{number}": 1}) for number in range(30)))
        known = await world.aws.shadows.get(THING, "")
        assert (known.version, len(known.reported.values)) == (30, 30)
        told = [body["version"] for topic, body in world.listener.heard if topic == "update/accepted"]
        assert told == list(range(1, 31))


@pytest.mark.parametrize("first", ["update", "delete", "make"])
async def test_who_was_overtaken_decides_again(database_url: str, first: str) -> None:
    async with a_world(database_url) as world:
        if first != "make":
            await world.update(desired={"a": 1})
        other = world.another_worker()

        async def meanwhile() -> None:
            if first == "delete":
                await other.delete(THING, "", parse_request(b""))
            else:
                await other.update(THING, "", parse_request(b'{"state":{"desired":{"b":2}}}'))

        before_the_next_commit(world.aws.things.database, meanwhile)
        answer = await world.update(reported={"c": 3})
        known = await world.aws.shadows.get(THING, "")
        expected = {"update": {"a": 1, "b": 2}, "delete": {}, "make": {"b": 2}}[first]
        assert (known.desired.values, known.reported.values) == (expected, {"c": 3})
        assert answer["version"] == known.version == 2 + (first == "update")


async def test_the_version_that_was_asked_for_is_looked_at_again(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.update(desired={"a": 1})
        other = world.another_worker()
        before_the_next_commit(
            world.aws.things.database, lambda: other.update(THING, "", parse_request(b'{"state":{}}'))
        )
        with pytest.raises(ShadowVersionError):
            await world.update(version=1, reported={"a": 1})
        assert (await world.aws.shadows.get(THING, "")).version == 2


async def test_a_version_is_remembered_for_two_days(database_url: str) -> None:
    async with a_world(database_url) as world:
        for name in ("", "named"):
            await world.update(name, desired={"a": 1})
            assert (await world.delete(name))["version"] == 1
        with pytest.raises(ShadowMissingError):
            await world.delete()
        assert (await world.update(reported={"b": 1}))["version"] == 2
        await world.delete()
        world.clock.move(timedelta(seconds=REMEMBERED_S))
        assert (await world.update(reported={"b": 1}))["version"] == 1
        await world.delete()  # sweeps up what was deleted long ago
        rows = await world.aws.things.database.all(_ALL)
        assert [row["name"] for row in rows] == [""]


async def test_named_shadows_are_listed_in_order_and_only_those_that_are_there(database_url: str) -> None:
    async with a_world(database_url) as world:
        for name in ("b", "", "a", "c", "gone"):
            await world.update(name, desired={"n": name})
        await world.delete("gone")
        first = await world.aws.shadows.names(THING, "", 2)
        rest = await world.aws.shadows.names(THING, first.last or "", 2)
        assert (first.items, rest.items, rest.last) == (["a", "b"], ["c"], None)
        assert (await world.aws.shadows.names(ThingName("other"), "", 2)).items == []


async def test_things_come_and_go_and_their_shadows_stay(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.update(desired={"a": 1})
        await world.aws.things.create(THING, {}, None, None, actor="test")
        await world.aws.things.delete(THING, None, actor="test")
        assert (await world.aws.shadows.get(THING, "")).version == 1


async def test_an_answer_waits_until_nobody_can_miss_the_change(database_url: str) -> None:
    async with a_world(database_url) as world:
        world.listener.gate = asyncio.Event()
        asked = asyncio.ensure_future(world.update(desired={"a": 1}))
        while not world.listener.heard:
            await asyncio.sleep(0)
        assert not asked.done()
        world.listener.gate.set()
        assert (await asked)["version"] == 1
        world.listener.problem = UnavailableError()
        with pytest.raises(UnavailableError):
            await world.update(desired={"a": 2})


async def test_what_an_operator_changes_is_audited_and_what_a_device_does_is_not(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.update(desired={"a": 1})
        await world.aws.shadows.update(THING, "n", parse_request(b'{"state":{}}'), actor="access_key:a")
        await world.aws.shadows.delete(THING, "n", parse_request(b""), actor="access_key:a")
        rows = await world.aws.things.database.all(_AUDIT)
        assert [(row["action"], row["subject"]) for row in rows] == [
            ("awsiot.shadow_update", "t"),
            ("awsiot.shadow_delete", "t"),
        ]


@pytest.mark.parametrize(
    ("topic", "payload", "code", "message", "is_noted"),
    [
        ("t/shadow/get", b"", 404, "No shadow exists with name: 't'", False),
        ("t/shadow/delete", b"", 404, "No shadow exists with name: 't'", True),
        ("t/shadow/get", b"{", 400, "Payload contains invalid json", True),
        ("t/shadow/update", b'{"state":{},"version":3,"clientToken":"c"}', 409, "Version conflict", True),
        ("t/shadow/update", b'{"state":1,"clientToken":"c"}', 400, "State node must be an object", True),
        ("t/shadow/update", b'{"state":{},"clientToken":1}', 400, "Invalid clientToken", True),
        ("t/shadow/name/a b/get", b"", 400, "Invalid Shadow name: 'a b'", True),
        ("t/shadow/name/" + "x" * 65 + "/get", b"", 400, f"Invalid Shadow name: '{'x' * 65}'", True),
        ("a.b/shadow/get", b"", 400, "Invalid Thing name: 'a.b'", True),
    ],
)
async def test_what_is_refused_is_told_on_the_topic_that_asked(
    database_url: str, topic: str, payload: bytes, code: int, message: str, *, is_noted: bool
) -> None:
    async with a_world(database_url) as world:
        noted: list[BirthmarkError] = []
        await ReservedTopics(world.aws).ask(f"$aws/things/{topic}", payload, noted.append, "c")
        [(told, body)] = world.listener.heard
        assert told.removeprefix("$aws/things/") == f"{topic}/rejected".removeprefix("t/shadow/")
        assert (body["code"], body["message"]) == (code, message)
        assert body.get("clientToken") == ("c" if b'"c"' in payload else None)
        assert body["timestamp"] == int(world.clock.now().timestamp())
        assert bool(noted) is is_noted


async def test_a_database_that_is_away_is_told_as_a_failure_of_the_service(database_url: str) -> None:
    async with a_world(database_url) as world:
        database: Any = world.aws.things.database

        async def fail(changes: object) -> None:
            raise UnavailableError

        database.commit = fail
        await ReservedTopics(world.aws).ask("$aws/things/t/shadow/update", b'{"state":{}}', lambda _error: None, "c")
        assert world.listener.heard[0][1]["code"] == 500
        assert world.listener.heard[0][1]["message"] == "Internal service failure"


async def test_a_topic_that_asks_nobody_is_asked_in_vain(database_url: str) -> None:
    async with a_world(database_url) as world:
        await ReservedTopics(world.aws).ask("$aws/things/t/shadow/update/accepted", b"{}", lambda _error: None, "c")
        assert world.listener.heard == []


@pytest.mark.parametrize("deaf_to", ["documents", "delta"])
async def test_what_nobody_would_hear_is_not_written_down(database_url: str, deaf_to: str) -> None:
    async with a_world(database_url) as world:
        world.listener.deaf_to = deaf_to
        await world.update(desired={"a": 1})
        heard = ["update/accepted", "update/documents", "update/delta"]
        heard.remove(f"update/{deaf_to}")
        assert world.listener.topics == heard
