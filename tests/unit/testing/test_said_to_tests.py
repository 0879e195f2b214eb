"""What a test is told that asked the kit for something wrong, or waits for what does not come."""

import importlib
import json
from collections.abc import Callable, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from birthmark.testing.cloud import AwsThing, AzureDevice, Cloud
from birthmark.testing.device_identity_model import AwsIdentity, AzureIdentity, Files
from birthmark.testing.errors import NotProvokedError

ENDPOINTS: Mapping[str, Any] = MappingProxyType({"trust_bundle": "/data/trust.pem"})
IDENTITY = AzureIdentity(
    name="pump-1",
    auth="x509",
    at="dps",
    registration_id="pump-1",
    device_id="pump-1",
    provisioning_host="127.0.0.1",
    id_scope="0ne",
    hub_host="127.0.0.1",
    trust_bundle="/data/trust.pem",
)
THING = AwsIdentity(
    name="thing-1",
    arn="arn",
    certificate_arn="arn",
    certificate_id="id",
    policy_name="policy",
    endpoint="127.0.0.1",
    region="us-east-1",
    trust_bundle="/data/trust.pem",
    files=Files(certificate_file="certificate.pem", key_file="key.pem", not_after="2027-01-01T00:00:00+00:00"),
)


class Hearing:
    """A server that keeps what it is asked, and refuses one word."""

    is_running = True
    is_kept = False

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.endpoints = ENDPOINTS

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def ask(self, word: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append(word)
        if word["do"] == "refuse":
            raise NotProvokedError(kind="aws-thing", possible="awsiot.thing_unknown", refusal=word["code"])
        return {"items": [], "known": True}


@pytest.fixture
def server() -> Hearing:
    return Hearing()


@pytest.fixture
def cloud(server: Hearing) -> Cloud:
    return Cloud(server)


@pytest.fixture
def pump(cloud: Cloud) -> AzureDevice:
    return AzureDevice(cloud, IDENTITY)


def test_a_traceback_has_code_cause_and_fix_of_a_refusal(cloud: Cloud, pump: AzureDevice) -> None:
    with pytest.raises(NotProvokedError) as caught:
        cloud.refuse("nonsense", pump)
    notes = "\n".join(caught.value.__notes__)
    assert "Possible refusals: awsiot.thing_unknown." in notes
    assert "Fix: List the possible refusals: `echo help | birthmark test-server --json`" in notes
    assert "Code: testing.not_provoked" in notes


def test_a_fault_of_a_name_says_that_it_takes_the_device(cloud: Cloud, pump: AzureDevice, server: Hearing) -> None:
    for fault in (cloud.expire, cloud.revoke):
        with pytest.raises(TypeError, match="made by azure_device, aws_thing or est_identity, not 'pump-1'"):
            fault("pump-1")  # type: ignore[arg-type] # as somebody writes it
    with pytest.raises(TypeError, match="code first, then the device"):
        cloud.refuse(pump, "dps.enrollment_disabled")  # type: ignore[arg-type]
    assert server.asked == []


def test_what_did_not_come_is_told_in_words(cloud: Cloud) -> None:
    with pytest.raises(AssertionError) as caught:
        cloud.messages("pump-1", at_least=2, within_s=0)
    assert str(caught.value) == "within 0 s, only 0 of 2 messages of pump-1 at the hub were found"
    with pytest.raises(AssertionError) as caught:
        cloud.why("pump-1", within_s=0)
    assert str(caught.value) == "within 0 s no request of pump-1 was refused; codes of other refusals: nothing"


def test_a_policy_may_be_a_document(cloud: Cloud, server: Hearing) -> None:
    with pytest.raises(Exception, match="required field"):  # what this server answers is no thing
        cloud.aws_thing("pump-1", policy={"Version": "2012-10-17"})
    assert json.loads(server.asked[0]["policy"]) == {"Version": "2012-10-17"}


@pytest.mark.parametrize(
    ("missing", "package", "ask"),
    [
        ("azure.iot", "azure-iot-device", lambda cloud: AzureDevice(cloud, IDENTITY).register()),
        ("azure.iot.device", "azure-iot-device", lambda cloud: AzureDevice(cloud, IDENTITY).client(is_async=True)),
        ("azure.iot.hub", "azure-iot-hub", lambda cloud: cloud.registry()),
        ("awsiot", "awsiotsdk", lambda cloud: AwsThing(cloud, THING).connection()),
    ],
)
def test_an_sdk_that_is_not_installed_is_named_with_its_package(
    missing: str, package: str, ask: Callable[[Cloud], Any], cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib, "import_module", without(missing))
    with pytest.raises(ModuleNotFoundError, match=f"`pip install {package}`"):
        ask(cloud)


def test_what_an_sdk_itself_misses_is_not_blamed_on_it(
    cloud: Cloud, pump: AzureDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib, "import_module", without("paho"))
    with pytest.raises(ModuleNotFoundError, match="'paho'"):
        pump.register()


@pytest.mark.parametrize(
    ("https_port", "given", "port"), [(443, {}, None), (8443, {}, 8883), (8443, {"port": 443}, 443)]
)
def test_a_thing_connects_at_a_port_that_is_served(
    https_port: int, given: dict[str, int], port: int | None, server: Hearing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK takes 443 by itself."""
    server.endpoints = {**ENDPOINTS, "iothub": {"https_port": https_port}}
    builder = SimpleNamespace(mtls_from_path=lambda **options: options)
    monkeypatch.setattr(importlib, "import_module", lambda name: builder)
    thing = AwsThing(Cloud(server), THING)
    assert thing.connection(**given).get("port") == port
    assert thing.client5(**given).get("port") == port


def without(missing: str) -> Callable[[str], Any]:
    """Return an import that does not find this."""

    def importing(module: str) -> Any:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    return importing


def test_a_device_waits_as_long_as_the_cloud_is_told_to() -> None:
    with pytest.raises(AssertionError, match=r"within 0\.1 s no request of pump-1 was refused"):
        AzureDevice(Cloud(Hearing()), IDENTITY).why(within_s=0.1)
