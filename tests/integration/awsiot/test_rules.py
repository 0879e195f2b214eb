"""Topic rules on both databases: each message at least once after a crash, queues that are bounded, failures kept."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from birthmark.awsiot.rules.topic_rule_evaluation import RuleLoopError
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.composition import HELD_SPACE, RULES_SPACE
from birthmark.awsiot.store.topic_rules_and_streams import CHANGE_RULE
from birthmark.broker.database_stream import SqlStream
from birthmark.broker.keyed_lock import until_done
from birthmark.broker.model import BrokerMessage
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.message_routing import engine as engines
from birthmark.message_routing import failed_delivery_queue as queues
from birthmark.message_routing.delivery_model import Delivery
from birthmark.message_routing.engine import RuleEngine
from birthmark.message_routing.rule_time_shares import DeferredMessage
from birthmark.message_routing.sinks.errors import NotTakenError
from birthmark.message_routing.write_ahead_log import LoggedMessage
from birthmark.server.all_tables import TABLES
from birthmark.store import Changes
from birthmark.store.plain_and_encrypted_column_types import holds_secrets
from support.aws.account import ME, an_aws_account
from support.fakes import FakeClock

pytestmark = pytest.mark.integration
HTTP = {"http": {"url": "https://hooks.example.com/x"}}


class Outside:
    """A way out that takes what it is told to; `got` is what it took, in order."""

    def __init__(self, *, is_quick: bool = False) -> None:
        self.is_quick = is_quick
        self.got: list[Delivery] = []
        self.problem: BirthmarkError | None = None
        self.during: Any = None

    async def carry(self, letters: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        if self.during is not None:
            raise self.during
        if self.problem is None:
            self.got += letters
        return [self.problem] * len(letters)

    @property
    def bodies(self) -> list[bytes]:
        return [one.body for one in self.got]


class Taking:
    """Takes what a rule publishes."""

    def __init__(self, sent: list[BrokerMessage]) -> None:
        self._sent = sent

    def hand_on(self, messages: Sequence[BrokerMessage], done: Any) -> None:
        self._sent += messages
        done(None)


class World:
    def __init__(self, aws: AwsIot, clock: FakeClock) -> None:
        self.aws, self.clock, self.rules, self.queue = aws, clock, aws.rules, aws.rules.queue
        self.outside, self.quick = Outside(), Outside(is_quick=True)
        self.sinks: dict[str, Any] = {"http": self.outside, "republish": self.quick}
        self.refused: list[BirthmarkError] = []
        self.rules.record = self.refused.append
        self.begin()

    def begin(self) -> None:
        """Begin as a process does; what was in memory is gone."""
        stream = SqlStream(RULES_SPACE, LoggedMessage, self.aws.database, self.clock)
        held = SqlStream(HELD_SPACE, DeferredMessage[LoggedMessage], self.aws.database, self.clock)
        self.rules.begin(stream, held, self.sinks)
        self.queue._lanes, self.queue._counted_at, self.queue._paused = {}, None, {}

    @property
    def engine(self) -> RuleEngine[LoggedMessage]:
        return self.rules.engine

    async def rule(self, name: str, sql: str, *actions: Mapping[str, Any], **more: Any) -> None:
        await self.rules.create(name, {"sql": sql, "actions": list(actions), **more}, **ME)

    async def publish(self, topic: str, *payloads: str, publisher: str = "device", principal: str = "") -> None:
        safe, done = until_done()
        messages = [BrokerMessage(topic, one.encode(), 1, publisher=publisher, principal=principal) for one in payloads]
        tapped = self.rules.take(messages, done)
        if tapped is not None:
            tapped[0](None)
            await safe

    async def run(self) -> None:
        """Do everything that is due now."""
        while await self.engine.step():
            pass
        await self.look()

    async def look(self) -> None:
        await self.queue._count()
        await self.queue._look()
        await asyncio.gather(*self.queue._running.values())
        await self.queue._forget_oldest()

    async def waiting(self, rule: str) -> tuple[int, int]:
        lanes = (await self.queue.counts(rule)).values()
        return sum(one.count - one.dead for one in lanes), sum(one.dead for one in lanes)


@asynccontextmanager
async def a_world(database_url: str) -> AsyncIterator[World]:
    async with an_aws_account(database_url) as (aws, clock):
        aws.rules.destinations.check_url = lambda _url: None
        yield World(aws, clock)


async def test_what_no_rule_wants_is_not_noted(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.publish("a/b", "1")
        await world.rule("one", "SELECT * FROM 'other/#'", HTTP)
        await world.publish("a/b", "2")
        await world.run()
        assert world.outside.bodies == []
        assert world.engine.seen["one"] == 0


async def test_a_message_goes_to_each_action_of_each_rule_that_wants_it(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.rule("one", "SELECT a FROM 'x/+'", HTTP, HTTP)
        await world.rule("two", "SELECT a, b FROM 'x/#' WHERE a > 1", HTTP)
        await world.publish("x/y", '{"a":1,"b":2}', '{"a":2,"b":2}')
        await world.run()
        found = sorted((one.lane, one.body) for one in world.outside.got)
        assert found == [
            ("one/0", b'{"a":1}'),
            ("one/0", b'{"a":2}'),
            ("one/1", b'{"a":1}'),
            ("one/1", b'{"a":2}'),
            ("two/0", b'{"a":2,"b":2}'),
        ]
        assert await world.waiting("one") == (0, 0)


async def test_a_message_is_seen_again_where_the_process_ended_before_it_noted_that(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.rule("one", "SELECT * FROM 'x'", {"republish": {"topic": "y"}})
        await world.publish("x", "1", "2")
        world.quick.during = UnavailableError()
        with pytest.raises(UnavailableError):
            await world.engine.step()
        world.begin()
        world.quick.during = None
        await world.run()
        assert world.quick.bodies == [b"1", b"2"]


DEAR = {"text": "\u00e9" * 9_000}
COPY, DEARLY = {"republish": {"topic": "y"}}, "SELECT regexp_replace(text, '[^ -~]', '') AS made, n FROM 'dear'"


async def a_flood(world: World, count: int) -> None:
    """Publish so many messages each of which costs a rule tens of milliseconds."""
    await world.rule("dear", DEARLY, COPY)
    await world.publish("dear", *(json.dumps(DEAR | {"n": number}) for number in range(count)), publisher="flood")


async def test_a_publisher_that_used_up_its_share_keeps_no_other_waiting(database_url: str) -> None:
    async with a_world(database_url) as world:
        await a_flood(world, 60)
        await world.rule("alarms", "SELECT * FROM 'alarm'", COPY)
        await world.publish("alarm", "fire", publisher="another")
        assert not await world.engine.step()
        assert world.quick.bodies[-1] == b"fire"
        assert 1 < len(world.quick.bodies) < 20


@pytest.mark.parametrize("client_of", [lambda _: "", lambda n: f"client-{n}"], ids=["over HTTPS", "many client ids"])
async def test_a_principal_has_one_share_whatever_its_client_ids(
    database_url: str, client_of: Callable[[int], str]
) -> None:
    async with a_world(database_url) as world:
        await world.rule("dear", DEARLY, COPY)
        await world.rule("alarms", "SELECT * FROM 'alarm'", COPY)
        for n in range(30):
            await world.publish("dear", json.dumps(DEAR), publisher=client_of(n), principal="flood")
        await world.publish("alarm", "smoke", publisher=client_of(30), principal="flood")
        await world.publish("alarm", "fire", publisher=client_of(31), principal="another")
        assert not await world.engine.step()
        assert (world.quick.bodies[-1], b"smoke" in world.quick.bodies) == (b"fire", False)


async def test_a_rule_that_used_up_its_share_keeps_no_other_rule_waiting(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.rule("dear", DEARLY, COPY)
        await world.rule("alarms", "SELECT * FROM 'alarm'", COPY)
        for number in range(60):
            await world.publish("dear", json.dumps(DEAR), publisher=f"device-{number}")
        await world.publish("alarm", "fire", publisher="device-59")
        assert not await world.engine.step()
        assert world.quick.bodies[-1] == b"fire"
        assert 1 < len(world.quick.bodies) < 40


async def test_what_waits_for_its_share_is_decided_on_in_order_and_once(database_url: str) -> None:
    async with a_world(database_url) as world:
        await a_flood(world, 12)
        await world.engine.step()
        world.begin()  # what was in memory is gone
        await world.publish("dear", json.dumps(DEAR | {"n": 12}), publisher="flood")
        await world.engine.step()
        while await world.engine.held_step():
            pass
        assert [json.loads(body)["n"] for body in world.quick.bodies] == list(range(13))


async def test_what_was_queued_outlives_the_process_and_is_queued_once(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.rule("one", "SELECT * FROM 'x'", HTTP)
        await world.publish("x", "1", "2")
        commit = world.engine._database.commit

        async def lost(changes: Any) -> None:
            await commit(changes)
            raise UnavailableError

        world.engine._database.commit = lost  # type: ignore[method-assign]
        try:
            with pytest.raises(UnavailableError):  # it was kept, and nobody heard
                await world.engine.step()
        finally:
            del world.engine._database.commit
        assert await world.waiting("one") == (2, 0)
        world.begin()
        await world.run()
        assert world.outside.bodies == [b"1", b"2"]


async def test_a_receiver_that_is_away_is_tried_again_ever_less_often(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.rule("one", "SELECT * FROM 'x'", HTTP)
        world.outside.problem = NotTakenError(receiver="hooks.example.com", reason="it is away")
        await world.publish("x", "1")
        await world.run()
        for pause in (1, 2, 4, 8):
            assert await world.waiting("one") == (1, 0)
            world.clock.move(timedelta(seconds=pause))
            await world.look()
        world.outside.problem = None
        world.clock.move(timedelta(seconds=16))
        await world.look()
        assert world.outside.bodies == [b"1"]
        assert world.refused == []


async def test_what_is_not_taken_in_the_end_is_put_aside_told_and_sent_again_on_request(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.rule("one", "SELECT * FROM 'x'", HTTP, errorAction={"republish": {"topic": "failed/${topic()}"}})
        world.outside.problem = NotTakenError(receiver="hooks.example.com", reason="it responded with 500")
        await world.publish("x", '{"a":1}')
        await world.run()
        for _ in range(queues.TRIES):
            world.clock.move(timedelta(minutes=3))
            await world.look()
        assert await world.waiting("one") == (0, 1)
        (told,) = world.quick.got
        assert told.address["topic"] == "failed/x"
        assert json.loads(told.body)["failures"][0]["errorMessage"].endswith("it responded with 500")
        assert [one.code for one in world.refused] == ["awsiot.rule_action_failed"]
        (dead,) = await world.queue.dead("one", "", 10)
        assert (dead.body, dead.tries) == (b'{"a":1}', queues.TRIES)
        world.outside.problem = None
        assert await world.rules.replay("one", **ME) == 1
        world.clock.move(timedelta(minutes=3))
        await world.look()
        assert world.outside.bodies == [b'{"a":1}']
        assert await world.waiting("one") == (0, 0)


async def test_an_error_action_is_told_the_action_and_no_client_where_none_published(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.rule("one", "SELECT * FROM 'x'", HTTP, errorAction={"republish": {"topic": "failed"}})
        world.outside.problem = NotTakenError(
            receiver="hooks.example.com", reason="it responded with 400", is_final=True
        )
        await world.publish("x", "{}", publisher="")
        await world.run()
        (told,) = world.quick.got
        body = json.loads(told.body)
        assert (body["clientId"], body["failures"][0]["failedAction"]) == ("N/A", "HttpAction")


async def test_what_will_never_be_taken_is_put_aside_at_once(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.rule("one", "SELECT * FROM 'x'", HTTP)
        world.outside.problem = NotTakenError(
            receiver="hooks.example.com", reason="it responded with 400", is_final=True
        )
        await world.publish("x", "1")
        await world.run()
        assert await world.waiting("one") == (0, 1)


async def test_a_lane_whose_receiver_is_away_keeps_no_other_waiting(database_url: str) -> None:
    async with a_world(database_url) as world:
        hanging = Outside()
        hanging.problem = NotTakenError(receiver="a", reason="away")
        world.sinks["kafka"] = hanging
        world.rules.destinations.servers = {"a": None}  # type: ignore[dict-item]
        kafka = {"kafka": {"destinationArn": "arn:a/a", "topic": "t", "clientProperties": {}}}
        await world.rule("one", "SELECT * FROM 'x'", kafka, HTTP)
        for number in range(5):
            await world.publish("x", str(number))
        await world.run()
        assert world.outside.bodies == [b"0", b"1", b"2", b"3", b"4"]
        assert await world.waiting("one") == (5, 0)


async def test_what_waits_of_an_earlier_action_goes_its_own_way(database_url: str) -> None:
    async with a_world(database_url) as world:
        other = Outside()
        world.sinks["kafka"] = other
        world.queue.serve({"kafka": other}, world.rules.handle_failed_delivery)
        world.rules.destinations.servers = {"a": None}  # type: ignore[dict-item]
        await world.rule("one", "SELECT * FROM 'x'", HTTP)
        world.outside.problem = NotTakenError(receiver="a", reason="away")
        await world.publish("x", "1")
        await world.run()
        kafka = {"kafka": {"destinationArn": "arn:a/a", "topic": "t", "clientProperties": {}}}
        await world.rules.replace("one", {"sql": "SELECT * FROM 'x'", "actions": [kafka]}, **ME)
        world.outside.problem = None
        await world.publish("x", "2")
        world.clock.move(timedelta(seconds=2))
        await world.run()
        assert (world.outside.bodies, other.bodies) == ([b"1"], [b"2"])


async def test_a_queue_is_bounded_and_counts_what_it_drops(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "MAX_WAITING", 3)
    async with a_world(database_url) as world:
        await world.rule("one", "SELECT * FROM 'x'", HTTP)
        world.outside.problem = NotTakenError(receiver="a", reason="away")
        await world.publish("x", *map(str, range(5)))
        await world.run()
        assert await world.waiting("one") == (3, 0)
        assert world.queue.dropped["one/0"] == 2


async def test_of_what_was_put_aside_the_newest_is_kept(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "MAX_DEAD", 2)
    async with a_world(database_url) as world:
        await world.rule("one", "SELECT * FROM 'x'", HTTP)
        world.outside.problem = NotTakenError(receiver="a", reason="no", is_final=True)
        await world.publish("x", *map(str, range(5)))
        await world.run()
        assert [one.body for one in await world.queue.dead("one", "", 10)] == [b"3", b"4"]


async def test_a_rule_that_is_removed_takes_what_waits_along(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.rule("one", "SELECT * FROM 'x'", HTTP)
        await world.rule("one_more", "SELECT * FROM 'x'", HTTP)
        await world.rule("oneXmore", "SELECT * FROM 'x'", HTTP)
        world.outside.problem = NotTakenError(receiver="a", reason="away")
        await world.publish("x", "1")
        await world.run()
        await world.rules.delete("one", **ME)
        assert (await world.waiting("one"), await world.waiting("one_more")) == ((0, 0), (1, 0))
        assert await world.waiting("oneXmore") == (1, 0)


async def test_what_came_back_to_the_rule_that_republished_it_is_stopped(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.rule("one", "SELECT * FROM '#'", {"republish": {"topic": "log"}})
        await world.publish("x", "1")
        await world.run()
        safe, done = until_done()
        world.rules.log_republished([(BrokerMessage("log", b"1"), ("one",))], done)(None)
        await safe
        await world.run()
        assert len(world.quick.got) == 1
        (error,) = world.refused
        assert isinstance(error, RuleLoopError)
        assert (error.trail, error.topic) == ("one > one", "log")


async def test_a_message_that_costs_too_much_is_refused_and_the_others_go_on(database_url: str) -> None:
    async with a_world(database_url) as world:
        many = ", ".join(["a"] * 16)
        await world.rule("one", f"SELECT [{many}] AS x FROM 'x'", HTTP, awsIotSqlVersion="2016-03-23")
        await world.publish("x", json.dumps({"a": list(range(5000))}), '{"a":[1]}')
        await world.run()
        assert [one.code for one in world.refused] == ["awsiot.rule_failed"]
        assert len(world.outside.got) == 1


async def test_rules_hold_for_what_another_worker_made_of_them(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.rule("one", "SELECT * FROM 'x'", HTTP)
        await world.rules.set_disabled("one", is_disabled=True, **ME)
        await world.publish("x", "1")
        await world.rules.set_disabled("one", is_disabled=False, **ME)
        await world.publish("x", "2")
        await world.run()
        assert world.outside.bodies == [b"2"]


async def test_a_thousand_rules_and_no_more(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from birthmark.awsiot.rules.topic_rule_evaluation import RulesFullError
    from birthmark.awsiot.store import topic_rules_and_streams as store

    monkeypatch.setattr(store, "MAX_RULES", 3)
    async with a_world(database_url) as world:
        for number in range(3):
            await world.rule(f"r{number}", "SELECT * FROM 'x'", HTTP)
        with pytest.raises(RulesFullError):
            await world.rule("r3", "SELECT * FROM 'x'", HTTP)


async def test_headers_of_rules_and_of_what_waits_are_sealed(database_url: str) -> None:
    async with a_world(database_url) as world:
        http = {
            "http": {"url": "https://hooks.example.com/x", "headers": [{"key": "authorization", "value": "s3cret"}]}
        }
        await world.rule("one", "SELECT * FROM 'x'", http)
        world.outside.problem = NotTakenError(receiver="a", reason="away")
        await world.publish("x", "1")
        await world.run()
        for table, column in (("aws_topic_rules", "payload"), ("routing_letters", "address")):
            assert holds_secrets(TABLES[table].c[column])


async def test_what_will_never_be_taken_keeps_nothing_else_of_its_lane_waiting(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.rule("one", "SELECT * FROM 'x'", HTTP)
        world.outside.problem = NotTakenError(receiver="a", reason="no", is_final=True)
        await world.publish("x", "1")
        await world.run()
        world.outside.problem = None
        await world.publish("x", "2")
        await world.run()
        assert world.outside.bodies == [b"2"]


async def test_what_was_put_aside_takes_no_room_of_what_waits(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "MAX_WAITING_BYTES", 1500)
    async with a_world(database_url) as world:
        await world.rule("one", "SELECT * FROM 'x'", HTTP)
        world.outside.problem = NotTakenError(receiver="a", reason="no", is_final=True)
        await world.publish("x", *[json.dumps("x" * 200)] * 3)
        await world.run()
        world.outside.problem = None
        await world.publish("x", "1")
        world.queue._counted_at = None
        await world.run()
        assert world.outside.bodies == [b"1"]
        assert world.queue.dropped["one/0"] == 0


async def test_what_was_put_aside_is_no_more_than_so_many_bytes(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "MAX_DEAD_BYTES", 2500)
    async with a_world(database_url) as world:
        await world.rule("one", "SELECT * FROM 'x'", HTTP)
        world.outside.problem = NotTakenError(receiver="a", reason="no", is_final=True)
        for number in range(6):
            await world.publish("x", json.dumps(f"{number}" * 400))
            await world.run()
        assert [one.body[1:2] for one in await world.queue.dead("one", "", 10)] == [b"4", b"5"]


async def test_of_what_was_put_aside_at_once_the_newest_is_kept(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "MAX_DEAD", 2)
    async with a_world(database_url) as world:
        await world.rule("one", "SELECT * FROM 'x'", {"republish": {"topic": "y"}})
        world.quick.problem = NotTakenError(receiver="a", reason="no", is_final=True)
        await world.publish("x", *map(str, range(5)))
        await world.run()
        await world.look()
        assert [one.body for one in await world.queue.dead("one", "", 10)] == [b"3", b"4"]


async def test_room_in_a_queue_is_what_a_letter_takes_with_the_message_that_led_to_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "MAX_WAITING_BYTES", 2000)
    async with a_world(database_url) as world:
        await world.rule("one", "SELECT 1 AS one FROM 'x'", HTTP)
        world.outside.problem = NotTakenError(receiver="a", reason="away")
        await world.publish("x", *[json.dumps("x" * 900)] * 5)
        await world.run()
        world.queue._counted_at = None
        await world.queue._count()
        lane = world.queue.lane("one/0")
        assert lane.count < 3
        assert lane.size > 900


async def test_what_a_device_sends_is_in_no_reason_that_cannot_be_kept(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.rule("one", "SELECT * FROM 'x'", HTTP)
        world.outside.problem = NotTakenError(receiver="a\0b", reason="c\0d")
        await world.publish("x", "1")
        await world.run()
        assert await world.waiting("one") == (1, 0)
        world.outside.problem = None
        world.clock.move(timedelta(seconds=5))
        await world.look()
        assert world.outside.bodies == [b"1"]


async def test_rules_that_take_long_leave_others_their_turn(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_TURN_S", 0.0)  # each takes that long
    turns = 0
    seen: list[int] = []

    class Slow:
        name = "slow"

        async def decide(self, message: LoggedMessage) -> Sequence[Delivery]:
            del message
            seen.append(turns)
            return ()

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with a_world(database_url) as world:
        await world.rule("one", "SELECT * FROM 'x'", HTTP)
        await world.publish("x", "1", "2")
        world.engine._find = lambda _: [Slow()] * 3
        beside = asyncio.create_task(others())
        await world.engine.step()
        beside.cancel()
    assert len(seen) == len(set(seen)) == 6


async def test_much_that_is_made_of_a_page_goes_out_in_parts_and_once(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_MADE_BYTES", 500)
    async with a_world(database_url) as world:
        await world.rule("one", "SELECT * FROM 'x'", HTTP)
        await world.publish("x", *[json.dumps(f"{number}" * 200) for number in range(5)])
        world.engine._stream.position_changes = lambda *_: 1 / 0  # type: ignore[method-assign,assignment]
        with pytest.raises(ZeroDivisionError):  # a crash before the end of the page is noted
            await world.engine.step()
        assert (await world.waiting("one"))[0] > 1
        world.begin()
        await world.run()
        assert [one[1:2] for one in world.outside.bodies] == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("correlationData", "\ud800"),
        ("contentType", "a\0b"),
        ("contentType", "x" * 70_000),
        ("responseTopic", "#"),
        ("userProperties", "a\0b"),
    ],
)
async def test_what_no_packet_can_hold_is_put_aside_and_keeps_nothing_waiting(
    database_url: str, header: str, value: str
) -> None:
    async with a_world(database_url) as world:
        world.sinks["republish"] = republisher = world.aws.republisher
        sent: list[BrokerMessage] = []
        republisher.messages = lambda: Taking(sent)  # type: ignore[assignment,return-value]
        filled = [{"key": "k", "value": "${x}"}] if header == "userProperties" else "${x}"
        await world.rule("one", "SELECT * FROM 'in'", {"republish": {"topic": "out", "headers": {header: filled}}})
        await world.rule("other", "SELECT * FROM 'in'", {"republish": {"topic": "other"}})
        await world.publish("in", json.dumps({"x": value}), json.dumps({"x": "plain"}))
        await world.run()
        assert [one.topic for one in sent].count("other") == 2
        assert (await world.waiting("one"))[0] == 0


async def test_correlation_data_may_be_any_text(database_url: str) -> None:
    async with a_world(database_url) as world:
        world.sinks["republish"] = republisher = world.aws.republisher
        sent: list[BrokerMessage] = []
        republisher.messages = lambda: Taking(sent)  # type: ignore[assignment,return-value]
        headers = {"correlationData": "${x}"}
        await world.rule("one", "SELECT * FROM 'in'", {"republish": {"topic": "out", "headers": headers}})
        await world.publish("in", '{"x": "\u00e9"}', '{"x": "AAE="}')
        await world.run()
        assert [one.properties[0][1] for one in sent] == ["\u00e9".encode(), b"\0\1"]


async def test_a_carrier_with_a_mistake_keeps_no_other_waiting(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.rule("one", "SELECT * FROM 'in'", {"republish": {"topic": "y"}})
        world.quick.during = RuntimeError("a mistake of ours")
        await world.publish("in", "1")
        await world.run()
        world.quick.during = None
        await world.publish("in", "2")
        await world.run()
        assert world.quick.bodies == [b"2"]
        world.clock.move(timedelta(minutes=10))
        await world.run()
        assert sorted(world.quick.bodies) == [b"1", b"2"]


async def test_a_circle_through_basic_ingest_is_stopped(database_url: str) -> None:
    async with a_world(database_url) as world:
        world.sinks["republish"] = republisher = world.aws.republisher

        async def ask(topic: str, payload: bytes, note: Any, principal: str) -> None:
            await world.rules.ingest(topic, payload, 1, "", "")

        republisher.ask = lambda: ask
        await world.rule("one", "SELECT *", {"republish": {"topic": "$$aws/rules/one/x"}})
        await world.rules.ingest("$aws/rules/one/x", b"1", 1, "device", "")
        for _ in range(20):
            await world.run()
        assert world.engine.seen["one"] == 2
        assert [one.code for one in world.refused] == ["awsiot.rule_loop"]


async def test_a_circle_through_a_service_of_the_cloud_is_stopped(database_url: str) -> None:
    async with a_world(database_url) as world:
        world.sinks["republish"] = republisher = world.aws.republisher

        async def ask(topic: str, payload: bytes, note: Any, principal: str) -> None:
            """Answer as the shadow service does: with a message of the cloud's own."""
            await world.publish(f"{topic}/accepted", payload.decode(), publisher="")

        republisher.ask = lambda: ask
        topic = "$aws/things/one/shadow/update"
        await world.rule("one", f"SELECT * FROM '{topic}/accepted'", {"republish": {"topic": f"${topic}"}})
        await world.publish(f"{topic}/accepted", "1")
        for _ in range(20):
            await world.run()
        assert world.engine.seen["one"] == 2
        assert [one.code for one in world.refused] == ["awsiot.rule_loop"]


async def test_a_rule_that_an_earlier_release_took_is_told_of_switched_off_and_removed(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.rule("good", "SELECT * FROM 'x'", HTTP)
        await world.rule("old", "SELECT * FROM 'x'", HTTP)
        payload = json.dumps({"sql": "SELECT nothing_like_it(1) AS a FROM 'x'", "actions": []})
        known = await world.rules.get("old")
        changes = Changes().run(
            CHANGE_RULE,
            expect=1,
            key_name="old",
            key_revision=known.revision,
            payload=payload,
            is_disabled=False,
            modified_at=0,
            revision=known.revision + 1,
        )
        await world.aws.database.commit(changes)
        page = await world.rules.page("", 10, topic=None, is_disabled=None)
        assert [(one.name, one.filter) for one in page.items] == [("good", "x"), ("old", None)]
        await world.rules.set_disabled("old", is_disabled=True, **ME)
        assert (await world.rules.get("old")).is_disabled
        await world.rules.delete("old", **ME)


async def test_rules_that_did_not_change_are_not_read_anew(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from birthmark.awsiot.rules import topic_rule_evaluation

    async with a_world(database_url) as world:
        for number in range(5):
            await world.rule(f"r{number}", "SELECT * FROM 'x'", HTTP)
        made: list[str] = []
        make_ready = topic_rule_evaluation.prepare_rule

        def counted(rule: Any, account_id: str) -> Any:
            made.append(rule.name)
            return make_ready(rule, account_id)

        monkeypatch.setattr(topic_rule_evaluation, "prepare_rule", counted)
        await world.rules.set_disabled("r1", is_disabled=True, **ME)
        await world.rules.page("", 10, topic=None, is_disabled=None)
        assert {*made} <= {"r1"}
