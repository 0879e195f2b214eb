"""Devices on multiplexed AMQP connections: connect time, server memory and CPU, and fairness on one connection.

    python benchmarks/amqp_devices.py [--devices 1000] [--messages 20000] [--seconds 10]

Each device has its token, its session, a link for telemetry and one for messages to it. The server is fresh, on SQLite.
Exit 1 if a device waits longer than 250 ms for a disposition while another floods the same connection.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from birthmark.amqp.message import AmqpMessage, DataBody, write_message
from support.azure.amqp_multiplexer import (
    DEVICEBOUND,
    EVENTS,
    DeviceListener,
    HubAddress,
    MultiplexedConnection,
    MultiplexedDevice,
    keep_connected,
)
from support.azure.hub_service import HubService
from support.server.servers import RunningServer, free_address

GATE_S = 0.25
_CONNECTIONS = 2
_KEY = b"k" * 32
_TICK = os.sysconf("SC_CLK_TCK")
_PROPERTIES = {"site": "north", "line": "7", "kind": "temperature"}
_FLOODS = (60, 4096, 65_536, 250_000)
_PROBE_S = 0.02


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def rss_kb(pid: int) -> int:
    return int(Path(f"/proc/{pid}/smaps_rollup").read_text().split("Rss:")[1].split()[0])


def telemetry(size: int, properties: dict[str, str]) -> bytes:
    return write_message(AmqpMessage(DataBody((b"x" * size,)), application_properties=properties))


class Fleet(DeviceListener):
    """Counts settled messages, and keeps the time of each probe's disposition."""

    def __init__(self) -> None:
        self.settled_count = self.refused = 0
        self.waiting: dict[tuple[str, int], float] = {}
        self.times: list[float] = []
        self.more: Callable[[MultiplexedDevice], None] = lambda _: None

    def settled(self, device, delivery_id, outcome) -> None:
        self.settled_count += 1
        self.refused += type(outcome).__name__ != "AcceptedOutcome"
        if (began := self.waiting.pop((device.name, delivery_id), None)) is not None:
            self.times.append(time.perf_counter() - began)
        else:
            self.more(device)

    def lost(self, device) -> None:
        del device
        self.waiting.clear()


async def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - of many devices
            await asyncio.sleep(0.005)


async def spread(fleet: Fleet, devices: list[MultiplexedDevice], payload: bytes, count: int) -> float:
    """Send messages from all devices, two in flight each; return the seconds."""
    left = count - 2 * len(devices)

    def more(device: MultiplexedDevice) -> None:
        nonlocal left
        if left > 0:
            left -= 1
            device.send(EVENTS, payload)

    fleet.more, fleet.settled_count, began = more, 0, time.perf_counter()
    for device in devices * 2:
        device.send(EVENTS, payload)
    await until(lambda: fleet.settled_count >= count)
    fleet.more = lambda _: None
    return time.perf_counter() - began


async def flood(fleet: Fleet, devices: list[MultiplexedDevice], size: int, seconds: float) -> tuple[float, list[float]]:
    """Flood by the first device; return its messages per second, and the times of the second one's dispositions."""
    payload, probe = telemetry(size, {}), telemetry(60, {})
    flooder, other = devices
    fleet.settled_count, fleet.times = 0, []
    connection = flooder.connection
    assert connection is not None
    assert connection is other.connection

    def fill(device: MultiplexedDevice) -> None:
        if device is flooder:
            while connection.can_write and device.capacity(EVENTS):
                device.send(EVENTS, payload)
                connection.flush()

    fleet.more, began = fill, time.perf_counter()
    due = began
    while time.perf_counter() - began < seconds:
        fill(flooder)
        if time.perf_counter() >= due and other.capacity(EVENTS):
            fleet.waiting[other.name, other.send(EVENTS, probe)] = time.perf_counter()
            due = time.perf_counter() + _PROBE_S
        await asyncio.sleep(0.002)
    rate = fleet.settled_count / (time.perf_counter() - began)
    fleet.more = lambda _: None
    await until(lambda: not fleet.waiting)
    return rate, sorted(fleet.times)


async def measure(server: RunningServer, asked: argparse.Namespace) -> bool:
    known = server.endpoints["iothub"]
    hub = HubAddress(server.address, known["host"], server.endpoints["trust_bundle"], known["amqps_port"])
    names = [f"bench-{number}" for number in range(asked.devices)]
    with HubService(hub, known["service_connection_string"], known["https_port"]) as service:
        service.create_devices(names, _KEY)
    server.stop()
    pid = server.start().pid  # without the memory that creating devices took
    fleet, over = Fleet(), asyncio.Event()
    devices = [MultiplexedDevice(name, _KEY, (EVENTS, DEVICEBOUND)) for name in names]
    connections = [MultiplexedConnection(hub, [], fleet) for _ in range(_CONNECTIONS)]
    running = [asyncio.create_task(keep_connected(one, over)) for one in connections]
    await asyncio.sleep(3)
    memory, cpu, began = rss_kb(pid), cpu_s(pid), time.perf_counter()
    for number, one in enumerate(connections):
        one.add(devices[number::_CONNECTIONS])
    await until(lambda: all(device.is_attached for device in devices))
    took, spent = time.perf_counter() - began, cpu_s(pid) - cpu
    print(f"{len(devices)} devices connected in {took:.1f} s, server CPU {spent / len(devices) * 1e3:.2f} ms each")
    await asyncio.sleep(3)
    print(f"server RSS: {(rss_kb(pid) - memory) / len(devices):.1f} KiB for each device")
    for told, properties in (("without properties", {}), ("with 3 properties", _PROPERTIES)):
        cpu = cpu_s(pid)
        took = await spread(fleet, devices, telemetry(60, properties), asked.messages)
        spent = (cpu_s(pid) - cpu) / asked.messages
        print(f"60 bytes {told}: server CPU {spent * 1e6:.0f} us per message, {asked.messages / took:,.0f} messages/s")
    print(f"server RSS: {(rss_kb(pid) - memory) / len(devices):.1f} KiB for each device after telemetry")
    is_good = True
    for size in _FLOODS:
        rate, times = await flood(fleet, devices[0 : 2 * _CONNECTIONS : _CONNECTIONS], size, asked.seconds)
        p50, p99, most = statistics.median(times), times[int(len(times) * 0.99)], times[-1]
        told = f"p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms, max {most * 1e3:.0f} ms of {len(times)}"
        print(f"flood of {size:,} bytes, {rate:,.0f} messages/s: another device's disposition {told}")
        is_good &= most <= GATE_S
    print(f"refused: {fleet.refused}; troubles: {[dict(one.troubles) for one in connections]}")
    over.set()
    for one, task in zip(connections, running, strict=True):
        one.stop()
        task.cancel()
    return is_good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each flood")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="birthmark-amqp-") as temporary, contextlib.ExitStack() as ends:
        server = RunningServer(Path(temporary) / "data", free_address()).start()
        ends.callback(server.stop)
        is_good = asyncio.run(measure(server, asked))
    sys.exit(not is_good)


if __name__ == "__main__":
    main()
