"""Hubs and provisioning services with a tier: programs that ask for more than it takes."""

import base64
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from fixes.desk import Desk, Row, steps, typing

from birthmark.auth.connection_strings import parse_connection_string
from birthmark.iothub.rules.scheduled_jobs import MAX_OPEN
from support.azure.sas_tokens import make_sas

_SCOPED = "/registrations/fix-poller"


def a_hub(name: str, tier: str) -> Callable[[Desk], object]:
    return typing(
        f"birthmark hub create {name} --host {name}.example --tier {tier}",
        f"birthmark hub key {name} --json > key.json",
    )


def calls(name: str, count: int, method: str, path: str, body: object = None) -> Callable[[Desk], None]:
    """Call a hub so often as its owner."""

    def act(desk: Desk) -> None:
        text = json.loads(desk.path("key.json").read_text())["primary_connection_string"]
        known = parse_connection_string(text)
        token = make_sas(f"{name}.example", known.key, int(time.time()) + 600, known.policy)
        data = b"" if body is None else json.dumps(body).encode()
        lines = [
            *(f"{method} {path}?api-version=2021-04-12 HTTP/1.1", f"Host: {name}.example", f"Authorization: {token}"),
            *("Content-Type: application/json", f"Content-Length: {len(data)}", "Connection: close"),
        ]
        for _ in range(count):
            desk.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + data)

    return act


def full(desk: Desk) -> None:
    """Make one device more than the free tier takes."""
    made = [{"id": f"d{number}", "importMode": "create"} for number in range(500)]
    for begin in range(0, 500, 100):
        calls("fix-full", 1, "POST", "/devices", made[begin : begin + 100])(desk)


def one_more(desk: Desk) -> None:
    number = time.monotonic_ns()
    calls("fix-full", 1, "PUT", f"/devices/more-{number}", {"deviceId": f"more-{number}"})(desk)


def job_number(number: int) -> Callable[[Desk], None]:
    """Create a scheduled job that starts in a day."""
    begins = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    update = {"tags": {"a": 1}, "etag": "*"}
    body = {"type": "scheduleUpdateTwin", "updateTwin": update, "queryCondition": "*", "startTime": begins}
    return calls("fix-jobs", 1, "PUT", f"/jobs/v2/j{number}", body)


def used_up(desk: Desk) -> None:
    """Send more than the free tier takes in a day, in few messages."""
    made = json.loads(desk.path("device.json").read_text())
    token = make_sas("fix-quota.example/devices/d", base64.b64decode(made["primary_key"]), int(time.time()) + 600, "")
    token = token.removesuffix("&skn=")
    data = b"x" * (250 * 1024)
    lines = [
        "POST /devices/d/messages/events?api-version=2021-04-12 HTTP/1.1",
        *("Host: fix-quota.example", f"Authorization: {token}", f"Content-Length: {len(data)}", "Connection: close"),
    ]
    for _ in range(17):
        desk.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + data)


def polled(desk: Desk) -> None:
    """Register by a key, and poll too often."""
    (known,) = [row for row in desk.server.rows("dps", "ls") if row["name"] == "fix-polls"]
    scope, key = known["id_scope"], base64.b64decode(desk.path("fix-poller.key").read_text())
    token = make_sas(f"{scope}{_SCOPED}", key, int(time.time()) + 600, "registration")

    def asked(method: str, path: str, body: bytes = b"") -> bytes:
        lines = [
            *(f"{method} /{scope}{_SCOPED}{path}?api-version=2021-06-01 HTTP/1.1", f"Host: {known['host']}"),
            *(f"Authorization: {token}", "Content-Type: application/json", f"Content-Length: {len(body)}"),
            "Connection: close",
        ]
        return desk.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    answer = asked("PUT", "/register", b'{"registrationId": "fix-poller"}')
    operation = json.loads(answer[answer.index(b"{") :])["operationId"]
    for _ in range(6):
        asked("GET", f"/operations/{operation}")


_POLLER = (
    "birthmark dps create fix-polls",
    "birthmark dps link birthmark --dps fix-polls",
    "birthmark dps tier fix-polls S1",
    "birthmark device enroll fix-poller --symmetric-key fix-poller.key --dps fix-polls",
)
TIERS: Mapping[str, Row] = {
    "iothub.tier_throttled": Row(
        calls("fix-tier", 21, "POST", "/devices/query", {"query": "SELECT * FROM devices"}), a_hub("fix-tier", "S1")
    ),
    "iothub.tier_quota": Row(
        used_up,
        steps(a_hub("fix-quota", "F1"), typing("birthmark hub device create d --hub fix-quota --json > device.json")),
    ),
    "iothub.job_quota": Row(
        job_number(MAX_OPEN),
        steps(a_hub("fix-jobs", "S3"), *(job_number(number) for number in range(MAX_OPEN))),
        is_instead=True,
    ),
    "iothub.tier_full": Row(one_more, steps(a_hub("fix-full", "F1"), full)),
    "iothub.tier_invalid": Row(
        typing("birthmark hub tier fix-invalid F1 --units 2"), a_hub("fix-invalid", "S1"), is_instead=True
    ),
    "dps.tier_throttled": Row(polled, typing(*_POLLER)),
}
