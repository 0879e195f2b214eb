"""The unmodified Node service SDK (azure-iothub): configurations and edge deployments."""

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.node_clients import in_node

pytestmark = pytest.mark.system

SCRIPT = """
const {Registry} = require('azure-iothub');
const registry = Registry.fromConnectionString(process.env.IOTHUB_CONNECTION_STRING);
const body = async (call) => (await call).responseBody;
const until = async (read, wanted) => {
  for (let turn = 0; turn < 100; turn += 1) {
    if (JSON.stringify(await read()) === JSON.stringify(wanted)) return;
    await new Promise((done) => setTimeout(done, 100));
  }
  say('never', JSON.stringify(await read()), 'is not', JSON.stringify(wanted));
};
const twin = async (name) => body(registry.getTwin(name));
"""


def test_a_configuration_is_added_changed_listed_and_removed(cloud: Cloud) -> None:
    script = """
await registry.create({deviceId: 'nc-1', status: 'enabled', authentication: {type: 'sas',
  symmetricKey: {primaryKey: key, secondaryKey: other}}});
const made = await body(registry.addConfiguration({id: 'node-fan', priority: 3, labels: {team: 'plant'},
  schemaVersion: '1.0', targetCondition: "deviceId = 'nc-1'",
  content: {deviceContent: {'properties.desired.fan': {speed: 3}}}, metrics: {queries: {}}}));
say(made.id, made.priority, made.schemaVersion, JSON.stringify(made.content));
say(await refused(() => registry.addConfiguration({id: 'node-fan', content: made.content})));
await until(async () => (await twin('nc-1')).properties.desired.fan, {speed: 3});
await until(async () => (await twin('nc-1')).configurations, {'node-fan': {status: 'Applied'}});
const read = await body(registry.getConfiguration('node-fan'));
say((await body(registry.getConfigurations())).some((one) => one.id === 'node-fan'));
const changed = await body(registry.updateConfiguration({...read, priority: 7}));
say(changed.priority, changed.etag !== read.etag);
say(await refused(() => registry.updateConfiguration({...read, priority: 8})));
say((await body(registry.updateConfiguration({...read, priority: 9}, true))).priority);
await registry.removeConfiguration('node-fan');
await until(async () => (await twin('nc-1')).properties.desired.fan, undefined);
say(await refused(() => registry.getConfiguration('node-fan')));
"""
    assert in_node(cloud, SCRIPT + script) == [
        """node-fan 3 1.0 {"deviceContent":{"properties.desired.fan":{"speed":3}}}""",
        "409",
        "true",
        "7 true",
        "412",
        "9",
        "404",
    ]


def test_a_deployment_adds_its_modules(cloud: Cloud) -> None:
    script = """
await registry.create({deviceId: 'nc-edge', status: 'enabled', capabilities: {iotEdge: true},
  authentication: {type: 'sas', symmetricKey: {primaryKey: key, secondaryKey: other}}});
await registry.addConfiguration({id: 'node-edge', priority: 1, targetCondition: "deviceId = 'nc-edge'",
  content: {modulesContent: {$edgeAgent: {'properties.desired': {schemaVersion: '1.1', modules: {camera: {}}}},
    $edgeHub: {'properties.desired': {schemaVersion: '1.1', routes: {}}}}}});
const names = async () => (await body(registry.getModulesOnDevice('nc-edge'))).map((one) => one.moduleId).sort();
await until(names, ['$edgeAgent', '$edgeHub', 'camera']);
await until(async () => (await body(registry.getModuleTwin('nc-edge', '$edgeAgent'))).configurations,
  {'node-edge': {status: 'Applied'}});
await registry.removeConfiguration('node-edge');
say('done');
"""
    assert in_node(cloud, SCRIPT + script) == ["done"]
