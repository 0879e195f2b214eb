"""Adapters between DPS and the hubs of this server: hubs for DPS, and enrollments for the hubs."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from birthmark.dps.ports import HubDeviceStatus, HubIdentity
from birthmark.dps.service import Enrollments, Instances, Registrations
from birthmark.dps.service.registrations import require_unchanged_enrollment
from birthmark.dps.wire import BodyInvalidError
from birthmark.errors import NotFoundError
from birthmark.iothub.model import AuthenticationType, Device, DeviceAuthentication, DeviceId, Twin
from birthmark.iothub.rules.certificate_renewal import NoCredentialPolicyError, find_unused
from birthmark.iothub.rules.twins import TwinInvalidError, begun
from birthmark.iothub.service import CertificateRequests, ProvisionedDevice, Registry
from birthmark.iothub.service.certificate_renewal import IssuanceGrant, NewDevice
from birthmark.iothub.service.registry import generation_of
from birthmark.late_reference import Ref
from birthmark.pki.certificates import Thumbprint
from birthmark.store import Changes


class GrantsByEnrollment:
    """`Grants` for hubs, backed by enrollments: operator changes take effect immediately."""

    def __init__(self, instances: Instances, enrollments: Ref[Enrollments], registrations: Ref[Registrations]) -> None:
        self._instances = instances
        self._enrollments = enrollments
        self._registrations = registrations

    async def of(self, device: Device) -> IssuanceGrant:
        """Return the grant of the enrollment that a device registered with. Raise `NoCredentialPolicyError`."""

        def refusal(detail: str) -> NoCredentialPolicyError:
            return NoCredentialPolicyError(device_id=device.device_id, hub=device.hub, detail=detail)

        scope, _, registration_id = device.maker.removeprefix("dps:").partition("/")
        if not device.maker.startswith("dps:"):
            raise refusal("it was not created by a provisioning service")
        try:
            instance = self._instances.by_scope(scope)
        except NotFoundError as error:
            raise refusal(f"the provisioning service {scope} no longer exists") from error
        registered = await self._registrations().find(instance, registration_id)
        if registered is None:
            raise refusal(f"its registration {registration_id} no longer exists")
        group = registered.group_id
        found = await self._enrollments().find(instance.id_scope, group or registration_id, is_group=group is not None)
        if found is None or not found.is_enabled:
            raise refusal(f"its enrollment {group or registration_id} is {'gone' if found is None else 'disabled'}")
        if found.policy is None:
            raise refusal(f"its enrollment {found.id} has no issuing policy")
        names = dict.fromkeys((device.device_id, registered.common_name or registration_id))
        return IssuanceGrant(found.policy, tuple(names), require_unchanged_enrollment(instance, found, registration_id))


class HubsForDps:
    """The hub registry, as seen by DPS."""

    def __init__(self, registry: Registry, credentials: CertificateRequests) -> None:
        self._registry = registry
        self._credentials = credentials

    async def has(self, host: str, device_id: str) -> bool:
        """Return whether the device exists at a local hub with this host name."""
        return await self._registry.has(host, device_id)

    async def forget(self, host: str, device_id: str, maker: str) -> Changes:
        """Return the changes that delete the device that `maker` created at the hub.

        The result is empty if there is no such device.
        """
        return await self._registry.forget(host, device_id, maker)

    async def provision(self, host: str, device_id: str, identity: HubIdentity, now: datetime) -> Changes:
        """Return the changes that create `device_id` at the hub `host`."""
        made = self._made(identity, await self._unused(host, device_id, identity))
        changes = await self._registry.provision(host, device_id, made, now)
        return await self._add_certificate_record(changes, host, device_id, identity, now)

    async def get_device_status(self, host: str, device_id: str) -> HubDeviceStatus:
        """Return the certificates with which the device connects to the hub `host`; none if it is not registered."""
        device, hub = await self._registry.find(host, device_id)
        if device is None or hub is None:
            return HubDeviceStatus()
        fresh = find_unused(device, await self._credentials.known(hub, device_id))
        unused = None if fresh is None else fresh.thumbprint
        in_use = device.authentication.primary_thumbprint
        return HubDeviceStatus(
            None if in_use is None or in_use == unused else Thumbprint(in_use),
            None if unused is None else Thumbprint(unused),
        )

    async def move(
        self, device_id: str, present: str, target: str, identity: HubIdentity, now: datetime, *, with_twin: bool
    ) -> Changes:
        """Return the changes that move a device from one hub to another atomically."""
        made = self._made(identity, None)
        changes = await self._registry.move(device_id, present, target, made, now, with_twin=with_twin)
        return await self._add_certificate_record(changes, target, device_id, identity, now)

    def _made(self, identity: HubIdentity, unused: bytes | None) -> ProvisionedDevice:
        proof = None if identity.keeps else _proof_of(identity)
        is_issued = identity.fresh is not None
        who = identity.proved, identity.is_individual
        return ProvisionedDevice(proof, identity.maker, identity.iot_edge, identity.twin, is_issued, unused, *who)

    async def _unused(self, host: str, device_id: str, identity: HubIdentity) -> bytes | None:
        return None if identity.fresh is None else (await self.get_device_status(host, device_id)).fresh

    async def _add_certificate_record(
        self, changes: Changes, host: str, device_id: str, identity: HubIdentity, now: datetime
    ) -> Changes:
        """Add the changes that record a newly issued certificate."""
        if identity.fresh is None:
            return changes
        device, hub = await self._registry.find(host, device_id)
        if hub is None:
            return changes
        made = device or NewDevice(hub.name, DeviceId(device_id), generation_of(now))
        known = await self._credentials.known(hub, device_id)
        return changes.merge(self._credentials.record_registration(made, known, identity.fresh, now))

    def check_twin(self, name: str, twin: Mapping[str, Any]) -> None:
        """Raise `BodyInvalidError` for an invalid initial twin."""
        try:
            begun(Twin("", DeviceId(name)), twin, 0)
        except TwinInvalidError as error:
            raise BodyInvalidError(detail=f"initialTwin: {error.facts['detail']}") from error


def _proof_of(identity: HubIdentity) -> DeviceAuthentication:
    """Return the credentials in the form of a provisioning service.

    A single credential fills both the primary and secondary slots.
    """
    first, second = (*identity.thumbprints[:2], *identity.thumbprints[:1], None, None)[:2]
    key, other = (*identity.keys[:2], *identity.keys[:1], None, None)[:2]
    kind = AuthenticationType.SELF_SIGNED if identity.thumbprints else AuthenticationType.SAS
    return DeviceAuthentication(kind, first, second, key, other)
