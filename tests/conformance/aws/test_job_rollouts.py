"""Jobs as operators look on, by our own commands: followed, paused, and why they failed; and by a schedule."""

import json
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from support.aws.clients import until
from support.aws.device import ARN
from support.server.servers import RunningServer

pytestmark = pytest.mark.system
NUMBERS = count(1)


@pytest.fixture
def data(client: Callable[..., Any]) -> Any:
    return client("iot-jobs-data")


def a_name(what: str) -> str:
    return f"{what}-rollout-{next(NUMBERS)}"


def a_job(iot: Any, things: int, **more: Any) -> tuple[str, list[str]]:
    names, job_id = [a_name("thing") for _ in range(things)], a_name("job")
    for name in names:
        iot.create_thing(thingName=name)
    iot.create_job(jobId=job_id, targets=[f"{ARN}thing/{name}" for name in names], document="{}", **more)
    return job_id, names


def until_on(iot: Any, job_id: str, number: int) -> None:
    until(lambda: len(iot.list_job_executions_for_job(jobId=job_id)["executionSummaries"]) == number)


def test_a_rollout_is_followed_until_it_is_over(server: RunningServer, iot: Any, data: Any) -> None:
    job_id, names = a_job(iot, 2)
    until_on(iot, job_id, 2)
    done: list[subprocess.CompletedProcess[str]] = []

    def follow() -> None:
        done.append(server.attempt("aws", "job", "follow", job_id, "--every", "0.1", "--json"))

    following = threading.Thread(target=follow)
    following.start()
    data.update_job_execution(thingName=names[0], jobId=job_id, status="SUCCEEDED")
    data.update_job_execution(thingName=names[1], jobId=job_id, status="FAILED", statusDetails={"why": "full"})
    following.join(timeout=30)
    rows = [json.loads(line) for line in done[0].stdout.splitlines()]
    assert (rows[-1]["status"], rows[-1]["things"]) == ("COMPLETED", {"SUCCEEDED": 1, "FAILED": 1})
    assert done[0].returncode == 7  # one did not succeed
    again = server.attempt("aws", "job", "follow", job_id)
    assert (again.returncode, again.stdout) == (7, f"{job_id}: COMPLETED  SUCCEEDED 1  FAILED 1\n")
    assert server.attempt("aws", "job", "follow", "nobody-made-it").returncode == 3


def test_why_a_job_failed_is_put_together(server: RunningServer, iot: Any, data: Any) -> None:
    job_id, names = a_job(iot, 5)
    until_on(iot, job_id, 5)
    said = [("FAILED", "no room"), ("FAILED", "no room"), ("REJECTED", "too old"), ("SUCCEEDED", "fine")]
    for name, (status, why) in zip(names, said, strict=False):
        data.update_job_execution(thingName=name, jobId=job_id, status=status, statusDetails={"why": why})
    rows = list(server.rows("aws", "job", "why", job_id))
    assert rows == [
        {"things": 2, "status": "FAILED", "details": {"why": "no room"}, "one": names[0]},
        {"things": 1, "status": "REJECTED", "details": {"why": "too old"}, "one": names[2]},
    ]


def test_a_paused_rollout_goes_to_nobody_else(server: RunningServer, iot: Any) -> None:
    job_id, names = a_job(iot, 3, jobExecutionsRolloutConfig={"maximumPerMinute": 1})
    until_on(iot, job_id, 1)
    (row,) = server.rows("aws", "job", "pause", job_id)
    assert row["paused"] is not None
    assert iot.describe_job(jobId=job_id)["job"]["status"] == "IN_PROGRESS"
    iot.update_job(jobId=job_id, jobExecutionsRolloutConfig={"maximumPerMinute": 1000})
    (whole,) = server.rows("aws", "job", "show", job_id)
    assert (whole["goes_out"], whole["things"]) == (True, {"QUEUED": 1})
    server.run("aws", "job", "resume", job_id)
    until_on(iot, job_id, len(names))
    iot.cancel_job(jobId=job_id)
    assert server.attempt("aws", "job", "pause", job_id).returncode != 0


def test_a_job_waits_for_its_time_and_may_be_canceled_before(server: RunningServer, iot: Any, tmp_path: Path) -> None:
    starts = datetime.now(UTC) + timedelta(minutes=40)
    config = {"startTime": f"{starts:%Y-%m-%dT%H:%M}"}
    job_id, names = a_job(iot, 1, schedulingConfig=config)
    told = iot.describe_job(jobId=job_id)["job"]
    assert (told["status"], told["schedulingConfig"]) == ("SCHEDULED", config)
    ours = a_name("ours")
    (tmp_path / "job.json").write_text("{}")
    (tmp_path / "settings.json").write_text(json.dumps({"schedulingConfig": config}))
    made = ("aws", "job", "create", ours, str(tmp_path / "job.json"), "--thing", names[0])
    server.run(*made, "--settings", str(tmp_path / "settings.json"))
    assert {job_id, ours} <= {row["job"] for row in server.rows("aws", "job", "ls", "--status", "SCHEDULED")}
    iot.cancel_job(jobId=job_id)
    assert iot.describe_job(jobId=job_id)["job"]["status"] == "CANCELED"


@pytest.mark.parametrize(
    "config",
    [
        {"startTime": "2020-01-01T00:00"},
        {"startTime": "tomorrow"},
        {"endTime": "2020-01-01T00:00"},
        {"endBehavior": "CANCEL"},
        {"maintenanceWindows": [{"startTime": "cron(0 0 * * ? *)", "durationInMinutes": 5}]},
        {"maintenanceWindows": [{"startTime": "every night", "durationInMinutes": 5}]},
    ],
)
def test_a_schedule_that_cannot_be_is_refused(iot: Any, config: dict[str, Any]) -> None:
    with pytest.raises(ClientError) as caught:
        a_job(iot, 1, schedulingConfig=config)
    assert caught.value.response["Error"]["Code"] == "InvalidRequestException"
