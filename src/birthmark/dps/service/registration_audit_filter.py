"""Filter for registrations in the audit log, because a device that registers at each start would fill the disk."""

from collections import OrderedDict
from datetime import datetime, timedelta

from birthmark.dps.model import Registration
from birthmark.dps.ports import HubRegistry

_TOLD_AGAIN = timedelta(hours=1)
_MAX_TOLD = 10_000


class AuditFilter:
    """Cache of registrations with an audit row of the last hour."""

    def __init__(self, hubs: HubRegistry) -> None:
        self._hubs = hubs
        self._told: OrderedDict[tuple[object, ...], datetime] = OrderedDict()  # change -> time of its last row

    async def should_record(self, present: Registration | None, registration: Registration) -> bool:
        """Return whether the audit log records a registration.

        A registration with the same result as before is recorded once an hour. Rows are kept forever, and a device that
        registers at each start would fill the disk.
        """
        if present is None or registration.updated_at - present.updated_at >= _TOLD_AGAIN:
            return True
        kept = (present.hub, present.device_id, present.thumbprint, present.group_id)
        if kept != (said := (registration.hub, registration.device_id, registration.thumbprint, registration.group_id)):
            return self._is_unrecorded((registration.registration_id, *said), registration.updated_at)
        return not await self._hubs.has(registration.hub, registration.device_id)

    def _is_unrecorded(self, said: tuple[object, ...], timestamp: datetime) -> bool:
        """Return whether this result has no row of the last hour: a device may alternate two certificates."""
        before = self._told.pop(said, None)
        self._told[said] = timestamp if before is None or timestamp - before >= _TOLD_AGAIN else before
        if len(self._told) > _MAX_TOLD:
            self._told.popitem(last=False)
        return before is None or timestamp - before >= _TOLD_AGAIN
