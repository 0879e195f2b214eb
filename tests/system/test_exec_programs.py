"""`chip exec` with real programs against our server, with a key in SoftHSM2 and no key in any file.

The hub takes a message only from who showed the certificate on record and proved its key in the handshake; so each
message is counted as its device's. Each program ran with TMPDIR of its own, in which no private key may turn up.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from birthmark.keys.se050_reference_keys import parse_reference_key
from birthmark.pki.certificates import parse_pem
from support.server.servers import RunningServer, a_new_server

pytestmark = pytest.mark.system
NODE = Path(__file__).parents[1] / "node"
API = "api-version=2021-04-12"

PAHO = """
import os, ssl, sys
import paho.mqtt.client as mqtt
host, device, cert, key = sys.argv[1:5]
client = mqtt.Client(client_id=device, protocol=mqtt.MQTTv311)
client.username_pw_set(f"{host}/{device}/?api-version=2021-04-12")
client.tls_set(os.environ["SSL_CERT_FILE"], cert, key)
client.connect(host, 8883)
client.loop_start()
client.publish(f"devices/{device}/messages/events/", "from paho", qos=1).wait_for_publish(20)
client.disconnect()
"""
AZURE = """
import sys
from azure.iot.device import IoTHubDeviceClient, X509
host, device, cert, key = sys.argv[1:5]
client = IoTHubDeviceClient.create_from_x509_certificate(X509(cert, key), host, device, connection_retry=False)
client.connect()
client.send_message("from the Azure SDK")
client.disconnect()
client.shutdown()
"""
MQTT_JS = """
const fs = require('fs'), mqtt = require('mqtt');
const [host, device, cert, key] = process.argv.slice(1);
const client = mqtt.connect({host, port: 8883, protocol: 'mqtts', protocolVersion: 4, clientId: device,
  reconnectPeriod: 0, username: `${host}/${device}/?api-version=2021-04-12`, cert: fs.readFileSync(cert),
  key: fs.readFileSync(key), ca: fs.readFileSync(process.env.SSL_CERT_FILE)});
client.on('error', (error) => { console.error(error); process.exit(1); });
client.on('close', () => process.exit(1));
client.on('connect', () => client.publish(`devices/${device}/messages/events/`, 'from mqtt.js', {qos: 1},
  () => process.exit(0)));
"""
AZURE_JS = """
const fs = require('fs');
const {Client, Message} = require('azure-iot-device');
const {Mqtt} = require('azure-iot-device-mqtt');
const [host, device, cert, key] = process.argv.slice(1);
const client = Client.fromConnectionString(`HostName=${host};DeviceId=${device};x509=true`, Mqtt);
client.setOptions({cert: fs.readFileSync(cert, 'utf8'), key: fs.readFileSync(key, 'utf8')})
  .then(() => client.open()).then(() => client.sendEvent(new Message('from the Node SDK')))
  .then(() => client.close()).then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
"""
AWS = """
import os, sys
from AWSIoTPythonSDK.MQTTLib import AWSIoTMQTTClient
host, thing, cert, key = sys.argv[1:5]
client = AWSIoTMQTTClient(thing)
client.configureEndpoint(host, 8883)
client.configureCredentials(os.environ["SSL_CERT_FILE"], key, cert)
assert client.connect()
assert client.publish("chips/" + thing, "from the AWS SDK", 1)
print("published")
"""


@dataclass(frozen=True)
class Device:
    """A chip whose certificate is on record, and what a program is told of it."""

    name: str
    server: RunningServer
    chip: dict[str, str]
    directory: Path

    @property
    def cert(self) -> str:
        return str(self.directory / "device.pem")

    @property
    def key(self) -> str:
        return str(self.directory / "device.key")

    def run(self, *program: str, options: tuple[str, ...] = (), **more: str) -> subprocess.CompletedProcess[str]:
        """Run a program under `chip exec`, and see that it left no key in its temporary directory."""
        scratch = self.directory / "tmp"
        scratch.mkdir(exist_ok=True)
        environment = {**self.server.environment, **self.chip, "TMPDIR": str(scratch), **more}
        done = self.server.attempt("chip", "exec", *options, "--", *program, **environment)
        assert not keys_under(scratch), keys_under(scratch)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def heard(self) -> list[str]:
        return [row["body"] for row in self.server.rows("hub", "messages", self.name)]


def keys_under(directory: Path) -> list[Path]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return [path for path in files if b"PRIVATE KEY" in path.read_bytes()]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("exec")) as running:
        yield running


@pytest.fixture(scope="module")
def device(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Device:
    return enrolled(server, tmp_path_factory.mktemp("device"), "0xF0000100")


def enrolled(server: RunningServer, directory: Path, key: str, *options: str) -> Device:
    """Make a chip whose certificate is on record and whose device has registered."""
    made = json.loads(server.run("chip", "simulate", str(directory / "chip"), "--json", *options).stdout)
    chip = {name: value for name, value in made.items() if name.isupper()}
    server.run("chip", "cert", key, "--out", str(directory / "device.pem"), **chip)
    server.run("chip", "refkey", key, "--out", str(directory / "device.key"), **chip)
    server.run("device", "enroll", "--cert", str(directory / "device.pem"))
    name = str(parse_pem((directory / "device.pem").read_text()).subject_cn)
    server.run("device", "register", "--chip", "--key", key, **{**server.environment, **chip})
    found = Device(name, server, chip, directory)
    assert parse_reference_key(Path(found.key).read_bytes()) == int(key, 16)
    return found


def test_curl_registers_at_dps(device: Device) -> None:
    body = json.dumps({"registrationId": device.name})
    scope, dps = device.server.endpoints["dps"]["id_scope"], device.server.endpoints["dps"]
    url = f"https://{dps['host']}:{dps['https_port']}/{scope}/registrations/{device.name}/register?{API}"
    told = ("-sSf", "-X", "PUT", "-H", "Content-Type: application/json", "-d", body, url)
    answer = device.run("curl", "--cert", device.cert, "--key", device.key, *told).stdout
    assert json.loads(answer)["status"] in ("assigning", "assigned")
    assert json.loads(device.run("curl", *told).stdout)["operationId"]  # it names neither: the chip's own are used


@pytest.mark.parametrize("has_key", [True, False], ids=["reference key", "names no key"])
def test_mosquitto_pub_sends_to_the_hub(device: Device, has_key: bool) -> None:
    text = f"from mosquitto {has_key}"
    host = device.server.address
    named = ("--cert", device.cert, "--key", device.key) if has_key else ()
    who = ("-i", device.name, "-u", f"{host}/{device.name}/?{API}", "-t", f"devices/{device.name}/messages/events/")
    trust = ("--cafile", device.server.endpoints["trust_bundle"])
    device.run("mosquitto_pub", "-h", host, "-p", "8883", *trust, *named, *who, "-q", "1", "-m", text)
    assert text in device.heard()


@pytest.mark.parametrize(
    ("program", "text"),
    [
        (("python", "-c", PAHO), "from paho"),
        (("python", "-c", AZURE), "from the Azure SDK"),
        (("node", "-e", MQTT_JS), "from mqtt.js"),
        (("node", "-e", AZURE_JS), "from the Node SDK"),
    ],
    ids=["paho", "azure-iot-device", "mqtt.js", "azure-iot-device for Node"],
)
def test_a_library_that_takes_key_files_sends_to_the_hub(device: Device, program: tuple[str, ...], text: str) -> None:
    given = (*program, device.server.address, device.name, device.cert, device.key)
    device.run(*given, NODE_PATH=str(NODE / "node_modules"))
    assert text in device.heard()


@pytest.mark.parametrize("program", [("node", "-e", MQTT_JS), ("python", "-c", PAHO)], ids=["Node", "Python"])
@pytest.mark.parametrize("is_swapped", [False, True], ids=["today's labels", "swapped labels"])
def test_an_rsa_key_is_found_too(
    server: RunningServer, tmp_path: Path, program: tuple[str, ...], is_swapped: bool
) -> None:
    device = enrolled(server, tmp_path, "0xF0000110", *(("--swapped-labels",) if is_swapped else ()))
    given = (*program, server.address, device.name, device.cert, device.key)
    device.run(*given, NODE_PATH=str(NODE / "node_modules"))
    assert len(device.heard()) == 1


def test_the_older_aws_sdk_publishes(device: Device) -> None:
    import boto3

    account = device.server.endpoints["aws"]
    iot = boto3.client(
        "iot",
        endpoint_url=account["endpoint_url"],
        region_name=account["region"],
        aws_access_key_id=account["access_key_id"],
        aws_secret_access_key=account["secret_access_key"],
        verify=device.server.endpoints["trust_bundle"],
    )
    made = iot.register_certificate_without_ca(certificatePem=Path(device.cert).read_text(), status="ACTIVE")
    allowed = {"Effect": "Allow", "Action": ["iot:Connect", "iot:Publish"], "Resource": "*"}
    iot.create_policy(policyName="chips", policyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}))
    iot.attach_policy(policyName="chips", target=made["certificateArn"])
    done = device.run("python", "-c", AWS, account["data_endpoint"], device.name, device.cert, device.key)
    assert done.stdout == "published\n"


def test_by_the_proxy_a_program_that_knows_no_key_sends_to_the_hub(device: Device) -> None:
    host = device.server.address
    script = (
        'mosquitto_pub -h "$BIRTHMARK_PROXY_HOST" -p "$BIRTHMARK_PROXY_PORT" --cafile "$BIRTHMARK_PROXY_CA" '
        f'-i {device.name} -u "{host}/{device.name}/?{API}" -t devices/{device.name}/messages/events/ '
        "-q 1 -m 'by the proxy'"
    )
    done = device.run("sh", "-c", script, options=("--server", f"{host}:8883"))
    assert "by the proxy" in device.heard()
    assert f"only processes of user {os.getuid()} can connect" in done.stderr


def test_by_the_proxy_a_program_with_another_tls_library_registers(device: Device) -> None:
    dps = device.server.endpoints["dps"]
    url = f"https://{dps['host']}:{dps['https_port']}/{dps['id_scope']}/registrations/{device.name}?{API}"
    body = json.dumps({"registrationId": device.name})
    script = (
        f"wget -q -O - --ca-certificate=\"$BIRTHMARK_PROXY_CA\" --method=POST --body-data='{body}' "
        f"--header='Content-Type: application/json' '{url}'"
    )
    answer = device.run("sh", "-c", script, options=("--how", "proxy")).stdout
    assert json.loads(answer)["registrationId"] == device.name


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
def test_the_proxy_serves_no_other_user_and_no_other_server(device: Device) -> None:
    script = (
        'ask() { curl -sS -o /dev/null -w \'%{http_connect}\\n\' "$1" --cacert "$BIRTHMARK_PROXY_CA" 2>/dev/null; }; '
        "export -f ask; "
        f"ask https://{device.server.address}:8883/; ask https://localhost:1/; "
        f"setpriv --reuid=65534 --clear-groups bash -c 'ask https://{device.server.address}:8883/'; true"
    )
    told = device.run("bash", "-c", script, options=("--server", f"{device.server.address}:8883")).stdout
    assert told.split() == ["200", "403", "000"]


def test_the_proxy_ends_as_its_program_ends(device: Device) -> None:
    environment = {**device.server.environment, **device.chip}
    done = device.server.attempt("chip", "exec", "--how", "proxy", "--", "sh", "-c", "exit 7", **environment)
    assert done.returncode == 7


def test_the_proxy_outlives_that_it_has_no_file_descriptors_left(device: Device) -> None:
    script = (
        "import os, resource, socket, time\n"
        "pid = os.getppid()\n"
        "used = len(os.listdir(f'/proc/{pid}/fd'))\n"
        "resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 8, 4096))\n"
        "host, port = os.environ['HTTPS_PROXY'].removeprefix('http://').split(':')\n"
        "many = [socket.create_connection((host, int(port))) for _ in range(40)]\n"
        "time.sleep(1)\n"
        "for one in many: one.close()\n"
        "time.sleep(2)\n"
        "last = socket.create_connection((host, int(port)), timeout=10)\n"
        "last.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n')\n"
        "print(last.recv(100).decode().split()[1])\n"
    )
    assert device.run("python3", "-c", script, options=("--how", "proxy")).stdout == "403\n"


def test_explain_runs_nothing_and_says_what_was_chosen_and_why(device: Device) -> None:
    marker = device.directory / "ran"
    for program, chosen in (("python", "hook"), ("node", "hook"), ("curl", "engine"), ("wget", "proxy")):
        told = device.run(program, f"{marker}", options=("--explain",)).stdout
        assert f"chosen: by the {chosen}" in told.replace("; by the", "\nchosen: by the"), told
        assert "pin-value" not in told
    assert not marker.exists()


def test_the_programs_memory_and_files_hold_no_private_key(device: Device) -> None:
    """What the proxy and the program can open while it runs is looked at from inside."""
    code = (
        "import contextlib, glob, os, sys\n"
        "found = []\n"
        "for top in {os.environ['TMPDIR'], *glob.glob('/tmp/birthmark*')} - set(sys.argv[1:]):\n"
        "    for where, _, names in os.walk(top):\n"
        "        for name in names:\n"
        "            with contextlib.suppress(OSError), open(os.path.join(where, name), 'rb') as file:\n"
        "                found += [file.name] * (b'PRIVATE KEY' in file.read())\n"
        "print(found)\n"
    )
    for how in ("hook", "proxy"):
        others = {str(path) for path in Path("/tmp").glob("birthmark*")}  # of whoever else works on this machine
        done = device.run(sys.executable, "-c", code, *sorted(others), options=("--how", how))
        others |= {str(path) for path in Path("/tmp").glob("birthmark*")}  # and began meanwhile
        found = {Path(one) for one in ast.literal_eval(done.stdout)}
        assert [one for one in found if not any(str(parent) in others for parent in one.parents)] == []
