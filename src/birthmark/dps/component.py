"""DPS as a component of a server."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial

from starlette.routing import Route

from birthmark import metric_catalog
from birthmark.amqp.events import AmqpEvent, LinkRequested, SaslStarted
from birthmark.amqp.sasl import SaslMechanism
from birthmark.clock_and_entropy import Clock, format_utc
from birthmark.devices.model import DeviceCounts, DevicePart, DeviceState
from birthmark.devices.ports import DeviceAccess, DeviceIdentity, DeviceRecords, DeviceScope, RevocationOrder
from birthmark.dps import store
from birthmark.dps.amqp import DpsAmqp
from birthmark.dps.connections import DpsConnections
from birthmark.dps.model import TAKEN_BACK, Instance, SymmetricKey, TpmKeys, X509Individual
from birthmark.dps.mqtt import DpsMqtt
from birthmark.dps.service import Enrollments, Instances, Registrations
from birthmark.dps.wire import is_dps_username, parse_registration_path
from birthmark.errors import BirthmarkError
from birthmark.metric_catalog import Sample
from birthmark.net.live_connection import LiveConnection
from birthmark.net.mqtt_driver import Accept
from birthmark.pki.names_and_registration_ids import fold, parse_registration_id
from birthmark.protocol_component import Component, MakeAmqp, Record
from birthmark.store import Database
from birthmark.store.pagination import each_among

_KINDS = {X509Individual: "X.509", SymmetricKey: "symmetric key", TpmKeys: "TPM"}
_STATES = frozenset({DeviceState.UNASSIGNED, DeviceState.REFUSED, DeviceState.REVOKED})


@dataclass(frozen=True, slots=True)
class DpsDeviceRecords(DeviceRecords):
    """Device records of provisioning services."""

    database: Database = field(repr=False)
    instances: Instances = field(repr=False)
    enrollments: Enrollments = field(repr=False)
    registrations: Registrations = field(repr=False)
    mqtt: DpsConnections = field(repr=False)

    async def names(self, names: AbstractSet[str]) -> AbstractSet[str]:
        found = set(names)
        for instance in self.instances.all():
            for one in tuple(found):
                registered = await self.registrations.find(instance, one)
                enrolled = await self.enrollments.find(instance.id_scope, one, is_group=False)
                found |= {other.device_id for other in (registered, enrolled) if other is not None and other.device_id}
        return found

    async def thumbprints(self, name: str) -> Iterable[bytes]:
        found: list[bytes] = []
        for instance in self.instances.all():
            registered = await self.registrations.find(instance, name)
            found.append((registered and registered.thumbprint) or b"")
            enrolled = await self.enrollments.find(instance.id_scope, name, is_group=False)
            if enrolled is not None and isinstance(enrolled.attestation, X509Individual):
                found += enrolled.attestation.thumbprints
        return found

    async def parts(self, device: DeviceIdentity) -> AsyncIterator[DevicePart]:
        for instance in self.instances.all():
            for name in device.folded:
                async for part in self._enrolled(instance, name):
                    yield part

    async def _enrolled(self, instance: Instance, name: str) -> AsyncIterator[DevicePart]:
        place = f"dps {instance.name}"
        with contextlib.suppress(BirthmarkError):  # invalid registration ID
            registration_id = parse_registration_id(name)
            enrolled = await self.enrollments.find(instance.id_scope, registration_id, is_group=False)
            if enrolled is not None:
                state = "enabled" if enrolled.is_enabled else "disabled"
                yield DevicePart(place, "enrollment", enrolled.id, state, _KINDS.get(type(enrolled.attestation), ""))
            group = await self.enrollments.find(instance.id_scope, name, is_group=True)
            if group is not None:
                yield DevicePart(place, "group", group.id, "enabled" if group.is_enabled else "disabled")
            registered = await self.registrations.find(instance, registration_id)
            if registered is not None:
                by = "" if registered.group_id is None else f"group {registered.group_id}, "
                detail = f"{by}device {registered.device_id} of {registered.hub}, {format_utc(registered.updated_at)}"
                yield DevicePart(place, "registration", registered.registration_id, "assigned", detail)

    async def access(self, order: RevocationOrder) -> AsyncIterator[DeviceAccess]:
        for instance in self.instances.all():
            for name in order.device.folded:
                async for one in self._enrollment(instance, name, order):
                    yield one

    async def _enrollment(self, instance: Instance, name: str, order: RevocationOrder) -> AsyncIterator[DeviceAccess]:
        with contextlib.suppress(BirthmarkError):  # invalid registration ID
            parse_registration_id(name)
            own = await self.enrollments.own(instance.id_scope, name)
            if own is None and not await self.enrollments.has_groups(instance.id_scope):
                return
            revoke = partial(self.enrollments.revoke_device, instance, name, order.reason.value, actor=order.actor)
            is_revoked = own is not None and own.provisioning_status == "disabled"
            is_revoked = is_revoked and TAKEN_BACK in ((own and own.optional_device_information) or {})
            yield DeviceAccess(
                f"dps {instance.name}",
                "enrollment",
                name,
                None if is_revoked else revoke,
                note="" if own is not None else "disabled, so that no enrollment group accepts it",
                is_record=own is not None,
            )

    def connections(
        self, _names: AbstractSet[str], is_presented: Callable[[LiveConnection], bool]
    ) -> Iterator[tuple[str, LiveConnection]]:
        return (("dps", one.driver) for one in self.mqtt.live_connections() if is_presented(one.driver))

    def scopes(self) -> Iterable[DeviceScope]:
        for instance in self.instances.all():
            scope = instance.id_scope
            yield DeviceScope(
                *(f"dps/{instance.name}", store.place_of(scope), _STATES),
                *(partial(self._page, scope), partial(self._find, scope)),
            )

    async def _page(self, scope: str, after: str, limit: int) -> Sequence[str]:
        rows = await self.database.all(store.NAMES_ENROLLED, scope=scope, after=after, limit=limit)
        return [row["id"] for row in rows]

    async def _find(self, scope: str, names: Sequence[str]) -> Mapping[str, DeviceState | None]:
        rows = each_among(self.database, store.ENROLLED_NAMED, map(fold, names), scope=scope)
        there = {row["id"] async for row in rows}
        rows = each_among(self.database, store.REGISTERED_NAMED, there, scope=scope)
        registered = {row["registration_id"] async for row in rows}
        states = {name: None if fold(name) in registered else DeviceState.UNASSIGNED for name in names}
        return {name: state for name, state in states.items() if fold(name) in there}

    async def counts(self, _connected: Mapping[str, int]) -> Sequence[DeviceCounts]:
        return [DeviceCounts(f"dps/{one.name}") for one in self.instances.all()]


class DpsComponent(Component):
    """The provisioning services as a component of a server."""

    service = "dps"
    cloud = "azure_dps"
    amqp_websocket_paths = ("/$iothub/websocket",)
    """As at a hub; MQTT over WebSocket has the same path."""

    devices: DpsDeviceRecords

    def __init__(self, devices: DpsDeviceRecords, clock: Clock) -> None:
        self.devices, self.mqtt = devices, devices.mqtt
        self._mqtt, self._amqp = DpsMqtt(devices.mqtt), DpsAmqp(devices.mqtt)
        self._instances, self._registrations = devices.instances, devices.registrations
        self._clock = clock

    def routes(self, record: Record) -> Sequence[Route]:
        from birthmark.dps import http  # noqa: PLC0415 - first request loads it

        services = self._instances, self.devices.enrollments, self._registrations
        return [
            *http.service_routes(*services, record, self._clock),
            *http.device_routes(self._registrations, record, self._clock),
        ]

    def find_acceptor(self, username: str) -> Accept | None:
        return self._mqtt.accept if is_dps_username(username) else None

    def find_amqp(self, event: AmqpEvent) -> MakeAmqp | None:
        match event:
            case SaslStarted(mechanism=SaslMechanism.TPM):
                is_own = True
            case SaslStarted(mechanism=SaslMechanism.PLAIN, authentication_id=user):
                is_own = is_dps_username(user)
            case LinkRequested(link=link):
                is_own = parse_registration_path(link.own_address) is not None
            case _:
                is_own = False
        return self._amqp.connect if is_own else None

    def samples(self) -> Iterable[Sample]:
        return (Sample(metric_catalog.REGISTRATIONS, (), self._registrations.count),)

    async def stop(self) -> None:
        await self._instances.stop()
