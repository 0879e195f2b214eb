"""The rooms of a running server, made and tied together: who reaches whom is decided here and nowhere else."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import msgspec

from birthmark.auth.passwords import PasswordCheck
from birthmark.awsiot.model import Account
from birthmark.awsiot.mqtt import AwsConnections
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.broker import Broker
from birthmark.awsiot.service.events import ACCESS_CHANGED, CERTIFICATE_CHANGED
from birthmark.bus import LocalBus
from birthmark.ca.hierarchy import Hierarchy
from birthmark.ca.revocation import REVOKED
from birthmark.ca.service import CertificateAuthority
from birthmark.clock import Clock, Entropy
from birthmark.dps.mqtt import DpsMqtt
from birthmark.dps.service import Authorities, Enrollments, Instances, Registrations
from birthmark.est.service import Credentials, EstService
from birthmark.iothub.mqtt import HubConnections
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.registry import CHANGED
from birthmark.net.admission import Closed
from birthmark.pki.certificates import Certificate
from birthmark.refusals import Ledger
from birthmark.server.hubs import HubsForDps
from birthmark.server.revoked import EndRevoked
from birthmark.server.settings import Settings
from birthmark.store import Database


@dataclass(frozen=True, slots=True)
class Rooms:
    """Every service of this process, and the MQTT side of each cloud."""

    database: Database
    ledger: Ledger
    authority: CertificateAuthority
    est: EstService
    credentials: Credentials
    instances: Instances
    authorities: Authorities
    enrollments: Enrollments
    registrations: Registrations
    iothub: IotHub
    aws: AwsIot
    broker: Broker
    dps_connections: DpsMqtt
    hub_connections: HubConnections
    aws_connections: AwsConnections

    async def settled(self) -> None:
        """Return when everything taken so far is on disk or was refused."""
        await self.iothub.telemetry.settled()
        await self.broker.settled()
        await self.ledger.settled()

    def end_connections(self) -> None:
        """Tell every MQTT client that this server ends, as far as its version of MQTT has words for it."""
        for room in (self.dps_connections, self.hub_connections, self.aws_connections):
            for connection in room.everyone():
                connection.pump.close(Closed.STOPPING)

    def subscribe(self, bus: LocalBus) -> None:
        """Let live connections hear of what changed about them."""
        rooms = (self.dps_connections, self.hub_connections, self.aws_connections)
        for topic, handler in (
            (CHANGED, self.hub_connections.recheck),
            ("iothub.hub_deleted", self.hub_connections.drop_hub),
            (REVOKED, EndRevoked(self.authority.revocations.check, rooms)),
            (ACCESS_CHANGED, self.aws_connections.access_changed),
            (CERTIFICATE_CHANGED, self.aws_connections.certificate_changed),
        ):
            bus.subscribe(topic, handler)


async def open_rooms(
    settings: Settings, hierarchy: Hierarchy, database: Database, clock: Clock, entropy: Entropy
) -> Rooms:
    """Make the rooms over `database`, and load what they keep in memory."""
    ledger = Ledger(database, clock, entropy)
    lifetimes = {"device": timedelta(seconds=settings.est.device_lifetime_s)}
    subject: dict[str, str] = msgspec.to_builtins(settings.est.subject)
    authority = CertificateAuthority(hierarchy, database, clock, entropy, lifetimes, subject)
    instances = Instances(database, clock, entropy)
    iothub = IotHub.of(database, clock, entropy, authority.revocations.check)
    enrollments, authorities = Enrollments(database, clock, entropy), Authorities(database, clock, entropy)

    async def on_record(subject: bytes) -> Sequence[Certificate]:
        scopes = [instance.id_scope for instance in instances.all()]
        return [one for scope in scopes for one in await authorities.named(scope, subject)]

    authority.revocations.on_record = on_record
    registrations = Registrations(
        database,
        clock,
        entropy,
        instances=instances,
        enrollments=enrollments,
        hubs=HubsForDps(iothub.registry),
        revocations=authority.revocations.check,
    )
    account = Account(settings.aws.account_id, settings.aws.region, settings.host_name)
    aws = AwsIot(account, database, clock, entropy, lambda: hierarchy.issuing, revocations=authority.revocations.check)
    broker = Broker(database, clock, settings.aws.max_sessions)
    await iothub.hubs.load()
    await instances.load()
    await aws.load()
    await broker.load()
    return Rooms(
        database,
        ledger,
        authority,
        EstService(authority, PasswordCheck(entropy)),
        Credentials(database, clock, entropy),
        instances,
        authorities,
        enrollments,
        registrations,
        iothub,
        aws,
        broker,
        DpsMqtt(registrations, ledger, clock),
        HubConnections(iothub, clock),
        AwsConnections(aws, broker, ledger, clock, entropy),
    )
