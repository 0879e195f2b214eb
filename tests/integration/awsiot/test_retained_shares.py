"""Whoever publishes counts, in whichever way: over HTTPS and by a will too, one principal has one share."""

import pytest

from birthmark.awsiot.http.data_plane import DataOperations
from birthmark.awsiot.http.operation_routing_and_request_members import OPERATIONS, AwsRequest
from birthmark.awsiot.model import CertificateStatus
from birthmark.awsiot.mqtt import AwsConnections
from birthmark.awsiot.service.device_authorization import ConnectionGrant
from birthmark.broker import Broker, SpaceRules
from birthmark.broker.errors import RetainedShareUsedError
from birthmark.errors import BirthmarkError
from birthmark.mqtt.packets import LEVEL_5, ConnAck, Connect, WillMessage
from birthmark.mqtt.properties import PropertyId
from birthmark.net.mqtt_driver import MqttDriver
from birthmark.net.tls import TlsPeer
from birthmark.refusals import Ledger
from birthmark.refusals.queries import refusals_about
from birthmark.supervised_tasks import FAILURES
from support.aws.account import ACCOUNT, ME, an_aws_account
from support.aws.device import document, statement
from support.azure.hub_world import Wire, until
from support.fakes import SeededEntropy
from support.pki.pki_builders import a_device

pytestmark = pytest.mark.integration
DEVICE = a_device().certificate
PEER = TlsPeer(DEVICE, (), b"", "", "TLSv1.3")
PUBLISH = next(one for one in OPERATIONS if one.name == "Publish")
WILL_LASTS = ((PropertyId.MESSAGE_EXPIRY, 60),)


def a_publish(topic: str, principal: str) -> AwsRequest:
    return AwsRequest(
        PUBLISH,
        {"topic": topic},
        {"qos": "1", "retain": "true"},
        {},
        b"x",
        principal,
        ConnectionGrant(principal, None, None, None),
        lambda _error: None,
        ACCOUNT,
    )


async def asks_nothing(*_: object) -> None: ...


async def test_over_https_and_by_wills_one_principal_keeps_a_fourth_of_the_retained_messages(database_url: str) -> None:
    async with an_aws_account(database_url) as (aws, clock):
        database, entropy = aws.things.database, SeededEntropy()
        known = await aws.certificates.register(DEVICE.pem(), CertificateStatus.ACTIVE, **ME)
        await aws.policies.create("any", document(statement("iot:*")), **ME)
        await aws.policies.attach("any", known.id, **ME)
        broker, ledger = Broker(database, clock, "test"), Ledger(database, clock, entropy)
        rules = SpaceRules(hash_matches_parent=False, max_retained=16)
        connections = AwsConnections(aws, ledger, clock, entropy, broker=broker, rules=rules)
        space = connections.space
        refused: list[BirthmarkError] = []
        failures = FAILURES.copy()

        async def goes_without_a_word(number: int, properties: tuple[tuple[PropertyId, int], ...]) -> None:
            driver, wire = MqttDriver(connections.accept, lambda e, _a, _p: refused.append(e), clock, PEER), Wire()
            driver.start(wire, "192.0.2.1")
            will = WillMessage(f"will/{number}", b"gone", 1, True, properties)
            wire.client.send(Connect(f"device-{number}", level=LEVEL_5, will=will))
            driver.data_received(wire.client.data_to_send())
            await until(lambda: bool(wire.got(ConnAck)))
            driver.connection_lost(None)
            await broker.wait_until_settled()

        try:
            data = DataOperations(aws, space, asks_nothing, entropy)
            for topic in ("a", "b"):
                await data.publish(a_publish(topic, known.id))
            await goes_without_a_word(1, ())
            await goes_without_a_word(2, WILL_LASTS)
            assert space.retained.count == 4
            with pytest.raises(RetainedShareUsedError):
                await data.publish(a_publish("c", known.id))
            await goes_without_a_word(3, ())
            assert space.retained.count == 4
            await data.publish(a_publish("c", "another"))
            await ledger.wait_until_written()
            assert not refused, "who connected is no longer there to be told"
            assert failures == FAILURES
            assert [one.code for one in await refusals_about(database, None)] == ["broker.retained_share_used"]
        finally:
            await broker.wait_until_settled(1.0)
            await ledger.wait_until_written()
