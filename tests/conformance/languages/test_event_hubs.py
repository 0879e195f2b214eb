"""Event Hubs SDKs of other languages read a hub's telemetry, each over an AMQP stack of its own."""

from pathlib import Path

import pytest

from birthmark.testing.cloud import Cloud
from support.azure import fresh_servers
from support.azure.event_hubs import send
from support.languages.programs import Program, Settings, another_ca
from support.server.scaled import for_one
from support.server.servers import RunningServer

server, birthmark_server = fresh_servers.server, fresh_servers.birthmark_server
pytestmark = pytest.mark.system


def reader(cloud: Cloud, **more: str) -> Settings:
    trust = {"CA_FILE": cloud.ca_file, "SSL_CERT_FILE": cloud.ca_file}
    return {"EVENT_HUB": cloud.event_hub_connection_string, "CONSUMER_GROUP": "$Default", **trust, **more}


def test_the_hub_describes_itself(birthmark_cloud: Cloud, event_hubs_sdk: Program) -> None:
    told = event_hubs_sdk.run("describe", reader(birthmark_cloud))
    assert told == {"name": "birthmark", "partitions": ["0", "1", "2", "3"]}


def test_events_arrive_in_their_order_with_their_device(birthmark_cloud: Cloud, event_hubs_sdk: Program) -> None:
    send(birthmark_cloud.azure_device("sender", at="hub", auth="key"), "1", "2")
    with event_hubs_sdk.start("listen", reader(birthmark_cloud)) as reading:
        events = [reading.until("body") for _ in range(2)]
    assert events == [{"body": body, "device": "sender", "sequence": place} for place, body in enumerate("12")]


def test_an_event_arrives_while_a_reader_waits(birthmark_cloud: Cloud, event_hubs_sdk: Program) -> None:
    device = birthmark_cloud.azure_device("sender", at="hub", auth="key")
    send(device, "1")
    with event_hubs_sdk.start("listen", reader(birthmark_cloud)) as reading:
        assert reading.until("body")["body"] == "1"
        send(device, "2")
        assert reading.until("body")["body"] == "2"


@for_one
def test_the_go_sdk_continues_after_a_cut_line(birthmark_cloud: Cloud) -> None:
    device = birthmark_cloud.azure_device("sender", at="hub", auth="key")
    send(device, "1")
    with Program("go", "eventhubs").start("listen", reader(birthmark_cloud)) as reading:
        assert reading.until("body")["body"] == "1"
        birthmark_cloud.set_line("cut")
        birthmark_cloud.set_line("through")
        send(device, "2")
        assert reading.until("body")["body"] == "2"


def test_another_consumer_group_reads_the_same_events(
    server: RunningServer, birthmark_cloud: Cloud, event_hubs_sdk: Program
) -> None:
    server.run("hub", "consumer-group", "create", "analytics")
    send(birthmark_cloud.azure_device("sender", at="hub", auth="key"), "1")
    for group in ("$Default", "analytics"):
        with event_hubs_sdk.start("listen", reader(birthmark_cloud, CONSUMER_GROUP=group)) as reading:
            assert reading.until("body")["body"] == "1"


def test_an_unknown_consumer_group_is_explained(birthmark_cloud: Cloud, event_hubs_sdk: Program) -> None:
    with event_hubs_sdk.start("listen", reader(birthmark_cloud, CONSUMER_GROUP="nobody")) as reading:
        assert "nobody" in reading.until("error")["error"]
    assert birthmark_cloud.why(code="iothub.unknown_consumer_group")


def test_a_wrong_key_is_refused(birthmark_cloud: Cloud, event_hubs_sdk: Program) -> None:
    wrong = birthmark_cloud.event_hub_connection_string.replace("SharedAccessKey=", "SharedAccessKey=AAAA")
    assert event_hubs_sdk.fail("describe", reader(birthmark_cloud, EVENT_HUB=wrong))
    assert birthmark_cloud.why()


def test_a_client_that_trusts_another_ca_does_not_connect(
    birthmark_cloud: Cloud, event_hubs_sdk: Program, tmp_path: Path
) -> None:
    assert event_hubs_sdk.fail("describe", reader(birthmark_cloud) | another_ca(tmp_path))
    assert birthmark_cloud.why(code="tls.server_not_trusted")
