"""The jobs of one device at AWS IoT, on one connection: it begins the next one, works on it, says how it ended."""

import math
from dataclasses import dataclass

from birthmark.swarm import place
from birthmark.swarm.links.mqtt import SwarmMqtt
from birthmark.swarm.model import Group, Tally
from birthmark.swarm.rules import jobs as rules
from birthmark.swarm.rules.conduct import Act, Plan
from birthmark.swarm.yard import Yard

_HEARD = ("notify-next", "start-next/accepted", "+/update/accepted", "+/update/rejected")


@dataclass(slots=True)
class DeviceJobs:
    """What is begun, and when it is done stands in the plan; a connection that is lost begins again where it was."""

    yard: Yard
    group: Group
    tally: Tally
    mqtt: SwarmMqtt
    plan: Plan
    work: rules.Work | None = None

    async def begin(self) -> None:
        """Listen, and ask for the first one; nothing where it does no jobs."""
        if self.group.job_s:
            for rest in _HEARD:
                await self.mqtt.subscribe(place.jobs_topic(self.tally.name, rest))
            await self._ask()

    async def until_due(self) -> Act:
        """Return what is due, when it is; what comes meanwhile is taken. Raise what ended the connection."""
        while True:
            act, due = self.plan.next()
            await self.mqtt.idle(self.yard.loop_time_of(due))
            if not self.mqtt.has_message:
                return act
            await self.hear()

    async def hear(self) -> None:
        """Take what came."""
        message = await self.mqtt.next_message()
        told = rules.said(message.topic, message.payload)
        if told.begun is not None:
            self.work = told.begun
            self.plan.job_s = self.yard.now() + self.group.job_s
        elif told.refused:
            self.yard.counting.errors[f"job.{told.refused}"] += 1
            self.work = None
            await self._ask()
        elif told.ended or (told.is_news and self.work is None):
            self.work = None
            await self._ask()

    async def end(self) -> None:
        """Say how what it was on ended."""
        self.plan.job_s = math.inf
        if self.work is None:
            return
        begun = self.yard.now()
        body, is_bad = rules.ending(self.tally.name, self.work, self.group.jobs_fail)
        await self.mqtt.publish(place.jobs_topic(self.tally.name, f"{self.work.job_id}/update"), body)
        self.yard.counting.took("job", self.yard.now() - begun)
        self.yard.counting.totals["jobs failed"] += is_bad

    async def _ask(self) -> None:
        await self.mqtt.publish(place.jobs_topic(self.tally.name, "start-next"), b"{}")
