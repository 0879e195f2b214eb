"""Certificates that are not registered, of a CA on record: JITR and JITP, by the vendor's SDK and CLI."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from support.aws.device import ARN, DEVICE_5, DeviceProcess
from support.pki.pki_builders import Holder, a_ca, a_device
from support.server.servers import RunningServer

pytestmark = pytest.mark.system
DOCUMENT = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Action": "iot:Connect",
            "Resource": f"{ARN}client/${{iot:Connection.Thing.ThingName}}",
        },
    }
)
JITP = {
    "Parameters": {
        "AWS::IoT::Certificate::CommonName": {"Type": "String"},
        "AWS::IoT::Certificate::Organization": {"Type": "String", "Default": "nobody"},
        "AWS::IoT::Certificate::Id": {"Type": "String"},
    },
    "Resources": {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {
                "ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"},
                "AttributePayload": {"maker": {"Ref": "AWS::IoT::Certificate::Organization"}},
            },
        },
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"},
        },
        "policy": {
            "Type": "AWS::IoT::Policy",
            "Properties": {"PolicyDocument": DOCUMENT},
        },
    },
}
NUMBERS = count()


@dataclass
class Maker:
    """Who makes devices: a CA on record at the account."""

    iot: Any
    server: RunningServer
    folder: Path
    ca: Holder
    ca_id: str

    def device(self, name: str, **more: Any) -> tuple[Holder, dict[str, Any]]:
        """Return a new device, and how it connects."""
        made = a_device(self.ca, name, now=datetime.now(UTC), **more)
        number = next(NUMBERS)
        files = {"certificate": str(self.folder / f"{number}.pem"), "key": str(self.folder / f"{number}.key")}
        Path(files["certificate"]).write_text(made.certificate.pem())
        Path(files["key"]).write_text(made.key_pem)
        aws = self.server.endpoints["aws"]
        return made, {
            **files,
            "client_id": name,
            "endpoint": aws["data_endpoint"],
            "ca": self.server.endpoints["trust_bundle"],
        }


@pytest.fixture
def maker(iot: Any, server: RunningServer, tmp_path: Path) -> Callable[..., Maker]:
    def make(registration: dict[str, str] | None = None, **more: Any) -> Maker:
        ca = a_ca(f"Maker {next(NUMBERS)}", now=datetime.now(UTC))
        given = {} if registration is None else {"registrationConfig": registration}
        known = iot.register_ca_certificate(
            caCertificate=ca.certificate.pem(),
            certificateMode="SNI_ONLY",
            setAsActive=True,
            **{"allowAutoRegistration": True, **given, **more},
        )
        return Maker(iot, server, tmp_path, ca, known["certificateId"])

    return make


def a_name(what: str) -> str:
    return f"{what}-{next(NUMBERS)}"


def comes(arguments: dict[str, Any]) -> bool:
    """Let a device connect once by MQTT 3.1.1, and say whether it is let in."""
    with DeviceProcess(arguments) as device:
        return "ok" in device("connect")


def comes_by_5(arguments: dict[str, Any]) -> bool:
    """Let a device connect once by MQTT 5, and say whether it is let in."""
    with DeviceProcess(arguments, program=DEVICE_5) as device:
        device("start")
        return "ok" in device("connected", timeout=2)


def test_jitr_registers_a_certificate_that_waits_for_its_activation(
    maker: Callable[..., Maker], iot: Any, server: RunningServer
) -> None:
    made = maker()
    name = a_name("jitr")
    device, arguments = made.device(name)
    assert not comes(arguments)
    certificate_id = device.certificate.thumbprint.hex()
    known = iot.describe_certificate(certificateId=certificate_id)["certificateDescription"]
    assert (known["status"], known["caCertificateId"]) == ("PENDING_ACTIVATION", made.ca_id)
    told = server.why(name)
    assert told["code"] == "awsiot.registered_pending"
    assert f"aws iot update-certificate --certificate-id {certificate_id} --new-status ACTIVE" in told["fix"]


def test_jitr_tells_who_listens_and_the_next_connection_works(
    maker: Callable[..., Maker], enroll: Any, iot: Any
) -> None:
    made = maker()
    listener = enroll(a_name("listener"))
    device, arguments = made.device(a_name("jitr"))
    certificate_id = device.certificate.thumbprint.hex()
    topic = f"$aws/events/certificates/registered/{made.ca_id}"
    with DeviceProcess(listener.files) as hears:
        hears("connect")
        assert "ok" in hears("subscribe", topic=topic)
        assert not comes(arguments)
        message = hears("receive")["ok"]
        assert not comes(arguments)
        again = json.loads(hears("receive")["ok"]["payload"])
    event = json.loads(message["payload"])
    assert message["topic"] == topic
    assert event["certificateId"] == certificate_id
    assert event["certificateStatus"] == "PENDING_ACTIVATION"
    assert event["certificateRegistrationTimestamp"] is None
    assert event["sourceIp"]
    known = iot.describe_certificate(certificateId=certificate_id)["certificateDescription"]
    made_at_ms = known["creationDate"].timestamp() * 1000
    assert abs(int(again["certificateRegistrationTimestamp"]) - made_at_ms) <= 1  # one is cut off, the other is a float
    iot.update_certificate(certificateId=certificate_id, newStatus="ACTIVE")
    policy = a_name("policy")
    iot.create_policy(policyName=policy, policyDocument=DOCUMENT)
    iot.create_thing(thingName=arguments["client_id"])
    arn = iot.describe_certificate(certificateId=certificate_id)["certificateDescription"]["certificateArn"]
    iot.attach_policy(policyName=policy, target=arn)
    iot.attach_thing_principal(thingName=arguments["client_id"], principal=arn)
    assert comes(arguments)


@pytest.mark.parametrize("comes", [comes, comes_by_5], ids=["mqtt 3.1.1", "mqtt 5"])
@pytest.mark.parametrize("by", ["body", "name"])
def test_jitp_makes_the_device_and_the_next_connection_works(
    by: str, comes: Callable[[dict[str, Any]], bool], maker: Callable[..., Maker], iot: Any, server: RunningServer
) -> None:
    registration = {"templateBody": json.dumps(JITP), "roleArn": "arn:aws:iam::000000000000:role/x"}
    if by == "name":
        name = a_name("template")
        iot.create_provisioning_template(
            templateName=name,
            templateBody=json.dumps(JITP),
            enabled=True,
            provisioningRoleArn="arn:aws:iam::000000000000:role/x",
            type="JITP",
        )
        registration = {"templateName": name}
    made = maker(registration)
    name = a_name("jitp")
    device, arguments = made.device(name)
    assert not comes(arguments)
    assert server.why(name)["code"] == "awsiot.registered_now"
    assert iot.describe_thing(thingName=name)["attributes"] == {"maker": "nobody"}
    certificate_id = device.certificate.thumbprint.hex()
    known = iot.describe_certificate(certificateId=certificate_id)["certificateDescription"]
    assert (known["status"], known["caCertificateId"]) == ("ACTIVE", made.ca_id)
    assert comes(arguments)


def test_a_second_device_of_a_name_takes_nothing(maker: Callable[..., Maker], iot: Any, server: RunningServer) -> None:
    made = maker({"templateBody": json.dumps(JITP)})
    name = a_name("jitp")
    first, arguments = made.device(name)
    comes(arguments)
    second, others = made.device(name)
    assert not comes(others)
    assert not comes(others)
    told = server.why(second.certificate.thumbprint.hex())
    assert told["code"] == "awsiot.thing_taken"
    assert first.certificate.thumbprint.hex() in told["fix"]
    found = iot.list_certificates_by_ca(caCertificateId=made.ca_id)["certificates"]
    assert [one["certificateId"] for one in found] == [first.certificate.thumbprint.hex()]
    assert comes(arguments)


def test_a_template_that_cannot_be_followed_says_which_step_and_keeps_nothing(
    maker: Callable[..., Maker], iot: Any, server: RunningServer
) -> None:
    body = json.loads(json.dumps(JITP))
    body["Resources"]["thing"]["Properties"]["ThingGroups"] = ["nowhere"]
    made = maker({"templateBody": json.dumps(body)})
    name = a_name("jitp")
    _, arguments = made.device(name)
    assert not comes(arguments)
    told = server.why(name)
    assert told["code"] == "awsiot.registration_failed"
    assert "The step Resources.thing failed:" in told["cause"]
    assert "Thing group nowhere not found" in told["cause"]
    assert iot.list_certificates_by_ca(caCertificateId=made.ca_id)["certificates"] == []


def test_a_certificate_that_was_taken_off_the_air_is_not_registered_anew(
    maker: Callable[..., Maker], iot: Any, server: RunningServer
) -> None:
    made = maker({"templateBody": json.dumps(JITP)})
    name = a_name("jitp")
    device, arguments = made.device(name)
    comes(arguments)
    iot.update_certificate(certificateId=device.certificate.thumbprint.hex(), newStatus="REVOKED")
    assert not comes(arguments)
    assert server.why(name)["code"] == "awsiot.certificate_inactive"
