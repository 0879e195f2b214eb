"""Scheduled jobs with two workers, and over kill -9 of the server in the middle of one."""

import signal
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.credentials import Operator
from support.server.readiness import until_ready, until_workers_are_ready
from support.server.scaled import for_one
from support.server.servers import RunningServer, a_server
from support.server.workers_of import below, hit
from support.services.postgres import a_postgres

pytestmark = pytest.mark.system
DEVICES = 60


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of two workers."""
    with a_postgres() as url:
        config = f'workers = 2\ndatabase = "{url}"\n'
        with a_server(tmp_path_factory.mktemp("two"), config, is_warm=False) as server:
            yield server


def made(operator: Operator, name: str, count: int = DEVICES) -> list[str]:
    """Create devices in bulk, with tags."""
    names = [f"{name}-{number:03}" for number in range(count)]
    items = [{"id": one, "importMode": "create", "tags": {"of": name}} for one in names]
    for first in range(0, count, 100):
        assert operator.hub("POST", "/devices", items[first : first + 100])[0] == 200
    return names


def scheduled(operator: Operator, name: str) -> None:
    update = {"properties": {"desired": {"fan": 1}}, "etag": "*"}
    order = {"type": "scheduleUpdateTwin", "updateTwin": update, "queryCondition": f"tags.of = '{name}'"}
    status, told = operator.hub("PUT", f"/jobs/v2/{name}", order)
    assert status == 200, told


def ended(operator: Operator, name: str) -> Counter[str]:
    """Wait for the end of a job, and return its counters."""
    deadline = time.monotonic() + 60
    while (job := operator.hub("GET", f"/jobs/v2/{name}")[1])["status"] != "completed":
        assert time.monotonic() < deadline, job
        time.sleep(0.1)
    return Counter(job["deviceJobStatistics"])


def versions(operator: Operator, names: list[str]) -> set[int]:
    """Return the versions of the desired properties of devices, which each update increases."""
    twins = [operator.hub("GET", f"/twins/{name}")[1] for name in names]
    return {one["properties"]["desired"]["$version"] for one in twins}


def test_two_workers_update_each_twin_once(two: RunningServer) -> None:
    operator = Operator(two.cloud)
    names = made(operator, "two-jobs")
    before = versions(operator, names)
    scheduled(operator, "two-jobs")
    assert ended(operator, "two-jobs") == Counter(deviceCount=DEVICES, succeededCount=DEVICES)
    assert versions(operator, names) == {one + 1 for one in before}


def test_a_job_goes_on_when_the_worker_that_drives_it_is_killed(two: RunningServer) -> None:
    operator = Operator(two.cloud)
    two.run("hub", "tier", "birthmark", "S1")
    names = made(operator, "killed-worker")
    before = versions(operator, names[:1])
    scheduled(operator, "killed-worker")
    time.sleep(1.5)  # at ten devices a second, it is in the middle
    hit(below(two)["worker 1"], signal.SIGKILL)
    until_workers_are_ready(two)
    two.run("hub", "tier", "birthmark", "none")
    assert ended(operator, "killed-worker") == Counter(deviceCount=DEVICES, succeededCount=DEVICES)
    assert versions(operator, names) == {one + 1 for one in before}


@for_one
def test_a_job_goes_on_after_kill_9(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        operator = Operator(server.cloud)
        server.run("hub", "tier", "birthmark", "S1")
        names = made(operator, "killed-server")
        before = versions(operator, names[:1])
        scheduled(operator, "killed-server")
        time.sleep(1.5)
        server.kill()
        server.start()
        until_ready(server)
        server.run("hub", "tier", "birthmark", "none")
        again = Operator(server.cloud)
        assert ended(again, "killed-server") == Counter(deviceCount=DEVICES, succeededCount=DEVICES)
        assert versions(again, names) == {one + 1 for one in before}


@for_one
def test_a_method_in_progress_at_a_kill_9_fails_and_is_not_called_again(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        operator = Operator(server.cloud)
        made(operator, "killed-call", 3)
        call = {"methodName": "look", "connectTimeoutInSeconds": 120}
        order = {"type": "scheduleDeviceMethod", "cloudToDeviceMethod": call, "queryCondition": "*"}
        assert operator.hub("PUT", "/jobs/v2/killed-call", order)[0] == 200
        deadline = time.monotonic() + 20
        while operator.hub("GET", "/jobs/v2/killed-call")[1]["deviceJobStatistics"]["runningCount"] < 3:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        server.kill()
        server.start()
        until_ready(server)
        assert ended(Operator(server.cloud), "killed-call") == Counter(deviceCount=3, failedCount=3)
        (shown,) = server.rows("hub", "job", "show", "killed-call")
        assert {one["error"] for one in shown["failed"]} == {"500001"}


def test_operators_create_show_and_cancel_jobs(birthmark_server: Cloud, server: RunningServer) -> None:
    operator = Operator(birthmark_server)
    made(operator, "cli-job", 3)
    where = ("--where", "tags.of = 'cli-job'")
    server.run("hub", "job", "create", "cli-look", *where, "--method", "look", "--payload", '{"a": 1}')
    assert ended(operator, "cli-look") == Counter(deviceCount=3, failedCount=3)
    (shown,) = server.rows("hub", "job", "show", "cli-look")
    assert shown["cloudToDeviceMethod"]["payload"] == {"a": 1}
    assert [(one["device"], one["error"]) for one in shown["failed"]] == [
        (f"cli-job-{n:03}", "404103") for n in range(3)
    ]
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    server.run("hub", "job", "create", "cli-later", "--tags", '{"a": 1}', "--start", later)
    assert "cli-look" in [row["job"] for row in server.rows("hub", "job", "ls", "--status", "completed")]
    server.run("hub", "job", "cancel", "cli-later", "--yes")
    assert "cli-later" in [row["job"] for row in server.rows("hub", "job", "ls", "--status", "cancelled")]
    assert server.attempt("hub", "job", "cancel", "cli-later", "--yes").returncode != 0
