"""Event Hubs readers: server CPU per event, throughput, memory of idle and of stopped readers.

    python benchmarks/amqp_readers.py [--events 100000] [--idle 1000]

The events are written to the database before the server starts. The raw reader grants 5,000 credits at a time and only
counts frames.
"""

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from birthmark.amqp.framer import encode_frame
from birthmark.amqp.performatives import Flow, Source, encode_performative
from birthmark.amqp.values import Symbol
from birthmark.broker.database_stream import SqlStream
from birthmark.broker.rules.stream_partitions_and_positions import key_of
from birthmark.clock_and_entropy import SystemClock
from birthmark.iothub.model import TelemetryMessage, space_of
from birthmark.store import open_database
from support.azure.raw_back_end import RawBackEnd

_TICK = os.sysconf("SC_CLK_TCK")
_BATCH = 1000
ADDRESS = "127.0.0.77"
HUBS = ("h2", "h3")
READERS = 1000


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def memory_kb(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.split("Pss:")[1].split()[0])


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from birthmark.cli.app import main; main()", *arguments]


def serve(data: Path) -> "subprocess.Popen[bytes]":
    given = ("--data", str(data), "--listen", ADDRESS, "--config", str(data.parent / "birthmark.toml"))
    started = subprocess.Popen(command("serve", *given), stdout=subprocess.DEVNULL)
    subprocess.run(command("env", "--data", str(data), "--wait", "30"), stdout=subprocess.DEVNULL, check=True)
    return started


def variables(data: Path) -> dict[str, str]:
    told = subprocess.run(
        command("env", "--data", str(data), "--format", "dotenv"), capture_output=True, text=True, check=True
    )
    return dict(line.split("=", 1) for line in told.stdout.splitlines() if "=" in line)


async def fill(data: Path, count: int) -> None:
    """Write events of one device, 60 bytes each."""
    clock = SystemClock()
    database = await open_database(f"sqlite:///{data}/birthmark.db", clock)
    try:
        stream = SqlStream(space_of("birthmark"), TelemetryMessage, database, clock)
        for _ in range(count // _BATCH):
            at = clock.micros()
            some = [TelemetryMessage("bench", at, b"x" * 60, {"message-id": "1"}, {"site": "north"})] * _BATCH
            stream.append(key_of("bench"), some, 60 * _BATCH, lambda _outcome: None)
            await stream.settled()
    finally:
        await database.close()


def partition(string: str, ca: str) -> str:
    from azure.eventhub import EventHubConsumerClient

    with EventHubConsumerClient.from_connection_string(string, "$Default", connection_verify=ca) as client:
        known = [client.get_partition_properties(one) for one in client.get_partition_ids()]
    return next(str(one["id"]) for one in known if not one["is_empty"])


def read_raw(back_end: RawBackEnd, at: str, count: int) -> float:
    """Return the seconds for a number of events."""
    handle = back_end.attach(f"birthmark/ConsumerGroups/$Default/Partitions/{at}", credit=0)
    began, seen, granted = time.perf_counter(), 0, 0
    rest = b""
    while seen < count:
        if granted - seen < 2500:
            granted = seen + 5000
            flow = Flow(seen, 10_000, 0, 2048, handle=handle, delivery_count=seen, link_credit=5000)
            back_end.line.sendall(encode_frame(0, encode_performative(flow)))
        data = rest + back_end.line.recv(262_144)
        offset = 0
        while offset + 4 <= len(data):
            size = int.from_bytes(data[offset : offset + 4], "big")
            if offset + size > len(data):
                break
            seen += data[offset + 10 : offset + 11] == b"\x14"  # TRANSFER
            offset += size
        rest = data[offset:]
    return time.perf_counter() - began


def read_sdk(string: str, ca: str, at: str, count: int) -> float:
    from azure.eventhub import EventHubConsumerClient

    client = EventHubConsumerClient.from_connection_string(string, "$Default", connection_verify=ca)
    seen, began, ended = 0, time.perf_counter(), 0.0

    def take(_context: object, events: list[object]) -> None:
        nonlocal seen, ended
        seen += len(events)
        if seen >= count and not ended:
            ended = time.perf_counter()
            threading.Thread(target=client.close).start()

    client.receive_batch(
        on_event_batch=take, partition_id=at, starting_position="-1", prefetch=5000, max_batch_size=5000
    )
    return ended - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--idle", type=int, default=1000)
    asked = parser.parse_args()
    data = Path(tempfile.mkdtemp()) / "data"
    data.mkdir()
    (data.parent / "birthmark.toml").write_text(f"names = {[f'{name}.example' for name in HUBS]}\n")
    first = serve(data)
    first.terminate()
    first.wait()
    asyncio.run(fill(data, asked.events))
    server = serve(data)
    try:
        known = variables(data)
        string, ca = known["EVENT_HUB_CONNECTION_STR"], known["SSL_CERT_FILE"]
        at = partition(string, ca)
        for _ in range(3):
            with RawBackEnd(ADDRESS, ca, string) as back_end:
                back_end.claim()
                before = cpu_s(server.pid)
                took = read_raw(back_end, at, asked.events)
                spent = cpu_s(server.pid) - before
            print(f"raw reader: {asked.events / took:,.0f} events/s, {spent / asked.events * 1e6:.1f} us CPU per event")
        before = cpu_s(server.pid)
        took = read_sdk(string, ca, at, asked.events)
        spent = cpu_s(server.pid) - before
        print(f"azure-eventhub: {asked.events / took:,.0f} events/s, {spent / asked.events * 1e6:.1f} us CPU per event")
        idle = memory(server.pid, ca, string, asked.idle)
        print(f"idle connection: {idle:.1f} KB each, of {asked.idle}")
        print(f"idle reader: {readers(server.pid, ca, string, data):.1f} KB each")
        print(f"stopped reader: {stopped(server.pid, ca, string, at):,.0f} KB")
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(data.parent)


def memory(pid: int, ca: str, string: str, count: int) -> float:
    """Return the kilobytes of one idle connection: TLS, two links of `$cbs` and one that receives."""
    before, held = memory_kb(pid), []
    for number in range(count):
        source = f"127.1.{number // 250}.{number % 250 + 1}"
        back_end = RawBackEnd(ADDRESS, ca, string, source=source).claim()
        back_end.attach("messages/servicebound/filenotifications", credit=10)
        held.append(back_end)
    time.sleep(2)
    used = (memory_kb(pid) - before) / count
    for back_end in held:
        back_end.line.close()
    return used


def readers(pid: int, ca: str, string: str, data: Path) -> float:
    """Return the kilobytes of one idle reader, of 1,000: five of each partition, in groups of three hubs."""
    groups = ["$Default", *(f"g{number}" for number in range(19))]
    hubs = {"birthmark": string}
    for name in HUBS:
        run("hub", "create", name, "--host", f"{name}.example", data=data)
        hubs[name] = json.loads(run("hub", "key", name, "--policy", "service", "--json", data=data))[
            "primary_event_hubs_connection_string"
        ]
    for name in hubs:
        for group in groups[1:]:
            run("hub", "consumer-group", "create", group, "--hub", name, data=data)
    before, held = memory_kb(pid), []
    for number in range(READERS):
        source = f"127.2.{number // 250}.{number % 250 + 1}"
        hub = list(hubs)[number // 400]
        back_end = RawBackEnd(ADDRESS, ca, hubs[hub], source=source).claim()
        latest = {Symbol("apache.org:selector-filter:string"): "amqp.annotation.x-opt-offset > '@latest'"}
        address = f"{hub}/ConsumerGroups/{groups[number // 20 % 20]}/Partitions/{number % 4}"
        back_end.attach(address, credit=10, source=Source(address, filter=latest))
        held.append(back_end)
    time.sleep(2)
    used = (memory_kb(pid) - before) / len(held)
    busy = cpu_s(pid)
    time.sleep(10)
    print(f"{READERS} idle readers: {(cpu_s(pid) - busy) / 10 * 100:.1f} % of a core")
    for back_end in held:
        back_end.line.close()
    return used


def run(*arguments: str, data: Path) -> str:
    done = subprocess.run(command(*arguments, "--data", str(data)), capture_output=True, text=True, check=True)
    return done.stdout


def stopped(pid: int, ca: str, string: str, at: str) -> float:
    """Return the kilobytes of a reader with credit for everything that reads nothing, of four."""
    before, held = memory_kb(pid), []
    for _ in range(4):
        back_end = RawBackEnd(ADDRESS, ca, string).claim()
        back_end.line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        back_end.attach(f"birthmark/ConsumerGroups/$Default/Partitions/{at}", credit=100_000)
        held.append(back_end)
    time.sleep(3)
    used = (memory_kb(pid) - before) / len(held)
    for back_end in held:
        back_end.line.close()
    return used


if __name__ == "__main__":
    main()
