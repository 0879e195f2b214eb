"""What requests about templates, first contact and bulk registrations carry, and what becomes of it."""

import json
from collections.abc import Callable
from typing import Any

ROLE = "arn:aws:iam::000000000000:role/provisioning"
HOOK = "arn:aws:lambda:us-east-1:000000000000:function:hook"
BODY = json.dumps(
    {
        "Parameters": {"AWS::IoT::Certificate::Id": {"Type": "String"}},
        "Resources": {
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}},
            }
        },
    }
)
TAGS = [{"Key": "site", "Value": "7"}]
Case = Callable[[Any], None]


def template(a: Any, **more: Any) -> str:
    """Make a provisioning template; return its name."""
    name: str = a.name
    a.iot.create_provisioning_template(
        **{"templateName": name, "templateBody": BODY, "provisioningRoleArn": ROLE, **more}
    )
    return name


def _told(a: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = a.iot.describe_provisioning_template(templateName=name)
    return found


def _kept(member: str, value: Any) -> Case:
    def case(a: Any) -> None:
        assert _told(a, template(a, **{member: value}))[member] == value

    return case


def _updated(member: str, value: Any) -> Case:
    def case(a: Any) -> None:
        name = template(a)
        a.iot.update_provisioning_template(templateName=name, **{member: value})
        assert _told(a, name)[member] == value

    return case


def _hook(a: Any) -> None:
    hook = {"targetArn": HOOK, "payloadVersion": "2020-04-01"}
    name = template(a, preProvisioningHook=hook)
    assert _told(a, name)["preProvisioningHook"] == hook
    other = {**hook, "targetArn": f"{HOOK}-2"}
    a.iot.update_provisioning_template(templateName=name, preProvisioningHook=other)
    assert _told(a, name)["preProvisioningHook"] == other
    a.iot.update_provisioning_template(templateName=name, removePreProvisioningHook=True)
    assert "preProvisioningHook" not in _told(a, name)


def _versions(a: Any) -> None:
    name = template(a)
    body = BODY.replace('"Ref"', ' "Ref"')
    second = a.iot.create_provisioning_template_version(templateName=name, templateBody=body, setAsDefault=True)
    assert (second["versionId"], second["isDefaultVersion"], _told(a, name)["defaultVersionId"]) == (2, True, 2)
    third = a.iot.create_provisioning_template_version(templateName=name, templateBody=body)
    assert (third["isDefaultVersion"], _told(a, name)["defaultVersionId"]) == (False, 2)
    a.iot.update_provisioning_template(templateName=name, defaultVersionId=1)
    assert _told(a, name)["templateBody"] == BODY
    found = a.iot.describe_provisioning_template_version(templateName=name, versionId=2)
    assert (found["templateBody"], found["isDefaultVersion"]) == (body, False)
    for version in (2, 3):
        a.iot.delete_provisioning_template_version(templateName=name, versionId=version)
    assert [one["versionId"] for one in a.iot.list_provisioning_template_versions(templateName=name)["versions"]] == [1]
    a.iot.delete_provisioning_template(templateName=name)
    assert "ResourceNotFoundException" in a.refuses("DescribeProvisioningTemplate", templateName=name)


def _registers(a: Any) -> None:
    thing = {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "Name"}}}
    body = json.dumps({"Parameters": {"Name": {"Type": "String"}}, "Resources": {"thing": thing}})
    name = a.name
    made = a.iot.register_thing(templateBody=body, parameters={"Name": name})
    assert made["resourceArns"]["thing"] == a.iot.describe_thing(thingName=name)["thingArn"]


def _registration(member: str, value: str) -> Case:
    def case(a: Any) -> None:
        config = {member: value}
        certificate_id = a.authority(registrationConfig=config)
        assert a.iot.describe_ca_certificate(certificateId=certificate_id)["registrationConfig"] == config
        other = a.authority()
        a.iot.update_ca_certificate(certificateId=other, registrationConfig=config)
        assert a.iot.describe_ca_certificate(certificateId=other)["registrationConfig"] == config
        a.iot.update_ca_certificate(certificateId=other, removeAutoRegistration=True)
        assert "registrationConfig" not in a.iot.describe_ca_certificate(certificateId=other)

    return case


def _auto_registration(a: Any) -> None:
    certificate_id = a.authority(allowAutoRegistration=True)
    for status in ("ENABLE", "DISABLE"):
        a.iot.update_ca_certificate(certificateId=certificate_id, newAutoRegistrationStatus=status)
        found = a.iot.describe_ca_certificate(certificateId=certificate_id)["certificateDescription"]
        assert found["autoRegistrationStatus"] == status


def _allowed(a: Any) -> None:
    found = a.iot.describe_ca_certificate(certificateId=a.authority(allowAutoRegistration=True))
    assert found["certificateDescription"]["autoRegistrationStatus"] == "ENABLE"


def _tasks_by_status(a: Any) -> None:
    for status in ("InProgress", "Completed", "Failed", "Cancelled"):
        ids = a.iot.list_thing_registration_tasks(status=status)["taskIds"]
        assert all(a.iot.describe_thing_registration_task(taskId=one)["status"] == status for one in ids)


def _tagged(a: Any) -> None:
    arn = _told(a, template(a, tags=TAGS))["templateArn"]
    assert a.iot.list_tags_for_resource(resourceArn=arn)["tags"] == TAGS


_CONFIG = {"templateBody": BODY, "roleArn": ROLE, "templateName": "t"}
KEPT: dict[str, dict[str, Case]] = {
    "CreateProvisioningTemplate": {
        "tags": _tagged,
        "description": _kept("description", "gateways of line 4"),
        "enabled": _kept("enabled", True),
        "type": _kept("type", "JITP"),
        "preProvisioningHook.targetArn": _hook,
        "preProvisioningHook.payloadVersion": _hook,
    },
    "UpdateProvisioningTemplate": {
        "description": _updated("description", "gateways of line 5"),
        "enabled": _updated("enabled", True),
        "provisioningRoleArn": _updated("provisioningRoleArn", f"{ROLE}-2"),
        "defaultVersionId": _versions,
        "preProvisioningHook.targetArn": _hook,
        "preProvisioningHook.payloadVersion": _hook,
        "removePreProvisioningHook": _hook,
    },
    "CreateProvisioningTemplateVersion": {"setAsDefault": _versions},
    "RegisterThing": {"parameters": _registers},
    "ListThingRegistrationTasks": {"status": _tasks_by_status},
}
OF_CAS: dict[str, dict[str, Case]] = {
    "RegisterCACertificate": {
        "allowAutoRegistration": _allowed,
        **{f"registrationConfig.{name}": _registration(name, value) for name, value in _CONFIG.items()},
    },
    "UpdateCACertificate": {
        "newAutoRegistrationStatus": _auto_registration,
        **{f"registrationConfig.{name}": _registration(name, value) for name, value in _CONFIG.items()},
    },
}
"""What belongs to operations that have other members beside."""
