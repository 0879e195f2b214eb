"""A device over HTTPS alone: Node's SDK with its Http transport, and what any client sees."""

import base64
import hashlib
import hmac
import json
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from birthmark.testing.cloud import AzureDevice, Cloud
from support.azure.clients import Device, a_file_device, needs_443
from support.azure.node_clients import node
from support.server.servers import RunningServer

pytestmark = pytest.mark.system

SCRIPT = """
const {Registry} = require('azure-iothub');
const {Client, Message} = require('azure-iot-device');
const {Http} = require('azure-iot-device-http');
const name = process.env.DEVICE;
const text = process.env.IOTHUB_CONNECTION_STRING;
const host = /HostName=([^;:]*)/.exec(text)[1];
const key = Buffer.alloc(32, 'k').toString('base64');
const client = Client.fromConnectionString(`HostName=${host};DeviceId=${name};SharedAccessKey=${key}`, Http);
const told = (call) => new Promise((done, failed) => call((error, found) => error ? failed(error) : done(found)));

async function main() {
  const [act] = process.argv.slice(1);
  if (act === 'make') {
    const authentication = {type: 'sas', symmetricKey: {primaryKey: key, secondaryKey: key}};
    await Registry.fromConnectionString(text).create({deviceId: name, status: 'enabled', authentication});
    return;
  }
  if (act === 'send') {
    const one = new Message('one');
    one.messageId = 'm-1';
    one.contentType = 'text/plain';
    one.properties.add('site', 'a');
    await client.sendEvent(one);
    const two = new Message('two');
    two.properties.add('site', 'b');
    await client.sendEventBatch([two, new Message('three')]);
    return;
  }
  await client.setOptions({manualPolling: true});
  await client.open();
  const got = new Promise((done, failed) => {
    client.on('message', done);
    client.on('error', failed);
  });
  client._transport.receive();
  const message = await got;
  console.log(message.messageId, message.getData().toString(), message.properties.getValue('iothub-app-site'));
  for (const how of act.split(',')) {
    try {
      const settled = await told((done) => client[how](message, done));
      console.log(settled.constructor.name);
    } catch (error) {
      console.log(error.constructor.name, error.response.statusCode);
    }
  }
}
main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
"""


Credential = AzureDevice | Device


@dataclass
class Answer:
    status: int
    headers: Message
    body: bytes

    @property
    def error(self) -> str | None:
        return self.headers["iothub-errorcode"]

    @property
    def lock(self) -> str:
        return str(self.headers["ETag"]).strip('"')


def a_token(resource: str, key: bytes, policy: str = "") -> str:
    end = int(time.time()) + 600
    where = quote(resource, safe="")
    signature = base64.b64encode(hmac.digest(key, f"{where}\n{end}".encode(), hashlib.sha256))
    skn = f"&skn={policy}" if policy else ""
    return f"SharedAccessSignature sr={where}&sig={quote(signature, safe='')}&se={end}{skn}"


def mail(cloud: Cloud, name: str, body: bytes, **headers: str) -> None:
    """Send a device a message, as the service does."""
    text = cloud.hub_connection_string
    parts = dict(part.split("=", 1) for part in text.split(";"))
    key = base64.b64decode(parts["SharedAccessKey"])
    token = a_token(parts["HostName"], key, parts["SharedAccessKeyName"])
    path = f"/devices/{name}/messages/deviceBound"
    assert https(cloud, "POST", path, None, body=body, Authorization=token, **headers).status == 201


def https(
    cloud: Cloud, method: str, path: str, by: Credential | None = None, *, body: bytes = b"", **headers: str
) -> Answer:
    context = ssl.create_default_context(cafile=cloud.ca_file)
    if by is not None:
        context.load_cert_chain(by.certificate_file, by.key_file)
    url = f"https://{cloud.host}:8443{path}{'&' if '?' in path else '?'}api-version=2021-04-12"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, body or None, named, method=method)
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


def told(server: RunningServer, name: str) -> dict[str, str]:
    """Return what the service is told of a device's messages."""
    rows: list[dict[str, Any]] = server.rows("hub", "feedback")
    return {row["originalMessageId"]: row["statusCode"] for row in rows if row["deviceId"] == name}


def test_nodes_http_transport_sends_one_message_and_a_batch(cloud: Cloud) -> None:
    needs_443(cloud)
    node(cloud, SCRIPT, "make", DEVICE="http-sends")
    node(cloud, SCRIPT, "send", DEVICE="http-sends")
    rows = cloud.messages("http-sends")
    assert [(row["body"], row["properties"]) for row in rows] == [
        ("one", {"site": "a"}),
        ("two", {"site": "b"}),
        ("three", {}),
    ]
    assert rows[0]["system"] == {"message-id": "m-1", "content-type": "text/plain"}


def test_nodes_http_transport_receives_and_settles(cloud: Cloud, server: RunningServer) -> None:
    needs_443(cloud)
    node(cloud, SCRIPT, "make", DEVICE="http-mail")
    for number in (1, 2):
        named = {"IoTHub_MessageId": f"m-{number}", "iothub_ack": "full", "iothub_app_site": "a & b"}
        mail(cloud, "http-mail", f"hello {number}".encode(), **named)
    # What was abandoned is first in the queue again; what is settled is gone, and its lock with it.
    assert node(cloud, SCRIPT, "abandon,complete", DEVICE="http-mail") == [
        "m-1 hello 1 a & b",
        "MessageAbandoned",
        "Error 412",
    ]
    assert node(cloud, SCRIPT, "complete,complete", DEVICE="http-mail") == [
        "m-1 hello 1 a & b",
        "MessageCompleted",
        "Error 412",
    ]
    assert node(cloud, SCRIPT, "reject", DEVICE="http-mail") == ["m-2 hello 2 a & b", "MessageRejected"]
    assert told(server, "http-mail") == {"m-1": "Success", "m-2": "Rejected"}


def test_a_message_waits_under_its_lock_and_an_empty_queue_has_no_content(cloud: Cloud) -> None:
    device = cloud.azure_device("http-lock", at="hub")
    path = "/devices/http-lock/messages/deviceBound"
    assert https(cloud, "GET", path, device).status == 204
    mail(cloud, "http-lock", b"hello")
    got = https(cloud, "GET", path, device, IoTHub_MessageLockTimeout="5")
    assert (got.status, got.body, got.headers["iothub-deliverycount"]) == (200, b"hello", "0")
    assert https(cloud, "GET", path, device).status == 204  # it is locked
    time.sleep(5.2)
    late = https(cloud, "DELETE", f"{path}/{got.lock}", device)
    assert (late.status, late.error) == (412, "DeviceMessageLockLost")
    again = https(cloud, "GET", path, device)
    assert (again.body, again.headers["iothub-deliverycount"]) == (b"hello", "1")
    assert https(cloud, "DELETE", f"{path}/{again.lock}", device).status == 204
    assert https(cloud, "GET", path, device).status == 204


def test_a_message_that_is_abandoned_ten_times_is_a_dead_letter(cloud: Cloud, server: RunningServer) -> None:
    device = cloud.azure_device("http-dead", at="hub")
    path = "/devices/http-dead/messages/devicebound"
    mail(cloud, "http-dead", b"poison", IoTHub_MessageId="p", iothub_ack="negative")
    for _ in range(10):
        lock = https(cloud, "GET", path, device).lock
        assert https(cloud, "POST", f"{path}/{lock}/abandon", device).status == 204
    assert https(cloud, "GET", path, device).status == 204
    assert told(server, "http-dead") == {"p": "DeliveryCountExceeded"}


def test_another_device_has_no_way_to_a_message(cloud: Cloud) -> None:
    device = cloud.azure_device("http-own", at="hub")
    thief = cloud.azure_device("http-thief", at="hub")
    path = "/devices/{}/messages/deviceBound"
    mail(cloud, "http-own", b"mine")
    assert https(cloud, "GET", path.format("http-own"), thief).status == 401
    lock = https(cloud, "GET", path.format("http-own"), device).lock
    assert https(cloud, "DELETE", f"{path.format('http-own')}/{lock}", thief).status == 401
    assert https(cloud, "DELETE", f"{path.format('http-thief')}/{lock}", thief).status == 412
    assert https(cloud, "POST", "/devices/http-own/messages/events", thief, body=b"forged").status == 401
    assert https(cloud, "DELETE", f"{path.format('http-own')}/{lock}", device).status == 204
    assert cloud.messages("http-own") == []


def test_a_stranger_does_not_learn_which_devices_there_are(cloud: Cloud, tmp_path: Path) -> None:
    unauthenticated = a_file_device(tmp_path, "http-stranger")
    cloud.azure_device("http-there", at="hub")
    node(cloud, SCRIPT, "make", DEVICE="http-key")
    token = a_token(f"{cloud.host}/devices/http-key", b"no key of theirs")
    told_them = set()
    for name, shown in (("http-there", ""), ("http-nowhere", ""), ("http-key", ""), ("http-key", token)):
        answer = https(cloud, "GET", f"/devices/{name}/messages/deviceBound", unauthenticated, Authorization=shown)
        told_them.add((answer.status, json.loads(answer.body)["Message"]))
    assert told_them == {(401, "ErrorCode:IotHubUnauthorizedAccess;Unauthorized")}
    assert cloud.why("http-nowhere")["code"] == "iothub.unknown_device"
    shown = unauthenticated.holder.certificate.thumbprint.hex()
    fix = cloud.why("http-nowhere")["fix"]
    assert f"`birthmark hub device create http-nowhere --hub birthmark --presented {shown}`" in fix
    assert cloud.why("http-there")["code"] == "iothub.thumbprint_mismatch"
    assert cloud.why("http-key")["code"] == "sas.signature_mismatch"


@pytest.mark.parametrize(
    ("body", "status"), [(b"x" * 262_144, 204), (b"x" * 262_145, 413), (b"", 204)], ids=["largest", "larger", "none"]
)
def test_telemetry_has_a_size(cloud: Cloud, body: bytes, status: int) -> None:
    name = f"http-size-{status}-{len(body)}"
    device = cloud.azure_device(name, at="hub")
    assert https(cloud, "POST", f"/devices/{name}/messages/events", device, body=body).status == status
    assert len(cloud.messages(name)) == (status == 204)
