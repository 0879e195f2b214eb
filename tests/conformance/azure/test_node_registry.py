"""The unmodified Node service SDK (azure-iothub): devices, many at once, modules, twins and configurations."""

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.node_clients import in_node

pytestmark = pytest.mark.system

REGISTRY = """
const {Registry} = require('azure-iothub');
const registry = Registry.fromConnectionString(process.env.IOTHUB_CONNECTION_STRING);
const sas = (primaryKey = key, secondaryKey = other) => ({type: 'sas', symmetricKey: {primaryKey, secondaryKey}});
const body = async (call) => (await call).responseBody;
"""


def run(cloud: Cloud, script: str) -> list[str]:
    return in_node(cloud, REGISTRY + script)


def test_devices_are_made_read_changed_and_removed(cloud: Cloud) -> None:
    assert run(
        cloud,
        """
const made = await body(registry.create({deviceId: 'nr-one', status: 'enabled', authentication: sas()}));
say(made.deviceId, made.authentication.symmetricKey.secondaryKey === other);
say(await refused(() => registry.create({deviceId: 'nr-one'})));
const changed = await body(registry.update({deviceId: 'nr-one', status: 'disabled', statusReason: 'spare',
  authentication: sas(other, key)}));
say(changed.status, changed.statusReason, changed.authentication.symmetricKey.primaryKey === other);
const read = await body(registry.get('nr-one'));
say(read.status, read.etag === changed.etag, read.generationId === made.generationId);
const {primaryThumbprint} = (await body(registry.create({deviceId: 'nr-thumb', authentication: {type: 'selfSigned',
  x509Thumbprint: {primaryThumbprint: 'AB'.repeat(20)}}}))).authentication.x509Thumbprint;
say(primaryThumbprint);
await registry.delete('nr-one');
say(await refused(() => registry.get('nr-one')), await refused(() => registry.delete('nr-one')));
const counted = await body(registry.getRegistryStatistics());
const {totalDeviceCount: sum, enabledDeviceCount: on, disabledDeviceCount: off} = counted;
say(sum >= 1, on + off === sum);
""",
    ) == [
        "nr-one true",
        "409",
        "disabled spare true",
        "disabled true true",
        "AB" * 20,
        "404 404",
        "true true",
    ]


def test_devices_are_made_changed_and_removed_many_at_once(cloud: Cloud) -> None:
    assert run(
        cloud,
        """
// What is done in part is a 400 with the same body, which this SDK throws.
const bulk = async (call) => {
  const {isSuccessful, errors} = await body(call).catch((error) => JSON.parse(error.responseBody));
  return [isSuccessful, errors.map((one) => [one.deviceId, one.errorCode])];
};
const names = Array.from({length: 100}, (_, number) => `nr-bulk-${number}`);
const add = (list) => bulk(registry.addDevices(list.map((deviceId) => ({deviceId, authentication: sas()}))));
say(await add(names));
say(await add(['nr-bulk-0', 'nr-bulk-new']));
const [zero, one] = [await body(registry.get('nr-bulk-0')), await body(registry.get('nr-bulk-1'))];
const off = (device, etag = device.etag) => ({...device, status: 'disabled', etag});
say(await bulk(registry.updateDevices([off(zero), off(one, 'AAAAAAAAAAE=')], false)));
say((await body(registry.get('nr-bulk-0'))).status, (await body(registry.get('nr-bulk-1'))).status);
say(await bulk(registry.updateDevices([off(one)], true)), (await body(registry.get('nr-bulk-1'))).status);
say(await bulk(registry.removeDevices([{deviceId: 'nr-bulk-1', etag: one.etag}], false)));
say(await bulk(registry.removeDevices(names.map((deviceId) => ({deviceId})), true)),
  await refused(() => registry.get('nr-bulk-1')), await refused(() => registry.get('nr-bulk-new')));
""",
    ) == [
        "[true,[]]",
        '[false,[["nr-bulk-0","DeviceAlreadyExists"]]]',
        '[false,[["nr-bulk-1","PreconditionFailed"]]]',
        "disabled enabled",
        "[true,[]] disabled",
        '[false,[["nr-bulk-1","PreconditionFailed"]]]',
        "[true,[]] 404 no",
    ]


def test_modules_are_made_read_changed_and_removed(cloud: Cloud) -> None:
    assert run(
        cloud,
        """
await registry.create({deviceId: 'nr-mod', authentication: sas()});
const camera = {deviceId: 'nr-mod', moduleId: 'camera', managedBy: 'me', authentication: sas()};
await registry.addModule(camera);
say(await refused(() => registry.addModule(camera)));
const read = await body(registry.getModule('nr-mod', 'camera'));
say(read.managedBy, read.authentication.symmetricKey.primaryKey === key);
await registry.addModule({deviceId: 'nr-mod', moduleId: 'door', authentication: {type: 'selfSigned',
  x509Thumbprint: {primaryThumbprint: 'CD'.repeat(32)}}});
say((await body(registry.getModulesOnDevice('nr-mod'))).map((one) => one.moduleId));
await told((done) => registry.updateModule({...read, managedBy: 'you'}, false, done));
say((await body(registry.getModule('nr-mod', 'camera'))).managedBy);
const late = await refused(() => told((done) => registry.updateModule({...read, managedBy: 'him'}, false, done)));
await told((done) => registry.updateModule({...read, managedBy: 'her'}, true, done));
say(late, (await body(registry.getModule('nr-mod', 'camera'))).managedBy);
say(await refused(() => told((done) => registry.removeModule(read, done))));
await told((done) => registry.removeModule('nr-mod', 'camera', done));
say(await refused(() => registry.getModule('nr-mod', 'camera')),
  await refused(() => registry.getModulesOnDevice('nr-no')));
""",
    ) == ["409", "me true", '["camera","door"]', "you", "412 her", "412", "404 404"]


def test_a_modules_twin_is_read_and_changed_by_itself(cloud: Cloud) -> None:
    assert run(
        cloud,
        """
await registry.create({deviceId: 'nr-twin', authentication: sas()});
await registry.addModule({deviceId: 'nr-twin', moduleId: 'camera', authentication: sas()});
const twin = await body(registry.getModuleTwin('nr-twin', 'camera'));
say(twin.deviceId, twin.moduleId, twin.properties.desired.$version);
const patch = {tags: {side: 'left'}, properties: {desired: {fps: 30}}};
await registry.updateModuleTwin('nr-twin', 'camera', patch, twin.etag);
const changed = await body(registry.getModuleTwin('nr-twin', 'camera'));
say(changed.tags, changed.properties.desired.fps, changed.properties.desired.$version);
say(await refused(() => registry.updateModuleTwin('nr-twin', 'camera', {tags: {side: 'right'}}, twin.etag)));
await changed.update({tags: {side: 'right'}});
say((await body(registry.getModuleTwin('nr-twin', 'camera'))).tags, (await body(registry.getTwin('nr-twin'))).tags);
say(await refused(() => registry.getModuleTwin('nr-twin', 'nobody')));
const query = registry.createQuery("SELECT * FROM devices.modules WHERE deviceId = 'nr-twin'");
say((await query.nextAsTwin()).result.map((one) => [one.moduleId, one.tags.side]));
""",
    ) == [
        "nr-twin camera 1",
        '{"side":"left"} 30 2',
        "412",
        '{"side":"right"} {}',
        "404",
        '[["camera","right"]]',
    ]


def test_a_query_goes_on_from_where_it_was_told_to(cloud: Cloud) -> None:
    """By the token alone, which another client may be handed."""
    assert run(
        cloud,
        """
const device = (n) => ({deviceId: `nr-page-${n}`, authentication: sas(), tags: {row: 'page'}});
await registry.addDevices([0, 1, 2, 3, 4].map(device));
const text = "SELECT deviceId FROM devices WHERE tags.row = 'page'";
const names = (answer) => answer.result.map((one) => one.deviceId.slice(-1)).join('');
const first = registry.createQuery(text, 2);
say(names(await first.next()), first.hasMoreResults);
const second = registry.createQuery(text, 2);
say(names(await second.next(first.continuationToken)), second.hasMoreResults);
say(names(await second.next(second.continuationToken)), second.hasMoreResults);
say(names(await first.next(first.continuationToken)));
say(await refused(() => registry.createQuery("SELECT deviceId FROM devices WHERE tags.row = 'x'", 2)
  .next(first.continuationToken)));
say(await refused(() => registry.createQuery('SELECT * FROM nowhere').next()));
""",
    ) == ["01 true", "23 true", "4 false", "23", "400", "400"]


def test_a_configuration_is_applied_and_an_invalid_one_changes_nothing(cloud: Cloud) -> None:
    assert run(
        cloud,
        """
await registry.create({deviceId: 'nr-edge', capabilities: {iotEdge: true}, authentication: sas()});
await registry.applyConfigurationContentOnDevice('nr-edge', {modulesContent: {
  $edgeAgent: {'properties.desired': {schemaVersion: '1.1', modules: {camera: {type: 'docker'}}}},
  $edgeHub: {'properties.desired': {schemaVersion: '1.1'}},
  camera: {'properties.desired': {fps: 30}}}});
say((await body(registry.getModulesOnDevice('nr-edge'))).map((one) => one.moduleId));
say((await body(registry.getModuleTwin('nr-edge', 'camera'))).properties.desired.fps,
  (await body(registry.getModuleTwin('nr-edge', '$edgeAgent'))).properties.desired.modules);
say(await refused(() => registry.applyConfigurationContentOnDevice('nr-edge', {modulesContent: {camera: {fps: 1}}})));
say(await refused(() => registry.applyConfigurationContentOnDevice('nr-edge', {modulesContent: {door: {fps: 1}}})));
say((await body(registry.getModulesOnDevice('nr-edge'))).map((one) => one.moduleId));
const configuration = {id: 'many', content: {deviceContent: {}}, targetCondition: '*', priority: 1};
say(await refused(() => registry.addConfiguration(configuration)));
""",
    ) == [
        '["$edgeAgent","$edgeHub","camera"]',
        '30 {"camera":{"type":"docker"}}',
        "400",
        "400",
        '["$edgeAgent","$edgeHub","camera"]',
        "400",
    ]
