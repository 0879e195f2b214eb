"""Marks of new and changed identities for the evaluation of configurations."""

from birthmark.iothub import configuration_store
from birthmark.iothub import store as hub_store
from birthmark.iothub.domain_events import ConfigurationsChanged
from birthmark.iothub.model import Twin
from birthmark.store import Changes, Database
from birthmark.store.database import Row
from birthmark.store.reloading_cache import RowCache

_EMPTY = hub_store.twin_body(Twin("", ""))


def _name_of(row: Row) -> str:
    return str(row["hub"])


class EvaluationMarks:
    """Marks identities in hubs with configurations; those in other hubs cost nothing."""

    def __init__(self, database: Database) -> None:
        self._known = RowCache(database, ConfigurationsChanged)

    async def changes(self, hub: str, name: str) -> Changes:
        """Return the changes that mark a device or module for evaluation."""
        hubs = await self._known.all(configuration_store.HUBS_WITH_CONFIGURATIONS, _name_of)
        if hub not in hubs:
            return Changes()
        return Changes().run(hub_store.MARK_TWIN, hub=hub, device_id=name, body=_EMPTY)
