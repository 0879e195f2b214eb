// A device of IoT Hub that sends telemetry with Azure's SDK.
const { readFileSync } = require('node:fs');
const { Client, Message } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');

/** Connects with a connection string, and sends one message. */
exports.send = async (connectionString, caFile, body) => {
  const client = Client.fromConnectionString(connectionString, Mqtt);
  await client.setOptions({ ca: readFileSync(caFile, 'utf8') });
  await client.open();
  await client.sendEvent(new Message(body));
  await client.close();
};
