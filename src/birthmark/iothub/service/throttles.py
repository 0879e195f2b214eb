"""Throttles of hub tiers in this process. A hub without a tier costs one lookup in an empty mapping."""

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from functools import partial

from birthmark.clock_and_entropy import Clock
from birthmark.iothub.model import Hub
from birthmark.iothub.rules.tier_throttles_and_quotas import AT_A_TURN, HubThrottle, ThrottleClass
from birthmark.iothub.service.hubs_and_authorization import Hubs
from birthmark.supervised_tasks import note

LOOK_S = 0.5
"""Maximum interval between checks for a changed tier and for disconnected waiters."""


@dataclass(slots=True, eq=False)
class _Waiter:
    """Messages of a connection or request that wait for their turn."""

    left: int
    is_over: Callable[[], bool]
    has_it: asyncio.Future[bool]

    @property
    def part(self) -> int:
        return min(AT_A_TURN, self.left)


@dataclass(slots=True, eq=False)
class _DeviceBacklog:
    """A device's waiting messages, first in, first out; `amount` in total."""

    waiters: deque[_Waiter] = field(default_factory=deque)
    amount: int = 0


class Shaper:
    """Fair queue for the rate of one hub: devices take turns, however many connections and requests they have.

    A turn is consumed only when it is granted, so a waiter that ends leaves its turn to others.
    """

    def __init__(self, throttle: Callable[[], HubThrottle | None], clock: Clock) -> None:
        """`throttle` returns the hub's throttle, None as soon as the hub has no tier."""
        self._throttle = throttle
        self._clock = clock
        self._lines: OrderedDict[str, _DeviceBacklog] = OrderedDict()  # next turn first
        self._round = self._amount = 0  # messages until each device had one turn, and in total
        self._serving: asyncio.Task[None] | None = None

    async def turn(self, device_id: str, amount: int, is_over: Callable[[], bool], patience_s: float) -> bool:
        """Wait for the turn of a number of messages; return False if `is_over` became true.

        More than `AT_A_TURN` messages take several turns; `patience_s` applies to the first. Raise `TierThrottledError`
        at once, without consuming anything, if the wait would exceed `patience_s`.
        """
        if is_over():
            return False
        if (throttle := self._throttle()) is None or not amount:
            return True
        if (wait_s := self._wait_s(throttle, device_id, min(amount, AT_A_TURN))) > patience_s:
            raise throttle.refused(ThrottleClass.TELEMETRY, wait_s)
        if not self._lines and not wait_s and amount <= AT_A_TURN:
            throttle.take(ThrottleClass.TELEMETRY, self._clock.monotonic(), amount)
            return True
        waiter = _Waiter(amount, is_over, asyncio.get_running_loop().create_future())
        line = self._lines.setdefault(device_id, _DeviceBacklog())
        if not line.waiters:
            self._round += waiter.part
        line.waiters.append(waiter)
        line.amount += amount
        self._amount += amount
        if self._serving is None:
            self._serving = asyncio.get_running_loop().create_task(self._serve())
        return await waiter.has_it

    def _wait_s(self, throttle: HubThrottle, device_id: str, part: int) -> float:
        """Return the approximate wait for the turn of a newly arriving device."""
        own, first = 0, 0
        if (line := self._lines.get(device_id)) is not None:
            own, first = line.amount, line.waiters[0].part
        others = min((self._round - first) * math.ceil((own + part) / AT_A_TURN), self._amount - own)
        return throttle.wait_s(ThrottleClass.TELEMETRY, self._clock.monotonic(), part, own + others)

    async def _serve(self) -> None:
        """Grant turns until no waiter is left. If it ends early, all waits end as well."""
        try:
            while self._lines:
                if wait_s := self._give_out():
                    await asyncio.sleep(min(wait_s, LOOK_S))
        except Exception as error:  # noqa: BLE001 - any error: callers must not wait forever
            note("the turns of a hub", error)
            for waiter in self._everyone():
                waiter.has_it.set_exception(RuntimeError("turns of a hub are not given out"))
        finally:
            for waiter in self._everyone():
                waiter.has_it.cancel()
            self._lines.clear()
            self._round = self._amount = 0
            self._serving = None

    def _everyone(self) -> list[_Waiter]:
        waiting = [waiter for line in self._lines.values() for waiter in line.waiters]
        return [waiter for waiter in waiting if not waiter.has_it.done()]

    def _give_out(self) -> float:
        """Grant the available turns; return the time to the next, 0 without waiters."""
        throttle, now = self._throttle(), self._clock.monotonic()
        while self._lines:
            device_id, line = next(iter(self._lines.items()))
            first = line.waiters[0]
            if first.has_it.done() or first.is_over():
                self._leave(device_id, line, has_it=False)
                continue
            part = first.part
            if throttle is not None:
                if wait_s := throttle.wait_s(ThrottleClass.TELEMETRY, now, part):
                    return wait_s
                throttle.take(ThrottleClass.TELEMETRY, now, part)
            self._lines.move_to_end(device_id)
            if part == first.left:
                self._leave(device_id, line, has_it=True)
                continue
            first.left -= part
            line.amount -= part
            self._amount -= part
            self._round += first.part - part
        return 0.0

    def _leave(self, device_id: str, line: _DeviceBacklog, *, has_it: bool) -> None:
        """Remove the first waiter of a device."""
        first = line.waiters.popleft()
        line.amount -= first.left
        self._amount -= first.left
        self._round -= first.part
        if line.waiters:
            self._round += line.waiters[0].part
        else:
            del self._lines[device_id]
        if not first.has_it.done():
            first.has_it.set_result(has_it)


class Throttles:
    """Throttles of all hubs with a tier; each limit is divided among `parts` workers."""

    def __init__(self, hubs: Hubs, clock: Clock, parts: int = 1) -> None:
        self._hubs = hubs
        self._clock = clock
        self._known: dict[str, HubThrottle] = {}
        self._shapers: dict[str, Shaper] = {}
        self._parts = parts

    def of(self, hub: str) -> HubThrottle | None:
        """Return a hub's throttle, or None if it has no tier."""
        if not (editions := self._hubs.editions):
            return None
        if (edition := editions.get(hub)) is None:
            return None
        known = self._known.get(hub)
        if known is None or known.edition != edition:
            known = self._known[hub] = HubThrottle(hub, edition, self._parts)
        return known

    def take(self, hub: Hub, throttle_class: ThrottleClass, amount: float = 1) -> None:
        """Consume an amount of a throttle class. Raise `TierThrottledError`."""
        if (throttle := self.of(hub.name)) is not None:
            throttle.take(throttle_class, self._clock.monotonic(), amount)

    async def telemetry(
        self, hub: str, name: str, sizes: list[int], is_over: Callable[[], bool], patience_s: float
    ) -> bool:
        """Wait for the turn of messages of these sizes and count them; return False if `is_over` became true.

        `name` is that of a device or module; a module shares the turns of its device. Raise `TierThrottledError` for a
        wait longer than `patience_s`, `TierQuotaError`.
        """
        if self.of(hub) is None:
            return True
        if (shaper := self._shapers.get(hub)) is None:
            shaper = self._shapers[hub] = Shaper(partial(self.of, hub), self._clock)
        if not await shaper.turn(name.partition("/")[0], len(sizes), is_over, patience_s) or is_over():
            return False
        if (throttle := self.of(hub)) is not None:
            throttle.count_blocks(sum(map(throttle.edition.blocks, sizes)), self.today())
        return True

    def count(self, hub: Hub, size: int) -> None:
        """Count a message of this size against the hub's daily quota. Raise `TierQuotaError`."""
        if (throttle := self.of(hub.name)) is not None:
            throttle.count(size, self.today())

    def today(self) -> date:
        """Return the date for which messages are counted."""
        return self._clock.now().date()

    def monotonic(self) -> float:
        """Return the time used by the throttles."""
        return self._clock.monotonic()
