"""Run of a swarm: a task per device, a tick per second, and an orderly end by time or Ctrl-C."""

import asyncio
import contextlib
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from birthmark.clock_and_entropy import Clock
from birthmark.swarm.device import SwarmDevice
from birthmark.swarm.errors import DescriptorsShortError
from birthmark.swarm.faulty_device import FaultyDevice
from birthmark.swarm.identities import IdentityDirectory
from birthmark.swarm.links.low_memory_tls_stream import Dialer
from birthmark.swarm.model import DeviceGroup, DeviceMetrics, Judgement, SwarmState
from birthmark.swarm.rules.device_event_schedule import Dice, faults_of
from birthmark.swarm.rules.fault_reaction_verdicts import judge
from birthmark.swarm.run_context import RunContext
from birthmark.swarm.run_metrics import RunMetrics
from birthmark.swarm.scenario.model import Scenario, SwarmTarget

RESERVE = 64
"""Descriptors in addition to those of devices; a renewal or takeover briefly needs a second one."""
_TICK_S = 1.0


@dataclass(slots=True)
class RunOutcome:
    """Result of a run."""

    scenario: Scenario
    counting: RunMetrics
    tallies: list[DeviceMetrics]
    judgements: list[Judgement]
    lasted_s: float
    was_stopped: bool = False
    grown_kib: int = 0
    """Peak growth of the process's memory since before the first device."""
    cpu_s: float = 0.0

    @property
    def held(self) -> bool:
        return all(one.held for one in self.judgements)


@dataclass(slots=True)
class SwarmRun:
    """A run of a scenario; `watch` is called each second."""

    scenario: Scenario
    target: SwarmTarget
    dialer: Dialer
    shelf: IdentityDirectory
    clock: Clock
    watch: Callable[[RunMetrics, float], None] = lambda _counting, _now: None
    counting: RunMetrics = field(default_factory=RunMetrics)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    tallies: list[DeviceMetrics] = field(default_factory=list)
    _groups: list[DeviceGroup] = field(default_factory=list)
    _base_kib: int = 0
    _most_kib: int = 0

    async def go(self) -> RunOutcome:
        """Run until the duration ends, or until `stop` is set."""
        loop = asyncio.get_running_loop()
        begun, self._base_kib, cpu_s = loop.time(), resident_kib(), _cpu_s()
        yard = RunContext(
            target=self.target,
            dialer=self.dialer,
            shelf=self.shelf,
            counting=self.counting,
            clock=self.clock,
            now=lambda: loop.time() - begun,
            loop_time_of=lambda moment: begun + moment,
            turns=asyncio.Semaphore(self.target.at_once),
        )
        tasks = [loop.create_task(device.live(), name=device.tally.name) for device in self._devices(yard)]
        ticking = loop.create_task(self._tick(yard))
        for task in (ticking, *tasks):
            task.add_done_callback(self._stop_when_broken)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.scenario.duration_s):
                await self.stop.wait()
        lasted_s = yard.now()
        judgements = [judge(tally, group, lasted_s) for tally, group in zip(self.tallies, self._groups, strict=True)]
        self.counting.tick(lasted_s)
        self._most_kib = max(self._most_kib, resident_kib())
        for task in (ticking, *tasks):
            task.cancel()
        results = await asyncio.gather(ticking, *tasks, return_exceptions=True)
        for result in results:  # a device's exception is our bug, and must be raised
            if isinstance(result, Exception):
                raise result
        return RunOutcome(
            scenario=self.scenario,
            counting=self.counting,
            tallies=self.tallies,
            judgements=judgements,
            lasted_s=lasted_s,
            was_stopped=self.stop.is_set(),
            grown_kib=self._most_kib - self._base_kib,
            cpu_s=_cpu_s() - cpu_s,
        )

    def _stop_when_broken(self, task: "asyncio.Task[None]") -> None:
        """Stop the run after an unexpected error, such as a closed output."""
        if not task.cancelled() and task.exception() is not None:
            self.stop.set()

    def _devices(self, yard: RunContext) -> list[SwarmDevice | FaultyDevice]:
        made: list[SwarmDevice | FaultyDevice] = []
        for group in self.scenario.groups:
            for number, fault in enumerate(faults_of(group)):
                tally = DeviceMetrics(group.name_of(number), group.name, fault)
                dice = Dice(self.scenario.seed, len(made))
                self.tallies.append(tally)
                self._groups.append(group)
                if fault is None:
                    made.append(SwarmDevice(yard, group, number, tally, dice))
                else:
                    made.append(FaultyDevice(yard, group, number, tally, dice, fault))
        self.counting.states[SwarmState.WAITING] = len(made)
        return made

    async def _tick(self, yard: RunContext) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._most_kib = max(self._most_kib, resident_kib())
            self.counting.tick(yard.now())
            self.watch(self.counting, yard.now())


def make_room(devices: int) -> None:
    """Raise this process's soft limit of open files as needed. Raise `DescriptorsShortError`."""
    wanted = devices + devices // 10 + RESERVE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise DescriptorsShortError(devices=devices, wanted=wanted, allowed=hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def resident_kib() -> int:
    """Return the resident memory of this process in KiB."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError):  # another system
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
