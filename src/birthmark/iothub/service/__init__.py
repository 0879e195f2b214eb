"""Hubs, their registry and telemetry; `IotHub` combines all services for the interfaces."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from birthmark.auth.access_token_cloud_credentials import NO_USERS, UserDirectory
from birthmark.blob_storage.service import BlobStorage
from birthmark.clock_and_entropy import Clock, Entropy
from birthmark.iam.role_scope_ports import NOBODYS, ScopedRoles
from birthmark.iothub.ports import ConnectedDevices, Notifier
from birthmark.iothub.service.bulk_registry import Bulk
from birthmark.iothub.service.c2d import CloudToDevice
from birthmark.iothub.service.ca_certificates import HubAuthorities, IsDevicesOwn
from birthmark.iothub.service.certificate_renewal import CertificateRequests, Grants, HubIssuer
from birthmark.iothub.service.configuration_evaluation import ConfigurationEvaluation
from birthmark.iothub.service.configuration_preview import ConfigurationPreview
from birthmark.iothub.service.configurations import Configurations
from birthmark.iothub.service.consumer_groups import ConsumerGroups
from birthmark.iothub.service.exclusive_readers import ExclusiveReaders
from birthmark.iothub.service.file_uploads import FileUploads, UploadSettings
from birthmark.iothub.service.hubs_and_authorization import Hubs
from birthmark.iothub.service.job_runner import HubJobRunner
from birthmark.iothub.service.message_routing import Record, Routes
from birthmark.iothub.service.queries import HubQueries
from birthmark.iothub.service.registry import ProvisionedDevice, Registry, RevocationCheck
from birthmark.iothub.service.registry_jobs import RegistryJobs
from birthmark.iothub.service.routing_events import RoutingEvents
from birthmark.iothub.service.scheduled_jobs import HubJobs
from birthmark.iothub.service.telemetry_streams import Telemetry
from birthmark.iothub.service.throttles import Throttles
from birthmark.iothub.service.twin_index import TwinIndex
from birthmark.iothub.service.twins import Twins
from birthmark.late_reference import Ref
from birthmark.store import Database
from birthmark.supervised_tasks import Leads, always

IsLost = Callable[[str], Awaitable[bool]]


async def never_revoked(_name: str) -> bool:
    """Return False for every name: no CRL is configured."""
    return False


@dataclass(frozen=True, slots=True)
class IotHub:
    """IoT Hub services on one database. Run `load` before use."""

    hubs: Hubs
    registry: Registry
    telemetry: Telemetry
    twins: Twins
    c2d: CloudToDevice
    bulk: Bulk
    authorities: HubAuthorities
    credentials: CertificateRequests
    queries: HubQueries
    index: TwinIndex
    throttles: Throttles
    routes: Routes
    consumer_groups: ConsumerGroups
    exclusive_readers: ExclusiveReaders
    configurations: Configurations
    evaluation: ConfigurationEvaluation
    previews: ConfigurationPreview
    jobs: HubJobs
    job_runner: HubJobRunner
    files: FileUploads
    registry_jobs: RegistryJobs
    notifier: Ref[Notifier]
    """Notifier of connected devices about twins and messages; the MQTT side sets it."""
    is_lost: IsLost = never_revoked
    """Check whether a name was revoked with its device; re-registering it requires the right to revoke."""

    def connect(self, devices: ConnectedDevices) -> None:
        """Set the connected devices, which the services notify and ask."""
        self.notifier.fill(devices)
        self.evaluation.presence.fill(devices)

    async def load(self) -> None:
        """Load the in-memory caches."""
        await self.hubs.load()
        await self.routes.load()

    async def stop(self) -> None:
        """Stop the background reload."""
        await self.hubs.stop()
        await self.routes.stop()

    async def free_held(self, holder: str) -> None:
        """Free what the connections of a worker that no longer exists held: messages, and exclusive readers."""
        await self.c2d.inboxes.free_held(holder)  # of every queue
        await self.exclusive_readers.free_held(holder)
        await self.job_runner.free_held(holder)

    @classmethod
    def of(
        cls,
        database: Database,
        clock: Clock,
        entropy: Entropy,
        revocations: RevocationCheck | None = None,
        is_devices_own: IsDevicesOwn | None = None,
        *,
        is_lost: IsLost = never_revoked,
        users: UserDirectory = NO_USERS,
        roles: ScopedRoles = NOBODYS,
        issuer: HubIssuer | None = None,
        grants: Grants | None = None,
        leads: Leads = always,
        record: Record = lambda _: None,
        workers: int = 1,
        storage: BlobStorage | None = None,
        uploads: UploadSettings | None = None,
        **kept: int,
    ) -> "IotHub":
        """Build the services; `keep_s` and `keep_bytes` are for telemetry. Tier limits are divided among `workers`.

        Devices upload files to `storage`.
        """
        later_telemetry: Ref[Telemetry] = Ref()
        later_routes: Ref[Routes] = Ref()
        later_credentials: Ref[CertificateRequests] = Ref()
        hubs = Hubs(
            *(database, clock, entropy),
            users=users,
            roles=roles,
            without_telemetry=lambda hub: later_telemetry().drain(hub),
            with_routes=lambda hub: later_routes().going_with(hub),
        )
        telemetry = later_telemetry.fill(Telemetry(hubs, database, clock, leads=leads, **kept))
        authorities = HubAuthorities(database, clock, entropy, is_devices_own)
        telling = RoutingEvents(database, clock)
        routes = Routes(database, clock, entropy, hubs, telemetry=telemetry, tells=telling, leads=leads, record=record)
        later_routes.fill(routes)
        throttles = Throttles(hubs, clock, workers)
        registry = Registry(
            *(database, clock, entropy, hubs),
            authorities=authorities,
            tells=telling,
            revocations=revocations,
            throttles=throttles,
            used=lambda hub, device, leaf: later_credentials().used(hub, device, leaf),
        )
        notifier: Ref[Notifier] = Ref()
        twins = Twins(database, clock, registry, notifier)
        c2d = CloudToDevice(database, clock, entropy, registry, notifier)
        credentials = later_credentials.fill(
            CertificateRequests(database, clock, entropy, registry, issuer=issuer, grants=grants)
        )
        queries = HubQueries(database, clock, registry, c2d)
        evaluation = ConfigurationEvaluation(
            *(database, clock, hubs, registry, twins),
            queries=queries,
            leads=leads,
        )
        index = TwinIndex(database, leads, evaluation.twins_changed)
        configurations = Configurations(database, clock, entropy, throttles)
        bulk, jobs = Bulk(registry, twins), HubJobs(database, clock)
        runner = HubJobRunner(database, clock, hubs, jobs, queries=queries, twins=twins, leads=leads)
        files = FileUploads(database, clock, entropy, hubs, storage=storage, settings=uploads)
        return cls(
            *(hubs, registry, telemetry, twins, c2d, bulk, authorities, credentials, queries, index, throttles, routes),
            *(ConsumerGroups(database, clock), ExclusiveReaders(database), configurations, evaluation),
            ConfigurationPreview(evaluation, registry, twins),
            *(jobs, runner, files),
            RegistryJobs(database, clock, entropy, hubs, files, registry, twins, bulk, leads),
            notifier,
            is_lost,
        )


__all__ = [
    "CertificateRequests",
    "CloudToDevice",
    "HubQueries",
    "Hubs",
    "IotHub",
    "ProvisionedDevice",
    "Registry",
    "Routes",
    "Telemetry",
    "TwinIndex",
    "Twins",
]
