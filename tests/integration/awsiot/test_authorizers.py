"""What a custom authorizer decides later: it is asked again at its time, and nobody stays longer than it said."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from birthmark.awsiot.model import Authorizer
from birthmark.awsiot.mqtt import AwsConnections
from birthmark.awsiot.ports import FunctionCaller
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.authorizer_throttle import OF_ADDRESS
from birthmark.awsiot.service.lambda_functions import FunctionFailedError
from birthmark.broker import Broker, SpaceRules
from birthmark.errors import BirthmarkError
from birthmark.mqtt.packets import LEVEL_5, ConnAck, Connect, Disconnect, PubAck, Publish
from birthmark.mqtt.reason_codes import ReasonCode
from birthmark.net.mqtt_driver import MqttDriver
from birthmark.net.tls import TlsPeer
from birthmark.refusals import Ledger
from support.aws.account import ACCOUNT, ME, an_aws_account
from support.aws.device import document, statement
from support.azure.hub_world import Wire, until
from support.fakes import FakeClock, SeededEntropy

pytestmark = pytest.mark.integration
NOBODY = TlsPeer(None, (), b"mqtt", "", "TLSv1.3")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ARN = "arn:aws:lambda:us-east-1:000000000000:function:door"
WIDE = document(statement("iot:Connect"), statement("iot:Publish"))
NARROW = document(statement("iot:Connect"), statement("iot:Publish", ACCOUNT.arn("topic", "other")))
SHUT = document(statement("iot:Publish"))


class Functions:
    """One function, as a test has it."""

    def __init__(self) -> None:
        self.answer: Any = None
        self.asked: list[tuple[Mapping[str, Any], FunctionCaller]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def is_mapped(self, arn: str) -> bool:
        del arn
        return True

    async def call(self, arn: str, event: Mapping[str, Any], caller: FunctionCaller, whose: str = "") -> Any:
        assert arn == ARN
        self.asked.append((event, caller))
        await self.may_answer.wait()
        if self.answer is None:
            raise FunctionFailedError(arn=arn, host="nowhere", reason="it is gone")
        return self.answer

    def say(self, *documents: str, refresh_s: int = 300, disconnect_s: int = 3600) -> None:
        self.answer = {
            "isAuthenticated": True,
            "principalId": "somebody",
            "policyDocuments": list(documents),
            "refreshAfterInSeconds": refresh_s,
            "disconnectAfterInSeconds": disconnect_s,
        }


@dataclass
class World:
    aws: AwsIot
    clock: FakeClock
    connections: AwsConnections
    functions: Functions
    refused: list[BirthmarkError] = field(default_factory=list)

    def start(self, client_id: str = "c") -> "Client":
        client = Client(
            MqttDriver(self.connections.accept, lambda e, _a, _p: self.refused.append(e), self.clock, NOBODY)
        )
        client.driver.start(client.wire, "192.0.2.1")
        client.say(Connect(client_id, level=LEVEL_5, username="me?x-amz-customauthorizer-name=door", password=b"x"))
        return client

    async def connected(self) -> "Client":
        client = self.start()
        await until(lambda: bool(client.wire.got(ConnAck)))
        return client

    def pass_by(self, seconds: int) -> None:
        self.clock.move(timedelta(seconds=seconds))
        self.connections.process_deadlines()


@dataclass
class Client:
    driver: MqttDriver
    wire: Wire = field(default_factory=Wire)
    count: int = 0

    def say(self, *packets: Connect | Publish) -> None:
        for packet in packets:
            self.wire.client.send(packet)
        self.driver.data_received(self.wire.client.data_to_send())

    async def may_publish(self) -> bool:
        self.count += 1
        self.say(Publish("t", b"x", 1, packet_id=self.count))
        await until(lambda: len(self.wire.got(PubAck)) == self.count)
        return self.wire.got(PubAck)[-1].code != ReasonCode.NOT_AUTHORIZED

    async def ended(self) -> int:
        await until(lambda: self.driver.is_over)
        return self.wire.got(Disconnect)[-1].code


@asynccontextmanager
async def a_world(database_url: str) -> AsyncIterator[World]:
    async with an_aws_account(database_url) as (aws, clock):
        functions = Functions()
        aws.authorizers.functions = functions
        made = Authorizer("door", ARN, None, {}, True, True, False, NOW, NOW)
        await aws.authorizers.create(made, **ME)
        database = aws.things.database
        broker, ledger = Broker(database, clock, "test"), Ledger(database, clock, SeededEntropy())
        rules = SpaceRules(hash_matches_parent=False)
        connections = AwsConnections(aws, ledger, clock, SeededEntropy(), broker=broker, rules=rules)
        await broker.load()
        try:
            yield World(aws, clock, connections, functions)
        finally:
            await broker.wait_until_settled(1.0)


@pytest.mark.anyio
async def test_an_authorizer_is_asked_again_and_what_it_says_then_counts(database_url: str) -> None:
    async with a_world(database_url) as world:
        world.functions.say(WIDE)
        client = await world.connected()
        assert await client.may_publish()
        world.pass_by(299)
        assert len(world.functions.asked) == 1
        world.functions.say(NARROW)
        world.pass_by(2)
        await until(lambda: len(world.functions.asked) == 2)
        await until(lambda: len(world.connections._due) == 2)
        assert not await client.may_publish()
        (first, _), (second, caller) = world.functions.asked
        assert first == second, "the same connection asks the same"
        assert caller is FunctionCaller.KNOWN
        world.functions.say(WIDE)
        world.pass_by(301)
        await until(lambda: len(world.connections._due) == 2 and len(world.functions.asked) == 3)
        assert await client.may_publish()


@pytest.mark.anyio
@pytest.mark.parametrize("answer", [{"isAuthenticated": False}, None, [], "shut"])
async def test_where_it_does_not_say_yes_the_client_goes(database_url: str, answer: Any) -> None:
    async with a_world(database_url) as world:
        world.functions.say(WIDE)
        client = await world.connected()
        world.functions.answer = answer
        if answer == "shut":
            world.functions.say(SHUT)
        world.pass_by(301)
        assert await client.ended() >= ReasonCode.UNSPECIFIED_ERROR
        assert world.refused


@pytest.mark.anyio
async def test_nobody_stays_longer_than_it_was_let_in_for(database_url: str) -> None:
    async with a_world(database_url) as world:
        events: list[dict[str, Any]] = []
        world.functions.say(WIDE, refresh_s=86_400, disconnect_s=600)
        client = await world.connected()
        with world.connections.space.messages.watch("$aws/events/presence/#") as viewer:
            world.pass_by(599)
            assert not client.driver.is_over
            world.pass_by(2)
            assert await client.ended() == ReasonCode.MAXIMUM_CONNECT_TIME
            messages, _ = await viewer.take(5.0)
            events += [json.loads(message.payload) for message in messages]
        (event,) = events
        assert (event["disconnectReason"], event["principalIdentifier"]) == ("CUSTOMAUTH_TTL_EXPIRATION", "somebody")


@pytest.mark.anyio
async def test_a_stranger_has_the_function_asked_so_often_and_a_client_as_often_as_it_likes(database_url: str) -> None:
    async with a_world(database_url) as world:
        world.functions.say(WIDE)
        for number in range(3 * OF_ADDRESS):
            client = world.start(f"c{number}")
            await until(lambda client=client: bool(client.wire.got(ConnAck)))  # type: ignore[misc]
            assert not client.driver.is_over
        world.functions.answer = {"isAuthenticated": False}
        before = len(world.functions.asked)
        for number in range(2 * OF_ADDRESS):
            client = world.start(f"s{number}")
            await until(lambda client=client: client.driver.is_over)  # type: ignore[misc]
        assert len(world.functions.asked) == before + OF_ADDRESS
        world.clock.move(timedelta(seconds=60))
        world.functions.say(WIDE)
        assert not (await world.connected()).driver.is_over


@pytest.mark.anyio
async def test_of_one_address_no_more_ask_at_once_than_may_be_refused(database_url: str) -> None:
    async with a_world(database_url) as world:
        world.functions.answer = {"isAuthenticated": False}
        world.functions.may_answer.clear()
        clients = [world.start(f"c{number}") for number in range(OF_ADDRESS + 10)]
        await until(lambda: sum(client.driver.is_over for client in clients) == 10)
        assert len(world.functions.asked) == OF_ADDRESS
        world.functions.may_answer.set()
        await until(lambda: all(client.driver.is_over for client in clients))
