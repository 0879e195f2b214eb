"""Who comes, goes and is refused is told as events: devices by azure-iot-device, unmodified."""

import time
from pathlib import Path
from typing import Any

import pytest

from support.azure.clients import a_file_device, run_app, run_python, sends_ten
from support.server.servers import RunningServer

pytestmark = pytest.mark.system
_CUT = """
import os
from azure.iot.device import X509, IoTHubDeviceClient

x509 = X509(os.environ["X509_CERT_FILE"], os.environ["X509_KEY_FILE"])
host, name = os.environ["PROVISIONING_HOST"], os.environ["DPS_X509_REGISTRATION_ID"]
client = IoTHubDeviceClient.create_from_x509_certificate(x509, host, name)
client.connect()
os._exit(7)
"""


def told(server: RunningServer, name: str, count: int) -> list[tuple[str, dict[str, Any]]]:
    """Return what is told of a device's connections and refusals, when there is as much of it."""
    deadline = time.monotonic() + 20
    while True:
        rows = server.rows("events", "--begin", "--type", "birthmark.device.*")
        events = [row["event"] for row in rows if row["event"]["subject"] == name]
        ways = ("connected", "disconnected", "lost", "refused")
        found = [(way, one["data"]) for one in events for way in ways if one["type"] == f"birthmark.device.{way}"]
        if len(found) >= count or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def test_a_device_that_connects_says_goodbye_and_is_cut_off_is_told_of(server: RunningServer) -> None:
    device = server.cloud.azure_device("told-1")
    assert sends_ten(device).returncode == 0
    assert run_python(_CUT, device.environment()).returncode == 7
    found = told(server, "told-1", 4)
    assert [way for way, _ in found] == ["connected", "disconnected", "connected", "lost"]
    assert {data["place"] for _, data in found} == {"hub/birthmark"}
    assert found[0][1]["from"].startswith("127.")
    assert found[3][1]["reason"] == "lost"


def test_a_device_that_is_refused_is_told_of_with_what_why_explains(server: RunningServer, tmp_path: Path) -> None:
    device = a_file_device(tmp_path, "told-2")
    assert run_app(server, device).returncode != 0
    (way, data), *_ = told(server, "told-2", 1)
    assert (way, data["code"]) == ("refused", "dps.not_enrolled")
    assert server.why(data["tracking_id"])["code"] == "dps.not_enrolled"
