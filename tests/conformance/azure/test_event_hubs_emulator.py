"""Event Hubs SDKs without TLS, by UseDevelopmentEmulator=true, on loopback."""

import threading

import pytest
from azure.eventhub import EventHubConsumerClient

from birthmark.testing.cloud import Cloud
from support.azure import fresh_servers
from support.azure.event_hubs import send
from support.azure.node_clients import in_node

server, birthmark_server = fresh_servers.server, fresh_servers.birthmark_server
pytestmark = [
    pytest.mark.system,
    pytest.mark.usefixtures("sdk_sockets_closed"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # the SDK leaves sockets open
]


@pytest.fixture(scope="module")
def birthmark_config() -> str:
    return "ports.amqp = 5672\n"


def emulated(cloud: Cloud) -> str:
    return f"{cloud.event_hub_connection_string};UseDevelopmentEmulator=true"


def test_azure_eventhub_reads_without_tls(birthmark_cloud: Cloud) -> None:
    send(birthmark_cloud.azure_device("plain", at="hub", auth="key"), "1", "2")
    bodies: list[str] = []
    client = EventHubConsumerClient.from_connection_string(emulated(birthmark_cloud), "$Default")

    def take(_context: object, event: object) -> None:
        bodies.append(event.body_as_str())  # type: ignore[attr-defined]
        if len(bodies) == 2:
            threading.Thread(target=client.close).start()

    client.receive(on_event=take, starting_position="-1")
    assert bodies == ["1", "2"]


def test_the_node_client_reads_without_tls(birthmark_cloud: Cloud) -> None:
    script = f"""
const {{ EventHubConsumerClient }} = require('@azure/event-hubs');
const client = new EventHubConsumerClient('$Default', {emulated(birthmark_cloud)!r});
say(await client.getPartitionIds());
await client.close();
"""
    assert in_node(birthmark_cloud, script) == ['["0","1","2","3"]']
