"""The unmodified Node service SDK (azure-iothub): listing devices, twins, methods."""

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.node_clients import in_node

pytestmark = pytest.mark.system
REGISTRY = """
const {Client, Registry} = require('azure-iothub');
const registry = Registry.fromConnectionString(process.env.IOTHUB_CONNECTION_STRING);
"""


def test_registry_list_gives_every_device(cloud: Cloud) -> None:
    script = """
await registry.create({deviceId: "node-listed", status: "enabled"});
const {responseBody} = await registry.list();
say(responseBody.map((device) => device.deviceId).includes("node-listed"));
"""
    assert in_node(cloud, REGISTRY + script) == ["true"]


def test_a_twin_is_read_and_changed_and_a_method_of_an_absent_device_is_refused(cloud: Cloud) -> None:
    script = """
await registry.create({deviceId: "node-twin", status: "enabled"});
const twin = (await registry.getTwin("node-twin")).responseBody;
await twin.update({tags: {site: "a"}, properties: {desired: {interval: 5}}});
const changed = (await registry.getTwin("node-twin")).responseBody;
say([changed.tags, changed.properties.desired.interval, changed.properties.desired.$version]);
try {
  await registry.updateTwin("node-twin", {tags: {site: "b"}}, "AAAAAAAAAAE=");
} catch (error) {
  say(error.constructor.name, error.response.statusCode);
}
const service = Client.fromConnectionString(process.env.IOTHUB_CONNECTION_STRING);
try {
  await service.invokeDeviceMethod("node-twin", {methodName: "away", responseTimeoutInSeconds: 5});
} catch (error) {
  say(error.constructor.name, error.response.statusCode);
}
"""
    assert in_node(cloud, REGISTRY + script) == ['[{"site":"a"},5,2]', "InvalidEtagError 412", "Error 404"]
