"""Azure's provisioning service SDK for Java as a back end of DPS: enrollments, groups, bulk, registrations."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.clients import needs_443
from support.languages.programs import Program, Settings, another_ca, certificate_of
from support.pki.pki_builders import a_ca

pytestmark = pytest.mark.system
SDK = Program("java", "ProvisioningService")


def back_end(cloud: Cloud, name: str, **more: str) -> Settings:
    needs_443(cloud)
    text = cloud.variables["PROVISIONING_CONNECTION_STRING"]
    return {"CONNECTION_STRING": text, "CA_FILE": cloud.ca_file, "NAME": name, **more}


def test_it_enrolls_disables_and_removes_a_device_with_a_symmetric_key(birthmark_cloud: Cloud) -> None:
    settings = back_end(birthmark_cloud, "java-1")
    made = SDK.run("enroll", settings)
    assert made == SDK.run("get", settings) == {"name": "java-1", "status": "enabled"}
    assert SDK.run("keys", settings)["key"]
    assert SDK.run("disable", settings) == made | {"status": "disabled"}
    SDK.run("remove", settings)
    assert "NotFound" in SDK.fail("get", settings)


def test_a_device_registers_with_the_certificate_that_it_enrolled(birthmark_cloud: Cloud) -> None:
    device = birthmark_cloud.azure_device(at="hub")  # has a certificate and no enrollment
    SDK.run("enroll", back_end(birthmark_cloud, device.name, **certificate_of(device)))
    known = device.identity
    settings = {"PROTOCOL": "MQTT", "HOST": known.provisioning_host, "ID_SCOPE": known.id_scope}
    settings |= {"REGISTRATION_ID": device.name, "CA_FILE": birthmark_cloud.ca_file, **certificate_of(device)}
    told = Program("java", "Provisioning").run("register", settings)
    assert told == {"device": device.name, "hub": known.hub_host}
    state = SDK.run("registration", back_end(birthmark_cloud, device.name))
    assert state == {**told, "status": "assigned"}


def test_it_enrolls_queries_and_removes_in_bulk(birthmark_cloud: Cloud) -> None:
    told = SDK.run("bulk", back_end(birthmark_cloud, "java-bulk"))
    assert told["created"]
    assert {"java-bulk-one", "java-bulk-two"} <= set(told["names"])
    assert told["deleted"]


def test_it_manages_a_group(birthmark_cloud: Cloud, tmp_path: Path) -> None:
    root = tmp_path / "root.pem"
    root.write_text(a_ca("Root of a group", now=datetime.now(UTC)).certificate.pem())
    told = SDK.run("group", back_end(birthmark_cloud, "java-group", ROOT_FILE=str(root)))
    assert told == {"name": "java-group", "status": "disabled", "number": 1, "registered": 0}


def test_a_wrong_key_is_refused(birthmark_cloud: Cloud) -> None:
    wrong = back_end(birthmark_cloud, "java-2")
    wrong["CONNECTION_STRING"] = wrong["CONNECTION_STRING"].replace("SharedAccessKey=", "SharedAccessKey=AAAA")
    assert "Unauthorized" in SDK.fail("get", wrong)
    assert birthmark_cloud.why(code="sas.signature_mismatch")


def test_a_client_that_trusts_another_ca_does_not_connect(birthmark_cloud: Cloud, tmp_path: Path) -> None:
    assert "certif" in SDK.fail("get", back_end(birthmark_cloud, "java-3") | another_ca(tmp_path)).lower()
