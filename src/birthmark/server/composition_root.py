"""Composition root: creates the components of a running server and connects them."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec

from birthmark.alerts.service import Alerts
from birthmark.auth.password_digests import PasswordCheck
from birthmark.awsiot.component import AwsComponent, ThingRecords
from birthmark.awsiot.model import Account
from birthmark.awsiot.mqtt import AwsConnections
from birthmark.awsiot.mqtt.connection import AwsConnection
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.lambda_functions import MappedFunctions
from birthmark.blob_storage.model import StorageQuotas
from birthmark.blob_storage.service import BlobStorage
from birthmark.blob_storage.service.file_store import FileStore
from birthmark.broker import Broker, SpaceRules
from birthmark.broker.ports import ClientConnection, PresenceListener
from birthmark.broker.worker_broker import STOP_S
from birthmark.bus import Bus, shared
from birthmark.ca.cloud_device_issuance import BURST, EVERY_S, CertificateOrders
from birthmark.ca.domain_events import CertificateRevoked
from birthmark.ca.external_ca_port import ExternalCa
from birthmark.ca.ocsp_responder import OcspResponder
from birthmark.ca.root_rollover import Rollovers
from birthmark.ca.server_certificates import excluding
from birthmark.ca.service import CertificateAuthority
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.devices.certificate_records import CertificateRecords
from birthmark.devices.device_directory import DeviceDirectory
from birthmark.dps.component import DpsComponent, DpsDeviceRecords
from birthmark.dps.connections import DpsConnections
from birthmark.dps.service import Authorities, Enrollments, Instances, Registrations
from birthmark.dps.service.allocation_webhooks import AllocationWebhooks
from birthmark.errors import BirthmarkError
from birthmark.est.component import EstComponent, EstDeviceRecords
from birthmark.est.service import EstCredentials, EstService, RegistrationAuthorities, TokenIssuer
from birthmark.events.connection_and_refusal_event_writer import Notices
from birthmark.events.webhooks import Webhooks
from birthmark.iam.approvals import Approvals
from birthmark.iam.browser_sessions import BrowserSessions
from birthmark.iam.device_authorization_grant import DeviceCodeFlow
from birthmark.iam.idempotency import IdempotencyStore
from birthmark.iam.oidc import Providers
from birthmark.iam.password_policy_and_hashes import Passwords
from birthmark.iam.password_sign_in import SignIn
from birthmark.iam.role_scope_ports import PlaceMissingError
from birthmark.iam.service import People
from birthmark.iothub.amqp import HubAmqpConnections
from birthmark.iothub.component import HubComponent, HubDeviceRecords
from birthmark.iothub.connections import DeviceConnection, DevicesByBus, HubConnections
from birthmark.iothub.connections.c2d_delivery import holder_of
from birthmark.iothub.error_mapping import http_error
from birthmark.iothub.service import Hubs, IotHub
from birthmark.iothub.service.file_uploads import UploadSettings
from birthmark.iothub.service.job_runner import JobSurroundings
from birthmark.iothub.service.routing_endpoint_sinks import sinks_of
from birthmark.late_reference import Ref
from birthmark.message_routing.failed_delivery_queue import Queue
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.net.quota_key import share_of
from birthmark.outbound.http_client import HttpSender
from birthmark.outbound.mail_config import MailSender
from birthmark.outbound.ssrf_guard import networks_of
from birthmark.pki.certificates import Certificate
from birthmark.protocol_component import Component, MqttConnections
from birthmark.rate_limits import RateLimits
from birthmark.refusals import Ledger
from birthmark.refusals.ledger import PresentedRequest
from birthmark.server.ca_component import CaComponent
from birthmark.server.cross_worker_certificate_lookup import presented_here
from birthmark.server.dps_hub_adapter import GrantsByEnrollment, HubsForDps
from birthmark.server.enrollment_group_rollover import GroupsOfRoots
from birthmark.server.est_settings import build_est_settings
from birthmark.server.function_and_role_files import functions_of, roles_of
from birthmark.server.message_server_files import cas_of, servers_of
from birthmark.server.oidc_settings import providers_of
from birthmark.server.revoked_connection_termination import EndConnectionsRequest
from birthmark.server.settings import Settings
from birthmark.store import Changes, Database

EACH = (200, 20)
ALL = (2000, 500)


class SigningShare:
    """Rate limits for signatures: burst and rate per address, and in total, divided among `workers`."""

    def __init__(self, clock: Clock, workers: int = 1) -> None:
        self._clock = clock
        self._each = RateLimits(*EACH)
        burst, per_s = ALL
        self._all = RateLimits(burst / workers, per_s / workers)

    def __call__(self, address: str) -> bool:
        """Take one signature from the quota of `address`; return whether it was available."""
        now = self._clock.monotonic()
        return self._each.has_room(share_of(address), now) and self._all.has_room("", now)


_MOST = 8


class Succession:
    """Renewal history of a certificate: the certificate presented for it, and so on."""

    def __init__(self, authority: CertificateAuthority) -> None:
        self._authority = authority

    async def __call__(self, leaf: Certificate) -> Sequence[str]:
        """Return the thumbprints of the renewed certificates, latest first; empty for a foreign certificate."""
        found: list[str] = []
        issued = await self._authority.find(leaf.thumbprint)
        while issued is not None and issued.parent is not None and len(found) < _MOST:
            found.append(issued.parent.hex())
            issued = await self._authority.find(issued.parent)
        return found


class InventoryForDps:
    """Implementation of DPS's port `CertificateInventory`."""

    def __init__(self, authority: CertificateAuthority) -> None:
        self._authority = authority

    async def check(self, leaf: Certificate, bag: Sequence[Certificate]) -> None:
        await self._authority.revocations.check(leaf, bag)

    async def is_devices_own(self, ca: Certificate) -> bool:
        return await self._authority.is_devices_own(ca)

    async def is_lost(self, name: str) -> bool:
        return await self._authority.revocations.is_lost(name)

    def registered(self, certificate: Certificate, now: datetime) -> Changes:
        return self._authority.registration_changes(certificate, now)


_MAX_SHOWN = 80


@dataclass(frozen=True, slots=True)
class ServiceRefs:
    """References to services that others need before their construction."""

    iothub: Ref[IotHub]
    instances: Ref[Instances]
    enrollments: Ref[Enrollments]
    registrations: Ref[Registrations]
    devices: Ref[DeviceDirectory]


@dataclass(frozen=True, slots=True)
class WorkerCounters:
    """Counters of this worker besides connections; may be read during startup."""

    later: ServiceRefs
    ledger: Ledger

    def __call__(self) -> Mapping[str, int]:
        counts = {"refusals": sum(self.ledger.counts.values())}
        if (iothub := self.later.iothub.get()) is not None:
            counts["messages"] = sum(stream.messages for stream in iothub.telemetry.streams().values())
        if (registrations := self.later.registrations.get()) is not None:
            counts["registrations"] = registrations.count
        return counts


@dataclass(frozen=True, slots=True)
class RoleScopes:
    """Scopes of roles: a scope requires an existing resource."""

    hubs: Callable[[], Hubs]
    instances: Callable[[], Instances]

    def guard_scope(self, scope: str) -> Changes:
        kind, _, name = scope.partition("/")
        if not name:
            return Changes()  # the server and the account always exist
        missing = PlaceMissingError(place=scope[:_MAX_SHOWN])
        return (self.hubs() if kind == "hub" else self.instances()).guard_exists(name, missing)


@dataclass(frozen=True, slots=True)
class ServerServices:
    """All services of this process, and the MQTT side of each cloud."""

    database: Database
    ledger: Ledger
    authority: CertificateAuthority
    rollovers: Rollovers
    groups: GroupsOfRoots
    answers: OcspResponder
    est: EstService
    credentials: EstCredentials
    tokens: TokenIssuer
    registrars: RegistrationAuthorities
    instances: Instances
    authorities: Authorities
    enrollments: Enrollments
    registrations: Registrations
    iothub: IotHub
    aws: AwsIot
    broker: Broker
    dps_connections: DpsConnections
    hub_connections: HubConnections
    hub_amqp: HubAmqpConnections
    hub_devices: DevicesByBus
    aws_connections: AwsConnections
    people: People
    sign_in: SignIn
    askings: DeviceCodeFlow
    providers: Providers
    approvals: Approvals
    once: IdempotencyStore
    webhooks: Webhooks
    notices: Notices
    alerts: Alerts
    devices: DeviceDirectory
    components: Sequence[Component]
    """Components, in the order in which a device is revoked."""
    https_port: Ref[int]
    """Set when the ports are bound: the standard port if it is available."""
    port: Callable[[], int]
    """Returns the HTTPS port for clients; the configured port while ports are being bound."""

    async def settled(self) -> None:
        """Wait until everything accepted so far is on disk or refused."""
        for one in self.components:
            await one.settle()
        await self.broker.wait_until_settled(STOP_S)
        await self.ledger.wait_until_written(STOP_S)
        with contextlib.suppress(BirthmarkError, TimeoutError):
            async with asyncio.timeout(STOP_S):
                await self.notices.write_pending()

    async def stop(self) -> None:
        """Stop background readers."""
        for one in self.components:
            await one.stop()
        await self.rollovers.stop()
        await self.people.stop()

    def end_connections(self) -> None:
        """Notify every MQTT client of the shutdown, as far as its MQTT version supports it."""
        for mqtt in self._mqtt:
            for connection in mqtt.live_connections():
                connection.driver.close(CloseReason.STOPPING)

    def subscribe(self, bus: Bus) -> None:
        """Subscribe live connections to changes that affect them."""
        bus.on(CertificateRevoked, EndConnectionsRequest(self.authority.revocations.check, self._mqtt))
        for one in self.components:
            one.subscribe(bus)

    @property
    def _mqtt(self) -> Sequence[MqttConnections]:
        return [one.mqtt for one in self.components if one.mqtt is not None]


async def _broker(
    database: Database,
    bus: Bus,
    clock: Clock,
    watch: PresenceListener,
    counting: Callable[[], Mapping[str, int]],
    *,
    freeing: Callable[[str], Awaitable[None]],
) -> Broker:
    """Return the broker; with several workers, it joins them before any state is cached."""
    if (among := shared(bus)) is None:
        return Broker(database, clock, bus.worker, watch=watch, counting=counting)
    broker = Broker(database, clock, bus.worker, among, watch=watch, counting=counting, freeing=freeing)
    assert broker.workers is not None  # noqa: S101 - bus given
    await among.join(broker.workers)
    await broker.join()
    return broker


@dataclass(frozen=True, slots=True)
class _PresenceLog:
    """Records connects and disconnects of clients of a hub or the account, with their addresses."""

    notices: Notices

    def on_connect(self, space: str, client: str, connection: ClientConnection) -> None:
        address = connection.driver.address if isinstance(connection, DeviceConnection | AwsConnection) else ""
        self.notices.came(space, client, address)

    def on_disconnect(self, space: str, client: str, reason: CloseReason) -> None:
        self.notices.record_disconnection(space, client, reason)


def _sender(settings: Settings) -> HttpSender:
    cas = cas_of("outbound.ca", settings.outbound.ca)
    context = None if cas is None else ssl.create_default_context(cadata=cas)
    return HttpSender(networks_of(settings.outbound.allow), context)


def _mailer(settings: Settings) -> MailSender | None:
    mail = settings.mail
    if not mail.host:
        return None
    file = None if mail.password_file is None else Path(mail.password_file).expanduser()
    context = ssl.create_default_context(cadata=cas_of("outbound.ca", settings.outbound.ca))
    allowed = networks_of(settings.outbound.allow)
    from birthmark.outbound.smtp_client import Mailer  # most servers send none

    return Mailer(mail.host, mail.port, mail.tls, mail.sender, mail.user, file, context, allowed)


def _open_ways_out(iothub: IotHub, queue: Queue, settings: Settings, sender: HttpSender) -> None:
    """Give message routing the action types of rules and a shared queue."""
    routes, servers = iothub.routes, servers_of(settings)
    ways = sinks_of(routes, outside=sender, buckets=settings.buckets, servers=servers)
    routes.begin(queue, ways, check_url=sender.check, servers=servers)


def _connect_to_devices(iothub: IotHub, hub_devices: DevicesByBus, broker: Broker) -> None:
    """Give the hubs' services the ways to connected devices."""
    iothub.connect(hub_devices)
    iothub.job_runner.begin(JobSurroundings(hub_devices, http_error, holder_of(broker.worker), broker.is_alone))


def _file_storage(settings: Settings, database: Database, clock: Clock, entropy: Entropy) -> BlobStorage:
    """Return the storage of files that devices upload."""
    asked = settings.files
    quotas = StorageQuotas(asked.device_files, asked.device_bytes, asked.hub_files, asked.hub_bytes)
    return BlobStorage(database, clock, entropy, FileStore(settings.files_folder, clock, entropy), quotas)


async def open_rooms(
    settings: Settings,
    rollovers: Rollovers,
    database: Database,
    bus: Bus,
    clock: Clock,
    entropy: Entropy,
    upstream: ExternalCa | None,
) -> ServerServices:
    """Create the components over `database` and load their caches."""
    hierarchy = rollovers.hierarchy
    notices = Notices(database, clock, bus.worker)
    ledger = Ledger(database, clock, entropy, notices.record_refusal)
    later = ServiceRefs(Ref(), Ref(), Ref(), Ref(), Ref())
    broker = await _broker(
        *(database, bus, clock, _PresenceLog(notices), WorkerCounters(later, ledger)),
        freeing=lambda worker: later.iothub().free_held(holder_of(worker)),
    )
    people = People(
        database,
        clock,
        entropy,
        settings.people.max_removals_per_day,
        RoleScopes(lambda: later.iothub().hubs, later.instances),
    )
    instances = later.instances.fill(
        Instances(database, clock, entropy, settings.host_name, settings.workers, users=people, roles=people)
    )
    authorities = Authorities(database, clock, entropy)

    async def on_record(subject: bytes) -> Sequence[Certificate]:
        scopes = [instance.id_scope for instance in instances.all()]
        return [one for scope in scopes for one in await authorities.named(scope, subject)]

    lifetimes = {"device": timedelta(seconds=settings.est.device_lifetime_s)}
    subject: dict[str, str] = msgspec.to_builtins(settings.est.subject)
    authority = CertificateAuthority(
        hierarchy,
        database,
        clock,
        entropy,
        lifetimes,
        subject,
        settings.profiles,
        settings.ca.places,
        settings.ca.told_beyond,
        () if settings.ca.edge_on_this_host else excluding(settings.hosts),
        upstream=upstream,
        on_record=on_record,
    )
    orders = create_certificate_orders(authority, settings.est.max_live)
    kept = {
        "keep_s": settings.telemetry.keep_s,
        "keep_bytes": settings.telemetry.keep_bytes,
        "workers": settings.workers,
    }
    iothub = later.iothub.fill(
        IotHub.of(
            database,
            clock,
            entropy,
            authority.revocations.check,
            authority.is_devices_own,
            is_lost=authority.revocations.is_lost,
            users=people,
            roles=people,
            issuer=orders,
            grants=GrantsByEnrollment(instances, later.enrollments, later.registrations),
            leads=broker.is_leader,
            record=ledger.record,
            storage=_file_storage(settings, database, clock, entropy),
            uploads=UploadSettings(settings.files.upload_s, settings.files.notifications),
            **kept,
        )
    )
    hubs = HubsForDps(iothub.registry, iothub.credentials)
    sender = _sender(settings)
    enrollments = later.enrollments.fill(
        Enrollments(database, clock, entropy, hubs, issuer=orders, webhooks=AllocationWebhooks(sender))
    )
    groups = GroupsOfRoots(instances, enrollments, authorities)
    rollovers.groups.fill(groups)  # available only now
    registrations = later.registrations.fill(
        Registrations(
            database,
            clock,
            entropy,
            instances=instances,
            enrollments=enrollments,
            hubs=hubs,
            inventory=InventoryForDps(authority),
            issuer=orders,
        )
    )
    account = Account(settings.aws.account_id, settings.aws.region, settings.host_name)
    https_port: Ref[int] = Ref()

    def port() -> int:
        return https_port.get() or settings.ports.https

    aws = AwsIot(
        *(account, database, clock, entropy, lambda: hierarchy.issuing),
        revocations=authority.revocations.check,
        functions=MappedFunctions(clock, entropy, sender, functions_of(settings)),
        buckets=settings.buckets,
        roles=roles_of(settings),
        outside=sender,
        servers=servers_of(settings),
        users=people,
        predecessors=Succession(authority),
        per_ca=settings.aws.max_per_ca,
        per_second=settings.aws.max_new_per_second,
        leads=broker.is_leader,
        record=ledger.record,
        https_url=lambda: f"https://{settings.host_name}:{port()}",
    )
    await iothub.load()
    await instances.load()
    await aws.load()
    await broker.load()
    if broker.is_alone:
        await aws.index.mark_all_disconnected()
    sign_in = SignIn(people, BrowserSessions(people), Passwords(entropy), settings.workers)
    await people.load()
    rules = SpaceRules(
        settings.aws.max_sessions,
        settings.bounds().max_sessions_per_key,
        settings.aws.max_waiting,
        settings.aws.max_retained,
        hash_matches_parent=False,
    )
    _open_ways_out(iothub, aws.rules.queue, settings, sender)
    aws_connections = AwsConnections(aws, ledger, clock, entropy, broker=broker, rules=rules)
    aws.run(aws_connections.space.messages, aws_connections.reserved.ask, aws_connections.principal_of)
    if (among := shared(bus)) is not None:
        among.serve(PresentedRequest, partial(presented_here, ledger.presented))
    hub_connections = HubConnections(iothub, broker, clock)
    await hub_connections.begin()
    hub_amqp = HubAmqpConnections(
        hub_connections,
        entropy,
        port=settings.ports.amqps,
        on_users_loaded=people.read_too,
    )
    est = EstService(
        authority,
        PasswordCheck(entropy),
        build_est_settings(settings.est, settings.profiles, settings.workers),
        note_fetched=rollovers.note_fetched,
        presented_by=lambda name: later.devices().thumbprints(name),
    )
    credentials, registrars = EstCredentials(database, clock, entropy), RegistrationAuthorities(database, clock)
    dps_connections = DpsConnections(registrations, ledger, clock)
    hub_devices = DevicesByBus(hub_connections, bus)
    _connect_to_devices(iothub, hub_devices, broker)
    components = (
        EstComponent(est, EstDeviceRecords(authority, credentials, est.approvals, registrars)),
        DpsComponent(DpsDeviceRecords(database, instances, enrollments, registrations, dps_connections), clock),
        HubComponent(HubDeviceRecords(database, iothub, hub_connections), hub_devices, hub_amqp),
        CaComponent(CertificateRecords(authority)),
        AwsComponent(ThingRecords(database, aws, aws_connections)),
    )
    return ServerServices(
        database,
        ledger,
        authority,
        rollovers,
        groups,
        OcspResponder(authority, SigningShare(clock, settings.workers)),
        est,
        credentials,
        TokenIssuer(database, clock, entropy),
        registrars,
        instances,
        authorities,
        enrollments,
        registrations,
        iothub,
        aws,
        broker,
        dps_connections,
        hub_connections,
        hub_amqp,
        hub_devices,
        aws_connections,
        people,
        sign_in,
        DeviceCodeFlow(people),
        Providers(sign_in, entropy, sender, providers_of(settings.oidc)),
        Approvals(database, clock, entropy, people),
        IdempotencyStore(database, clock),
        Webhooks(
            *(database, clock, entropy, sender, f"birthmark://{settings.host_name}", bus.worker),
            mailer=_mailer(settings),
            hub_of=lambda host: host if (hub := iothub.hubs.find(host)) is None else hub.name,
        ),
        notices,
        Alerts(database, clock, bus.worker),
        later.devices.fill(DeviceDirectory(database, broker, [one.devices for one in components])),
        components,
        https_port,
        port,
    )


def create_certificate_orders(authority: CertificateAuthority, most_alive: int | None = None) -> CertificateOrders:
    """Return the CA for services that keep a device registry."""
    limits = RateLimits(burst=BURST, per_s=1 / EVERY_S, max_addresses=16384)
    return CertificateOrders(authority, most_alive, limits.has_room)
