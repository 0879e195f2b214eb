"""Back ends over AMQP with two workers, and over kill -9 of a worker and of the whole server."""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from birthmark.testing.cloud import AzureDevice, Cloud
from support.azure.clients import run_python
from support.azure.event_hubs import Reader, send
from support.server.readiness import until_ready, until_workers_are_ready
from support.server.servers import RunningServer, a_server
from support.server.workers_of import below, hit
from support.services.postgres import a_postgres

pytestmark = [
    pytest.mark.system,
    pytest.mark.usefixtures("sdk_sockets_closed"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # the SDK leaves sockets open
]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of two workers."""
    with a_postgres() as url:
        config = f'workers = 2\ndatabase = "{url}"\n'
        with a_server(tmp_path_factory.mktemp("two"), config, is_warm=False) as server:
            yield server


def partition_of(cloud: Cloud) -> str:
    with cloud.event_hub_reader() as client:
        known = [client.get_partition_properties(one) for one in client.get_partition_ids()]
    return str(max(known, key=lambda one: one["last_enqueued_sequence_number"])["id"])


def sending(device: AzureDevice, first: int, count: int) -> list[str]:
    """Send numbered messages, each in a connection of its own, and return what was acknowledged."""
    sent: list[str] = []
    for number in range(first, first + count):
        while True:
            try:
                send(device, str(number))
                break
            except (OSError, AssertionError):  # a killed worker: the device sends again
                time.sleep(0.2)
        sent.append(str(number))
    return sent


def test_a_reader_gets_what_both_workers_accept_in_order_and_without_gaps(two: RunningServer) -> None:
    device = two.cloud.azure_device("both", at="hub", auth="key")
    sent = sending(device, 0, 20)
    with Reader(two.cloud, partition_id=partition_of(two.cloud)) as reader:
        reading = reader.received(20)
        sent += sending(device, 20, 10)
        reader.received(30)
    assert reading.bodies == sent
    assert reading.numbers == list(range(30))


def test_an_owner_level_counts_on_every_worker(two: RunningServer) -> None:
    device = two.cloud.azure_device("owned", at="hub", auth="key")
    sending(device, 0, 1)
    at = partition_of(two.cloud)
    previous: Reader | None = None
    readers: list[Reader] = []
    for level in range(4):  # each connection goes to one of both
        reader = Reader(two.cloud, partition_id=at, owner_level=level)
        readers.append(reader)
        reader.received(1)
        if previous is not None:
            assert "epoch" in str(previous.failed())
        previous = reader
    for reader in readers:
        reader.close()


def test_a_message_to_a_device_is_sent_and_its_feedback_received(two: RunningServer) -> None:
    two.cloud.azure_device("heard", at="hub")
    script = """
import os
from azure.iot.hub import IoTHubRegistryManager
for number in range(6):
    manager = IoTHubRegistryManager.from_connection_string(os.environ["IOTHUB_CONNECTION_STRING"])
    manager.send_c2d_message("heard", str(number), {"messageId": f"m{number}", "iothub-ack": "full"})
"""
    done = run_python(script, two.cloud.environment())
    assert done.returncode == 0, done.stderr
    assert [row["message"] for row in two.rows("hub", "c2d", "heard")] == [f"m{number}" for number in range(6)]


def test_a_reader_misses_nothing_when_a_worker_is_killed(two: RunningServer) -> None:
    device = two.cloud.azure_device("survivor", at="hub", auth="key")
    sent = sending(device, 0, 5)
    with Reader(two.cloud, partition_id=partition_of(two.cloud), retry_total=20) as reader:
        reader.received(5)
        killer = threading.Thread(target=hit, args=(below(two)["worker 1"], signal.SIGKILL))
        killer.start()
        sent += sending(device, 5, 20)
        killer.join()
        until_workers_are_ready(two)
        reading = reader.until(lambda found: set(sent) <= set(found.bodies), "all that was acknowledged")
    numbers = [number for number in reading.numbers if number is not None]
    assert sorted(set(numbers)) == list(range(max(numbers) + 1))


def test_a_reader_goes_on_after_kill_9_of_the_server(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        device = server.cloud.azure_device("durable", at="hub", auth="key")
        sent = sending(device, 0, 10)
        with Reader(server.cloud, partition_id=partition_of(server.cloud), retry_total=20) as reader:
            before = list(reader.received(10).numbers)
            server.kill()
            server.start()
            until_ready(server)
            sent += sending(device, 10, 5)
            reading = reader.until(lambda found: set(sent) <= set(found.bodies), "what was sent after the kill")
        assert before == list(range(10))
        assert set(reading.bodies) == set(sent)


def test_an_exclusive_reader_of_a_killed_server_does_not_block(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        device = server.cloud.azure_device("blocked", at="hub", auth="key")
        sending(device, 0, 1)
        at = partition_of(server.cloud)
        first = Reader(server.cloud, partition_id=at, owner_level=9)
        first.received(1)
        server.kill()
        server.start()
        until_ready(server)
        first.close()
        with Reader(server.cloud, partition_id=at, retry_total=5) as reader:
            assert reader.received(1).bodies == ["0"]
