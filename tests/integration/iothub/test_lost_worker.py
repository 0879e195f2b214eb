"""A device whose worker is taken for dead: that one does nothing more, and another hands on what it had, in order."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from birthmark.broker import Broker, store
from birthmark.broker.device_queue import DeviceQueues
from birthmark.broker.worker_leases import LoopTimers
from birthmark.bus.local import LocalBus
from birthmark.iothub import wire
from birthmark.iothub.connections import HubConnections
from birthmark.iothub.connections.c2d_delivery import holder_of
from birthmark.iothub.model import C2dMessage, space_of
from birthmark.mqtt.packets import ConnAck, Packet, PubAck, Publish, SubAck, Subscribe
from birthmark.net.mqtt_driver import MqttDriver
from birthmark.store import Changes
from support.azure.hub_world import Wire, World, a_world, until

pytestmark = pytest.mark.integration
SPACE, DEVICE = space_of("main"), "device-1"


class Late(LoopTimers):
    """Timers of a process that may have stood still."""

    late_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.late_s


async def beside(world: World, worker: str, timers: Late | None = None) -> World:
    """Return the same hub, served by one of several workers."""

    async def free(owner: str) -> None:
        await world.iothub.c2d.inboxes.free_held(holder_of(owner))

    broker = Broker(world.database, world.clock, worker, LocalBus(world.database, worker), timers, freeing=free)
    assert broker.workers is not None
    await broker.workers.join()
    return replace(world, broker=broker, connections=HubConnections(world.iothub, broker, world.clock))


async def dead(world: World) -> None:
    """Have others declare a worker dead, which it does not know."""
    await world.database.commit(Changes().run(store.LEAVE, id=world.broker.worker))


async def send(world: World, text: str) -> None:
    await world.iothub.c2d.send(
        world.hub, DEVICE, C2dMessage(text.encode(), {}, {}), message_id="", feedback="none", expiry=None, actor="test"
    )


def says(link: MqttDriver, wire_: Wire, *packets: Packet) -> None:
    for packet in packets:
        wire_.client.send(packet)
    link.data_received(wire_.client.data_to_send())


async def listening(world: World) -> tuple[MqttDriver, Wire]:
    link, wire_ = world.start()
    await until(lambda: bool(wire_.got(ConnAck)))
    says(link, wire_, Subscribe(1, ((wire.devicebound(DEVICE), 1),)))
    await until(lambda: bool(wire_.got(SubAck)))
    return link, wire_


async def owner_of(world: World) -> str | None:
    """Return the worker that has the device's session."""
    row = await world.database.one(store.SESSION, space=SPACE, client=DEVICE)
    return None if row is None else row["owner"]


def came(wire_: Wire) -> list[bytes]:
    return [bytes(packet.payload) for packet in wire_.got(Publish)]


async def test_what_a_dead_worker_had_taken_comes_before_what_came_after_it(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        first, second = await beside(world, "w1-a"), await beside(world, "w2-b")
        _, wire_ = await listening(first)
        await send(first, "1")
        first.connections.notify_device("main", DEVICE)
        await until(lambda: came(wire_) == [b"1"])
        await dead(first)
        await send(second, "2")
        _, again = await listening(second)
        await until(lambda: len(came(again)) == 2)
        assert came(again) == [b"1", b"2"]


async def test_a_device_that_comes_to_another_worker_waits_for_what_the_first_gives_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(tmp_path) as world:
        first = await beside(world, "w1-a")
        link, wire_ = await listening(first)
        await send(first, "1")
        first.connections.notify_device("main", DEVICE)
        await until(lambda: came(wire_) == [b"1"])
        real, may_go = DeviceQueues.abandon_all, asyncio.Event()

        async def late(inboxes: DeviceQueues, space: str, client: str, locks: Sequence[str]) -> None:
            if locks:
                await may_go.wait()
            await real(inboxes, space, client, locks)

        monkeypatch.setattr(DeviceQueues, "abandon_all", late)
        link.connection_lost(None)
        asked = asyncio.create_task(
            first.broker._spaces[SPACE].release_for_takeover(DEVICE, ends=False)
        )  # as another worker does
        await asyncio.sleep(0.2)
        assert not asked.done()
        assert await owner_of(first) == "w1-a"
        may_go.set()
        await asked
        assert await owner_of(first) is None
        (letter,) = await first.iothub.c2d.inboxes.letters(SPACE, DEVICE)
        assert letter.lock is None


async def test_a_worker_that_was_taken_for_dead_takes_nothing_more(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        first = await beside(world, "w1-a")
        _, wire_ = await listening(first)
        await dead(first)
        await send(first, "1")
        first.connections.notify_device("main", DEVICE)
        await asyncio.sleep(0.2)
        (letter,) = await first.iothub.c2d.inboxes.letters(SPACE, DEVICE)
        assert (letter.lock, came(wire_)) == (None, [])


async def test_a_worker_that_begins_takes_nothing_from_one_that_goes_on(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        first = await beside(world, "w1-a")
        _, wire_ = await listening(first)
        await send(first, "1")
        first.connections.notify_device("main", DEVICE)
        await until(lambda: came(wire_) == [b"1"])
        await (await beside(world, "w1-b")).connections.begin()
        (letter,) = await first.iothub.c2d.inboxes.letters(SPACE, DEVICE)
        assert letter.lock


async def test_nothing_that_a_device_sends_counts_at_a_worker_that_stood_still_and_was_taken_for_dead(
    tmp_path: Path,
) -> None:
    """The device may have been disabled meanwhile, which was answered when its lease ran out."""
    async with a_world(tmp_path) as world:
        first = await beside(world, "w1-a", timers := Late())
        link, wire_ = await listening(first)
        await dead(first)
        timers.late_s = 60.0
        says(link, wire_, Publish(wire.telemetry_topic(DEVICE), b"1", 1, packet_id=7))
        await asyncio.sleep(0.1)
        assert first.broker.workers is not None
        await first.broker.workers.beat()
        await until(lambda: wire_.is_over)
        await first.iothub.telemetry.wait_until_written()
        assert not wire_.got(PubAck)
        assert await first.iothub.telemetry.stream(first.hub).latest(10) == []


async def test_what_a_device_sends_counts_at_a_worker_that_stood_still_and_lives(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        first = await beside(world, "w1-a", timers := Late())
        link, wire_ = await listening(first)
        timers.late_s = 60.0
        says(link, wire_, Publish(wire.telemetry_topic(DEVICE), b"1", 1, packet_id=7))
        await asyncio.sleep(0.1)
        assert not wire_.got(PubAck)
        assert first.broker.workers is not None
        await first.broker.workers.beat()
        await until(lambda: bool(wire_.got(PubAck)))
