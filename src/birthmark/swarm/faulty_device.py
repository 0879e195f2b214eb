"""Misbehaving devices: each performs one fault and records whether the target stopped it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from birthmark.device_transports.errors import HostUnknownError, LinkTimeoutError, LinkUnreachableError
from birthmark.errors import BirthmarkError
from birthmark.est.client import EstClient
from birthmark.mqtt import codec
from birthmark.mqtt.packets import Publish
from birthmark.swarm import mqtt_usernames_and_topics
from birthmark.swarm.device import register_device
from birthmark.swarm.identities import csr_of, new_key
from birthmark.swarm.links.https import SwarmHttps
from birthmark.swarm.links.low_memory_tls_stream import Dialer
from birthmark.swarm.links.mqtt import SwarmMqtt
from birthmark.swarm.model import DeviceGroup, DeviceMetrics, Fault, RegistrationProtocol, SwarmState, SwarmVerdict
from birthmark.swarm.rules import device_event_schedule
from birthmark.swarm.rules.device_event_schedule import Dice
from birthmark.swarm.run_context import RunContext

_T = TypeVar("_T")

# Record header and ClientHello header of 512 bytes that never arrive.
_HALF_A_HELLO = bytes.fromhex("1603010200010001fc0303")
_NO_PACKET = b"\x00\xff\xff\xff\xff"  # type 0, with an endless length, then random data
_GARBAGE_BYTES = 64
_OVERSIZED_BYTES = 300 * 1024
_UNACKNOWLEDGED = 10
_WATCHED_S = 5.0
_UNREACHABLE = (LinkUnreachableError, HostUnknownError, LinkTimeoutError)


class _StoppedError(Exception):
    """The target stopped the fault; the text states how."""


@dataclass(slots=True)
class FaultyDevice:
    """A device with its fault, retried until the target is reachable."""

    yard: RunContext
    group: DeviceGroup
    number: int
    tally: DeviceMetrics
    dice: Dice
    fault: Fault

    async def live(self) -> None:
        """Run until the result of the fault is known."""
        await self.yard.sleep_until(device_event_schedule.arrival_s(self.group, self.number))
        failures = 0
        while True:
            self._enter(SwarmState.REGISTERING)
            try:
                await _DEEDS[self.fault](self)
            except _StoppedError as stopped:
                self._settle(SwarmVerdict.STOPPED, str(stopped))
                return
            except (BirthmarkError, OSError) as error:
                failures += 1
                self.tally.last_error = getattr(error, "code", type(error).__name__)
                self._enter(SwarmState.AWAY)
                await asyncio.sleep(device_event_schedule.backoff_s(failures, self.dice.roll()))
            else:
                self._settle(SwarmVerdict.TOLERATED, "")
                return

    # ---- faults: each raises `_StoppedError`, or returns if the target allowed it

    async def other_name(self) -> None:
        hub = await self._hub()
        other = self.group.name_of(self.number + 1)
        mqtt = SwarmMqtt(self.yard.dialer, self.yard.shelf.path_of(self.tally.name))
        packet = mqtt_usernames_and_topics.connect_packet(
            self.yard.target, self.group, hub, self.tally.name, client_id=other
        )
        await self._attempt(mqtt.connect(hub, self.yard.target.mqtt_port, packet))
        await self._watched(mqtt)

    async def other_topic(self) -> None:
        other = self.group.name_of(self.number + 1)
        is_aws = self.yard.target.where.is_aws
        topic = (
            f"swarm-forbidden/{other}"
            if is_aws
            else mqtt_usernames_and_topics.topic_of(self.yard.target, self.group, other)
        )
        await self._said_raw(codec.encode(Publish(topic, b"{}", 1, packet_id=1), self._level))

    async def oversized(self) -> None:
        topic = mqtt_usernames_and_topics.topic_of(self.yard.target, self.group, self.tally.name)
        await self._said_raw(codec.encode(Publish(topic, bytes(_OVERSIZED_BYTES), 1, packet_id=1), self._level))

    async def garbage(self) -> None:
        chance = bytes(int(self.dice.roll() * 256) for _ in range(_GARBAGE_BYTES))
        await self._said_raw(_NO_PACKET + chance)

    async def half_open(self) -> None:
        target, loop = self.yard.target, asyncio.get_running_loop()
        sock = await self.yard.dialer.dial(target.host, target.mqtt_port)
        try:
            await loop.sock_sendall(sock, _HALF_A_HELLO)
            self._enter(SwarmState.CONNECTED)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.group.patience_s):
                    with contextlib.suppress(OSError):
                        while await loop.sock_recv(sock, 4096):
                            pass
                    raise _StoppedError("closed")
        finally:
            sock.close()

    async def as_itself(self) -> None:
        """Register and connect with a certificate that should be rejected."""
        mqtt = await self._attempt(self._connected())
        await self._watched(mqtt)

    async def clock_skew(self) -> None:
        yard = self.yard
        then = yard.clock.now() + timedelta(seconds=self.group.skew_s)
        dialer = Dialer(yard.dialer.trust.at_time(then), yard.dialer.tls, yard.dialer.alpn)
        pem = yard.shelf.path_of(self.tally.name)
        stream = await self._attempt(dialer.open(yard.target.host, yard.target.mqtt_port, pem))
        stream.close()

    async def no_ack(self) -> None:
        mqtt = await self._connected()
        mqtt.acknowledges = False
        try:
            await mqtt.subscribe(mqtt_usernames_and_topics.own_filter(self.yard.target, self.group, self.tally.name))
            if self.yard.target.where.is_aws:
                for _ in range(_UNACKNOWLEDGED):
                    await mqtt.publish(
                        mqtt_usernames_and_topics.topic_of(self.yard.target, self.group, self.tally.name), b"{}"
                    )
            await self._watched(mqtt, min(_WATCHED_S, self.group.patience_s))
        finally:
            await mqtt.close()

    async def duplicate(self) -> None:
        first = await self._connected()
        second = await self._connected()
        try:
            await self._watched(first)
        finally:
            await second.close()

    async def renew_other(self) -> None:
        yard = self.yard
        client = EstClient(yard.target.est_url, SwarmHttps(yard.dialer, yard.shelf.path_of(self.tally.name)))
        await self._attempt(client.reenroll(csr_of(self.group.name_of(self.number + 1), new_key())))

    # ---- inside

    @property
    def _level(self) -> int:
        return self.yard.target.level

    def _enter(self, state: SwarmState) -> None:
        self.yard.counting.enter(self.tally, state, self.yard.now())

    def _settle(self, verdict: SwarmVerdict, how: str) -> None:
        self.tally.verdict, self.tally.how = verdict, how
        self.yard.counting.totals[f"fault {self.fault}: {verdict}"] += 1
        self._enter(SwarmState.DONE)

    async def _hub(self) -> str:
        target = self.yard.target
        if target.where.is_aws or target.way is RegistrationProtocol.NONE:
            return target.host
        return (await register_device(self.yard, self.tally.name)).hub

    async def _connected(self) -> SwarmMqtt:
        hub = await self._hub()
        mqtt = SwarmMqtt(self.yard.dialer, self.yard.shelf.path_of(self.tally.name))
        packet = mqtt_usernames_and_topics.connect_packet(self.yard.target, self.group, hub, self.tally.name)
        await mqtt.connect(hub, self.yard.target.mqtt_port, packet)
        self.tally.connects += 1
        self._enter(SwarmState.CONNECTED)
        return mqtt

    async def _attempt(self, deed: Awaitable[_T]) -> _T:
        """Return the result of `deed`. Raise `_StoppedError` for a refusal, but not for an unreachable target."""
        try:
            return await deed
        except _UNREACHABLE:
            raise
        except BirthmarkError as error:
            raise _StoppedError(error.code) from error

    async def _said_raw(self, data: bytes) -> None:
        mqtt = await self._connected()
        mqtt.write_raw(data)
        await self._watched(mqtt)

    async def _watched(self, mqtt: SwarmMqtt, seconds: float | None = None) -> None:
        """Wait at most `seconds` for the target to close a connection; then close it."""
        until = self.yard.now() + (self.group.patience_s if seconds is None else seconds)
        try:
            await self._attempt(mqtt.idle(self.yard.loop_time_of(until)))
            if mqtt.refused:
                raise _StoppedError(mqtt.take_refusal())
        finally:
            await mqtt.close()


_DEEDS: Mapping[Fault, Callable[[FaultyDevice], Awaitable[None]]] = {
    Fault.OTHER_NAME: FaultyDevice.other_name,
    Fault.OTHER_TOPIC: FaultyDevice.other_topic,
    Fault.OVERSIZED: FaultyDevice.oversized,
    Fault.GARBAGE: FaultyDevice.garbage,
    Fault.HALF_OPEN: FaultyDevice.half_open,
    Fault.EXPIRED: FaultyDevice.as_itself,
    Fault.REVOKED: FaultyDevice.as_itself,
    Fault.CLOCK_SKEW: FaultyDevice.clock_skew,
    Fault.NO_ACK: FaultyDevice.no_ack,
    Fault.DUPLICATE: FaultyDevice.duplicate,
    Fault.RENEW_OTHER: FaultyDevice.renew_other,
}
