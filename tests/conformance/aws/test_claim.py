"""Fleet provisioning by claim, by the vendor's identity clients and others: keys and CSRs, JSON and CBOR."""

import json
import queue
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cbor2
import paho.mqtt.client as paho
import pytest
from AWSIoTPythonSDK.MQTTLib import AWSIoTMQTTClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from support.aws.device import ARN, DeviceProcess, Enrolled, document, statement
from support.aws.function_server import ARN as FUNCTION
from support.aws.function_server import FunctionServer
from support.server.servers import RunningServer

pytestmark = pytest.mark.system
NODE = Path(__file__).parents[2] / "node"
IDENTITY = Path(__file__).parents[2] / "support" / "aws" / "identity_process.py"
ROLE = "arn:aws:iam::000000000000:role/provisioning"
BODY = {
    "Parameters": {"SerialNumber": {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
    "Mappings": {"Places": {"plant": {"url": "https://plant.example"}}},
    "Resources": {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {
                "ThingName": {"Fn::Join": ["", ["gateway-", {"Ref": "SerialNumber"}]]},
                "AttributePayload": {"serial": {"Ref": "SerialNumber"}},
            },
        },
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "Active"},
        },
        "policy": {
            "Type": "AWS::IoT::Policy",
            "Properties": {
                "PolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [
                        {"Effect": "Allow", "Action": "iot:Connect", "Resource": {"Fn::Sub": f"{ARN}client/${{thing}}"}}
                    ],
                }
            },
        },
    },
    "DeviceConfiguration": {"url": {"Fn::FindInMap": ["Places", "plant", "url"]}},
}


@pytest.fixture(scope="module")
def functions() -> Iterator[FunctionServer]:
    with FunctionServer() as functions:
        yield functions


@pytest.fixture(scope="module")
def birthmark_config(tmp_path_factory: pytest.TempPathFactory, functions: FunctionServer) -> str:
    return functions.config(tmp_path_factory.mktemp("claims"), "hook")


@pytest.fixture(scope="module")
def names() -> Iterator[Callable[[], str]]:
    numbers = iter(range(10_000))
    yield lambda: f"{next(numbers):04}"


@pytest.fixture
def template(iot: Any, names: Callable[[], str]) -> str:
    name = f"fleet-{names()}"
    iot.create_provisioning_template(
        templateName=name, templateBody=json.dumps(BODY), enabled=True, provisioningRoleArn=ROLE
    )
    return name


@pytest.fixture
def claim(iot: Any, server: RunningServer, tmp_path: Path, names: Callable[[], str]) -> dict[str, Any]:
    """Return a claim certificate whose policy would allow everything."""
    made = iot.create_keys_and_certificate(setAsActive=True)
    name = f"claim-{names()}"
    iot.create_policy(policyName=name, policyDocument=document(statement("iot:*")))
    iot.attach_policy(policyName=name, target=made["certificateArn"])
    certificate, key = tmp_path / "claim.pem", tmp_path / "claim.key"
    certificate.write_text(made["certificatePem"])
    key.write_text(made["keyPair"]["PrivateKey"])
    return {
        "certificate": str(certificate),
        "key": str(key),
        "client_id": name,
        "endpoint": server.endpoints["aws"]["data_endpoint"],
        "ca": server.endpoints["trust_bundle"],
        "id": made["certificateId"],
    }


def a_csr(tmp_path: Path, name: str) -> tuple[str, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    file = tmp_path / f"{name}.key"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return request.public_bytes(Encoding.PEM).decode(), file


def told(line: dict[str, Any]) -> Any:
    assert "ok" in line, line
    return line["ok"]


WAYS = [{"client": "v1"}, {"client": "v2"}, {"client": "v2", "mqtt": 5}]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(f"{value}" for value in way.values()))
@pytest.mark.parametrize("by", ["keys", "csr"])
def test_a_device_becomes_what_its_template_says(
    way: dict[str, Any], by: str, template: str, claim: dict[str, Any], iot: Any
) -> None:
    serial, tmp_path = claim["client_id"], Path(claim["key"]).parent
    csr, key = a_csr(tmp_path, serial)
    with DeviceProcess({**claim, **way}, program=IDENTITY) as device:
        assert device("connect") == {"ok": "connected"}
        given = told(device("keys") if by == "keys" else device("csr", csr=csr))
        assert "accepted" in given, given
        token = given["accepted"]["certificate_ownership_token"]
        answer = told(device("register", template=template, token=token, parameters={"SerialNumber": serial}))
    assert "accepted" in answer, answer
    assert answer["accepted"]["thing_name"] == f"gateway-{serial}"
    assert answer["accepted"]["device_configuration"] == {"url": "https://plant.example"}
    certificate_id = given["accepted"]["certificate_id"]
    assert iot.describe_certificate(certificateId=certificate_id)["certificateDescription"]["status"] == "ACTIVE"
    assert iot.describe_thing(thingName=f"gateway-{serial}")["attributes"] == {"serial": serial}
    certificate = tmp_path / "device.pem"
    certificate.write_text(given["accepted"]["certificate_pem"])
    if by == "keys":
        key.write_text(given["accepted"]["private_key"])
    own = {**claim, "certificate": str(certificate), "key": str(key), "client_id": f"gateway-{serial}"}
    with DeviceProcess(own) as device:
        assert "ok" in device("connect")


def test_a_certificate_that_asked_reaches_nothing_else_even_by_a_policy_of_everything(
    claim: dict[str, Any], server: RunningServer
) -> None:
    with DeviceProcess({**claim, "client": "v1"}, program=IDENTITY) as device:
        told(device("connect"))
        assert "accepted" in told(device("keys"))
    with DeviceProcess(claim) as device:
        told(device("connect"))
        assert "error" in device("subscribe", topic="hello")
    why = server.why(claim["client_id"])
    assert "claim certificate restrictions denies it" in why["cause"]
    assert "with the certificate that it received" in why["fix"]


def test_a_token_counts_once_and_for_who_asked(
    claim: dict[str, Any], template: str, iot: Any, names: Callable[[], str]
) -> None:
    with DeviceProcess({**claim, "client": "v2"}, program=IDENTITY) as device:
        told(device("connect"))
        token = told(device("keys"))["accepted"]["certificate_ownership_token"]
        with DeviceProcess({**claim, "client": "v2", "client_id": f"other-{names()}"}, program=IDENTITY) as other:
            told(other("connect"))
            asked = {"template": template, "token": token, "parameters": {"SerialNumber": names()}}
            rejected = told(other("register", **asked))["rejected"]
            assert rejected["code"] == "InvalidCertificateOwnershipToken", rejected
        assert "accepted" in told(device("register", **asked))
        rejected = told(device("register", **asked))["rejected"]
    assert (rejected["status"], rejected["code"]) == (400, "InvalidCertificateOwnershipToken")


def test_a_name_that_a_device_has_is_not_given_to_another(
    claim: dict[str, Any], template: str, iot: Any, names: Callable[[], str]
) -> None:
    serial = names()
    with DeviceProcess({**claim, "client": "v2"}, program=IDENTITY) as device:
        told(device("connect"))
        for attempt in range(2):
            token = told(device("keys"))["accepted"]["certificate_ownership_token"]
            asked = {"template": template, "token": token, "parameters": {"SerialNumber": serial}}
            answer = told(device("register", **asked))
            assert ("accepted" if attempt == 0 else "rejected") in answer
    assert answer["rejected"]["message"] == f"Thing gateway-{serial} already has a different certificate"
    assert len(iot.list_thing_principals(thingName=f"gateway-{serial}")["principals"]) == 1


def test_by_a_claim_nobody_takes_the_session_of_a_device(
    claim: dict[str, Any], template: str, server: RunningServer, names: Callable[[], str]
) -> None:
    serial, tmp_path = names(), Path(claim["key"]).parent
    named = {**claim, "client": "v2", "client_id": f"gateway-{serial}"}
    with DeviceProcess(named, program=IDENTITY) as device:
        told(device("connect"))
        given = told(device("keys"))["accepted"]
        parameters = {"SerialNumber": serial}
        asked = {"template": template, "token": given["certificate_ownership_token"], "parameters": parameters}
        assert "accepted" in told(device("register", **asked))
        told(device("keys"))  # whoever lost the answer goes on under the name that the thing has now
    with DeviceProcess(named, program=IDENTITY) as device:
        told(device("connect"))
    (tmp_path / "device.pem").write_text(given["certificate_pem"])
    (tmp_path / "device.key").write_text(given["private_key"])
    own = {**named, "certificate": str(tmp_path / "device.pem"), "key": str(tmp_path / "device.key")}
    with DeviceProcess(own) as device:
        told(device("connect"))
        with DeviceProcess(named, program=IDENTITY) as other:
            assert "error" in other("connect")
    assert server.why(f"gateway-{serial}")["code"] == "awsiot.claim_client_id"


def test_by_a_claim_nobody_takes_a_session_whose_client_id_is_no_things_name(
    claim: dict[str, Any], iot: Any, enroll: Callable[..., Enrolled], server: RunningServer, names: Callable[[], str]
) -> None:
    client_id = f"session-{names()}"
    pump = enroll(f"pump-{names()}")
    theirs = {**claim, "client": "v2", "client_id": client_id}
    server.run("aws", "certificate", "claim", claim["id"])
    with pump.device(client_id=client_id, clean=False) as device:
        told(device("connect"))
        told(device("subscribe", topic="orders"))
        with DeviceProcess(theirs, program=IDENTITY) as other:  # while the device is there
            assert "error" in other("connect")
        told(device("publish", topic="orders", payload="first"))
        assert told(device("receive"))["payload"] == "first"
        told(device("disconnect"))
    with DeviceProcess(theirs, program=IDENTITY) as other:  # and while it is away
        assert "error" in other("connect")
    assert server.why(client_id)["code"] == "awsiot.claim_client_id"
    with enroll(f"sender-{names()}").device() as sender:
        told(sender("connect"))
        told(sender("publish", topic="orders", payload="second"))
    with pump.device(client_id=client_id, clean=False) as device:
        told(device("connect"))
        assert told(device("receive"))["payload"] == "second"


# ---- other clients


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(f"{value}" for value in way.values()))
@pytest.mark.parametrize("by", ["keys", "csr"])
def test_a_device_of_the_sdk_for_node_is_provisioned(
    way: dict[str, Any], by: str, template: str, claim: dict[str, Any], iot: Any
) -> None:
    serial = claim["client_id"]
    csr, _ = a_csr(Path(claim["key"]).parent, serial)
    asked = {**claim, **way, "template": template, "parameters": {"SerialNumber": serial}}
    if by == "csr":
        asked["csr"] = csr
    done = subprocess.run(
        ["node", "aws_identity.mjs", json.dumps(asked)], check=False, cwd=NODE, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    made, registered, again = map(json.loads, done.stdout.splitlines())
    assert registered["accepted"]["thingName"] == f"gateway-{serial}"
    assert registered["accepted"]["deviceConfiguration"] == {"url": "https://plant.example"}
    assert again["rejected"]["errorCode"] == "InvalidCertificateOwnershipToken"
    principals = iot.list_thing_principals(thingName=f"gateway-{serial}")["principals"]
    assert [one.rpartition("/")[2] for one in principals] == [made["accepted"]["certificateId"]]


class Paho:
    """A claim's connection by paho, which asks as the vendor's C++ device client does, in one encoding."""

    def __init__(self, claim: dict[str, Any], encoding: str, *, clean: bool = True) -> None:
        self._encoding = encoding
        self._write = cbor2.dumps if encoding == "cbor" else json.dumps
        self._read: Callable[[bytes], Any] = cbor2.loads if encoding == "cbor" else json.loads
        self._heard: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._client = paho.Client(claim["client_id"], clean_session=clean)
        self._client.on_connect = lambda _c, _u, _f, code: self._heard.put(("connected", code))
        self._client.on_subscribe = lambda _c, _u, _m, granted: self._heard.put(("subscribed", granted))
        self._client.on_message = lambda _c, _u, message: self._heard.put((message.topic, message.payload))
        context = ssl.create_default_context(cafile=claim["ca"])
        context.load_cert_chain(claim["certificate"], claim["key"])
        self._client.tls_set_context(context)
        self._client.connect(claim["endpoint"], 8883)
        self._client.loop_start()
        assert self._heard.get(timeout=20) == ("connected", 0)

    def ask(self, topic: str, asked: dict[str, Any]) -> tuple[str, Any]:
        """Return how it was answered, and what was said."""
        topic = f"$aws/{topic}/{self._encoding}"
        for end in ("accepted", "rejected"):
            self._client.subscribe(f"{topic}/{end}", 1)
            assert self._heard.get(timeout=20) == ("subscribed", (1,))
        self._client.publish(topic, self._write(asked), 1)
        answered, payload = self._heard.get(timeout=20)
        return answered.rpartition("/")[2], self._read(payload)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.mark.parametrize("encoding", ["json", "cbor"])
def test_the_sequence_of_the_device_client_by_paho(
    encoding: str, template: str, claim: dict[str, Any], iot: Any
) -> None:
    serial, tmp_path = claim["client_id"], Path(claim["key"]).parent
    csr, key = a_csr(tmp_path, serial)
    client = Paho(claim, encoding)
    how, made = client.ask("certificates/create-from-csr", {"certificateSigningRequest": csr})
    assert how == "accepted", made
    assert sorted(made) == ["certificateId", "certificateOwnershipToken", "certificatePem"]
    asked = {"certificateOwnershipToken": made["certificateOwnershipToken"], "parameters": {"SerialNumber": serial}}
    how, told = client.ask(f"provisioning-templates/{template}/provision", asked)
    assert (how, told["thingName"]) == ("accepted", f"gateway-{serial}")
    assert told["deviceConfiguration"] == {"url": "https://plant.example"}
    how, told = client.ask(f"provisioning-templates/{template}/provision", asked)
    assert (how, told["statusCode"], told["errorCode"]) == ("rejected", 400, "InvalidCertificateOwnershipToken")
    client.close()
    (tmp_path / "device.pem").write_text(made["certificatePem"])
    own = {"certificate": str(tmp_path / "device.pem"), "key": str(key), "client_id": f"gateway-{serial}"}
    Paho({**claim, **own}, encoding, clean=False).close()
    assert iot.describe_thing(thingName=f"gateway-{serial}")["attributes"] == {"serial": serial}


def test_keys_of_the_service_in_cbor(claim: dict[str, Any]) -> None:
    client = Paho(claim, "cbor")
    how, made = client.ask("certificates/create", {})
    assert how == "accepted", made
    assert sorted(made) == ["certificateId", "certificateOwnershipToken", "certificatePem", "privateKey"]
    client.close()


@pytest.mark.filterwarnings("ignore:ssl.PROTOCOL_TLS")  # the SDK's own
def test_a_device_of_the_sdk_of_before_is_provisioned(template: str, claim: dict[str, Any], iot: Any) -> None:
    serial = claim["client_id"]
    client = AWSIoTMQTTClient(serial)
    client.configureEndpoint(claim["endpoint"], 8883)
    client.configureCredentials(claim["ca"], claim["key"], claim["certificate"])
    heard: queue.Queue[tuple[str, Any]] = queue.Queue()
    assert client.connect()

    def asked(topic: str, request: dict[str, Any]) -> dict[str, Any]:
        for end in ("accepted", "rejected"):
            client.subscribe(f"{topic}/{end}", 1, lambda _c, _u, message: heard.put((message.topic, message.payload)))
        client.publish(topic, json.dumps(request), 1)
        answered, payload = heard.get(timeout=20)
        assert answered.endswith("/accepted"), payload
        return dict(json.loads(payload))

    made = asked("$aws/certificates/create/json", {})
    request = {"certificateOwnershipToken": made["certificateOwnershipToken"], "parameters": {"SerialNumber": serial}}
    told = asked(f"$aws/provisioning-templates/{template}/provision/json", request)
    client.disconnect()
    assert told["thingName"] == f"gateway-{serial}"
    assert iot.list_thing_principals(thingName=f"gateway-{serial}")["principals"]


# ---- the hook

Decide = Callable[[Any], Any]
Hooked = Callable[[Decide, str], tuple[str, dict[str, Any]]]


@pytest.fixture
def hooked(iot: Any, names: Callable[[], str], claim: dict[str, Any], functions: FunctionServer) -> Hooked:
    """Ask to become a thing by a template whose hook decides so; return how it was answered."""

    def ask(decide: Decide, serial: str) -> tuple[str, dict[str, Any]]:
        functions.answers["hook"] = decide
        functions.events.clear()
        name = f"hooked-{names()}"
        hook = {"targetArn": f"{FUNCTION}hook"}
        given = {"templateBody": json.dumps(BODY), "enabled": True, "provisioningRoleArn": ROLE}
        iot.create_provisioning_template(templateName=name, preProvisioningHook=hook, **given)
        client = Paho(claim, "json")
        _, made = client.ask("certificates/create", {})
        asked = {"certificateOwnershipToken": made["certificateOwnershipToken"], "parameters": {"SerialNumber": serial}}
        try:
            return client.ask(f"provisioning-templates/{name}/provision", asked)
        finally:
            client.close()

    return ask


def things(iot: Any) -> set[str]:
    return {one["thingName"] for one in iot.list_things()["things"]}


def test_a_hook_decides_with_what_it_is_told_and_overrides_parameters(
    hooked: Hooked, names: Callable[[], str], claim: dict[str, Any], functions: FunctionServer
) -> None:
    serial = names()
    answer = {"allowProvisioning": True, "parameterOverrides": {"SerialNumber": f"by-hook-{serial}"}}
    how, told = hooked(lambda _: answer, serial)
    assert (how, told["thingName"]) == ("accepted", f"gateway-by-hook-{serial}")
    (event,) = functions.events
    assert event["claimCertificateId"] == claim["id"]
    assert event["clientId"] == claim["client_id"]
    assert event["parameters"] == {"SerialNumber": serial}
    assert event["certificatePem"].startswith("-----BEGIN CERTIFICATE-----")
    assert event["templateArn"].partition(":provisioningtemplate/")[2].startswith("hooked-")


@pytest.mark.parametrize(
    "answer",
    [
        {"allowProvisioning": False},
        {"allowProvisioning": "yes"},
        {"allowProvisioning": True, "parameterOverrides": {"Other": "thing"}},
        {"allowProvisioning": True, "parameterOverrides": {"SerialNumber": 7}},
        [],
    ],
    ids=["forbids", "no flag", "another's parameter", "no text", "no object"],
)
def test_by_a_hook_that_does_not_allow_nothing_is_made(
    answer: Any, hooked: Hooked, iot: Any, claim: dict[str, Any], server: RunningServer
) -> None:
    before = things(iot)
    how, told = hooked(lambda _: answer, claim["client_id"])
    assert (how, told["statusCode"]) == ("rejected", 403), told
    assert things(iot) == before
    assert server.why(claim["client_id"])["code"] == "awsiot.hook_refused"


def test_a_hook_that_hangs_lets_nobody_in(hooked: Hooked, iot: Any, names: Callable[[], str]) -> None:
    over = threading.Event()
    before = things(iot)
    how, told = hooked(lambda _: over.wait(30) and {"allowProvisioning": True}, names())
    over.set()
    assert how == "rejected", told
    assert things(iot) == before
