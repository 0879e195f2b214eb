const test = require('node:test');
const assert = require('node:assert');
const { iot, mqtt } = require('aws-iot-device-sdk-v2');
const { Server } = require('birthmark-testing');
const { send } = require('./device.cjs');

let server;
test.before(async () => { server = await Server.start(); });
test.beforeEach(() => server.reset());
test.after(() => server.stop());

test('a device sends a message', async () => {
  const pump = await server.azureDevice('pump-1', { auth: 'key', at: 'hub' });
  await send(pump.connection_string, pump.trust_bundle, '21.5');
  const messages = await server.messages('pump-1');
  assert.deepEqual(messages.map((one) => one.body), ['21.5']);
});

test('a disabled device does not connect', async () => {
  const pump = await server.azureDevice('pump-1', { auth: 'key', at: 'hub' });
  await server.refuse('pump-1', 'iothub.device_disabled');
  await assert.rejects(send(pump.connection_string, pump.trust_bundle, '21.5'));
  const [refusal] = await server.why('pump-1');
  assert.equal(refusal.code, 'iothub.device_disabled');
});

test('a thing of AWS publishes', async () => {
  const thing = await server.awsThing('pump-1');
  const { certificate_file: certificate, key_file: key } = thing.files;
  const config = iot.AwsIotMqttConnectionConfigBuilder.new_mtls_builder_from_path(certificate, key)
    .with_certificate_authority_from_path(undefined, thing.trust_bundle)
    .with_endpoint(thing.endpoint)
    .with_port(8883) // without it this SDK takes 443, which needs root
    .with_client_id(thing.name)
    .build();
  const connection = new mqtt.MqttClient().new_connection(config);
  await connection.connect();
  await connection.publish('plant/1', '21.5', mqtt.QoS.AtLeastOnce);
  await connection.disconnect();
  const messages = await server.messages('pump-1', { at: 'aws' });
  assert.deepEqual(messages.map((one) => [one.topic, one.body]), [['plant/1', '21.5']]);
});
