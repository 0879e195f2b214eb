"""The server's log has room for everyone: one address, or one event, may not fill it.

What does not fit is counted, and the count is told with the next line that does.
"""

import logging
from collections.abc import Callable

from birthmark.net.share import share_of
from birthmark.refusals.rate_limits import RateLimits

EACH = (50, 2)  # lines at once, and a second
ALL = (500, 50)


class BoundedLog(logging.Filter):
    """Lets pass what an address, a key or event without one, and all have room for. `now` is a monotonic clock."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__()
        self._now = now
        self._each = RateLimits(*EACH)
        self._all = RateLimits(*ALL, max_addresses=1)
        self._dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the line is written."""
        now = self._now()
        whose = str(getattr(record, "whose", "")) or f"{record.name} {record.msg}"
        who = share_of(str(getattr(record, "address", ""))) or whose
        if not (self._each.has_room(who, now) and self._all.has_room("", now)):
            self._dropped += 1
            return False
        if self._dropped:
            record.lines_dropped, self._dropped = self._dropped, 0
        return True
