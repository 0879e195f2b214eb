"""The unmodified Node provisioning SDKs: a device by X.509 and by a shared key on three transports, and the service's.

No release of them can send a certificate request (`csr`), nor ask a hub for a certificate.
"""

from pathlib import Path

import pytest

from azure_clients import a_file_device, needs_443
from node_clients import in_node
from servers import RunningServer

pytestmark = pytest.mark.system

DEVICE = """
const fs = require('node:fs');
const {ProvisioningDeviceClient} = require('azure-iot-provisioning-device');
const {Mqtt, MqttWs} = require('azure-iot-provisioning-device-mqtt');
const {Http} = require('azure-iot-provisioning-device-http');
const {X509Security} = require('azure-iot-security-x509');
const {SymmetricKeySecurityClient} = require('azure-iot-security-symmetric-key');
const device = require('azure-iot-device'), mqtt = require('azure-iot-device-mqtt');
const {PROVISIONING_HOST, PROVISIONING_IDSCOPE} = process.env;
const transport = {mqtt: Mqtt, websocket: MqttWs, https: Http}[process.env.TRANSPORT];
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


@pytest.fixture(params=["mqtt", "websocket", "https"])
def transport(request: pytest.FixtureRequest, server: RunningServer) -> str:
    name: str = request.param
    if name != "mqtt":
        needs_443(server)
    return name


def test_a_device_registers_by_its_certificate_and_sends(server: RunningServer, tmp_path: Path, transport: str) -> None:
    files = a_file_device(tmp_path, f"np-x509-{transport}")
    server.run("device", "enroll", "--cert", str(files.certificate_file))
    assert in_node(
        server,
        DEVICE
        + """
const own = {cert: fs.readFileSync(process.env.CERT, 'ascii'), key: fs.readFileSync(process.env.KEY, 'ascii')};
const state = await registered(new X509Security(process.env.NAME, own));
say(state.status, state.deviceId === process.env.NAME, state.assignedHub === host, state.substatus);
await sent(`HostName=${state.assignedHub};DeviceId=${state.deviceId};x509=true`, own);
""",
        TRANSPORT=transport,
        NAME=files.name,
        CERT=str(files.certificate_file),
        KEY=str(files.key_file),
    ) == ["assigned true true initialAssignment"]
    assert [row["body"] for row in server.rows("hub", "messages", files.name)] == ["hello"]


def test_a_device_registers_by_a_shared_key_and_by_no_other(server: RunningServer, transport: str) -> None:
    assert in_node(
        server,
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


def test_individual_enrollments_are_kept_and_found_by_what_they_say(server: RunningServer) -> None:
    assert in_node(
        server,
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


def test_groups_are_kept_and_their_registrations_found(server: RunningServer) -> None:
    assert in_node(
        server,
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


def test_enrollments_are_made_in_bulk_and_each_refusal_is_named(server: RunningServer) -> None:
    assert in_node(
        server,
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
