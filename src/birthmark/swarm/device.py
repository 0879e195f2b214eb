"""A well-behaved device, from its start in the ramp to the end of the run. `rules` decides its actions."""

import asyncio
import math
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from birthmark.clock_and_entropy import SystemEntropy
from birthmark.device_transports.errors import ServerUntrustedError
from birthmark.dps.client import DpsTarget, HubAssignment, register_by_https, register_by_mqtt
from birthmark.errors import (
    BirthmarkError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    PolicyError,
    UnauthenticatedError,
)
from birthmark.est.client import EstClient
from birthmark.swarm import mqtt_usernames_and_topics
from birthmark.swarm.identities import csr_of, new_key
from birthmark.swarm.links.amqp import SwarmAmqp
from birthmark.swarm.links.https import SwarmHttps
from birthmark.swarm.links.mqtt import SwarmMqtt
from birthmark.swarm.model import DeviceGroup, DeviceMetrics, RegistrationProtocol, SwarmState, SwarmTransport
from birthmark.swarm.rules import device_event_schedule
from birthmark.swarm.rules import jobs as rules
from birthmark.swarm.rules.behavior import Act, BehaviorPlan
from birthmark.swarm.rules.device_event_schedule import Dice
from birthmark.swarm.run_context import RunContext

DeviceConnection: TypeAlias = SwarmMqtt | SwarmAmqp
_HEARD = ("notify-next", "start-next/accepted", "+/update/accepted", "+/update/rejected")


@dataclass(slots=True)
class DeviceJobs:
    """Jobs of a device: the current job, with its end in the plan. After a lost connection the job starts over."""

    yard: RunContext
    group: DeviceGroup
    tally: DeviceMetrics
    connection: DeviceConnection
    plan: BehaviorPlan
    work: rules.SimulatedJob | None = None

    async def begin(self) -> None:
        """Subscribe and request the first job; do nothing if the group runs no jobs."""
        if self.group.job_s:
            for rest in _HEARD:
                await self._mqtt.subscribe(mqtt_usernames_and_topics.jobs_topic(self.tally.name, rest))
            await self._ask()

    async def until_due(self) -> Act:
        """Return the next action when it is due, and process incoming messages until then.

        Raise the error that ended the connection.
        """
        while True:
            act, due = self.plan.next()
            await self.connection.idle(self.yard.loop_time_of(due))
            if not self.connection.has_message:
                return act
            await self.hear()

    async def hear(self) -> None:
        """Process an incoming message."""
        message = await self._mqtt.next_message()
        told = rules.parse_job_message(message.topic, message.payload)
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
        """Report the outcome of the current job."""
        self.plan.job_s = math.inf
        if self.work is None:
            return
        begun = self.yard.now()
        body, is_bad = rules.ending(self.tally.name, self.work, self.group.jobs_fail)
        await self._mqtt.publish(
            mqtt_usernames_and_topics.jobs_topic(self.tally.name, f"{self.work.job_id}/update"), body
        )
        self.yard.counting.record_latency("job", self.yard.now() - begun)
        self.yard.counting.totals["jobs failed"] += is_bad

    @property
    def _mqtt(self) -> SwarmMqtt:
        assert isinstance(self.connection, SwarmMqtt)  # noqa: S101 (jobs are of AWS, which has no AMQP)
        return self.connection

    async def _ask(self) -> None:
        await self._mqtt.publish(mqtt_usernames_and_topics.jobs_topic(self.tally.name, "start-next"), b"{}")


def payload_of(group: DeviceGroup, name: str, number: int) -> bytes:
    """Return the message with this number: the filled template, or the configured number of bytes."""
    if not group.size:
        return group.payload.replace("{n}", str(number)).replace("{name}", name).encode()
    head = f'{{"n": {number}, "fill": "'.encode()
    fill = group.size - len(head) - 2
    return head + b"x" * fill + b'"}' if fill >= 0 else b"x" * group.size


_REFUSALS = (UnauthenticatedError, ForbiddenError, NotFoundError, PolicyError, InvalidRequestError)
_RENEWALS_APART_S = 5.0


@dataclass(slots=True)
class SwarmDevice:
    """A simulated device: its name, its configuration and its state."""

    yard: RunContext
    group: DeviceGroup
    number: int
    tally: DeviceMetrics
    dice: Dice
    hub: str = ""
    device_id: str = ""
    failures: int = 0
    renew_s: float = math.nan

    async def live(self) -> None:
        """Run until cancelled."""
        await self.yard.sleep_until(device_event_schedule.arrival_s(self.group, self.number))
        while True:
            pause_s = await self._visit()
            if pause_s:
                await asyncio.sleep(pause_s)

    async def _visit(self) -> float:
        """Run one connection; return the delay before the next one."""
        try:
            if not self.hub:
                await self._register()
            return await self._stay(await self._connect())
        except BirthmarkError as error:
            return self._failed(error)
        except OSError as problem:  # local error: a file, or no descriptor left
            self._enter(SwarmState.AWAY)
            self.yard.counting.errors[f"machine.{problem.strerror or problem}"] += 1
            self.failures += 1
            return device_event_schedule.backoff_s(self.failures, self.dice.roll())

    def _failed(self, error: BirthmarkError) -> float:
        yard = self.yard
        yard.counting.record_error(self.tally, error)
        yard.counting.totals["errors"] += 1
        is_refusal = isinstance(error, _REFUSALS) and not isinstance(error, ServerUntrustedError)
        self._enter(SwarmState.REFUSED if is_refusal else SwarmState.AWAY)
        if is_refusal and yard.target.way is not RegistrationProtocol.NONE:
            self.hub = ""  # it may now belong to another hub
        self.failures += 1
        return device_event_schedule.backoff_s(self.failures, self.dice.roll())

    def _enter(self, state: SwarmState, *, is_planned: bool = False) -> None:
        self.yard.counting.enter(self.tally, state, self.yard.now(), is_planned=is_planned)

    async def _register(self) -> None:
        """Register at DPS to get the hub."""
        target, yard = self.yard.target, self.yard
        if target.where.is_aws or target.way is RegistrationProtocol.NONE:
            self.hub, self.device_id = target.host, self.tally.name
            return
        async with yard.turns:
            self._enter(SwarmState.REGISTERING)
            begun = yard.now()
            assigned = await register_device(yard, self.tally.name)
            yard.counting.record_latency("register", yard.now() - begun)
        self.tally.registrations += 1
        self.hub, self.device_id = assigned.hub, assigned.device_id
        self._enter(SwarmState.ASSIGNED)

    async def _connect(self) -> DeviceConnection:
        yard = self.yard
        async with yard.turns:
            begun = yard.now()
            is_amqp = self.group.transport is SwarmTransport.AMQP
            connection = await (self._connect_amqp() if is_amqp else self._connect_mqtt())
            yard.counting.record_latency("connect", yard.now() - begun)
        self.tally.connects += 1
        self.failures = 0
        self._enter(SwarmState.CONNECTED)
        return connection

    async def _connect_mqtt(self) -> DeviceConnection:
        yard, group, target = self.yard, self.group, self.yard.target
        mqtt = SwarmMqtt(yard.dialer, yard.shelf.path_of(self.tally.name), keeps=bool(group.job_s))
        packet = mqtt_usernames_and_topics.connect_packet(target, group, self.hub, self.device_id)
        await mqtt.connect(self.hub, target.mqtt_port, packet)
        return mqtt

    async def _connect_amqp(self) -> DeviceConnection:
        yard = self.yard
        amqp = SwarmAmqp(yard.dialer, yard.shelf.path_of(self.tally.name))
        await amqp.connect(self.hub, yard.target.amqp_port, self.device_id, self.group.keep_alive_s)
        return amqp

    async def _stay(self, connection: DeviceConnection) -> float:
        """Perform due actions until the connection ends; return the delay before the next one."""
        yard, group = self.yard, self.group
        if math.isnan(self.renew_s):
            self.renew_s = self._next_renewal()
        plan = BehaviorPlan.on_connecting(group, yard.now(), self.dice, self.renew_s)
        jobs = DeviceJobs(yard, group, self.tally, connection, plan)
        try:
            await jobs.begin()
            while True:
                match act := await jobs.until_due():
                    case Act.SEND:
                        await self._send(connection)
                        plan.send_s = device_event_schedule.next_message_s(group, yard.now(), self.dice.roll())
                    case Act.RENEW:
                        if await self._is_renewed():
                            return 0.0  # and reconnect with the new one
                        plan.renew_s = self.renew_s
                    case Act.LEAVE:
                        self._enter(SwarmState.AWAY, is_planned=True)
                        return group.away_s
                    case Act.CUT | Act.STORM:
                        self._cut(connection)
                        return device_event_schedule.backoff_s(1, self.dice.roll()) if act is Act.CUT else 0.0
                    case Act.JOB:
                        await jobs.end()
                    case _:
                        assert_never(act)
        except BirthmarkError:
            self.tally.lost += 1
            yard.counting.totals["lost"] += 1
            raise
        finally:
            await connection.close()

    def _cut(self, connection: DeviceConnection) -> None:
        connection.cut()
        self.tally.lost += 1
        self.yard.counting.totals["cut"] += 1
        self._enter(SwarmState.AWAY)

    async def _send(self, connection: DeviceConnection) -> None:
        yard, tally = self.yard, self.tally
        tally.sent += 1
        yard.counting.totals["sent"] += 1
        self._enter(SwarmState.SENDING)
        begun = yard.now()
        body = payload_of(self.group, tally.name, tally.sent)
        if isinstance(connection, SwarmAmqp):
            await connection.send(body)
        else:
            topic = mqtt_usernames_and_topics.topic_of(yard.target, self.group, self.device_id)
            await connection.publish(topic, body)
        if refusal := connection.take_refusal():
            tally.errors += 1
            tally.last_error = refusal
            yard.counting.errors[refusal] += 1
            yard.counting.totals["errors"] += 1
        else:
            tally.acknowledged += 1
        yard.counting.record_latency("publish", yard.now() - begun)
        self._enter(SwarmState.CONNECTED)

    def _next_renewal(self) -> float:
        group = self.group
        if not group.renews:
            return math.inf
        now, begun, life_s = self.yard.now(), 0.0, 0.0
        if group.renew_at:
            leaf = self.yard.shelf.leaf_of(self.tally.name)
            life_s = (leaf.not_after - leaf.not_before).total_seconds()
            begun = now - (self.yard.clock.now() - leaf.not_before).total_seconds()
        return max(now + _RENEWALS_APART_S, device_event_schedule.next_renewal_s(group, now, begun, life_s))

    async def _is_renewed(self) -> bool:
        """Renew the certificate; on failure record the reason and continue with the old certificate."""
        try:
            await self._renew()
        except BirthmarkError as error:
            self.yard.counting.record_error(self.tally, error)
            self.yard.counting.totals["errors"] += 1
            self._enter(SwarmState.CONNECTED)
            return False
        return True

    async def _renew(self) -> None:
        """Get a certificate for a new key over EST, and register with it, because the hub knows the old certificate."""
        yard, name = self.yard, self.tally.name
        self._enter(SwarmState.RENEWING)
        begun = yard.now()
        key = new_key()
        client = EstClient(yard.target.est_url, SwarmHttps(yard.dialer, yard.shelf.path_of(name)))
        try:
            issued = await client.reenroll(csr_of(name, key))
            yard.shelf.put(name, key, issued.chain)
            self.tally.renewals += 1
            yard.counting.record_latency("renew", yard.now() - begun)
        finally:
            self.renew_s = self._next_renewal()
        if yard.target.way is not RegistrationProtocol.NONE and not yard.target.where.is_aws:
            self.hub = ""


async def register_device(yard: RunContext, name: str) -> HubAssignment:
    """Register a device at DPS over the target's protocol."""
    target, pem = yard.target, yard.shelf.path_of(name)
    dps = DpsTarget(target.host, target.id_scope, name, mqtt_port=target.mqtt_port, https_port=target.https_port)
    if target.way is RegistrationProtocol.HTTPS:
        return await register_by_https(SwarmHttps(yard.dialer, pem), dps)
    return await register_by_mqtt(SwarmMqtt(yard.dialer, pem, keeps=True), dps, entropy=SystemEntropy())
