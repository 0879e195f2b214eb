"""The tiers of hubs as this process counts them. A hub without one costs a look at an empty mapping."""

from datetime import date

from birthmark.clock import Clock
from birthmark.iothub.model import Hub
from birthmark.iothub.rules.tiers import Metered, Throttle
from birthmark.iothub.service.hubs import Hubs


class Throttles:
    """Decides for every hub that has a tier; `parts` is among how many workers each limit is divided."""

    def __init__(self, hubs: Hubs, clock: Clock, parts: int = 1) -> None:
        self._hubs = hubs
        self._clock = clock
        self._known: dict[str, Throttle] = {}
        self._parts = parts

    def of(self, hub: str) -> Throttle | None:
        """Return what a hub's tier leaves, None where it has none."""
        if not (editions := self._hubs.editions):
            return None
        if (edition := editions.get(hub)) is None:
            return None
        known = self._known.get(hub)
        if known is None or known.edition != edition:
            known = self._known[hub] = Throttle(hub, edition, self._parts)
        return known

    def take(self, hub: Hub, what: Metered, amount: float = 1) -> None:
        """Take so many of something. Raise `TierThrottledError`."""
        if (throttle := self.of(hub.name)) is not None:
            throttle.take(what, self._clock.monotonic(), amount)

    def telemetry(self, hub: Hub, sizes: list[int]) -> None:
        """Take messages of a device that are refused where they are too many.

        Raise `TierThrottledError`, `TierQuotaError`.
        """
        if (throttle := self.of(hub.name)) is None:
            return
        throttle.take(Metered.TELEMETRY, self._clock.monotonic(), len(sizes))
        throttle.count_blocks(sum(map(throttle.edition.blocks, sizes)), self.today())

    def count(self, hub: Hub, size: int) -> None:
        """Count a message of so many bytes to the hub's day. Raise `TierQuotaError`."""
        if (throttle := self.of(hub.name)) is not None:
            throttle.count(size, self.today())

    def today(self) -> date:
        """Return the day that messages are counted to."""
        return self._clock.now().date()

    def monotonic(self) -> float:
        """Return the time by which paces are kept."""
        return self._clock.monotonic()
