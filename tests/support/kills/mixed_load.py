"""Every kind of client at once, by the vendors' own libraries: runs until a line comes in, and writes what it is told.

Each line of the record is one acknowledgement, or one message that came; it is written before anything else is done.
What fails is tried again with the next number: whoever was not told anything is owed nothing.

Arguments: one JSON object with `record`, `directory`, `endpoints`, `est_user`, `est_password`.
"""

import base64
import hmac
import itertools
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import boto3
import requests
from azure.iot.device import IoTHubDeviceClient, Message, MethodResponse, ProvisioningDeviceClient
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID
from paho.mqtt import client as paho
from provisioningserviceclient import ProvisioningServiceClient
from provisioningserviceclient.models import IndividualEnrollment
from provisioningserviceclient.protocol.models import AttestationMechanism, SymmetricKeyAttestation

given = json.loads(sys.argv[1])
endpoints = given["endpoints"]
ca = endpoints["trust_bundle"]
directory = Path(given["directory"])
stopping = threading.Event()
KEY = base64.b64encode(b"k" * 32).decode()
WINDOW = 20
SLOTS = 20
PATIENCE_S = 30
_record = os.open(given["record"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def note(kind: str, **facts: Any) -> None:
    os.write(_record, json.dumps({"kind": kind, "at": time.time(), **facts}).encode() + b"\n")


def again_and_again(what: str, pause_s: float, act: Callable[[int], None]) -> threading.Thread:
    """Do something with a new number each time until the load ends."""

    def run() -> None:
        for number in itertools.count(1):
            if stopping.wait(pause_s):
                return
            try:
                act(number)
            except BaseException as error:  # noqa: BLE001 - it is the answer
                note("trouble", what=what, why=repr(error)[:300])
                stopping.wait(0.2)

    thread = threading.Thread(target=run, name=what, daemon=True)
    thread.start()
    return thread


# ---- AWS: a stored session that is taken over all the time, and those who publish to it


_theirs = paho.Client._sock_send


def _send(client: Any, data: bytes) -> int:
    """Tell a server that is killed while it is written to as an end of the connection.

    Theirs ends its thread there and tells nobody, so that Azure's SDK, which is made of it, is stuck for good too.
    """
    try:
        return int(_theirs(client, data))
    except ssl.SSLEOFError as error:
        raise ConnectionResetError from error


paho.Client._sock_send = _send


class Paho(paho.Client):  # type: ignore[misc] # it has no types
    """One that can be asked for its order.

    Theirs sends what is published between CONNECT and CONNACK, and only then what was published before it: whoever
    minds the order publishes under `in_order`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.in_order = threading.Lock()
        self._resumes = False

    def _send_connect(self, keepalive: int) -> Any:
        if not self._resumes:
            self.in_order.acquire()
            self._resumes = True
        return super()._send_connect(keepalive)

    def _handle_connack(self) -> Any:
        try:
            return super()._handle_connack()
        finally:
            self._resumes = False
            self.in_order.release()


def a_paho(client_id: str, *, clean: bool) -> Any:
    client = Paho(client_id=client_id, clean_session=clean)
    client.tls_set(ca, str(directory / "aws.pem"), str(directory / "aws.key"))
    client.reconnect_delay_set(0.2, 1)
    client.max_inflight_messages_set(WINDOW)
    return client


def begin(client: Any) -> None:
    client.connect_async(endpoints["aws"]["data_endpoint"], 8883, keepalive=60)
    client.loop_start()


class Publisher:
    """Sends numbers in their order; which were acknowledged is noted."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._numbers: dict[int, int] = {}
        self._early: set[int] = set()
        self.client = a_paho(name, clean=True)
        self.client.on_publish = self._acknowledged
        self.client.on_connect = lambda *_: note("connected", client=name)
        self.client.on_disconnect = lambda *_: note("cut", client=name)
        begin(self.client)

    @property
    def unacknowledged(self) -> int:
        return len(self._numbers)

    def send(self, topic: str, number: int) -> None:
        until(lambda: len(self._numbers) < WINDOW)
        with self.client.in_order:
            packet_id = self.client.publish(topic, json.dumps([self._name, number]), 1).mid
        with self._lock:
            if packet_id in self._early:
                self._early.discard(packet_id)
            else:
                self._numbers[packet_id] = number
                return
        note("published", publisher=self._name, n=number)

    def _acknowledged(self, _client: Any, _data: object, packet_id: int) -> None:
        with self._lock:
            number = self._numbers.pop(packet_id, None)
            if number is None:
                self._early.add(packet_id)
                return
        note("published", publisher=self._name, n=number)


class Subscriber:
    """One connection of the session that is taken over."""

    extras: set[int] = set()  # noqa: RUF012 - of all connections

    def __init__(self) -> None:
        self.is_old = False
        self.connected, self.ended = threading.Event(), threading.Event()
        self._granted: dict[int, threading.Event] = {}
        self.client = a_paho("taken-over", clean=False)
        self.client.on_connect, self.client.on_disconnect = self._on_connect, self._on_disconnect
        self.client.on_message, self.client.on_subscribe = self._on_message, self._on_subscribe
        begin(self.client)

    def _on_connect(self, client: Any, _data: object, flags: dict[str, int], code: int) -> None:
        if code:
            return
        note("connected", client="taken-over", present=flags["session present"])
        self.ended.clear()
        if self.is_old:
            client.disconnect()
        else:
            self.connected.set()

    def _on_disconnect(self, client: Any, *_: object) -> None:
        self.ended.set()
        if self.is_old:
            client.disconnect()  # it stays away
        else:
            note("cut", client="taken-over")

    def _on_message(self, _client: Any, _data: object, message: Any) -> None:
        publisher, number = json.loads(message.payload)
        note("got", publisher=publisher, n=number)  # before paho acknowledges it
        if publisher == "extra":
            self.extras.add(number)

    def _on_subscribe(self, _client: Any, _data: object, packet_id: int, _granted: object) -> None:
        self._granted.setdefault(packet_id, threading.Event()).set()

    def subscribe(self, topic_filter: str) -> bool:
        code, packet_id = self.client.subscribe(topic_filter, 1)
        granted = self._granted.setdefault(packet_id, threading.Event())
        until(lambda: code or granted.is_set() or self.ended.is_set(), 15)
        return granted.is_set()

    def give_way(self) -> None:
        self.is_old = True
        self.ended.clear()

    def end(self) -> bool:
        """Say whether the server has ended it."""
        was_ended = not self.client.is_connected() or self.ended.wait(5)
        self.client.disconnect()
        self.client.loop_stop()
        return was_ended


def until(condition: Callable[[], object], seconds: float = PATIENCE_S) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def an_aws_account() -> None:
    iot = aws("iot")
    made = iot.create_keys_and_certificate(setAsActive=True)
    (directory / "aws.pem").write_text(made["certificatePem"])
    (directory / "aws.key").write_text(made["keyPair"]["PrivateKey"])
    allowed = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}}
    iot.create_policy(policyName="soak", policyDocument=json.dumps(allowed))
    iot.attach_policy(policyName="soak", target=made["certificateArn"])


def aws(service: str) -> Any:
    account = endpoints["aws"]
    url = account["data_endpoint"]
    return boto3.client(
        service,
        endpoint_url=account["endpoint_url"] if service == "iot" else f"https://{url}:8443",
        region_name=account["region"],
        aws_access_key_id=account["access_key_id"],
        aws_secret_access_key=account["secret_access_key"],
        verify=ca,
        config=Config(connect_timeout=5, read_timeout=20, retries={"max_attempts": 0}),
    )


an_aws_account()
current = Subscriber()
assert current.connected.wait(20)
assert current.subscribe("soak/#")
note("connected", client="taken-over", first=True)
publishers = [Publisher(f"publisher-{number}") for number in range(3)]
extra = Publisher("extra")


def take_over(_number: int) -> None:
    global current  # noqa: PLW0603 - there is one
    old = current
    old.give_way()
    new = Subscriber()
    if not new.connected.wait(PATIENCE_S):
        note("trouble", what="take over", why="no CONNACK")  # so that nothing was taken over
        current = new
        old.end()
        return
    current = new
    note("took_over", ended=old.end())


def subscribe(number: int) -> None:
    connection, topic = current, f"extra/{number}"
    if not connection.subscribe(topic):
        return
    note("subscribed", n=number)
    extra.send(topic, number)
    if until(lambda: number in Subscriber.extras):
        current.client.unsubscribe(topic)


def publishing(publisher: Publisher) -> Callable[[int], None]:
    return lambda number: publisher.send(f"soak/{number % 7}", number)


# ---- AWS: a shadow

data = aws("iot-data")


def update_shadow(number: int) -> None:
    state = {"state": {"reported": {f"k{number % SLOTS}": number}}}
    answer = data.update_thing_shadow(thingName="soak", payload=json.dumps(state))
    note("updated", n=number, version=json.loads(answer["payload"].read())["version"])


# ---- IoT Hub

service = IoTHubRegistryManager.from_connection_string(os.environ["IOTHUB_CONNECTION_STRING"])
caller = IoTHubRegistryManager.from_connection_string(os.environ["IOTHUB_CONNECTION_STRING"])
caller.protocol.config.retry_policy.retries = 0  # a method that is handled twice was not asked for twice


def a_device(name: str) -> Any:
    service.create_device_with_sas(name, KEY, KEY, "enabled")
    host = endpoints["iothub"]["host"]
    text = f"HostName={host};DeviceId={name};SharedAccessKey={KEY}"
    device = IoTHubDeviceClient.create_from_connection_string(text, connection_retry_interval=1, keep_alive=30)

    def changed() -> None:
        note("connected" if device.connected else "cut", client=name)

    def came(message: Any) -> None:
        note("mailed", device=name, n=json.loads(message.data)["n"])  # before it is acknowledged

    def answer(request: Any) -> None:
        note("handled", n=request.payload["n"])
        device.send_method_response(MethodResponse.create_from_method_request(request, 200, request.payload))

    device.on_connection_state_change = changed  # type: ignore[assignment] # its types name a method's `self`
    device.on_method_request_received = answer
    device.on_message_received = came
    device.connect()
    return device


devices = {name: a_device(name) for name in ("soak-a", "soak-b")}


def sending(name: str) -> Callable[[int], None]:
    def send(number: int) -> None:
        devices[name].send_message(Message(json.dumps({"n": number})))  # type: ignore[no-untyped-call] # theirs
        note("sent", device=name, n=number)

    return send


# ---- IoT Hub: messages to devices; one whose connection is taken over with letters unacknowledged, one by the Node SDK


class Mailbox:
    """The device that takes its own session over: what came is noted, and acknowledged after a while."""

    name = "soak-mail"

    def __init__(self) -> None:
        host = endpoints["iothub"]["host"]
        resource = f"{host}/devices/{self.name}"
        ends = int(time.time()) + 3600
        signed = base64.b64encode(
            hmac.digest(base64.b64decode(KEY), f"{quote_plus(resource)}\n{ends}".encode(), "sha256")
        )
        token = f"SharedAccessSignature sr={quote_plus(resource)}&sig={quote_plus(signed)}&se={ends}"
        self.is_old = False
        self.connected = threading.Event()
        self.client = Paho(client_id=self.name, clean_session=False)
        self.client.on_disconnect = lambda *_: None
        self.client.tls_set(ca)
        self.client.username_pw_set(f"{host}/{self.name}/?api-version=2021-04-12", token)
        self.client.reconnect_delay_set(0.2, 1)
        self.client.on_connect, self.client.on_message = self._on_connect, self._on_message
        self.client.connect_async(host, 8883, keepalive=60)
        self.client.loop_start()

    def _on_connect(self, client: Any, _data: object, _flags: object, code: int) -> None:
        if self.is_old:
            client.disconnect()
            return
        if code:  # the server is busy or its disk is full: paho comes again by itself
            return
        client.subscribe(f"devices/{self.name}/messages/devicebound/#", 1)
        note("connected", client=self.name)
        self.connected.set()

    def _on_message(self, _client: Any, _data: object, message: Any) -> None:
        note("mailed", device=self.name, n=json.loads(message.payload)["n"])
        time.sleep(0.3)  # so that some are unacknowledged whenever it is taken over

    def end(self) -> None:
        self.is_old = True
        self.client.disconnect()
        self.client.loop_stop()


service.create_device_with_sas(Mailbox.name, KEY, KEY, "enabled")
mailbox = Mailbox()
assert mailbox.connected.wait(20)


def take_mailbox_over(_number: int) -> None:
    global mailbox
    old, mailbox = mailbox, Mailbox()
    old.is_old = True
    mailbox.connected.wait(PATIENCE_S)
    old.end()


NODE = "soak-node"
service.create_device_with_sas(NODE, KEY, KEY, "enabled")
node = subprocess.Popen(
    [
        "node",
        str(Path(__file__).with_name("mixed_load_node.js")),
        json.dumps({"host": endpoints["iothub"]["host"], "name": NODE, "key": KEY}),
    ],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    env={
        **os.environ,
        "NODE_EXTRA_CA_CERTS": ca,
        "NODE_PATH": str(Path(__file__).parents[2] / "node" / "node_modules"),
    },
)
is_node_ready = threading.Event()


def hear_node() -> None:
    assert node.stdout is not None
    for line in node.stdout:
        facts = json.loads(line)
        if facts["kind"] == "ready":
            is_node_ready.set()
        else:
            note(**facts)


threading.Thread(target=hear_node, daemon=True).start()
assert is_node_ready.wait(30)
policy = dict(part.split("=", 1) for part in os.environ["IOTHUB_CONNECTION_STRING"].split(";"))


def mailing(name: str) -> Callable[[int], None]:
    """Send a device messages; no more than it takes in time: fifty may wait."""

    def send(number: int) -> None:
        host = policy["HostName"].partition(":")[0]
        ends = int(time.time()) + 600
        text = f"{quote_plus(host)}\n{ends}".encode()
        signed = base64.b64encode(hmac.digest(base64.b64decode(policy["SharedAccessKey"]), text, "sha256"))
        token = f"sr={quote_plus(host)}&sig={quote_plus(signed)}&se={ends}&skn={policy['SharedAccessKeyName']}"
        answer = requests.post(
            f"https://{policy['HostName']}/devices/{name}/messages/devicebound?api-version=2021-04-12",
            json.dumps({"n": number}),
            headers={"Authorization": f"SharedAccessSignature {token}"},
            verify=ca,
            timeout=(5, 20),
        )
        if answer.status_code == requests.codes.created:
            note("mail", device=name, n=number)
        else:
            note("trouble", what=f"mail {name}", why=f"{answer.status_code} {answer.text[:200]}")

    return send


def came_to_devices() -> int:
    return Path(given["record"]).read_bytes().count(b'"kind": "mailed"')


def patch_twin(number: int) -> None:
    devices["soak-a"].patch_twin_reported_properties({f"k{number % SLOTS}": number})
    note("patched", n=number)


def call(number: int) -> None:
    asked = CloudToDeviceMethod(method_name="soak", payload={"n": number}, response_timeout_in_seconds=10)
    answer = caller.invoke_device_method("soak-b", asked)
    assert (answer.status, answer.payload) == (200, {"n": number}), answer
    note("called", n=number)


# ---- DPS

enrollments = ProvisioningServiceClient.create_from_connection_string(os.environ["PROVISIONING_CONNECTION_STRING"])


def enroll_and_register(number: int) -> None:
    name = f"enrolled-{number}"
    by_key = AttestationMechanism(
        type="symmetricKey", symmetric_key=SymmetricKeyAttestation(primary_key=KEY, secondary_key=KEY)
    )
    enrollments.create_or_update(IndividualEnrollment.create(name, by_key))
    note("enrolled", name=name)
    told: list[Any] = []

    def register() -> None:
        client = ProvisioningDeviceClient.create_from_symmetric_key(
            os.environ["PROVISIONING_HOST"], name, os.environ["PROVISIONING_IDSCOPE"], KEY
        )
        try:
            told.append(client.register())
        except BaseException as error:  # noqa: BLE001 - it is the answer
            note("trouble", what="register", why=repr(error)[:300])

    registering = threading.Thread(target=register, daemon=True)
    registering.start()
    registering.join(PATIENCE_S)
    if told and told[0].status == "assigned":
        note("registered", name=name, device=told[0].registration_state.device_id)


# ---- EST


def issue(number: int) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"issued-{number}")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    answer = requests.post(
        endpoints["est"]["url"] + "/simpleenroll",
        base64.encodebytes(csr.public_bytes(serialization.Encoding.DER)),
        auth=(given["est_user"], given["est_password"]),
        headers={"Content-Type": "application/pkcs10", "Content-Transfer-Encoding": "base64"},
        verify=ca,
        timeout=(5, 20),
    )
    if answer.status_code == requests.codes.ok:
        leaf = pkcs7.load_der_pkcs7_certificates(base64.b64decode(answer.content))[0]
        note("issued", thumbprint=leaf.fingerprint(hashes.SHA256()).hex())
    else:
        note("trouble", what="issue", why=f"{answer.status_code} {answer.text[:200]}")


threads = [
    *(again_and_again(f"publish {number}", 0.03, publishing(one)) for number, one in enumerate(publishers)),
    *(again_and_again(f"send {name}", 0.03, sending(name)) for name in devices),
    again_and_again("take over", 1.2, take_over),
    again_and_again("subscribe", 0.3, subscribe),
    again_and_again("update shadow", 0.15, update_shadow),
    again_and_again("patch twin", 0.15, patch_twin),
    *(again_and_again(f"mail {name}", 0.5, mailing(name)) for name in ("soak-a", Mailbox.name, NODE)),
    again_and_again("take mailbox over", 2.3, take_mailbox_over),
    again_and_again("call", 0.15, call),
    again_and_again("enroll", 0.5, enroll_and_register),
    again_and_again("issue", 0.4, issue),
]
print("ready", flush=True)  # noqa: T201 - the answer
sys.stdin.readline()
stopping.set()
deadline = time.monotonic() + PATIENCE_S + 10
for thread in threads:
    thread.join(max(0.0, deadline - time.monotonic()))
    if thread.is_alive():
        note("unfinished", what=thread.name)
for publisher in (*publishers, extra):
    if not until(lambda publisher=publisher: not publisher.unacknowledged):  # type: ignore[misc] # its own
        note("unfinished", what="publishes")
assert node.stdin is not None
node.stdin.close()
lines = -1
while lines != (
    lines := sum(Path(given["record"]).read_bytes().count(kind) for kind in (b'"kind": "got"', b'"mailed"'))
):
    time.sleep(3)
print("done", flush=True)  # noqa: T201 - the answer
os._exit(0)  # whatever threads the libraries have left
