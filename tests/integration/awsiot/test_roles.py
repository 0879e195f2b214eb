"""Short-lived keys: what ends them, also while nothing is said, and that every worker knows them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from birthmark.auth.sigv4 import SignedRequest, parse_signature
from birthmark.awsiot.domain_events import GrantsChanged
from birthmark.awsiot.model import CertificateId, CertificateStatus, PrincipalType, ThingName
from birthmark.awsiot.mqtt import AwsConnections
from birthmark.awsiot.rules.policy import KeyDeniedError, PolicyDeniedError, parse_policy
from birthmark.awsiot.rules.policy_variables import ConnectionContext
from birthmark.awsiot.rules.temporary_credentials import SessionEndedError, SessionTokenError
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.device_authorization import ConnectionGrant
from birthmark.awsiot.service.role_aliases import RoleNotMappedError, TemporaryCredentials
from birthmark.broker import Broker, SpaceRules
from birthmark.errors import BirthmarkError
from birthmark.mqtt.packets import LEVEL_5, ConnAck, Connect
from birthmark.net.mqtt_driver import MqttDriver
from birthmark.refusals import Ledger
from support.aws.account import ACCOUNT, ME, an_account, an_aws_account
from support.aws.device import document, statement
from support.azure.hub_world import Wire, until
from support.fakes import FakeClock, SeededEntropy
from support.pki.pki_builders import a_device

pytestmark = pytest.mark.integration
DEVICE = a_device().certificate
ROLE = "arn:aws:iam::000000000000:role/reader"
MAY = document(
    statement("iot:Connect"), statement("iot:Publish", ACCOUNT.arn("topic", "${credentials-iot:ThingName}/*"))
)
VISITOR = ConnectionContext(DEVICE, "pump-1", "192.0.2.1", "")
SERVICES = frozenset({"iot"})


@asynccontextmanager
async def a_device_that_may(database_url: str) -> AsyncIterator[tuple[AwsIot, FakeClock, CertificateId]]:
    async with an_aws_account(database_url) as (aws, clock):
        aws.roles.roles = {ROLE: parse_policy(ROLE, MAY, of_iam=True)}
        known = await aws.certificates.register(DEVICE.pem(), CertificateStatus.ACTIVE, **ME)
        assume = statement("iot:AssumeRoleWithCertificate", ACCOUNT.arn("rolealias", "reading"))
        await aws.policies.create("assume", document(assume), **ME)
        await aws.policies.attach("assume", known.id, **ME)
        await aws.things.create(ThingName("pump-1"), {}, None, None, **ME)
        await aws.attachments.attach("pump-1", known.id, PrincipalType.NON_EXCLUSIVE, **ME)
        await aws.roles.create("reading", ROLE, 900, **ME)
        yield aws, clock, known.id


def signed(made: TemporaryCredentials, clock: FakeClock) -> SignedRequest:
    """Return a request as botocore signs it, at this clock's time."""
    request = AWSRequest("GET", "https://localhost/things")
    signer = SigV4Auth(BotoCredentials(made.access_key_id, made.secret, made.token), "iot", "us-east-1")
    request.context["timestamp"] = f"{clock.now():%Y%m%dT%H%M%SZ}"
    request.headers["X-Amz-Date"] = request.context["timestamp"]
    request.headers["X-Amz-Security-Token"] = made.token
    text = signer.canonical_request(request)
    request.headers["Host"] = "localhost"
    names = signer.signed_headers(signer.headers_to_sign(request))
    signature = signer.signature(signer.string_to_sign(request, text), request)
    request.headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, SignedHeaders={names}, Signature={signature}"
    )
    return SignedRequest("GET", "/things", "", tuple((name.lower(), value) for name, value in request.headers.items()))


async def grant_of(aws: AwsIot, made: TemporaryCredentials, clock: FakeClock) -> ConnectionGrant:
    request = signed(made, clock)
    return await aws.signer(request, parse_signature(request), SERVICES, "192.0.2.1")


@pytest.mark.anyio
async def test_a_key_has_its_roles_rights_with_the_things_name(database_url: str) -> None:
    async with a_device_that_may(database_url) as (aws, clock, _):
        grant = await grant_of(aws, await aws.roles.issue("reading", VISITOR), clock)
        aws.devices.check(grant, "iot:Publish", "topic", "pump-1/a")
        with pytest.raises(KeyDeniedError):
            aws.devices.check(grant, "iot:Publish", "topic", "pump-2/a")


@pytest.mark.anyio
async def test_every_worker_knows_a_key(database_url: str) -> None:
    async with a_device_that_may(database_url) as (aws, clock, _):
        made = await aws.roles.issue("reading", VISITOR)
        other = an_account(aws.things.database, clock)
        other.roles.roles = aws.roles.roles
        assert (await grant_of(other, made, clock)).principal == (await grant_of(aws, made, clock)).principal


@pytest.mark.anyio
@pytest.mark.parametrize("what", ["time", "certificate", "claim", "alias", "another alias", "role"])
async def test_a_key_ends(database_url: str, what: str) -> None:
    async with a_device_that_may(database_url) as (aws, clock, certificate_id):
        made = await aws.roles.issue("reading", VISITOR)
        clock.move(timedelta(seconds=899))
        await grant_of(aws, made, clock)
        match what:
            case "time":
                clock.move(timedelta(seconds=2))
            case "certificate":
                await aws.certificates.set_status(certificate_id, CertificateStatus.INACTIVE, **ME)
            case "claim":
                await aws.claims.set_claim(certificate_id, is_claim=True, **ME)
            case "role":
                aws.roles.roles = {}
            case _:
                await aws.roles.delete("reading", **ME)
        if what == "another alias":
            await aws.roles.create("reading", ROLE, 900, **ME)
        with pytest.raises(SessionEndedError):
            await grant_of(aws, made, clock)


@pytest.mark.anyio
async def test_a_key_lives_no_longer_than_the_certificate(database_url: str) -> None:
    async with a_device_that_may(database_url) as (aws, clock, _):
        await aws.roles.change("reading", None, 43_200, **ME)
        clock.move(DEVICE.not_after - clock.now() - timedelta(seconds=60))
        made = await aws.roles.issue("reading", VISITOR)
        assert made.expires_at == DEVICE.not_after


@pytest.mark.anyio
async def test_a_token_of_another_key_is_refused(database_url: str) -> None:
    async with a_device_that_may(database_url) as (aws, clock, _):
        one, two = [await aws.roles.issue("reading", VISITOR) for _ in range(2)]
        mixed = TemporaryCredentials(one.access_key_id, one.secret, two.token, one.expires_at)
        with pytest.raises(SessionTokenError):
            await grant_of(aws, mixed, clock)


@pytest.mark.anyio
async def test_who_may_not_or_has_a_role_that_is_not_mapped_gets_no_key(database_url: str) -> None:
    async with a_device_that_may(database_url) as (aws, _, certificate_id):
        await aws.roles.change("reading", f"{ROLE}-nobody", None, **ME)
        with pytest.raises(RoleNotMappedError):
            await aws.roles.issue("reading", VISITOR)
        await aws.policies.detach("assume", certificate_id, **ME)
        with pytest.raises(PolicyDeniedError):
            await aws.roles.issue("reading", VISITOR)


@asynccontextmanager
async def a_websocket(
    aws: AwsIot, clock: FakeClock
) -> AsyncIterator[tuple[AwsConnections, MqttDriver, list[BirthmarkError]]]:
    """Yield an account's connections, one that a key opened, and what is refused."""
    database = aws.things.database
    broker, ledger = Broker(database, clock, "test"), Ledger(database, clock, SeededEntropy())
    rules = SpaceRules(hash_matches_parent=False)
    connections = AwsConnections(aws, ledger, clock, SeededEntropy(), broker=broker, rules=rules)
    refused: list[BirthmarkError] = []
    grant = await grant_of(aws, await aws.roles.issue("reading", VISITOR), clock)
    driver = MqttDriver(connections.acceptor(grant), lambda e, _a, _p: refused.append(e), clock)
    wire = Wire()
    driver.start(wire, "192.0.2.1")
    wire.client.send(Connect("c", level=LEVEL_5))
    driver.data_received(wire.client.data_to_send())
    await until(lambda: bool(wire.got(ConnAck)))
    yield connections, driver, refused
    await broker.wait_until_settled(1.0)
    await ledger.wait_until_written()


@pytest.mark.anyio
async def test_a_websocket_ends_with_the_key_that_opened_it(database_url: str) -> None:
    async with (
        a_device_that_may(database_url) as (aws, clock, _),
        a_websocket(aws, clock) as (connections, driver, refused),
    ):
        clock.move(timedelta(seconds=899))
        connections.process_deadlines()
        assert not driver.is_over
        clock.move(timedelta(seconds=2))
        connections.process_deadlines()
        assert driver.is_over
        assert [error.code for error in refused] == ["awsiot.session_ended"]


@pytest.mark.anyio
async def test_a_websocket_ends_when_the_certificate_becomes_a_claims(database_url: str) -> None:
    async with (
        a_device_that_may(database_url) as (aws, clock, certificate_id),
        a_websocket(aws, clock) as (on, driver, refused),
    ):
        await aws.claims.set_claim(certificate_id, is_claim=True, **ME)
        on.access_changed(GrantsChanged(certificate_id))
        await until(lambda: driver.is_over)
        assert [error.code for error in refused] == ["awsiot.session_ended"]
