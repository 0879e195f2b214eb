"""Which registrations the audit log records: a device that registers at each start would fill the disk otherwise."""

from collections import OrderedDict
from datetime import datetime, timedelta

from birthmark.dps.model import Registration
from birthmark.dps.ports import HubRegistry

_TOLD_AGAIN = timedelta(hours=1)
_MAX_TOLD = 10_000


class AuditFilter:
    """Remembers which registrations have a row of the last hour."""

    def __init__(self, hubs: HubRegistry) -> None:
        self._hubs = hubs
        self._told: OrderedDict[tuple[object, ...], datetime] = OrderedDict()  # what changed, and when a row said so

    async def is_news(self, present: Registration | None, made: Registration) -> bool:
        """Say whether a registration goes into the audit trail.

        One that says what the last one said does so once an hour: rows are kept for ever, and a device that registers
        at each start, or as often as it may, would fill the disk with them.
        """
        if present is None or made.updated_at - present.updated_at >= _TOLD_AGAIN:
            return True
        kept = (present.hub, present.device_id, present.thumbprint, present.group_id)
        if kept != (said := (made.hub, made.device_id, made.thumbprint, made.group_id)):
            return self._is_told_first((made.registration_id, *said), made.updated_at)
        return not await self._hubs.has(made.hub, made.device_id)

    def _is_told_first(self, said: tuple[object, ...], at: datetime) -> bool:
        """Say whether this was not told within the hour: a device with two certificates may show them by turns."""
        before = self._told.pop(said, None)
        self._told[said] = at if before is None or at - before >= _TOLD_AGAIN else before
        if len(self._told) > _MAX_TOLD:
            self._told.popitem(last=False)
        return before is None or at - before >= _TOLD_AGAIN
