"""The unmodified Node provisioning SDKs: a device by X.509 and by a shared key on each transport, and the service's.

No release of them can send a certificate request (`csr`), nor ask a hub for a certificate.
"""

from pathlib import Path

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.node_clients import in_node
from support.server.servers import RunningServer, a_server

pytestmark = pytest.mark.system

DEVICE = """
const fs = require('node:fs');
const {ProvisioningDeviceClient} = require('azure-iot-provisioning-device');
const {Mqtt, MqttWs} = require('azure-iot-provisioning-device-mqtt');
const {Amqp, AmqpWs} = require('azure-iot-provisioning-device-amqp');
const {Http} = require('azure-iot-provisioning-device-http');
const {X509Security} = require('azure-iot-security-x509');
const {SymmetricKeySecurityClient} = require('azure-iot-security-symmetric-key');
const device = require('azure-iot-device'), mqtt = require('azure-iot-device-mqtt');
const {PROVISIONING_HOST, PROVISIONING_IDSCOPE} = process.env;
const transport = {
  mqtt: Mqtt, websocket: MqttWs, https: Http, amqp: Amqp, amqp_websocket: AmqpWs,
}[process.env.TRANSPORT];
const registered = async (security, payload) => {
  const client = ProvisioningDeviceClient.create(PROVISIONING_HOST, PROVISIONING_IDSCOPE, new transport(), security);
  if (payload !== undefined) client.setProvisioningPayload(payload);
  const result = await client.register();  // by X.509 the SDK returns the state alone
  return result.registrationState ?? result;
};
const sent = async (text, options) => {
  const client = device.Client.fromConnectionString(text, mqtt.Mqtt);
  if (options) await client.setOptions(options);
  await client.open();
  await client.sendEvent(new device.Message('hello'));
  await client.close();
};
"""

SERVICE = """
const {ProvisioningServiceClient} = require('azure-iot-provisioning-service');
const service = ProvisioningServiceClient.fromConnectionString(process.env.PROVISIONING_CONNECTION_STRING);
const body = async (call) => (await call).responseBody;
const all = async (query) => {
  const found = [];
  while (query.hasMoreResults) found.push((await query.next(query.continuationToken)).responseBody);
  return found;
};
const byKey = {type: 'symmetricKey', symmetricKey: {primaryKey: key, secondaryKey: other}};
"""


on_each = pytest.mark.parametrize("transport", ["mqtt", "websocket", "https", "amqp", "amqp_websocket"], indirect=True)


@on_each
def test_a_device_registers_by_its_certificate_and_sends(cloud: Cloud, transport: str) -> None:
    device = cloud.azure_device()
    assert in_node(
        cloud,
        DEVICE
        + """
const {X509_CERT_FILE, X509_KEY_FILE, DEVICE_ID} = process.env;
const own = {cert: fs.readFileSync(X509_CERT_FILE, 'ascii'), key: fs.readFileSync(X509_KEY_FILE, 'ascii')};
const state = await registered(new X509Security(DEVICE_ID, own));
say(state.status, state.deviceId === DEVICE_ID, state.assignedHub === host, state.substatus);
await sent(`HostName=${state.assignedHub};DeviceId=${state.deviceId};x509=true`, own);
""",
        **device.identity.environment,
        TRANSPORT=transport,
    ) == ["assigned true true initialAssignment"]
    assert [row["body"] for row in device.messages()] == ["hello"]


@on_each
def test_a_device_registers_by_a_shared_key_and_by_no_other(cloud: Cloud, transport: str) -> None:
    assert in_node(
        cloud,
        SERVICE
        + DEVICE
        + """
const name = `np-key-${process.env.TRANSPORT}`;
await service.createOrUpdateIndividualEnrollment({registrationId: name, attestation: byKey});
say(await registered(new SymmetricKeySecurityClient(name, Buffer.alloc(32, 'x').toString('base64')))
  .then(() => 'registered', (error) => error.name));
const state = await registered(new SymmetricKeySecurityClient(name, key), {line: 3});
say(state.status, state.deviceId);
await sent(`HostName=${state.assignedHub};DeviceId=${state.deviceId};SharedAccessKey=${key}`);
const told = await body(service.getDeviceRegistrationState(name));
say(told.status, told.assignedHub === host);
await service.deleteDeviceRegistrationState(name);
say(await refused(() => service.getDeviceRegistrationState(name)));
""",
        TRANSPORT=transport,
    )[1:] == [f"assigned np-key-{transport}", "assigned true", "404"]


@pytest.mark.parametrize("transport", ["amqp", "amqp_websocket"], indirect=True)
def test_a_device_registers_again_after_a_refusal_and_after_a_cut_line(cloud: Cloud, transport: str) -> None:
    said = in_node(
        cloud,
        SERVICE
        + DEVICE
        + """
const name = `np-cut-${process.env.TRANSPORT}`;
const security = new SymmetricKeySecurityClient(name, key);
const make = () => ProvisioningDeviceClient.create(PROVISIONING_HOST, PROVISIONING_IDSCOPE, new transport(), security);
const refusal = (promise) => promise.then(() => 'registered', (error) => error.name);
say(await refusal(make().register()));
await service.createOrUpdateIndividualEnrollment({registrationId: name, attestation: byKey});
const client = make();
const lower = client._transport ?? client._pollingStateMachine._transport;
const cut = new Promise((done) => lower._amqpStateMachine.on('transition', ({toState}) => {
  if (toState === 'connected') {
    lower._amqpBase._rheaConnection.socket.destroy?.() ?? lower._amqpBase._rheaConnection.socket.end();
    done();
  }
}));
const first = Promise.race([refusal(client.register()), sleep(5000).then(() => 'silent')]);
await cut;
say(await first === 'registered');
say((await registered(security)).status);
await service.createOrUpdateIndividualEnrollment({registrationId: name, attestation: byKey,
  provisioningStatus: 'disabled', etag: '*'});
say(await refusal(make().register()));
""",
        TRANSPORT=transport,
    )
    assert said[1:3] == ["false", "assigned"], said
    assert said[0] == said[3] == "NotConnectedError"  # what the SDK makes of every refusal in the SASL layer
    name = f"np-cut-{transport}"
    assert cloud.why(name)["code"] == "dps.enrollment_disabled"
    assert cloud.why(name, code="dps.token_not_enrolled")


@on_each
def test_a_revoked_device_does_not_register(cloud: Cloud, server: RunningServer, transport: str) -> None:
    device = cloud.azure_device()
    registering = (
        DEVICE
        + """
const {X509_CERT_FILE, X509_KEY_FILE, DEVICE_ID} = process.env;
const own = {cert: fs.readFileSync(X509_CERT_FILE, 'ascii'), key: fs.readFileSync(X509_KEY_FILE, 'ascii')};
say(await registered(new X509Security(DEVICE_ID, own)).then((state) => state.status, () => 'refused'));
"""
    )
    known = device.identity.environment
    assert in_node(cloud, registering, **known, TRANSPORT=transport) == ["assigned"]
    server.run("device", "revoke", known["DEVICE_ID"], "--yes")
    assert in_node(cloud, registering, **known, TRANSPORT=transport) == ["refused"]
    assert device.why()["code"] in {"dps.device_taken_back", "ca.revoked", "pki.revoked"}


def test_individual_enrollments_are_kept_and_found_by_what_they_say(cloud: Cloud) -> None:
    assert in_node(
        cloud,
        SERVICE
        + """
const names = ['np-one-a', 'np-one-b', 'np-one-c'];
for (const registrationId of names)
  await service.createOrUpdateIndividualEnrollment({registrationId, attestation: byKey,
    provisioningStatus: registrationId.endsWith('b') ? 'disabled' : 'enabled',
    initialTwin: {tags: {site: 'a'}, properties: {desired: {n: 1}}}});
const read = await body(service.getIndividualEnrollment('np-one-a'));
say(read.provisioningStatus, read.initialTwin.tags, read.attestation.type);
say((await body(service.getIndividualEnrollmentAttestationMechanism('np-one-a'))).symmetricKey.primaryKey === key);
const change = (deviceId) => service.createOrUpdateIndividualEnrollment({...read, attestation: byKey, deviceId});
await change('np-other');
say(await refused(() => change('np-late')));
say((await body(service.getIndividualEnrollment('np-one-a'))).deviceId);
const where = "WHERE provisioningStatus = 'enabled' AND STARTSWITH(registrationId, 'np-one-')";
const pages = await all(service.createIndividualEnrollmentQuery({query: `SELECT * FROM enrollments ${where}`}, 1));
say(pages.map((page) => page.map((one) => one.registrationId)));
say(await refused(() => service.deleteIndividualEnrollment('np-one-a', read.etag)));
for (const name of names) await service.deleteIndividualEnrollment(name);
say(await refused(() => service.getIndividualEnrollment('np-one-a')));
""",
    ) == [
        'enabled {"site":"a"} symmetricKey',
        "true",
        "412",
        "np-other",
        '[["np-one-a"],["np-one-c"]]',
        "412",
        "404",
    ]


def test_groups_are_kept_and_their_registrations_found(cloud: Cloud) -> None:
    assert in_node(
        cloud,
        SERVICE
        + DEVICE
        + """
const own = Buffer.alloc(32, 'np-group').toString('base64');  // by its key a device finds its group
const attestation = {type: 'symmetricKey', symmetricKey: {primaryKey: own, secondaryKey: other}};
await service.createOrUpdateEnrollmentGroup({enrollmentGroupId: 'np-group', attestation});
const group = await body(service.getEnrollmentGroup('np-group'));
const mechanism = await body(service.getEnrollmentGroupAttestationMechanism('np-group'));
say(group.attestation.type, mechanism.symmetricKey.primaryKey === own);
const crypto = require('node:crypto'), secret = Buffer.from(own, 'base64');
const derived = (name) => crypto.createHmac('sha256', secret).update(name).digest('base64');
for (const name of ['np-of-1', 'np-of-2']) await registered(new SymmetricKeySecurityClient(name, derived(name)));
const states = await all(service.createEnrollmentGroupDeviceRegistrationStateQuery({query: 'SELECT *'}, 'np-group', 1));
say(states.map((page) => page.map((one) => one.registrationId)));
const found = await all(service.createEnrollmentGroupQuery(
  {query: "SELECT * FROM enrollmentGroups WHERE enrollmentGroupId = 'np-group'"}, 10));
say(found.flat().map((one) => one.enrollmentGroupId));
say(await refused(() => service.deleteEnrollmentGroup('np-group', '"old"')));
await service.deleteEnrollmentGroup(group);
say(await refused(() => service.getEnrollmentGroup('np-group')));
""",
        TRANSPORT="mqtt",
    ) == ["symmetricKey true", '[["np-of-1"],["np-of-2"]]', '["np-group"]', "412", "404"]


def test_enrollments_are_made_in_bulk_and_each_refusal_is_named(cloud: Cloud) -> None:
    assert in_node(
        cloud,
        SERVICE
        + """
const enrollments = ['np-bulk-1', 'np-bulk-2'].map((registrationId) => ({registrationId, attestation: byKey}));
const run = async (mode, list) => {
  // Its promise is never kept: only a callback hears of the end.
  const {isSuccessful, errors} = await told(
    (done) => service.runBulkEnrollmentOperation({mode, enrollments: list}, done));
  return [isSuccessful, errors.map((one) => one.registrationId)];
};
say(await run('create', enrollments));
say(await run('create', [enrollments[0], {...enrollments[0], registrationId: 'np-bulk-3'}]));
say(await run('delete', [...enrollments, {registrationId: 'np-bulk-3', attestation: byKey}]));
say(await refused(() => service.getIndividualEnrollment('np-bulk-3')));
""",
    ) == ["[true,[]]", '[false,["np-bulk-1"]]', "[true,[]]", "404"]


def test_a_registration_over_amqp_survives_a_killed_server(tmp_path: Path) -> None:
    script = (
        DEVICE
        + """
const {X509_CERT_FILE, X509_KEY_FILE, DEVICE_ID} = process.env;
const own = {cert: fs.readFileSync(X509_CERT_FILE, 'ascii'), key: fs.readFileSync(X509_KEY_FILE, 'ascii')};
const state = await registered(new X509Security(DEVICE_ID, own));
say(state.status, state.createdDateTimeUtc);
"""
    )
    with a_server(tmp_path, is_warm=False) as server:
        device = server.cloud.azure_device("np-killed")
        first = in_node(server.cloud, script, **device.identity.environment, TRANSPORT="amqp")
        server.kill()
        server.start()
        assert [row["state"] for row in server.rows("device", "ls")] == ["assigned"]
        again = in_node(server.cloud, script, **device.identity.environment, TRANSPORT="amqp")
        assert again == first, "it is the same registration"
