"""The unmodified Node device SDK (azure-iot-device): twin, methods, messages, each also after the line was cut.

It speaks MQTT or AMQP, each also in WebSockets.
"""

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.node_clients import in_node

pytestmark = pytest.mark.system

DEVICE = """
const https = require('node:https');
const {Client: Service, Registry, SharedAccessSignature} = require('azure-iothub');
const {Client, Message} = require('azure-iot-device');
const {Mqtt, MqttWs} = require('azure-iot-device-mqtt');
const {Amqp, AmqpWs} = require('azure-iot-device-amqp');
const name = process.env.DEVICE;
const connection = process.env.IOTHUB_CONNECTION_STRING;
const registry = Registry.fromConnectionString(connection);
const service = Service.fromConnectionString(connection);
const parts = Object.fromEntries(connection.split(';').map((part) => /([^=]*)=(.*)/.exec(part).slice(1)));
const client = Client.fromConnectionString(
  `HostName=${host};DeviceId=${name};SharedAccessKey=${key}`,
  {mqtt: Mqtt, websocket: MqttWs, amqp: Amqp, amqp_websocket: AmqpWs}[process.env.TRANSPORT]);

function rest(method, path, body, headers) {
  const expiry = Math.floor(Date.now() / 1000) + 600;
  const token = SharedAccessSignature.create(parts.HostName, parts.SharedAccessKeyName, parts.SharedAccessKey, expiry);
  const [hostname, port] = parts.HostName.split(':');
  const options = {method, hostname, port, path: `${path}?api-version=2021-04-12`,
    headers: {...headers, authorization: token.toString()}};
  return told((done) => {
    https.request(options, (answer) => {
      const chunks = [];
      answer.on('data', (chunk) => chunks.push(chunk));
      answer.on('end', () => done(null, {status: answer.statusCode, text: Buffer.concat(chunks).toString(),
        headers: answer.headers}));
    }).on('error', done).end(body);
  });
}

// Over AMQP the SDK has no listener for an error of the link on which it answers methods.
process.on('uncaughtException', (error) => { if (error.name !== 'NotConnectedError') throw error; });
// The device's own line to its hub is cut; the service's lines have another port.
const lines = new Set();
const connect = require('node:net').Socket.prototype.connect;
require('node:net').Socket.prototype.connect = function (...given) {
  lines.add(this);
  return connect.apply(this, given);
};
async function cut() {
  const port = {mqtt: 8883, amqp: 5671}[process.env.TRANSPORT] || 443;
  const own = [...lines].filter((line) => line.remotePort === port);
  assert.ok(own.length > 0, 'no line to cut');
  const before = (await registry.get(name)).responseBody.connectionStateUpdatedTime;
  const error = Object.assign(new Error('read ECONNRESET'), {code: 'ECONNRESET'});  // rhea reads no other end
  own.forEach((line) => line.destroy(process.env.TRANSPORT.startsWith('amqp') ? error : undefined));
  await until(async () => {  // it may be back before anybody has seen that it was gone
    const now = (await registry.get(name)).responseBody;
    return now.connectionState === 'Connected' && now.connectionStateUpdatedTime !== before;
  }, 'back');
}

await registry.create({deviceId: name, status: 'enabled',
  authentication: {type: 'sas', symmetricKey: {primaryKey: key, secondaryKey: key}}});
await client.open();
"""


def run(cloud: Cloud, name: str, play: str, transport: str) -> list[str]:
    return in_node(cloud, DEVICE + play + "await client.close();", DEVICE=f"{name}-{transport}", TRANSPORT=transport)


def test_a_device_reads_its_twin_reports_and_hears_what_is_desired(cloud: Cloud, node_transport: str) -> None:
    play = """
  const twin = await client.getTwin();
  assert.deepStrictEqual(twin.properties.desired, {$version: 1});
  const heard = [];
  twin.on('properties.desired', (delta) => heard.push(delta));
  const report = (patch) => told((done) => twin.properties.reported.update(patch, done));
  await report({firmware: {version: '1.0'}, gone: 1});
  await report({firmware: {build: 7}, gone: null});
  const desire = (desired) => registry.updateTwin(name, {properties: {desired}}, '*');
  const seen = (await registry.getTwin(name)).responseBody;
  assert.deepStrictEqual(seen.properties.reported.firmware, {version: '1.0', build: 7});
  assert.strictEqual(seen.properties.reported.$version, 3);
  await desire({interval: 5});
  await until(() => heard.some((delta) => delta.interval === 5), 'a patch');
  await cut();
  await desire({interval: 6});
  await until(() => heard.some((delta) => delta.interval === 6), 'a patch after the cut');
  await report({after: 'the cut'});
  assert.strictEqual((await registry.getTwin(name)).responseBody.properties.reported.after, 'the cut');
  assert.strictEqual((await client.getTwin()).properties.desired.interval, 6);
"""
    run(cloud, "node-twin", play, node_transport)


def test_a_report_that_is_not_allowed_is_refused(cloud: Cloud, node_transport: str) -> None:
    play = """
  const twin = await client.getTwin();
  try {
    await told((done) => twin.properties.reported.update({big: 'x'.repeat(40000)}, done));
  } catch (error) {
    console.log(error.message);
  }
  await client.sendEvent(new Message('still here'));
"""
    (said,) = run(cloud, "node-refused", play, node_transport)
    assert "The twin is not valid: " in said
    explained = cloud.why(f"node-refused-{node_transport}")
    assert explained["code"] == "iothub.twin_invalid"
    assert cloud.messages(f"node-refused-{node_transport}")[-1]["body"] == "still here"


def test_a_device_answers_methods_also_after_a_cut_line(cloud: Cloud, node_transport: str) -> None:
    play = """
  client.onDeviceMethod('reboot', (request, response) =>
    told((done) => response.send(200, {did: request.methodName, with: request.payload}, done)));
  const call = async (payload) => {
    const asked = {methodName: 'reboot', payload, responseTimeoutInSeconds: 10, connectTimeoutInSeconds: 10};
    return (await service.invokeDeviceMethod(name, asked)).result;
  };
  assert.deepStrictEqual(await call({delay: 3}), {status: 200, payload: {did: 'reboot', with: {delay: 3}}});
  await cut();
  assert.deepStrictEqual(await call('text'), {status: 200, payload: {did: 'reboot', with: 'text'}});
"""
    run(cloud, "node-method", play, node_transport)


def test_messages_are_received_completed_and_told_of_also_after_a_cut_line(cloud: Cloud, node_transport: str) -> None:
    play = """
  const got = [];
  client.on('message', (message) => {
    got.push(message);
    client.complete(message, () => {});
  });
  const send = async (body, headers) => {
    const answer = await rest('POST', `/devices/${name}/messages/deviceBound`, body, headers);
    assert.strictEqual(answer.status, 201, answer.text);
  };
  await send('one', {'iothub-messageid': 'm-1', 'iothub-ack': 'full', 'iothub-app-site': 'a & b',
    'iothub-contenttype': 'text/plain', 'iothub-expiry': new Date(Date.now() + 600000).toISOString()});
  await until(() => got.length === 1, 'a message');
  assert.strictEqual(got[0].getData().toString(), 'one');
  assert.strictEqual(got[0].messageId, 'm-1');
  assert.strictEqual(got[0].contentType, 'text/plain');
  if (!process.env.TRANSPORT.startsWith('amqp'))  // which the SDK does not read there
    assert.ok(Date.parse(got[0].expiryTimeUtc) > Date.now());
  assert.strictEqual(got[0].properties.getValue('site'), 'a & b');
  let record;
  await until(async () => {
    const told = await rest('GET', '/messages/serviceBound/feedback');
    if (told.status !== 200) return false;
    [record] = JSON.parse(told.text);
    await rest('DELETE', `/messages/serviceBound/feedback/${told.headers.etag.replaceAll('"', '')}`);
    return record.deviceId === name;
  }, 'feedback');
  assert.deepStrictEqual([record.originalMessageId, record.statusCode], ['m-1', 'Success']);
  await cut();
  await send('two', {});
  await until(() => got.length === 2, 'a message after the cut');
  assert.strictEqual(got[1].getData().toString(), 'two');
  await sleep(200);
  assert.strictEqual((await registry.getTwin(name)).responseBody.cloudToDeviceMessageCount, 0);
"""
    run(cloud, "node-mail", play, node_transport)
