"""Jobs on the device: the agent does what its configuration names, over kills and restarts, and nothing else."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from birthmark.agent.jobs.command_runner import left_of
from birthmark.agent.jobs.execution_state_file import JobRecord, JobStep, read_record, write_record
from birthmark.agent.state_directory import AgentPaths
from support.agent.device import until as told
from support.aws.agent import AwsAgentOnDevice
from support.aws.clients import until
from support.aws.device import ARN, Enrolled, statement
from support.server.servers import RunningServer

pytestmark = pytest.mark.system
NUMBERS = count(1)
OWN = "${iot:Connection.Thing.ThingName}"
# What a device needs that has nothing but jobs: a thing's own, and no others.
OWN_JOBS = [
    statement("iot:Connect", f"{ARN}client/{OWN}"),
    statement(["iot:Publish", "iot:Receive"], f"{ARN}topic/$aws/things/{OWN}/jobs/*"),
    statement("iot:Subscribe", f"{ARN}topicfilter/$aws/things/{OWN}/jobs/*"),
    statement("iot:Publish", f"{ARN}topic/devices/{OWN}/data"),  # the tests' agents give signs of life
]


@dataclass
class Site:
    """One device whose agent does jobs, and an operator of its account."""

    device: AwsAgentOnDevice
    iot: Any
    directory: Path

    @property
    def name(self) -> str:
        return self.device.name

    def job(self, document: dict[str, Any] | str, **more: Any) -> str:
        """Make a job for the device."""
        job_id = f"agent-job-{next(NUMBERS)}"
        text = document if isinstance(document, str) else json.dumps(document)
        self.iot.create_job(jobId=job_id, targets=[f"{ARN}thing/{self.name}"], document=text, **more)
        return job_id

    def wants(self, do: str, **more: Any) -> str:
        return self.job({"birthmark": {"do": do, **more}})

    def execution(self, job_id: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.iot.describe_job_execution(jobId=job_id, thingName=self.name)["execution"]
        except self.iot.exceptions.ResourceNotFoundException:  # it is not rolled out yet
            return {"status": "", "statusDetails": {"detailsMap": {}}}
        return found

    def ended(self, job_id: str) -> tuple[str, dict[str, str]]:
        """Return how a job ended, and the device's words on it."""
        until(lambda: self.execution(job_id)["status"] not in {"", "QUEUED", "IN_PROGRESS"}, job_id, 60)
        found = self.execution(job_id)
        return found["status"], found["statusDetails"]["detailsMap"]

    def is_begun(self) -> bool:
        found = read_record(AgentPaths(self.device.root).job)
        return found is not None and found.step is JobStep.BEGUN

    def lines(self) -> list[str]:
        """Return what the scripts have written."""
        log = self.directory / "log"
        return log.read_text().splitlines() if log.exists() else []

    def script(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path


def a_configuration(directory: Path, server: RunningServer) -> str:
    account = server.endpoints["aws"]["endpoint_url"]
    return f"""
[jobs]
renew = true
[jobs.run.say]
command = ["{directory}/say", "fixed"]
arguments = ["--loud", "two words; $(reboot)"]
[jobs.run.fail]
command = ["{directory}/fail"]
[jobs.run.slow]
command = ["{directory}/slow"]
[jobs.run.slow-again]
command = ["{directory}/slow"]
run_again = true
[jobs.run.endless]
command = ["{directory}/endless"]
timeout_s = 1
[jobs.run.gone]
command = ["{directory}/gone"]
[jobs.run.open]
command = ["{directory}/open"]
[jobs.replace.settings]
path = "file://{directory}/settings.json"
urls = ["{account}/"]
max_bytes = 3000000
[jobs.replace.elsewhere]
path = "file://{directory}/elsewhere.json"
urls = ["https://127.0.0.1:1/"]
[jobs.restart]
command = ["{directory}/restart"]
within_s = 30
proof = "agent"
"""


def scripts(site: Site) -> None:
    log = site.directory / "log"
    site.script("say", f'echo "$BIRTHMARK_JOB_ID $#: $*" | tee -a {log}')
    site.script("fail", "echo first; echo 'no room left' >&2; exit 3")
    waits = f"while [ ! -e {site.directory}/go ]; do sleep 0.1; done"
    site.script("slow", f"echo begun >> {log}; {waits}; echo ended >> {log}")
    site.script("endless", f"trap '' TERM; echo begun >> {log}; echo so far; sleep 1000")
    site.script("restart", f"echo restart >> {log}")
    site.script("open", "exit 0").chmod(0o777)


@pytest.fixture
def site(server: RunningServer, enroll: Callable[..., Enrolled], iot: Any, tmp_path: Path) -> Iterator[Site]:
    name = f"jobs-{next(NUMBERS)}"
    further = a_configuration(tmp_path, server)
    device = AwsAgentOnDevice(server, tmp_path / "root", name).with_files(enroll(name, *OWN_JOBS), further)
    made = Site(device, iot, tmp_path)
    scripts(made)
    yield made
    (tmp_path / "go").touch()  # what a killed agent left running ends


@pytest.fixture
def running(site: Site) -> Iterator[Site]:
    """A device whose agent runs."""
    with site.device.running() as process:
        told(process, "connected")
        yield site


# ---- run


def test_a_script_is_run_with_what_the_configuration_says_and_no_shell(running: Site) -> None:
    job_id = running.wants("run", script="say", arguments=["two words; $(reboot)", "--loud"])
    status, details = running.ended(job_id)
    said = f"{job_id} 3: fixed two words; $(reboot) --loud"
    assert (status, details, running.lines()) == ("SUCCEEDED", {"exit": "0", "output": said}, [said])
    assert running.execution(job_id)["versionNumber"] == 3  # queued, in progress, over


def test_jobs_are_done_one_after_the_other_in_their_order(running: Site) -> None:
    made = [running.wants("run", script="say") for _ in range(3)]
    assert [running.ended(job_id)[0] for job_id in made] == ["SUCCEEDED"] * 3
    assert [line.split()[0] for line in running.lines()] == made


def test_what_was_asked_while_the_device_was_away_is_done_when_it_comes(site: Site) -> None:
    job_id = site.wants("run", script="say")
    until(lambda: site.execution(job_id)["status"] == "QUEUED")
    with site.device.running():
        assert site.ended(job_id)[0] == "SUCCEEDED"


def test_why_a_script_failed_is_told(running: Site) -> None:
    status, details = running.ended(running.wants("run", script="fail"))
    assert (status, details) == ("FAILED", {"reason": "exit code 3", "output": "first | no room left"})


def test_a_script_that_takes_too_long_is_ended_with_all_it_started(running: Site) -> None:
    status, details = running.ended(running.wants("run", script="endless"))
    assert (status, details) == ("FAILED", {"reason": "it did not finish within 1 s", "output": "so far"})


@pytest.mark.parametrize(("name", "words"), [("gone", "no such file"), ("open", "writable by every user")])
def test_a_script_that_is_not_there_or_not_safe_is_not_run(running: Site, name: str, words: str) -> None:
    status, details = running.ended(running.wants("run", script=name))
    assert status == "FAILED"
    assert words in details["reason"]


def killed_in_the_middle(site: Site, script: str) -> tuple[str, str]:
    """Have the agent killed while a script runs, which goes on; return the job, and the script's mark."""
    with site.device.running():
        job_id = site.wants("run", script=script)
        until(lambda: site.lines() == ["begun"])
    record = read_record(AgentPaths(site.device.root).job)
    assert record is not None
    assert list(left_of(record.agent))
    return job_id, record.agent


def test_a_script_in_whose_middle_the_agent_is_killed_is_ended_and_told_as_interrupted(site: Site) -> None:
    job_id, left = killed_in_the_middle(site, "slow")
    with site.device.running():
        status, details = site.ended(job_id)
        assert not list(left_of(left))
        assert (status, details["reason"].partition(":")[0], site.lines()) == ("FAILED", "interrupted", ["begun"])
        until(lambda: not AgentPaths(site.device.root).job.exists())
        assert site.ended(site.wants("run", script="say"))[0] == "SUCCEEDED"


def test_a_script_that_may_be_run_again_is_when_the_agent_was_killed_in_its_middle(site: Site) -> None:
    job_id, left = killed_in_the_middle(site, "slow-again")
    with site.device.running():
        until(lambda: site.lines() == ["begun", "begun"])
        assert not list(left_of(left))
        (site.directory / "go").touch()
        assert site.ended(job_id)[0] == "SUCCEEDED"
    assert site.lines() == ["begun", "begun", "ended"]


def test_the_work_goes_on_while_the_connection_is_away(running: Site, iot: Any) -> None:
    job_id = running.wants("run", script="slow")
    until(lambda: running.lines() == ["begun"])
    held = iot.list_thing_principals(thingName=running.name)["principals"][0].rpartition("/")[2]
    iot.update_certificate(certificateId=held, newStatus="INACTIVE")  # the connection ends, and none is made
    (running.directory / "go").touch()
    until(lambda: read_record(AgentPaths(running.device.root).job) is not None and not running.is_begun())
    iot.update_certificate(certificateId=held, newStatus="ACTIVE")
    assert running.ended(job_id)[0] == "SUCCEEDED"


# ---- restart


def test_a_restart_is_over_when_the_agent_has_started_anew_and_is_never_ordered_twice(site: Site) -> None:
    with site.device.running():
        job_id = site.wants("restart")
        until(lambda: site.lines() == ["restart"])
        assert site.execution(job_id)["status"] == "IN_PROGRESS"
    with site.device.running():
        assert site.ended(job_id) == ("SUCCEEDED", {"step": "the agent has restarted"})
    assert site.lines() == ["restart"]


def test_a_device_that_has_to_start_anew_and_did_not_has_failed(site: Site) -> None:
    config = site.device.config
    config.write_text(config.read_text().replace('proof = "agent"', "").replace("within_s = 30", "within_s = 3"))
    with site.device.running():
        job_id = site.wants("restart")
        until(lambda: site.lines() == ["restart"])
    with site.device.running():  # of the same boot
        status, details = site.ended(job_id)
    assert (status, details) == ("FAILED", {"reason": "the device did not restart within 3 s"})
    assert site.lines() == ["restart"]


def test_a_restart_is_over_when_the_machine_has_booted_since(site: Site) -> None:
    config = site.device.config
    config.write_text(config.read_text().replace('proof = "agent"', ""))
    with site.device.running():
        job_id = site.wants("restart")
        until(lambda: site.lines() == ["restart"])
    place = AgentPaths(site.device.root).job
    record = read_record(place)
    assert record is not None
    write_record(
        place, JobRecord(record.job_id, record.number, record.queued_at, record.what, JobStep.BEGUN, 1, boot="before")
    )
    with site.device.running():
        assert site.ended(job_id) == ("SUCCEEDED", {"step": "the device has restarted"})


# ---- replace


def a_file(site: Site, data: bytes) -> dict[str, str]:
    """Put a file where things fetch such by signed URLs; return what a document says of it."""
    folder = site.device.server.data / "buckets" / "firmware"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{next(NUMBERS)}.bin"
    (folder / name).write_bytes(data)
    url = f"${{aws:iot:s3-presigned-url:https://s3.us-east-1.amazonaws.com/firmware/{name}}}"
    return {"url": url, "sha256": hashlib.sha256(data).hexdigest()}


def test_a_file_is_replaced_by_one_with_the_right_digest_and_keeps_its_mode(running: Site) -> None:
    target, data = running.directory / "settings.json", os.urandom(2_000_000)
    target.write_text("before")
    target.chmod(0o640)
    job_id = running.wants("replace", file="settings", **a_file(running, data))
    assert running.ended(job_id) == ("SUCCEEDED", {"bytes": "2000000"})
    assert (target.read_bytes(), target.stat().st_mode & 0o7777) == (data, 0o640)
    assert not list(running.directory.glob(".settings.json*"))


def test_a_file_with_another_digest_or_too_large_leaves_what_is_there(running: Site) -> None:
    target = running.directory / "settings.json"
    target.write_text("before")
    wrong = a_file(running, b"other") | {"sha256": "ab" * 32}
    status, details = running.ended(running.wants("replace", file="settings", **wrong))
    assert (status, details) == ("FAILED", {"reason": "its digest differs from the job document's"})
    large = a_file(running, bytes(3_000_001))
    status, details = running.ended(running.wants("replace", file="settings", **large))
    assert (status, details) == ("FAILED", {"reason": "it has more than 3000000 bytes"})
    assert target.read_text() == "before"
    assert not list(running.directory.glob(".settings.json*"))


def test_a_link_in_the_files_place_is_neither_followed_nor_replaced(running: Site) -> None:
    other = running.directory / "other"
    other.write_text("mine")
    (running.directory / "settings.json").symlink_to(other)
    status, details = running.ended(running.wants("replace", file="settings", **a_file(running, b"theirs")))
    assert status == "FAILED"
    assert "is a symbolic link" in details["reason"]
    assert other.read_text() == "mine"


def test_a_file_that_is_there_already_is_not_fetched(running: Site) -> None:
    (running.directory / "settings.json").write_bytes(b"same")
    status, details = running.ended(running.wants("replace", file="settings", **a_file(running, b"same")))
    assert (status, details["step"]) == ("SUCCEEDED", "it was there already")


# ---- renew


def test_a_certificate_is_renewed_now(server: RunningServer, iot: Any, tmp_path: Path) -> None:
    device = AwsAgentOnDevice(server, tmp_path, "jobs-renew").belong(iot, "[jobs]\nrenew = true\n")
    site = Site(device, iot, tmp_path)
    with device.running() as process:
        first = told(process, "connected")["thumbprint"]
        status, details = site.ended(site.wants("renew"))
        assert (status, details["thumbprint"]) == ("SUCCEEDED", device.row("status")["thumbprint"])
    assert details["thumbprint"] != first


def test_what_the_agent_did_not_issue_it_does_not_renew(running: Site) -> None:
    status, details = running.ended(running.wants("renew"))
    assert (status, details["code"]) == ("FAILED", "agent.not_issued_here")


# ---- a cloud that wants more


@pytest.mark.parametrize(
    "document",
    [
        {"operation": "reboot"},
        {"birthmark": {"do": "run", "script": "/bin/sh"}},
        {"birthmark": {"do": "run", "script": "../say"}},
        {"birthmark": {"do": "run", "script": "say", "arguments": ["--other"]}},
        {"birthmark": {"do": "run", "script": "say", "user": "root"}},
        {"birthmark": {"do": "replace", "file": "/etc/shadow", "url": "https://x/", "sha256": "ab" * 32}},
        {"birthmark": {"do": "replace", "file": "settings", "url": "http://localhost/", "sha256": "ab" * 32}},
        {"birthmark": {"do": "replace", "file": "settings", "url": "https://169.254.169.254/", "sha256": "ab" * 32}},
        {"birthmark": {"do": "restart", "command": ["/bin/sh"]}},
        {"birthmark": {"do": "restart"}, "x": "y" * 32_000},
    ],
)
def test_everything_else_is_rejected_with_the_reason(running: Site, document: dict[str, Any]) -> None:
    status, details = running.ended(running.job(document))
    assert (status, list(details)) == ("REJECTED", ["reason"])
    assert running.ended(running.wants("run", script="say"))[0] == "SUCCEEDED"  # and it goes on
    assert len(running.lines()) == 1


def test_a_document_as_deep_as_there_is_room_for_is_rejected(running: Site) -> None:
    for levels in (100, 900, 16_000):
        try:
            job_id = running.job('{"birthmark":' + "[" * levels + "]" * levels + "}")
        except running.iot.exceptions.InvalidRequestException:  # the service takes none that deep
            continue
        assert running.ended(job_id)[0] == "REJECTED"
    assert running.ended(running.wants("run", script="say"))[0] == "SUCCEEDED"


# ---- others, and what was before


def test_what_somebody_else_began_and_left_is_told_as_interrupted(site: Site, client: Callable[..., Any]) -> None:
    job_id = site.wants("run", script="say")
    until(lambda: site.execution(job_id)["status"] == "QUEUED")
    client("iot-jobs-data").start_next_pending_job_execution(thingName=site.name)
    with site.device.running():
        status, details = site.ended(job_id)
    assert (status, details["reason"].split(":")[0], site.lines()) == ("FAILED", "interrupted", [])


def test_a_job_that_is_cancelled_meanwhile_is_forgotten_and_the_next_is_done(running: Site) -> None:
    job_id = running.wants("run", script="slow")
    until(lambda: running.lines() == ["begun"])
    running.iot.cancel_job(jobId=job_id, force=True)
    following = running.wants("run", script="say")
    (running.directory / "go").touch()
    assert running.ended(following)[0] == "SUCCEEDED"
    assert running.execution(job_id)["status"] == "CANCELED"
    assert running.lines()[:2] == ["begun", "ended"]


def test_a_job_of_the_same_name_that_was_made_since_is_another(site: Site) -> None:
    with site.device.running():
        job_id = site.wants("restart")
        until(lambda: site.lines() == ["restart"])
    site.iot.cancel_job(jobId=job_id, force=True)
    site.iot.delete_job(jobId=job_id, force=True)
    until(lambda: job_id not in [one["jobId"] for one in site.iot.list_jobs()["jobs"]])
    time.sleep(1)  # when it was queued is known to the second
    text = json.dumps({"birthmark": {"do": "run", "script": "say"}})
    site.iot.create_job(jobId=job_id, targets=[f"{ARN}thing/{site.name}"], document=text)
    with site.device.running():
        status, details = site.ended(job_id)
    assert (status, details["exit"]) == ("SUCCEEDED", "0")
    assert len(site.lines()) == 2


def test_a_device_without_jobs_in_its_configuration_takes_none(site: Site) -> None:
    config = site.device.config
    config.write_text(config.read_text().partition("[jobs]")[0])
    with site.device.running() as process:
        told(process, "connected")
        job_id = site.wants("run", script="say")
        until(lambda: site.execution(job_id)["status"] == "QUEUED")
        time.sleep(1)
        assert site.execution(job_id)["status"] == "QUEUED"
