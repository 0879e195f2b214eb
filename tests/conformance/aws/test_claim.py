"""Fleet provisioning by claim, by the vendor's identity clients: keys of the service's and CSRs, MQTT 3.1.1 and 5."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from aws_device import ARN, DeviceProcess, document, statement
from servers import RunningServer

pytestmark = pytest.mark.system
IDENTITY = Path(__file__).parents[2] / "aws_identity_process.py"
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
    assert "what a claim certificate may not do denies it" in why["cause"]
    assert "by the certificate that it was given" in why["fix"]


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
    assert answer["rejected"]["message"] == f"Thing gateway-{serial} has another certificate already"
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
