"""Webhooks in Event Grid's form, to a receiver in its own process that validates handshake, headers and schema."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.azure.clients import sends_ten
from support.server.servers import RunningServer, a_server

pytestmark = pytest.mark.system
RECEIVER = """
import http.server, json, sys

NEEDED = {"id", "topic", "subject", "eventType", "eventTime", "data", "dataVersion", "metadataVersion"}
file, answers = open(sys.argv[1], "a"), sys.argv[2] == "answers"

class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        events = json.loads(self.rfile.read(int(self.headers["content-length"])))
        kind, answer = self.headers["aeg-event-type"], {}
        is_good = isinstance(events, list) and all(set(one) == NEEDED for one in events)
        is_good &= self.headers["content-type"] == "application/json; charset=utf-8"
        if kind == "SubscriptionValidation":
            is_good &= events[0]["eventType"] == "Microsoft.EventGrid.SubscriptionValidationEvent"
            answer = {"validationResponse": events[0]["data"]["validationCode"]} if answers else {}
        else:
            is_good &= kind == "Notification"
        for event in events:
            print(json.dumps({"kind": kind, "good": is_good, "event": event}), file=file, flush=True)
        body = json.dumps(answer).encode()
        self.send_response(200 if is_good else 400)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


class GridReceiver:
    """A receiver's process, and what it was sent."""

    def __init__(self, directory: Path, answers: str) -> None:
        self._file = directory / f"{answers}.jsonl"
        self._file.touch()
        self._process = subprocess.Popen(
            [sys.executable, "-c", RECEIVER, str(self._file), answers], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}/hook?code=a-key"

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._file.read_text().splitlines()]

    def until(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the events once each of these types has come."""
        deadline = time.monotonic() + 30
        while not set(kinds) <= {one["event"]["eventType"].rpartition(".")[2] for one in self.told}:
            assert time.monotonic() < deadline, self.told
            time.sleep(0.1)
        return self.told

    def end(self) -> None:
        self._process.kill()
        with self._process:
            pass


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_server(tmp_path_factory.mktemp("grid"), '[outbound]\nallow = ["127.0.0.0/8"]\n') as running:
        yield running


@pytest.fixture(params=["answers"])
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[GridReceiver]:
    found = GridReceiver(tmp_path, request.param)
    yield found
    found.end()


def test_devices_are_told_of_in_event_grids_form(server: RunningServer, receiver: GridReceiver) -> None:
    (made,) = server.rows("webhook", "create", "grid", receiver.url, "--format", "eventgrid")
    assert made["form"] == "eventgrid"
    assert [one["kind"] for one in receiver.told] == ["SubscriptionValidation"]
    server.run("hub", "device", "create", "grid-by-hand")
    device = server.cloud.azure_device("grid-by-dps")
    assert sends_ten(device).returncode == 0
    server.run("hub", "device", "rm", "grid-by-hand", "--yes")
    server.run("user", "create", "grid-user", "--role", "viewer", "--out", str(server.data / "grid.invitation"))
    told = receiver.until("DeviceCreated", "DeviceConnected", "DeviceDisconnected", "DeviceDeleted")
    assert all(one["good"] for one in told)
    by_type = [(one["event"]["eventType"].rpartition(".")[2], one["event"]["subject"]) for one in told[1:]]
    assert set(by_type) == {
        ("DeviceCreated", "devices/grid-by-hand"),
        ("DeviceCreated", "devices/grid-by-dps"),
        ("DeviceConnected", "devices/grid-by-dps"),
        ("DeviceDisconnected", "devices/grid-by-dps"),
        ("DeviceDeleted", "devices/grid-by-hand"),
    }
    assert {one["event"]["data"]["hubName"] for one in told[1:]} == {"birthmark"}
    assert {one["event"]["topic"].rpartition("/")[2] for one in told[1:]} == {"BIRTHMARK"}


@pytest.mark.parametrize("receiver", ["keeps-silent"], indirect=True)
def test_a_receiver_that_does_not_return_the_code_gets_no_webhook(
    server: RunningServer, receiver: GridReceiver
) -> None:
    refused = server.attempt("webhook", "create", "silent", receiver.url, "--format", "eventgrid")
    assert refused.returncode != 0
    assert "validation code" in refused.stderr
    assert "a-key" not in refused.stderr
    assert "silent" not in [row["name"] for row in server.rows("webhook", "ls")]
