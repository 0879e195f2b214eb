"""The unmodified Node device SDK over AMQP: proofs, settlement, takeovers, refusals, limits, and a killed server."""

import subprocess
import time
from pathlib import Path

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.clients import needs_443
from support.azure.node_clients import ENDS, NODE, PRELUDE, in_node
from support.server.servers import a_server

pytestmark = pytest.mark.system

DEVICE = """
const fs = require('node:fs');
const {Client: Service, Registry} = require('azure-iothub');
const {Client, Message} = require('azure-iot-device');
const {Amqp, AmqpWs} = require('azure-iot-device-amqp');
const {NoRetry} = require('azure-iot-common');
const registry = Registry.fromConnectionString(process.env.IOTHUB_CONNECTION_STRING);
const service = Service.fromConnectionString(process.env.IOTHUB_CONNECTION_STRING);
const name = process.env.DEVICE;
const sas = {type: 'sas', symmetricKey: {primaryKey: key, secondaryKey: other}};
const clientOf = (device = name, proof = `SharedAccessKey=${key}`) =>
  Client.fromConnectionString(
    `HostName=${host};DeviceId=${device};${proof}`, process.env.OVER === 'websocket' ? AmqpWs : Amqp);
const once = (device, proof) => {
  const client = clientOf(device, proof);
  client.setRetryPolicy(new NoRetry());
  return client;
};
const outcome = async (client, body = 'hello') => {
  try {
    await client.open();
    await client.sendEvent(new Message(body));
    await client.close();
    return 'sent';
  } catch (error) {
    return error.name;
  }
};
const feedback = async () => {
  const receiver = await told((done) => service.getFeedbackReceiver(done));
  return new Promise((done) => receiver.once('message', (message) => {
    receiver.complete(message, () => done(JSON.parse(message.getData())));
  }));
};
process.on('uncaughtException', (error) => { if (error.name !== 'NotConnectedError') throw error; });
"""
CREATE = "await registry.create({deviceId: name, status: 'enabled', authentication: sas});\n"


def run(cloud: Cloud, name: str, script: str, **more: str) -> list[str]:
    return in_node(cloud, DEVICE + script, DEVICE=name, **more)


@pytest.mark.parametrize("over", ["tcp", "websocket"])
def test_a_device_sends_with_its_certificate(cloud: Cloud, over: str) -> None:
    if over == "websocket":
        needs_443(cloud)
    device = cloud.azure_device(at="hub")
    script = """
const own = {cert: fs.readFileSync(process.env.X509_CERT_FILE, 'ascii'),
  key: fs.readFileSync(process.env.X509_KEY_FILE, 'ascii')};
const client = once(name, 'x509=true');
await client.setOptions(own);
say(await outcome(client));
const stranger = once('nobody', 'x509=true');
await stranger.setOptions(own);
say(await outcome(stranger));
"""
    said = run(cloud, device.identity.device_id, script, OVER=over, **device.identity.environment)
    assert said == ["sent", "DeviceNotFoundError"]
    assert [row["body"] for row in device.messages(at_least=1)] == ["hello"]
    assert cloud.why("nobody")["code"] == "iothub.unknown_device"


def test_properties_of_a_message_reach_the_reader(cloud: Cloud) -> None:
    script = """
const message = new Message(JSON.stringify({n: 1}));
Object.assign(message, {messageId: 'm-1', correlationId: 'c-1', contentType: 'application/json',
  contentEncoding: 'utf-8', userId: 'someone'});
message.properties.add('site', 'a & b');
const client = clientOf();
await client.open();
await client.sendEvent(message);
await client.close();
"""
    run(cloud, "na-properties", CREATE + script)
    (row,) = cloud.messages("na-properties", at_least=1)
    assert row["properties"] == {"site": "a & b"}
    assert {name: row["system"][name] for name in ("message-id", "correlation-id", "content-type")} == {
        "message-id": "m-1",
        "correlation-id": "c-1",
        "content-type": "application/json",
    }


def test_each_outcome_of_a_message_counts(cloud: Cloud) -> None:
    script = """
const client = clientOf();
const got = [];
client.on('message', (message) => got.push(message));
await client.open();
await told((done) => service.open(done));
const send = (body) => {
  const message = new (require('azure-iot-common').Message)(body);
  Object.assign(message, {ack: 'full', messageId: body});
  return told((done) => service.send(name, message, done));
};
const waiting = feedback();
await send('reject');
await until(() => got.length === 1, 'a message');
await told((done) => client.reject(got[0], done));
say((await waiting).map((one) => [one.originalMessageId, one.statusCode]));
await send('abandon');
await until(() => got.length === 2, 'a message');
await told((done) => client.abandon(got[1], done));
await until(() => got.length === 3, 'the message again');
await told((done) => client.complete(got[2], done));
say(got.map((one) => one.getData().toString()));
await until(async () => (await registry.getTwin(name)).responseBody.cloudToDeviceMessageCount === 0, 'none');
await send('left behind');
await until(() => got.length === 4, 'a message');
await client.close();
await until(async () => (await registry.getTwin(name)).responseBody.cloudToDeviceMessageCount === 1, 'it is back');
const later = clientOf();
const again = new Promise((done) => later.on('message', (message) => later.complete(message, () => done(message))));
await later.open();
say((await again).getData().toString());
await later.close();
"""
    assert run(cloud, "na-outcomes", CREATE + script) == [
        '[["reject","Rejected"]]',
        '["reject","abandon","abandon"]',
        "left behind",
    ]


def test_a_second_connection_takes_the_links_of_the_first(cloud: Cloud) -> None:
    script = """
const first = once(), second = clientOf();
const lost = new Promise((done) => first.on('disconnect', (result) => done(result.transportObj?.name ?? 'lost')));
await first.open();
await first.sendEvent(new Message('first'));
await second.open();
await second.sendEvent(new Message('second'));
await lost;
say((await registry.get(name)).responseBody.connectionState);
await second.sendEvent(new Message('third'));
await second.close();
await until(async () => (await registry.get(name)).responseBody.connectionState === 'Disconnected', 'gone');
"""
    assert run(cloud, "na-second", CREATE + script) == ["Connected"]
    assert [row["body"] for row in cloud.messages("na-second")] == ["first", "second", "third"]


def test_a_device_that_may_not_connect_is_refused(cloud: Cloud) -> None:
    script = """
say(await outcome(once(name, `SharedAccessKey=${Buffer.alloc(32, 'x').toString('base64')}`)));
say(await outcome(once('na-nobody')));
await registry.update({...(await registry.get(name)).responseBody, status: 'disabled'});
say(await outcome(once()));
"""
    said = run(cloud, "na-refused", CREATE + script)
    assert said == ["UnauthorizedError", "UnauthorizedError", "UnauthorizedError"]
    assert cloud.why("na-refused")["code"] == "iothub.device_disabled"
    assert cloud.why("na-nobody")["code"] == "iothub.unknown_device"


def test_a_device_that_is_disabled_loses_its_connection(cloud: Cloud) -> None:
    script = """
const client = once();
const lost = new Promise((done) => client.on('disconnect', done));
await client.open();
await client.sendEvent(new Message('before'));
await registry.update({...(await registry.get(name)).responseBody, status: 'disabled'});
await lost;
say(await outcome(once()));
"""
    assert run(cloud, "na-disabled", CREATE + script) == ["UnauthorizedError"]
    assert [row["body"] for row in cloud.messages("na-disabled")] == ["before"]


def test_a_message_that_is_too_large_is_refused(cloud: Cloud) -> None:
    script = """
say(await outcome(once(), Buffer.alloc(200 * 1024, 'a')), await outcome(once(), Buffer.alloc(300 * 1024, 'a')));
"""
    (said,) = run(cloud, "na-large", CREATE + script)
    assert said.startswith("sent ")
    assert "sent sent" not in said
    assert len(cloud.messages("na-large")) == 1


def test_a_device_reconnects_to_a_server_that_was_killed(tmp_path: Path) -> None:
    """Nothing that was accepted is lost, and the client needs no help."""
    script = (
        PRELUDE
        + "async function main() {\n"
        + DEVICE
        + CREATE
        + """
const client = clientOf();
const got = [];
client.on('message', (message) => { got.push(message.getData().toString()); client.complete(message, () => {}); });
client.onDeviceMethod('ping', (request, response) => response.send(200, 'pong'));
await client.open();
for (let n = 0; n < 40; n++) {
  await client.sendEvent(new Message(String(n)));
  if (n === 5) console.log('ready');
  await sleep(50);
}
const asked = {methodName: 'ping', payload: null, responseTimeoutInSeconds: 10, connectTimeoutInSeconds: 10};
say((await service.invokeDeviceMethod(name, asked)).result.payload);
await client.close();
}
"""
        + ENDS
    )
    with a_server(tmp_path, is_warm=False) as server:
        running = subprocess.Popen(
            ["node", "-e", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=NODE,
            env=server.cloud.environment(DEVICE="na-killed"),
        )
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        server.kill()
        time.sleep(0.5)
        server.start()
        rest, errors = running.communicate(timeout=80)
        assert running.returncode == 0, errors
        assert rest == "pong\n"
        bodies = [row["body"] for row in server.cloud.messages("na-killed")]
        assert sorted(set(bodies), key=int) == list(map(str, range(40)))
