"""What stock agents do by themselves, and what AWS refuses though it would be easy."""

import queue
import socket
import ssl
from typing import Any

import pytest
from botocore.exceptions import ClientError

from support.aws.clients import Account, until
from support.server.servers import RunningServer

pytestmark = pytest.mark.system


@pytest.mark.parametrize("report", ["defender/metrics/json", "defender/metrics/cbor", "greengrassv2/health/json"])
def test_an_agent_that_reports_stays_connected(account: Account, server: RunningServer, report: str) -> None:
    client = account.client("reporter")
    told = client.publish(f"$aws/things/reporter/{report}", b"{}", 1)
    told.wait_for_publish(10)
    assert told.is_published()
    client.publish("still/there", b"1", 1).wait_for_publish(10)
    assert not client.ended.is_set()
    until(lambda: server.why("reporter")["code"] == "awsiot.report_dropped")


def test_an_agent_of_tunnels_is_told_that_it_is_not_subscribed_and_stays_connected(account: Account) -> None:
    client, granted = account.client("tunnels"), queue.Queue[Any]()
    client.on_subscribe = lambda _client, _data, _id, codes: granted.put(list(codes))
    client.subscribe("$aws/things/tunnels/tunnels/notify", 1)
    assert granted.get(timeout=10) == [0x80]
    client.publish("still/there", b"1", 1).wait_for_publish(10)
    assert not client.ended.is_set()


def test_things_are_not_listed_by_type_and_attribute_together(iot: Any) -> None:
    with pytest.raises(ClientError, match="by the combination of attribute and thing type is not supported"):
        iot.list_things(thingTypeName="pump", attributeName="site", attributeValue="x")


def test_a_certificate_publishes_over_https_on_port_443_by_alpn(account: Account, server: RunningServer) -> None:
    if server.endpoints["aws"]["endpoint_url"].count(":") > 1:
        pytest.skip("port 443 cannot be bound here")
    context = ssl.create_default_context(cafile=account.cloud.ca_file)
    context.load_cert_chain(*account.files)
    context.set_alpn_protocols(["x-amzn-http-ca"])
    with (
        socket.create_connection((account.endpoint, 443), 10) as raw,
        context.wrap_socket(raw, server_hostname=account.endpoint) as sock,
    ):
        assert sock.selected_alpn_protocol() == "x-amzn-http-ca"
        head = f"POST /topics/a/b?qos=1 HTTP/1.1\r\nHost: {account.endpoint}\r\nContent-Length: 2\r\n\r\n{{}}"
        sock.sendall(head.encode())
        assert sock.recv(64).startswith(b"HTTP/1.1 200 ")
