"""WebSocket upgrades with other subprotocols than `mqtt`: AWS's first SDK for JavaScript, unmodified, and others."""

import contextlib
import shutil
import ssl
import subprocess
from http.client import HTTPSConnection

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.node_clients import NODE
from support.server.servers import RunningServer

pytestmark = pytest.mark.system

SCRIPT = """
const awsIot = require('aws-iot-device-sdk');
const [host, port, region, clientId] = process.argv.slice(1);
const device = awsIot.device({
  host, port: Number(port), region, clientId, protocol: 'wss',
  accessKeyId: process.env.AWS_ACCESS_KEY_ID, secretKey: process.env.AWS_SECRET_ACCESS_KEY,
});
device.on('error', (error) => { console.error(error); process.exit(1); });
device.on('close', () => { console.error('closed'); process.exit(1); });
device.on('connect', () => device.subscribe(`subprotocols/${clientId}`));
device.on('message', (topic, payload) => { console.log(payload.toString()); process.exit(0); });
device.on('packetreceive', (packet) => {
  if (packet.cmd === 'suback') device.publish(`subprotocols/${clientId}`, 'hello');
});
"""


def test_the_first_sdk_for_javascript_connects_with_an_access_key(server: RunningServer) -> None:
    aws = server.endpoints["aws"]
    arguments = [aws["data_endpoint"], str(server.endpoints["dps"]["https_port"]), aws["region"], "javascript-v1"]
    done = subprocess.run(
        [shutil.which("node") or "node", "-e", SCRIPT, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=NODE,
        env=dict(server.environment),
    )
    assert (done.stdout, done.returncode) == ("hello\n", 0), done.stderr


def upgrade(server: RunningServer, path: str, *offered: str) -> tuple[int, str | None]:
    """Return with which status and subprotocol an upgrade is answered."""
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers |= {"Sec-WebSocket-Key": "A" * 22 + "==", "Sec-WebSocket-Protocol": ", ".join(offered)}
    with contextlib.closing(HTTPSConnection(server.address, 8443, timeout=20, context=context)) as line:
        line.request("GET", path, headers=headers)
        answer = line.getresponse()
        return answer.status, answer.getheader("Sec-WebSocket-Protocol")


@pytest.mark.parametrize("path", ["/mqtt", "/$iothub/websocket"])
@pytest.mark.parametrize("offered", ["mqtt", "mqttv3.1", "mqttv3.1.1", "MQTT"])
def test_an_upgrade_is_answered_with_the_subprotocol_that_it_offers(
    server: RunningServer, path: str, offered: str
) -> None:
    assert upgrade(server, path, "AMQPWSB10", offered) == (101, offered)


def test_an_upgrade_for_amqp_alone_is_refused_where_aws_serves_mqtt(server: RunningServer, cloud: Cloud) -> None:
    assert upgrade(server, "/mqtt", "AMQPWSB10") == (403, None)
    assert cloud.why(code="net.websocket_subprotocol")


@pytest.mark.parametrize("path", ["/$iothub/websocket", "/$servicebus/websocket", "/$servicebus/websocket/"])
def test_an_upgrade_for_amqp_is_answered_where_a_hub_serves_it(server: RunningServer, path: str) -> None:
    assert upgrade(server, path, "AMQPWSB10") == (101, "AMQPWSB10")
