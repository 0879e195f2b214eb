"""Unmodified Node clients over AMQP: @azure/event-hubs reads telemetry, azure-iothub sends messages to devices."""

import pytest

from birthmark.testing.cloud import Cloud
from support.azure import fresh_servers
from support.azure.clients import needs_443
from support.azure.event_hubs import send
from support.azure.node_clients import in_node
from support.server.servers import RunningServer

server, birthmark_server = fresh_servers.server, fresh_servers.birthmark_server
pytestmark = pytest.mark.system

READS = """
const { EventHubConsumerClient, earliestEventPosition } = require('@azure/event-hubs');
const options = WEBSOCKET ? { webSocketOptions: { webSocket: require('ws') } } : {};
const reader = (group) => new EventHubConsumerClient(group, process.env.EVENTHUB_CONNECTION_STRING, options);
async function read(group, count, more = {}) {
  const client = reader(group), events = [];
  await new Promise((done, failed) => client.subscribe({
    processEvents: async (some, context) => {
      events.push(...some.map((one) => ({ ...one, last: context.lastEnqueuedEventProperties })));
      if (events.length >= count) done();
    },
    processError: async (error) => failed(error),
  }, { startPosition: earliestEventPosition, maxWaitTimeInSeconds: 1, ...more }));
  await client.close();
  return events;
}
"""
OVER = pytest.mark.parametrize("over", ["tcp", "websocket"])


def reading(cloud: Cloud, over: str, script: str) -> list[str]:
    if over == "websocket":
        needs_443(cloud)
    return in_node(cloud, f"const WEBSOCKET = {'true' if over == 'websocket' else 'false'};\n{READS}\n{script}")


@OVER
def test_the_event_hub_and_its_partitions_describe_themselves(birthmark_cloud: Cloud, over: str) -> None:
    script = """
const client = reader('$Default');
const about = await client.getEventHubProperties();
say(about.name, about.partitionIds);
const partition = await client.getPartitionProperties('0');
say(partition.isEmpty, partition.lastEnqueuedSequenceNumber, partition.lastEnqueuedOffset);
await client.close();
"""
    assert reading(birthmark_cloud, over, script) == ['birthmark ["0","1","2","3"]', "true -1 -1"]


@OVER
def test_events_are_read_in_order(birthmark_cloud: Cloud, over: str) -> None:
    send(birthmark_cloud.azure_device("sender", at="hub", auth="key"), *map(str, range(25)), site="north")
    script = """
const events = await read('$default', 25);
say(events.map((one) => one.body).join(' '));
say(events[0].properties, events[0].systemProperties['iothub-connection-device-id'], events[24].sequenceNumber);
"""
    assert reading(birthmark_cloud, over, script) == [
        " ".join(map(str, range(25))),
        '{"site":"north"} sender 24',
    ]


def test_a_reader_of_a_group_tracks_the_newest_event(birthmark_cloud: Cloud, server: RunningServer) -> None:
    server.run("hub", "consumer-group", "create", "analytics")
    send(birthmark_cloud.azure_device("sender", at="hub", auth="key"), "1", "2")
    script = """
const events = await read('analytics', 2, { trackLastEnqueuedEventProperties: true });
say(events[1].last.sequenceNumber);
const error = await read('nobody', 1).catch((error) => error);
say(error.code, error.retryable);
"""
    assert reading(birthmark_cloud, "tcp", script) == ["1", "MessagingEntityNotFoundError false"]


def test_a_higher_owner_level_replaces_a_reader(birthmark_cloud: Cloud) -> None:
    send(birthmark_cloud.azure_device("sender", at="hub", auth="key"), "1")
    script = """
const client = reader('$Default');
const lost = new Promise((done) => client.subscribe('0', {
  processEvents: async () => {}, processError: async (error) => done(error),
}, { startPosition: earliestEventPosition, ownerLevel: 1 }));
await sleep(1000);
const other = reader('$Default');
const subscription = other.subscribe('0', {
  processEvents: async () => {}, processError: async (error) => say('unexpected', error.code),
}, { startPosition: earliestEventPosition, ownerLevel: 2 });
say((await lost).code);
await subscription.close();
await client.close();
await other.close();
"""
    assert reading(birthmark_cloud, "tcp", script) == ["ReceiverDisconnectedError"]


@OVER
def test_a_service_sends_messages_and_receives_feedback(birthmark_cloud: Cloud, over: str) -> None:
    if over == "websocket":
        needs_443(birthmark_cloud)
    birthmark_cloud.azure_device("d1", at="hub")
    transport = "require('azure-iothub/dist/amqp_ws.js').AmqpWs" if over == "websocket" else "undefined"
    script = f"""
const {{ Client }} = require('azure-iothub'), {{ Message }} = require('azure-iot-common');
const client = Client.fromConnectionString(process.env.IOTHUB_CONNECTION_STRING, {transport});
await client.open();
const message = new Message('open');
Object.assign(message, {{ ack: 'full', messageId: 'n1', expiryTimeUtc: Date.now() + 1000 }});
message.properties.add('site', 'north');
await client.send('d1', message);
say(await client.send('nobody', new Message('x')).then(() => 'sent', (error) => error.name));
const receiver = await told((call) => client.getFeedbackReceiver(call));
const received = new Promise((done) => receiver.on('message', done));
const feedback = await received, record = JSON.parse(feedback.data)[0];
say(record.originalMessageId, record.statusCode, record.deviceId);
await told((call) => receiver.complete(feedback, call));
say(Boolean(await told((call) => client.getFileNotificationReceiver(call))));
await client.close();
"""
    assert in_node(birthmark_cloud, script) == ["DeviceNotFoundError", "n1 Expired d1", "true"]
