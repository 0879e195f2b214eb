"""Hubs and provisioning services with a tier, by Azure's own SDKs: what is too much is refused as there."""

import base64
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.clients import run_python
from support.azure.sas_tokens import make_sas
from support.server import scaled
from support.server.servers import RunningServer

pytestmark = pytest.mark.system

QUERIES = """
import os
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import QuerySpecification
manager = IoTHubRegistryManager.from_connection_string(os.environ["IOTHUB_CONNECTION_STRING"])
manager.protocol.config.retry_policy.policy.total = 0
for number in range(45):
    try:
        manager.query_iot_hub(QuerySpecification(query="SELECT * FROM devices"))
    except Exception as error:
        print(number, error.response.status_code)
        break
"""
MANY = """
import os, asyncio
from azure.iot.device.aio import IoTHubDeviceClient
async def main():
    ca = open(os.environ["SSL_CERT_FILE"]).read()
    text = os.environ["IOTHUB_DEVICE_CONNECTION_STRING"]
    client = IoTHubDeviceClient.create_from_connection_string(text, server_verification_cert=ca)
    await client.connect()
    await asyncio.gather(*(client.send_message(str(n)) for n in range(130)))
    await client.shutdown()
    print("all")
asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def without_a_tier(server: RunningServer) -> Iterator[None]:
    """Leave the server to the next test as it was."""
    yield
    server.run("hub", "tier", "birthmark", "none")
    server.run("dps", "tier", "birthmark", "none")


def test_queries_of_an_s1_are_twenty_a_minute(server: RunningServer) -> None:
    server.run("hub", "tier", "birthmark", "S1")
    done = run_python(QUERIES, server.cloud.environment())
    count, code = map(int, done.stdout.split())
    assert code == 429, done.stderr
    assert 20 // scaled.WORKERS <= count <= 30  # each worker has its part; one more comes in each three seconds
    (row,) = [one for one in server.rows("why", "--limit", "5") if one["code"] == "iothub.tier_throttled"][:1]
    assert "20 queries per minute" in row["cause"]
    server.run("hub", "tier", "birthmark", "none")
    assert run_python(QUERIES, server.cloud.environment()).stdout == ""


def test_the_answer_says_when_to_come_back_in_the_hubs_own_form(server: RunningServer) -> None:
    server.run("hub", "tier", "birthmark", "S1")
    known = dict(part.split("=", 1) for part in server.cloud.hub_connection_string.split(";"))
    host = server.endpoints["iothub"]["host"]
    token = make_sas(host, base64.b64decode(known["SharedAccessKey"]), int(time.time()) + 300, "iothubowner")
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    url = f"https://{server.address}:8443/devices/none?api-version=2021-04-12"
    asked = urllib.request.Request(url, headers={"Authorization": token, "Host": host})
    codes: list[int] = []
    for _ in range(400):  # and while they are asked, more become free
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(asked, context=context, timeout=10)
        codes.append(caught.value.code)
        if caught.value.code == 429:
            break
        caught.value.close()
    assert codes.count(404) >= 100 // scaled.WORKERS
    assert codes[-1] == 429
    assert caught.value.headers["retry-after"] in {"1", "2"}
    assert caught.value.headers["iothub-errorcode"] == "ThrottlingException"
    assert json.loads(caught.value.read())["Message"].startswith("ErrorCode:ThrottlingException;")
    # Whoever is not known there uses nothing of it up.
    bare = urllib.request.Request(url, headers={"Host": host})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(bare, context=context, timeout=10)
    assert caught.value.code == 401
    caught.value.close()


def test_a_device_that_sends_too_fast_loses_nothing(server: RunningServer, cloud: Cloud) -> None:
    device = cloud.azure_device(at="hub", auth="key")
    server.run("hub", "tier", "birthmark", "S1")
    done = run_python(MANY, device.environment())
    assert done.stdout.strip() == "all", done.stderr
    assert len(device.messages()) == 130


def test_a_tier_is_shown_with_what_it_takes(server: RunningServer) -> None:
    server.run("hub", "tier", "birthmark", "S2", "--units", "2")
    told = json.loads(server.run("hub", "show", "--json").stdout)
    assert told["tier"] == "S2 with 2 units"
    assert "240 device messages per second" in told["limits"]
    assert "12,000,000 messages of 4,096 bytes a day" in told["limits"]
    assert [row["tier"] for row in server.rows("hub", "ls") if row["name"] == "birthmark"] == ["S2 with 2 units"]
    assert server.attempt("hub", "tier", "birthmark", "F1", "--units", "2").returncode == 1
    assert server.attempt("hub", "tier", "birthmark", "S9").returncode == 2
    assert server.attempt("hub", "tier", "none", "S1").returncode == 3
    server.run("hub", "create", "free", "--host", "free.example", "--tier", "F1")
    assert json.loads(server.run("hub", "show", "free", "--json").stdout)["tier"] == "F1"
    server.run("hub", "tier", "birthmark", "none")
    assert json.loads(server.run("hub", "show", "--json").stdout)["tier"] is None


def test_a_device_that_polls_dps_too_often_is_told_when_to_come_back(server: RunningServer) -> None:
    device = server.cloud.azure_device("poller", auth="key")
    server.run("dps", "tier", "birthmark", "S1")
    scope = server.endpoints["dps"]["id_scope"]
    secret = base64.b64decode(device.symmetric_key)
    token = make_sas(f"{scope}/registrations/poller", secret, int(time.time()) + 300, "registration")
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    headers = {"Authorization": token, "Content-Type": "application/json"}
    base = f"https://{server.address}:8443/{scope}/registrations/poller"
    put = urllib.request.Request(
        f"{base}/register?api-version=2021-06-01", b'{"registrationId": "poller"}', headers, method="PUT"
    )
    operation = json.loads(urllib.request.urlopen(put, context=context, timeout=10).read())["operationId"]
    poll = urllib.request.Request(f"{base}/operations/{operation}?api-version=2021-06-01", headers=headers)
    for _ in range(5):
        urllib.request.urlopen(poll, context=context, timeout=10).close()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(poll, context=context, timeout=10)
    assert (caught.value.code, caught.value.headers["retry-after"]) == (429, "3")
    assert json.loads(caught.value.read())["errorCode"] == 429001
    server.run("dps", "tier", "birthmark", "none")
    urllib.request.urlopen(poll, context=context, timeout=10).close()


def test_the_plan_of_a_shipment_says_what_the_tiers_allow(server: RunningServer) -> None:
    made = server.data.parent / "shipment"
    server.run("manifest", "create", "--out", str(made), "--count", "3")
    trust = ("--signer", str(made / "signer.pem"), "--trust-root", str(made / "root.pem"))
    line = ("device", "enroll-list", str(made / "manifest.json"), *trust, "--dry-run")
    assert "tier" not in server.run(*line).stderr
    server.run("dps", "tier", "birthmark", "S1")
    server.run("hub", "tier", "birthmark", "F1")
    said = server.run(*line).stderr.replace("\n", " ")
    assert "1,000 registrations per minute: 3 devices need at least 1 min" in said
    assert "Hub birthmark is of the tier F1: it takes 500 devices and has" in said
