"""Fills DPS's port `HubRegistry` with the hubs of this server."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from birthmark.dps.ports import HubIdentity
from birthmark.dps.wire import BodyInvalidError
from birthmark.iothub.model import AuthenticationType, DeviceAuthentication, DeviceId, Twin
from birthmark.iothub.rules.twins import TwinInvalidError, begun
from birthmark.iothub.service import Made, Registry
from birthmark.store import Changes


class HubsForDps:
    """The hubs, as DPS knows them."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def has(self, host: str, device_id: str) -> bool:
        """Say whether there is such a device, at a hub of ours of that name."""
        return await self._registry.has(host, device_id)

    async def forget(self, host: str, device_id: str, maker: str) -> Changes:
        """Return the changes that remove the device `maker` made at the hub; none where there is no such device."""
        return await self._registry.forget(host, device_id, maker)

    async def provision(self, host: str, device_id: str, identity: HubIdentity, now: datetime) -> Changes:
        """Return the changes that make `device_id` a device of the hub at `host`."""
        made = Made(_proof_of(identity), identity.maker, is_iot_edge=identity.iot_edge, twin=identity.twin)
        return await self._registry.provision(host, device_id, made, now)

    async def move(
        self, device_id: str, present: str, wanted: str, identity: HubIdentity, now: datetime, *, with_twin: bool
    ) -> Changes:
        """Return the changes that take a device from one hub to another, whole or not at all."""
        made = Made(_proof_of(identity), identity.maker, is_iot_edge=identity.iot_edge, twin=identity.twin)
        return await self._registry.move(device_id, present, wanted, made, now, with_twin=with_twin)

    def check_twin(self, name: str, twin: Mapping[str, Any]) -> None:
        """Raise `BodyInvalidError` for what no twin may begin with."""
        try:
            begun(Twin("", DeviceId(name)), twin, 0)
        except TwinInvalidError as error:
            raise BodyInvalidError(detail=f"initialTwin: {error.facts['detail']}") from error


def _proof_of(identity: HubIdentity) -> DeviceAuthentication:
    first, second = (*identity.thumbprints, None, None)[:2]
    key, other = (*identity.keys, None, None)[:2]
    kind = AuthenticationType.SELF_SIGNED if identity.thumbprints else AuthenticationType.SAS
    return DeviceAuthentication(kind, first, second, key, other)
