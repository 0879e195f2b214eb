"""What a device subscribed to, kept between its connections."""

from collections.abc import Sequence

from birthmark.iothub import store
from birthmark.iothub.model import DeviceId, Hub
from birthmark.store import Changes, Database


class Subscriptions:
    """The subscriptions of all devices."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def stored(self, hub: Hub, device_id: DeviceId) -> dict[str, int]:
        """Return the filters that a device subscribed to in an earlier connection, with their QoS."""
        rows = await self._database.all(store.SUBSCRIPTIONS, hub=hub.name, device_id=device_id)
        return {row["filter"]: row["qos"] for row in rows}

    async def keep(self, hub: Hub, device_id: DeviceId, filters: dict[str, int]) -> None:
        """Remember filters for the next connection."""
        changes = Changes()
        for name, qos in filters.items():
            changes.run(store.PUT_SUBSCRIPTION, hub=hub.name, device_id=device_id, filter=name, qos=qos)
        await self._database.commit(changes)

    async def drop(self, hub: Hub, device_id: DeviceId, filters: Sequence[str] | None) -> None:
        """Forget some filters, or all."""
        changes = Changes()
        if filters is None:
            changes.run(store.DROP_SUBSCRIPTIONS, hub=hub.name, device_id=device_id)
        for name in filters or ():
            changes.run(store.DROP_SUBSCRIPTION, hub=hub.name, device_id=device_id, filter=name)
        await self._database.commit(changes)
