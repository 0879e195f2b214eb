"""Provisioning templates, what they register, and claims for trusted users, by boto3."""

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from support.aws.device import DeviceProcess, document, statement
from support.server.servers import RunningServer

pytestmark = pytest.mark.system
ROLE = "arn:aws:iam::000000000000:role/provisioning"
NUMBERS = count()


def a_body(**attributes: str) -> str:
    """Return a template of a thing by its serial number, with these attributes."""
    thing = {"ThingName": {"Ref": "SerialNumber"}, "AttributePayload": attributes}
    certificate = {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}
    return json.dumps(
        {
            "Parameters": {"SerialNumber": {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
            "Resources": {
                "thing": {"Type": "AWS::IoT::Thing", "Properties": thing},
                "certificate": {"Type": "AWS::IoT::Certificate", "Properties": certificate},
            },
        }
    )


@pytest.fixture
def name(iot: Any) -> str:
    """Return the name of a template of one version."""
    made = f"boards-{next(NUMBERS)}"
    iot.create_provisioning_template(
        templateName=made, templateBody=a_body(site="1"), enabled=True, provisioningRoleArn=ROLE, description="Boards"
    )
    return made


def refused(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


def test_a_provisioning_template_is_described_listed_updated_and_deleted(iot: Any, name: str) -> None:
    found = iot.describe_provisioning_template(templateName=name)
    assert (found["description"], found["enabled"], found["type"]) == ("Boards", True, "FLEET_PROVISIONING")
    assert json.loads(found["templateBody"]) == json.loads(a_body(site="1"))
    listed = [one["templateName"] for one in iot.list_provisioning_templates(maxResults=250)["templates"]]
    assert name in listed
    iot.update_provisioning_template(templateName=name, description="Old boards", enabled=False)
    found = iot.describe_provisioning_template(templateName=name)
    assert (found["description"], found["enabled"]) == ("Old boards", False)
    iot.delete_provisioning_template(templateName=name)
    assert refused(iot.describe_provisioning_template, templateName=name) == "ResourceNotFoundException"


def test_the_versions_of_a_provisioning_template(iot: Any, name: str) -> None:
    made = iot.create_provisioning_template_version(templateName=name, templateBody=a_body(site="2"))
    assert (made["versionId"], made["isDefaultVersion"]) == (2, False)
    found = iot.describe_provisioning_template_version(templateName=name, versionId=2)
    assert json.loads(found["templateBody"]) == json.loads(a_body(site="2"))
    iot.update_provisioning_template(templateName=name, defaultVersionId=2)
    listed = iot.list_provisioning_template_versions(templateName=name)["versions"]
    assert {one["versionId"]: one["isDefaultVersion"] for one in listed} == {1: False, 2: True}
    delete = iot.delete_provisioning_template_version
    assert refused(delete, templateName=name, versionId=2) == "DeleteConflictException"
    iot.delete_provisioning_template_version(templateName=name, versionId=1)
    assert [one["versionId"] for one in iot.list_provisioning_template_versions(templateName=name)["versions"]] == [2]


def test_register_thing_makes_what_the_body_says(iot: Any) -> None:
    serial = f"board-{next(NUMBERS)}"
    made = iot.create_keys_and_certificate(setAsActive=True)
    given = {"SerialNumber": serial, "AWS::IoT::Certificate::Id": made["certificateId"]}
    answer = iot.register_thing(templateBody=a_body(site="3"), parameters=given)
    assert answer["resourceArns"]["certificate"] == made["certificateArn"]
    assert answer["certificatePem"] == made["certificatePem"]
    assert iot.describe_thing(thingName=serial)["attributes"] == {"site": "3"}
    assert iot.list_thing_principals(thingName=serial)["principals"] == [made["certificateArn"]]
    known = iot.describe_certificate(certificateId=made["certificateId"])["certificateDescription"]
    assert known["status"] == "ACTIVE"


def test_a_provisioning_claim_of_a_trusted_user_provisions_by_its_template_alone(
    iot: Any, name: str, server: RunningServer, tmp_path: Path
) -> None:
    claim = iot.create_provisioning_claim(templateName=name)
    known = iot.describe_certificate(certificateId=claim["certificateId"])["certificateDescription"]
    assert known["status"] == "ACTIVE"
    files = {"certificate": str(tmp_path / "claim.pem"), "key": str(tmp_path / "claim.key")}
    Path(files["certificate"]).write_text(claim["certificatePem"])
    Path(files["key"]).write_text(claim["keyPair"]["PrivateKey"])
    arguments = {
        **files,
        "client_id": f"installer-{next(NUMBERS)}",
        "endpoint": server.endpoints["aws"]["data_endpoint"],
        "ca": server.endpoints["trust_bundle"],
    }
    iot.create_policy(policyName=arguments["client_id"], policyDocument=document(statement("iot:*")))
    iot.attach_policy(policyName=arguments["client_id"], target=known["certificateArn"])
    with DeviceProcess(arguments) as device:
        assert "ok" in device("connect")
        assert "ok" in device("subscribe", topic=f"$aws/provisioning-templates/{name}/provision/json/accepted")
    with DeviceProcess(arguments) as device:
        assert "ok" in device("connect")
        assert "error" in device("subscribe", topic="$aws/provisioning-templates/another/provision/json/accepted")
