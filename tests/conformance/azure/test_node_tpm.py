"""The unmodified Node SDK with a TPM: azure-iot-security-tpm and its provisioning client, then a device client.

Its TPM library speaks to a simulator of its own protocol; here its commands go to swtpm as they are.
"""

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.clients import needs_443
from support.azure.node_clients import node
from support.chips.tpms import a_tpm
from support.server.servers import RunningServer

pytestmark = pytest.mark.system

PRELUDE = """
const assert = require('node:assert');
const net = require('node:net');
const {Tpm} = require('tss.js');
const {TpmSecurityClient, TpmAuthenticationProvider} = require('azure-iot-security-tpm');
const {ProvisioningDeviceClient} = require('azure-iot-provisioning-device');
const {Http} = require('azure-iot-provisioning-device-http');
const {Amqp, AmqpWs} = require('azure-iot-provisioning-device-amqp');
const {Client, Message} = require('azure-iot-device');
const {Mqtt} = require('azure-iot-device-mqtt');
const told = (call) => new Promise((done, failed) => call((error, found) => error ? failed(error) : done(found)));

class Swtpm {
  connect(then) { this.socket = net.connect(process.env.TPM_PORT, '127.0.0.1', () => then()); }
  dispatchCommand(command, then) {
    let answer = Buffer.alloc(0);
    const take = (data) => {
      answer = Buffer.concat([answer, data]);
      if (answer.length < 10 || answer.length < answer.readUInt32BE(2)) return;
      this.socket.off('data', take);
      setImmediate(then, null, answer);
    };
    this.socket.on('data', take);
    this.socket.write(command);
  }
  close() { this.socket.end(); }
}
const tpm = new Tpm(true);
tpm.device = new Swtpm();
const security = new TpmSecurityClient(process.env.NAME, tpm);
"""
SHOW = """
(async () => {
  const key = await told((then) => security.getEndorsementKey(then));
  const name = await told((then) => security.getRegistrationId(then));
  console.log(name, key.toString('base64'));
  tpm.close();
})();
"""
CLIENT = """
const {PROVISIONING_HOST, PROVISIONING_IDSCOPE} = process.env;
const transport = {https: Http, amqp: Amqp, amqp_websocket: AmqpWs}[process.env.TRANSPORT];
const client = ProvisioningDeviceClient.create(PROVISIONING_HOST, PROVISIONING_IDSCOPE, new transport(), security);
"""
REGISTER = (
    CLIENT
    + """
(async () => {
  const {registrationState} = await client.register();
  console.log(registrationState.deviceId, registrationState.status);
  const provider = TpmAuthenticationProvider.fromTpmSecurityClient(
    registrationState.deviceId, registrationState.assignedHub, security);
  const device = Client.fromAuthenticationProvider(provider, Mqtt);
  await device.open();
  await device.sendEvent(new Message('hello'));
  console.log('sent');
  await device.close();
  provider.stop();
  tpm.close();
})().catch((error) => { console.error(error); process.exit(1); });
"""
)
REFUSED = (
    CLIENT
    + """
client.register().then(() => 'registered', (error) => error.name).then((name) => {
  console.log(name);
  process.exit(0);
});
"""
)


@pytest.fixture(params=["https", "amqp", "amqp_websocket"])
def transport(request: pytest.FixtureRequest, cloud: Cloud) -> str:
    """Every protocol over which the SDK registers a TPM."""
    name: str = request.param
    if name != "amqp":
        needs_443(cloud)
    return name


def test_a_device_of_the_sdk_registers_by_its_tpm_and_sends_by_the_key_that_the_tpm_was_given(
    server: RunningServer, cloud: Cloud, transport: str
) -> None:
    with a_tpm() as tpm:
        port = str(tpm.port)
        (shown,) = node(cloud, PRELUDE + SHOW, TPM_PORT=port)
        name, key = shown.split()
        server.run("device", "enroll", "--endorsement-key", key)  # the name is what the SDK makes of the key
        again = PRELUDE + REGISTER
        assert node(cloud, again, TPM_PORT=port, TRANSPORT=transport) == [f"{name} assigned", "sent"]
        assert node(cloud, again, TPM_PORT=port, TRANSPORT=transport) == [f"{name} assigned", "sent"]


def test_a_tpm_that_is_disabled_or_not_enrolled_is_refused(server: RunningServer, cloud: Cloud, transport: str) -> None:
    def refuse(code: str) -> None:
        (told,) = node(cloud, PRELUDE + REFUSED, TPM_PORT=port, TRANSPORT=transport)
        assert told != "registered"
        assert cloud.why(name, code=code)["code"] == code

    with a_tpm() as tpm:
        port = str(tpm.port)
        (shown,) = node(cloud, PRELUDE + SHOW, TPM_PORT=port)
        name, key = shown.split()
        refuse("dps.tpm_not_enrolled")
        server.run("device", "enroll", "--endorsement-key", key)
        server.run("device", "disable", name)
        refuse("dps.enrollment_disabled")
        server.run("device", "enable", name)
        assert node(cloud, PRELUDE + REGISTER, TPM_PORT=port, TRANSPORT=transport) == [f"{name} assigned", "sent"]
        server.run("device", "revoke", name, "--yes")
        refuse("dps.device_taken_back")


def test_the_endorsement_key_of_another_tpm_is_of_no_use(server: RunningServer, cloud: Cloud, transport: str) -> None:
    with a_tpm() as tpm, a_tpm() as another:
        (theirs,) = node(cloud, PRELUDE + SHOW, TPM_PORT=str(another.port))
        name = f"np-tpm-{transport.replace('_', '-')}"
        server.run("device", "enroll", name, "--endorsement-key", theirs.split()[1])
        port = str(tpm.port)
        (told,) = node(cloud, PRELUDE + REFUSED, TPM_PORT=port, TRANSPORT=transport, NAME=name)
        assert told != "registered"
        assert cloud.why(name)["code"] == "dps.tpm_mismatch"
