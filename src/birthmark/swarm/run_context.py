"""State that all devices of a run share."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from birthmark.clock_and_entropy import Clock
from birthmark.swarm.identities import IdentityDirectory
from birthmark.swarm.links.low_memory_tls_stream import Dialer
from birthmark.swarm.run_metrics import RunMetrics
from birthmark.swarm.scenario.model import SwarmTarget


@dataclass(frozen=True, slots=True)
class RunContext:
    """State that all devices of a run share."""

    target: SwarmTarget
    dialer: Dialer
    shelf: IdentityDirectory
    counting: RunMetrics
    clock: Clock
    now: Callable[[], float]
    """Returns the current time, in seconds of the run."""
    loop_time_of: Callable[[float], float]
    turns: asyncio.Semaphore
    """Semaphore for devices that register or connect."""

    async def sleep_until(self, moment: float) -> None:
        """Sleep until a time of the run."""
        await asyncio.sleep(max(0.0, moment - self.now()))
