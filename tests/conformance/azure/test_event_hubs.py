"""Unmodified azure-eventhub reads the telemetry of a hub, over TLS and over WebSocket."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.core.credentials import AccessToken
from azure.eventhub import EventHubConsumerClient, EventHubProducerClient
from azure.eventhub.exceptions import AuthenticationError, ConnectError, EventHubError

from birthmark.testing.cloud import Cloud
from support.azure import fresh_servers
from support.azure.event_hubs import Reader, options, read_async, send
from support.server.servers import RunningServer

server, birthmark_server = fresh_servers.server, fresh_servers.birthmark_server
pytestmark = [
    pytest.mark.system,
    pytest.mark.usefixtures("sdk_sockets_closed"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # the SDK leaves sockets open
]

TRANSPORTS = pytest.mark.parametrize("over", ["tcp", "websocket"])


def partition_of(cloud: Cloud) -> str:
    """Return the only partition that has events."""
    with cloud.event_hub_reader() as client:
        known = [client.get_partition_properties(one) for one in client.get_partition_ids()]
    (partition,) = [one["id"] for one in known if not one["is_empty"]]
    return str(partition)


@TRANSPORTS
def test_the_event_hub_and_its_partitions_describe_themselves(birthmark_cloud: Cloud, over: str) -> None:
    send(birthmark_cloud.azure_device("described", at="hub", auth="key"), "1", "2", "3")
    with birthmark_cloud.event_hub_reader(**options(birthmark_cloud, over)) as client:
        assert client.get_eventhub_properties()["eventhub_name"] == "birthmark"
        assert client.get_partition_ids() == ["0", "1", "2", "3"]
        known = [client.get_partition_properties(one) for one in "0123"]
    (full,) = [one for one in known if not one["is_empty"]]
    assert (full["beginning_sequence_number"], full["last_enqueued_sequence_number"]) == (0, 2)
    assert full["last_enqueued_time_utc"] > datetime.now(UTC) - timedelta(minutes=5)
    empty = next(one for one in known if one["is_empty"])
    assert (empty["last_enqueued_sequence_number"], empty["last_enqueued_offset"]) == (-1, "-1")


@TRANSPORTS
def test_an_event_has_what_the_device_sent(birthmark_cloud: Cloud, over: str) -> None:
    device = birthmark_cloud.azure_device("sender", at="hub", auth="key")
    send(device, '{"t": 20}', site="north")
    with Reader(birthmark_cloud, transport=over) as reader:
        (event,) = reader.received(1).events
    assert event.body_as_json() == {"t": 20}
    assert event.properties == {b"site": b"north"}
    assert (event.message_id, event.content_type) == ('id-{"t": 20}', "application/json")
    assert event.system_properties[b"iothub-connection-device-id"] == b"sender"
    assert event.system_properties[b"iothub-message-source"] == b"Telemetry"
    assert json.loads(event.system_properties[b"iothub-connection-auth-method"])["type"] == "sas"
    assert event.system_properties[b"iothub-connection-auth-generation-id"].isdigit()
    assert event.sequence_number == 0
    assert event.enqueued_time is not None
    assert event.enqueued_time > datetime.now(UTC) - timedelta(minutes=5)


@TRANSPORTS
def test_new_events_arrive_while_a_reader_waits(birthmark_cloud: Cloud, over: str) -> None:
    device = birthmark_cloud.azure_device("live", at="hub", auth="key")
    with Reader(birthmark_cloud, transport=over, starting_position="@latest") as reader:
        time.sleep(3)
        send(device, "1")
        reader.received(1)
        since = time.monotonic()
        send(device, "2")
        assert reader.received(2).bodies == ["1", "2"]
    assert time.monotonic() - since < (5 if over == "tcp" else 15)  # the SDK polls a WebSocket


@pytest.mark.parametrize(
    ("position", "more", "bodies"),
    [
        ("-1", {}, ["0", "1", "2", "3", "4"]),
        (2, {}, ["3", "4"]),
        (2, {"starting_position_inclusive": True}, ["2", "3", "4"]),
        (datetime(2020, 1, 1, tzinfo=UTC), {}, ["0", "1", "2", "3", "4"]),
    ],
)
def test_a_reader_begins_at_a_position(
    birthmark_cloud: Cloud, position: str | int | datetime, more: dict[str, Any], bodies: list[str]
) -> None:
    send(birthmark_cloud.azure_device("placed", at="hub", auth="key"), *"01234")
    at = partition_of(birthmark_cloud)
    with Reader(birthmark_cloud, partition_id=at, starting_position=position, **more) as reader:
        reader.received(len(bodies))
        time.sleep(0.5)
        assert reader.reading.bodies == bodies


def test_a_reader_continues_at_an_offset(birthmark_cloud: Cloud) -> None:
    send(birthmark_cloud.azure_device("offsets", at="hub", auth="key"), *"01234")
    with Reader(birthmark_cloud) as reader:
        offset = reader.received(5).events[1].offset
    with Reader(birthmark_cloud, partition_id=partition_of(birthmark_cloud), starting_position=offset) as reader:
        assert reader.received(3).bodies == ["2", "3", "4"]


@pytest.mark.filterwarnings("ignore:uAMQP legacy support")
def test_uamqp_reads_as_well(birthmark_cloud: Cloud) -> None:
    send(birthmark_cloud.azure_device("uamqp", at="hub", auth="key"), *"012")
    with Reader(birthmark_cloud, uamqp_transport=True, partition_id=partition_of(birthmark_cloud)) as reader:
        assert reader.received(3).bodies == ["0", "1", "2"]


@TRANSPORTS
def test_consumer_groups_read_independently(birthmark_cloud: Cloud, server: RunningServer, over: str) -> None:
    server.run("hub", "consumer-group", "create", "analytics")
    send(birthmark_cloud.azure_device("grouped", at="hub", auth="key"), *"01234")
    groups = ["$Default", "Analytics"]
    assert asyncio.run(read_async(birthmark_cloud, groups, 5, over)) == [["0", "1", "2", "3", "4"]] * 2


def test_an_unknown_consumer_group_is_explained(birthmark_cloud: Cloud) -> None:
    with Reader(birthmark_cloud, "nobody", partition_id="0") as reader:
        assert "nobody" in str(reader.failed())
    assert birthmark_cloud.why(code="iothub.unknown_consumer_group")


def test_a_deleted_consumer_group_ends_its_readers(birthmark_cloud: Cloud, server: RunningServer) -> None:
    server.run("hub", "consumer-group", "create", "short")
    with Reader(birthmark_cloud, "short", partition_id="0") as reader:
        time.sleep(2)
        server.run("hub", "consumer-group", "rm", "short", "--yes")
        assert isinstance(reader.failed(), EventHubError)


def test_events_tell_the_newest_one_of_their_partition(birthmark_cloud: Cloud) -> None:
    send(birthmark_cloud.azure_device("tracked", at="hub", auth="key"), *"01234")
    at = partition_of(birthmark_cloud)
    with Reader(birthmark_cloud, partition_id=at, track_last_enqueued_event_properties=True) as reader:
        newest = reader.received(5).tracked[0]
    assert newest["sequence_number"] == 4
    assert newest["enqueued_time"] <= newest["retrieval_time"]


def test_a_reader_with_a_higher_owner_level_replaces_the_present_one(birthmark_cloud: Cloud) -> None:
    device = birthmark_cloud.azure_device("owned", at="hub", auth="key")
    send(device, "1")
    at = partition_of(birthmark_cloud)
    with Reader(birthmark_cloud, partition_id=at, owner_level=1) as first:
        first.received(1)
        with Reader(birthmark_cloud, partition_id=at, owner_level=2) as second:
            second.received(1)
            assert "epoch 2" in str(first.failed())
            with Reader(birthmark_cloud, partition_id=at, owner_level=1) as lower:
                assert "epoch" in str(lower.failed())
            with Reader(birthmark_cloud, partition_id=at) as without:
                assert "epoch" in str(without.failed())
            send(device, "2")
            assert second.received(2).bodies == ["1", "2"]
    with Reader(birthmark_cloud, partition_id=at) as later:
        later.received(2)
    assert birthmark_cloud.why(code="iothub.exclusive_reader")


def test_a_sixth_reader_of_a_partition_is_refused(birthmark_cloud: Cloud) -> None:
    send(birthmark_cloud.azure_device("crowded", at="hub", auth="key"), "1")
    at = partition_of(birthmark_cloud)
    readers = [Reader(birthmark_cloud, partition_id=at) for _ in range(5)]
    for reader in readers:
        reader.received(1)
    with Reader(birthmark_cloud, partition_id=at) as sixth:
        assert "maximum" in str(sixth.failed())
    for reader in readers:
        reader.close()


def test_a_wrong_key_is_refused_and_explained(birthmark_cloud: Cloud) -> None:
    string = birthmark_cloud.event_hub_connection_string.replace("SharedAccessKey=", "SharedAccessKey=AAAA")
    client = EventHubConsumerClient.from_connection_string(
        string, "$Default", connection_verify=birthmark_cloud.ca_file, retry_total=0
    )
    with pytest.raises(AuthenticationError, match="401"):
        client.get_partition_ids()
    client.close()
    assert birthmark_cloud.why(code="sas.signature_mismatch")


def test_an_entra_id_token_is_refused_and_explained(birthmark_cloud: Cloud) -> None:
    class Credential:
        def get_token(self, *_scopes: str, **_: object) -> AccessToken:
            return AccessToken("eyJ0eXAiOiJKV1QifQ.e30.x", int(time.time()) + 3600)

    client = EventHubConsumerClient(
        birthmark_cloud.host,
        "birthmark",
        "$Default",
        Credential(),
        connection_verify=birthmark_cloud.ca_file,
        retry_total=0,
    )
    with pytest.raises(AuthenticationError, match="shared access signature"):
        client.get_partition_ids()
    client.close()
    assert birthmark_cloud.why(code="iothub.amqp_token_type")


def test_events_cannot_be_sent_to_the_endpoint(birthmark_cloud: Cloud) -> None:
    client = EventHubProducerClient.from_connection_string(
        birthmark_cloud.event_hub_connection_string, connection_verify=birthmark_cloud.ca_file, retry_total=0
    )
    with pytest.raises(EventHubError), client:
        client.create_batch()
    assert birthmark_cloud.why(code="iothub.event_hub_read_only")


def test_another_hubs_name_is_refused(birthmark_cloud: Cloud) -> None:
    string = birthmark_cloud.event_hub_connection_string.replace("EntityPath=birthmark", "EntityPath=other")
    client = EventHubConsumerClient.from_connection_string(
        string, "$Default", connection_verify=birthmark_cloud.ca_file, retry_total=0
    )
    with pytest.raises((ConnectError, EventHubError)):
        client.get_partition_ids()
    client.close()


def test_a_rotated_key_ends_its_readers(birthmark_cloud: Cloud, server: RunningServer) -> None:
    with Reader(birthmark_cloud, partition_id="0") as reader:
        time.sleep(2)
        server.run("hub", "key", "--policy", "service", "--rotate", "primary")
        assert isinstance(reader.failed(), EventHubError)


def test_a_reader_continues_after_a_cut_line(birthmark_cloud: Cloud) -> None:
    device = birthmark_cloud.azure_device("cut", at="hub", auth="key")
    send(device, "1")
    with Reader(birthmark_cloud, partition_id=partition_of(birthmark_cloud), retry_total=5) as reader:
        reader.received(1)
        birthmark_cloud.set_line("cut")
        birthmark_cloud.set_line("through")
        send(device, "2")
        assert reader.received(2).bodies == ["1", "2"]
