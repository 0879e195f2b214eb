"""`birthmark hub monitor` beside devices of Azure's SDK: live, from a time, from a position, by group, over kill -9."""

import threading
import time
from pathlib import Path

import pytest

from support.azure.clients import run_python, sends_ten
from support.server.servers import RunningServer, a_server
from support.server.watching import watching

pytestmark = pytest.mark.system

WITHOUT_END = """
import os, sys
from azure.iot.device import IoTHubDeviceClient, ProvisioningDeviceClient, X509
x509 = X509(os.environ["X509_CERT_FILE"], os.environ["X509_KEY_FILE"])
found = ProvisioningDeviceClient.create_from_x509_certificate(
    os.environ["PROVISIONING_HOST"], os.environ["DPS_X509_REGISTRATION_ID"], os.environ["PROVISIONING_IDSCOPE"], x509
).register()
client = IoTHubDeviceClient.create_from_x509_certificate(
    x509, found.registration_state.assigned_hub, found.registration_state.device_id, connection_retry=False
)
client.connect()
for number in range(100000):
    client.send_message(str(number))
    print(number, flush=True)
"""


def test_what_a_device_sends_is_shown_as_it_comes(server: RunningServer) -> None:
    device = server.cloud.azure_device("seen-1")
    with watching(server, "hub", "monitor", "seen-1") as all_of_it, watching(server, "hub", "monitor", "other"):
        assert sends_ten(device).returncode == 0
        rows = all_of_it.rows(10)
        assert {row["device"] for row in rows} == {"seen-1"}
        code, told = all_of_it.interrupt()
        assert (code, "--after" in told) == (0, True)
    assert rows == server.rows("hub", "messages", "seen-1")
    assert server.rows("hub", "monitor", "seen-1", "--since", "10m") == rows
    assert server.rows("hub", "monitor", "seen-1", "--since", "beginning") == rows
    assert server.rows("hub", "monitor", "seen-1", "--since", "2200-01-01T00:00:00Z") == []
    place = told.split("--after ")[1].strip()
    assert server.rows("hub", "monitor", "seen-1", "--after", place) == []
    assert sends_ten(device).returncode == 0
    assert len(server.rows("hub", "monitor", "seen-1", "--after", place)) == 10


def test_a_group_goes_on_where_it_was(server: RunningServer) -> None:
    device = server.cloud.azure_device("grouped-1")
    server.rows("hub", "monitor", "--consumer-group", "late", "--since", "2200-01-01T00:00:00Z")
    assert sends_ten(device).returncode == 0
    assert len(server.rows("hub", "monitor", "--consumer-group", "late")) == 10
    assert server.rows("hub", "monitor", "--consumer-group", "late") == []
    early = server.rows("hub", "monitor", "--consumer-group", "early")
    assert len(early) >= 10
    with watching(server, "hub", "monitor", "--consumer-group", "late", "--follow") as follower:
        assert sends_ten(device).returncode == 0
        follower.rows(10)
        assert follower.interrupt()[0] == 0
    assert len(server.rows("hub", "monitor", "--consumer-group", "early")) == 10
    refused = server.attempt("hub", "monitor", "grouped-1", "--consumer-group", "late")
    assert refused.returncode == 2
    assert "cli.option_not_applicable" in refused.stderr


def test_whoever_looks_on_is_told_when_the_server_ends(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        device = server.cloud.azure_device("told-1")
        with watching(server, "hub", "monitor") as hub, watching(server, "aws", "monitor", "#") as aws:
            assert sends_ten(device).returncode == 0
            hub.rows(10)
            began = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began < 4
            for watcher in (hub, aws):
                code, told = watcher.ended()
                assert (code, "operator.server_not_running" in told) == (5, True)


def test_what_was_acknowledged_is_replayed_after_kill_9_in_the_middle(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        device = server.cloud.azure_device("killed-in-the-middle")
        said: list[str] = []
        sending = threading.Thread(target=lambda: said.append(run_python(WITHOUT_END, device.environment(), 90).stdout))
        with watching(server, "hub", "monitor", "--consumer-group", "g", "--follow") as follower:
            sending.start()
            seen = follower.rows(40)
            server.kill()
            assert follower.ended()[0] == 5
            seen += follower.rest
        sending.join()
        acknowledged = [int(line) for line in said[0].split()]
        server.start()
        bodies = [int(row["body"]) for row in server.rows("hub", "monitor", "--since", "beginning")]
        assert len(acknowledged) >= 30
        assert bodies[: len(acknowledged)] == acknowledged
        assert len(bodies) <= len(acknowledged) + 1  # one may be kept whose PUBACK never left
        shown = [int(row["body"]) for row in seen]
        assert shown == bodies[: len(shown)]
        rest = [int(row["body"]) for row in server.rows("hub", "monitor", "--consumer-group", "g")]
        assert set(rest) | set(shown) == set(bodies)  # what came after the group's place comes again
        assert sends_ten(device).returncode == 0
        assert len(server.rows("hub", "monitor", "--consumer-group", "g")) == 10
