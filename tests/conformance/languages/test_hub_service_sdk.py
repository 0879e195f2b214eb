"""Azure's service SDK for Java as a back end of a hub: devices, modules, twins, queries, methods, messages, jobs."""

import json
from pathlib import Path

import pytest

from birthmark.testing.cloud import AzureDevice, Cloud
from support.azure.clients import needs_443
from support.languages.programs import Program, Settings, another_ca, of_hub_sdk
from support.server.servers import RunningServer

pytestmark = pytest.mark.system
SDK = Program("java", "HubService")
DEVICE_SDK = Program("java", "HubDevice")
THUMBPRINT = "AB" * 32


def back_end(cloud: Cloud, device: str, **more: str) -> Settings:
    needs_443(cloud)
    text = cloud.variables["IOTHUB_CONNECTION_STRING"]
    return {"CONNECTION_STRING": text, "CA_FILE": cloud.ca_file, "DEVICE": device, **more}


@pytest.fixture
def device(birthmark_cloud: Cloud) -> AzureDevice:
    """A device of the hub with a symmetric key."""
    return birthmark_cloud.azure_device(at="hub", auth="key")


def test_it_creates_disables_and_removes_a_device(birthmark_cloud: Cloud) -> None:
    settings = back_end(birthmark_cloud, "java-1")
    made = SDK.run("create", settings)
    assert SDK.run("get", settings) == made
    assert SDK.run("disable", settings) == made | {"status": "Disabled"}
    SDK.run("remove", settings)
    assert "IotHubNotFoundException" in SDK.fail("get", settings)


def test_it_creates_a_device_with_thumbprints(birthmark_cloud: Cloud) -> None:
    told = SDK.run("certificate", back_end(birthmark_cloud, "java-2", THUMBPRINT=THUMBPRINT))
    assert told == {"thumbprint": THUMBPRINT, "type": "selfSigned"}


def test_it_creates_updates_and_removes_modules(device: AzureDevice) -> None:
    told = SDK.run("module", back_end(device.cloud, device.name, THUMBPRINT=THUMBPRINT))
    assert told == {"modules": ["pump", "valve"], "left": 1}


def test_it_counts_devices(device: AzureDevice) -> None:
    assert SDK.run("count", back_end(device.cloud, device.name))["devices"] >= 1


def test_it_updates_and_replaces_a_twin(device: AzureDevice) -> None:
    settings = back_end(device.cloud, device.name, PAYLOAD="open")
    assert SDK.run("twin", settings) == {"tags": {"site": "north"}, "desired": "open"}
    assert SDK.run("replace", settings) == {"tags": {"site": "south"}, "desired": "open"}


def test_it_queries_twins(device: AzureDevice) -> None:
    settings = back_end(device.cloud, device.name, PAYLOAD="open")
    SDK.run("twin", settings)
    told = SDK.run("query", settings)
    assert device.name in told["devices"]
    assert json.loads(told["raw"]) == {"site": "north", "number": 1}


@pytest.mark.parametrize("protocol", ["AMQPS", "AMQPS_WS"])
def test_a_device_receives_its_message_and_it_receives_feedback(device: AzureDevice, protocol: str) -> None:
    settings = back_end(device.cloud, device.name, PAYLOAD="open the valve", PROTOCOL=protocol)
    with DEVICE_SDK.start("listen", of_hub_sdk(device, "AMQPS")) as running, SDK.start("send", settings) as service:
        service.until("sent")
        assert running.until("payload")["payload"] == "open the valve"
        assert service.until("feedback") == {"feedback": "Success", "message": "one"}


def test_it_invokes_a_direct_method(device: AzureDevice) -> None:
    with DEVICE_SDK.start("listen", of_hub_sdk(device, "MQTT")) as running:
        running.until("subscribed")
        told = SDK.run("method", back_end(device.cloud, device.name))
        assert told == {"status": 200, "payload": {"done": True}}


def test_it_manages_configurations(device: AzureDevice) -> None:
    told = SDK.run("configuration", back_end(device.cloud, device.name, CONFIGURATION=f"eco-{device.name}"))
    assert told["priority"] == 2
    assert told["number"] >= 1


def test_it_runs_a_job(device: AzureDevice) -> None:
    told = SDK.run("job", back_end(device.cloud, device.name, JOB=f"job-{device.name}"))
    assert told == {"listed": True, "site": "east"}


def test_it_cancels_a_job(device: AzureDevice) -> None:
    told = SDK.run("cancel", back_end(device.cloud, device.name, JOB=f"late-{device.name}"))
    assert told == {"status": "cancelled"}


@pytest.mark.parametrize("kind", ["export", "import"])
def test_it_exports_and_imports_devices(server: RunningServer, device: AzureDevice, kind: str) -> None:
    container = f"{kind}-{device.name}"
    (made,) = server.rows("hub", "file", "sas", container, "--permissions", "rcwdl", "--create")
    settings = back_end(device.cloud, device.name, URL=made["url"])
    assert SDK.run("export", settings) == {"status": "COMPLETED"}
    if kind == "import":
        assert SDK.run("import", settings) == {"status": "COMPLETED"}


def test_a_wrong_key_is_refused(device: AzureDevice) -> None:
    wrong = back_end(device.cloud, device.name)
    wrong["CONNECTION_STRING"] = wrong["CONNECTION_STRING"].replace("SharedAccessKey=", "SharedAccessKey=AAAA")
    assert "IotHubUnauthorizedException" in SDK.fail("get", wrong)
    assert device.cloud.why(code="sas.signature_mismatch")


def test_a_client_that_trusts_another_ca_does_not_connect(device: AzureDevice, tmp_path: Path) -> None:
    assert "certif" in SDK.fail("get", back_end(device.cloud, device.name) | another_ca(tmp_path)).lower()
