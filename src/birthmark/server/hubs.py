"""Fills DPS's port `HubRegistry` with the hubs of this server."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from birthmark.dps.ports import HubIdentity, HubStanding
from birthmark.dps.wire import BodyInvalidError
from birthmark.iothub.model import AuthenticationType, Device, DeviceAuthentication, DeviceId, Twin
from birthmark.iothub.rules.credentials import unused_of
from birthmark.iothub.rules.twins import TwinInvalidError, begun
from birthmark.iothub.service import Credentials, Registry
from birthmark.iothub.service.credentials import NewDevice
from birthmark.iothub.service.registry import generation_of
from birthmark.pki.certificates import Thumbprint
from birthmark.store import Changes


class HubsForDps:
    """The hubs, as DPS knows them."""

    def __init__(self, registry: Registry, credentials: Credentials) -> None:
        self._registry = registry
        self._credentials = credentials

    async def has(self, host: str, device_id: str) -> bool:
        """Say whether there is such a device, at a hub of ours of that name."""
        return await self._registry.has(host, device_id)

    async def forget(self, host: str, device_id: str, maker: str) -> Changes:
        """Return the changes that remove the device `maker` made at the hub; none where there is no such device."""
        return await self._registry.forget(host, device_id, maker)

    async def provision(self, host: str, device_id: str, identity: HubIdentity, now: datetime) -> Changes:
        """Return the changes that make `device_id` a device of the hub at `host`."""
        facts: dict[str, Any] = {
            "iot_edge": identity.iot_edge,
            "twin": identity.twin,
            "maker": identity.maker,
            "now": now,
        }
        return await self._registry.provision(host, device_id, _proofs_of(identity), **facts)

    async def standing(self, host: str, device_id: str) -> HubStanding:
        """Return how the device stands at the hub at `host`, and what writes it anew."""
        standing = await self._registry.standing(host, device_id)
        device = standing.device
        known = await self._credentials.known(standing.hub, device_id)
        fresh = None if device is None else unused_of(device, known)
        unused = None if fresh is None else fresh.thumbprint

        def write(identity: HubIdentity, now: datetime) -> Changes:
            wanted = None if identity.keeps else _proofs_of(identity)
            facts: dict[str, Any] = {
                "iot_edge": identity.iot_edge,
                "twin": identity.twin,
                "maker": identity.maker,
                "now": now,
            }
            goes_on = identity.fresh is not None and _counts_still(device, wanted, unused)
            changes = self._registry.provisioned(standing, wanted, **facts, goes_on=goes_on)
            if identity.fresh is None:
                return changes
            made = device or NewDevice(standing.hub.name, standing.device_id, generation_of(now))
            return changes.merge(self._credentials.registered(made, known, identity.fresh, now))

        in_use = None if device is None else device.authentication.primary_thumbprint
        return HubStanding(
            write,
            None if in_use is None or in_use == unused else Thumbprint(in_use),
            None if unused is None else Thumbprint(unused),
        )

    def check_twin(self, name: str, twin: Mapping[str, Any]) -> None:
        """Raise `BodyInvalidError` for what no twin may begin with."""
        try:
            begun(Twin("", DeviceId(name)), twin, 0)
        except TwinInvalidError as error:
            raise BodyInvalidError(detail=f"initialTwin: {error.facts['detail']}") from error


def _counts_still(device: Device | None, wanted: DeviceAuthentication | None, unused: bytes | None) -> bool:
    """Say whether everything by which a device may be connected counts by its new proofs, too."""
    if device is None or wanted is None:
        return False
    present = device.authentication
    shown = {present.primary_thumbprint, present.secondary_thumbprint} - {None, unused}
    return bool(shown) and shown <= {wanted.primary_thumbprint, wanted.secondary_thumbprint}


def _proofs_of(identity: HubIdentity) -> DeviceAuthentication:
    first, second = (*identity.thumbprints, None, None)[:2]
    key, other = (*identity.keys, None, None)[:2]
    kind = AuthenticationType.SELF_SIGNED if identity.thumbprints else AuthenticationType.SAS
    return DeviceAuthentication(kind, first, second, key, other)
