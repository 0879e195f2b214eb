"""Jobs end to end: operators by boto3, the AWS CLI and our own; devices by the vendor's clients, HTTPS and paho."""

import json
import queue
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from botocore.exceptions import ClientError

from support.aws.clients import until
from support.aws.device import ARN, DeviceProcess, Enrolled, statement
from support.server.servers import RunningServer

pytestmark = pytest.mark.system
Enroll = Callable[..., Enrolled]
NUMBERS = count(1)
NODE = Path(__file__).parents[2] / "node"
OWN = "${iot:Connection.Thing.ThingName}"
# A thing's own jobs and no others.
OWN_JOBS = [
    statement("iot:Connect", f"{ARN}client/{OWN}"),
    statement(["iot:Publish", "iot:Receive"], f"{ARN}topic/$aws/things/{OWN}/jobs/*"),
    statement("iot:Subscribe", f"{ARN}topicfilter/$aws/things/{OWN}/jobs/*"),
]
# Over HTTPS there is no client id, and so no variable that names the thing.
ASKS = [
    *("iot:GetPendingJobExecutions", "iot:StartNextPendingJobExecution"),
    *("iot:DescribeJobExecution", "iot:UpdateJobExecution"),
]
DOCUMENT = {"operation": "install", "steps": [1, 2]}


@pytest.fixture
def data(client: Callable[..., Any]) -> Any:
    return client("iot-jobs-data")


def a_name(what: str) -> str:
    return f"{what}-{next(NUMBERS)}"


def a_thing(iot: Any) -> str:
    name = a_name("thing")
    iot.create_thing(thingName=name)
    return name


def a_job(iot: Any, *things: str, groups: tuple[str, ...] = (), **more: Any) -> str:
    job_id = a_name("job")
    targets = [f"{ARN}thing/{name}" for name in things] + [f"{ARN}thinggroup/{name}" for name in groups]
    iot.create_job(jobId=job_id, targets=targets, document=json.dumps(DOCUMENT), **more)
    return job_id


def a_group(iot: Any, *things: str) -> str:
    name = a_name("group")
    iot.create_thing_group(thingGroupName=name)
    for thing in things:
        iot.add_thing_to_thing_group(thingGroupName=name, thingName=thing)
    return name


def execution(iot: Any, job_id: str, thing: str) -> dict[str, Any]:
    found: dict[str, Any] = iot.describe_job_execution(jobId=job_id, thingName=thing)["execution"]
    return found


def things_of(iot: Any, job_id: str, **more: Any) -> dict[str, str]:
    """Return how far a job is, by thing."""
    found = iot.list_job_executions_for_job(jobId=job_id, **more)["executionSummaries"]
    return {one["thingArn"].rpartition("/")[2]: one["jobExecutionSummary"]["status"] for one in found}


def until_on(iot: Any, job_id: str, *things: str) -> None:
    until(lambda: set(things) <= things_of(iot, job_id).keys(), things)


def until_is(iot: Any, job_id: str, status: str) -> dict[str, Any]:
    until(lambda: iot.describe_job(jobId=job_id)["job"]["status"] == status, status)
    found: dict[str, Any] = iot.describe_job(jobId=job_id)["job"]
    return found


def ask(device: DeviceProcess, operation: str, **fields: Any) -> dict[str, Any]:
    return device("ask", operation=operation, fields=fields)


def refused(call: Callable[..., Any], **given: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**given)
    return str(caught.value.response["Error"]["Code"])


# ---- devices by MQTT


@pytest.mark.parametrize("client_kind", [5, 3, "old"])
def test_a_device_does_its_job(enroll: Enroll, iot: Any, client_kind: int | str) -> None:
    name = f"does-{client_kind}"
    with enroll(name, *OWN_JOBS).jobs(client_kind) as device:
        device("connect")
        assert "execution" not in ask(device, "start_next_pending_job_execution", thing_name=name)["ok"]
        job_id = a_job(iot, name)
        until_on(iot, job_id, name)
        (waiting,) = ask(device, "get_pending_job_executions", thing_name=name)["ok"]["queued_jobs"]
        assert (waiting["job_id"], waiting["version_number"]) == (job_id, 1)
        assert abs(waiting["queued_at"] - time.time()) < 60  # in seconds
        known = ask(device, "describe_job_execution", thing_name=name, job_id="$next")["ok"]["execution"]
        assert (known["job_id"], known["job_document"]) == (job_id, DOCUMENT)
        begun = ask(device, "start_next_pending_job_execution", thing_name=name, status_details={"step": "1"})["ok"][
            "execution"
        ]
        assert (begun["status"], begun["version_number"], begun["job_document"]) == ("IN_PROGRESS", 2, DOCUMENT)
        where = {"thing_name": name, "job_id": job_id}
        told = ask(
            device,
            "update_job_execution",
            **where,
            status="IN_PROGRESS",
            status_details={"step": "2"},
            expected_version=2,
            include_job_execution_state=True,
            include_job_document=True,
        )["ok"]
        assert told["execution_state"] == {
            "status": "IN_PROGRESS",
            "status_details": {"step": "2"},
            "version_number": 3,
        }
        assert told["job_document"] == DOCUMENT
        late = ask(device, "update_job_execution", **where, status="SUCCEEDED", expected_version=2)["refused"]
        assert (late["code"], late["execution_state"]["version_number"]) == ("VersionMismatch", 3)
        assert "ok" in ask(device, "update_job_execution", **where, status="SUCCEEDED", expected_version=3)
        again = ask(device, "update_job_execution", **where, status="FAILED")["refused"]
        assert (again["code"], again["execution_state"]["status"]) == ("InvalidStateTransition", "SUCCEEDED")
        assert ask(device, "describe_job_execution", **where)["refused"]["code"] == "TerminalStateReached"
        gone = ask(device, "describe_job_execution", thing_name=name, job_id="nobody-made-it")["refused"]
        assert gone["code"] == "ResourceNotFound"
        over = execution(iot, job_id, name)
        assert (over["status"], over["statusDetails"]["detailsMap"]) == ("SUCCEEDED", {"step": "2"})
        assert until_is(iot, job_id, "COMPLETED")["jobProcessDetails"]["numberOfSucceededThings"] == 1


@pytest.mark.parametrize("way", [("v2", 5), ("v2", 3), ("v1", 3)], ids=lambda way: f"{way[0]}-mqtt{way[1]}")
def test_a_device_of_the_sdk_for_node_does_its_jobs_as_its_sample_does(
    enroll: Enroll, iot: Any, server: RunningServer, way: tuple[str, int]
) -> None:
    client, mqtt = way
    thing = enroll(a_name("node"), *OWN_JOBS)
    asked = {"client": client, "mqtt": mqtt, "thing": thing.name, "jobs": 2, **thing.files}
    asked["endpoint"] = server.endpoints["aws"]["data_endpoint"]
    command = ["node", "aws_jobs.mjs", json.dumps(asked)]
    with subprocess.Popen(command, cwd=NODE, stdout=subprocess.PIPE, text=True) as device:
        assert device.stdout is not None
        assert json.loads(device.stdout.readline()) == {"ready": True}
        jobs = [a_job(iot, thing.name) for _ in range(2)]
        said = [json.loads(line) for line in device.stdout]
    assert device.returncode == 0
    began = [one for one in said if "began" in one]
    assert [(one["began"], one["document"], one["version"]) for one in began] == [(job, DOCUMENT, 2) for job in jobs]
    assert [one for one in said if "is" in one] == [{"is": "IN_PROGRESS", "version": 3}] * 2
    assert [one["rejected"] for one in said if "rejected" in one] == ["VersionMismatch"] * 2
    assert said[-1] == {"left": 0}
    for job in jobs:
        assert things_of(iot, job) == {thing.name: "SUCCEEDED"}


def test_a_device_is_told_of_what_changed_and_of_nothing_else(enroll: Enroll, iot: Any) -> None:
    name = a_name("told")
    with enroll(name, *OWN_JOBS).jobs(5) as device:
        device("connect")
        for operation in ("job_executions_changed", "next_job_execution_changed"):
            assert device("stream", operation=operation, fields={"thing_name": name}) == {"ok": None}
        first = a_job(iot, name)
        told = [device("event")["ok"] for _ in range(2)]
        assert told[0]["jobs"]["QUEUED"][0]["job_id"] == first
        assert told[1]["execution"]["job_id"] == first
        assert told[1]["execution"]["job_document"] == DOCUMENT
        second = a_job(iot, name)
        assert [one["job_id"] for one in device("event")["ok"]["jobs"]["QUEUED"]] == [first, second]
        ask(device, "start_next_pending_job_execution", thing_name=name)  # neither list nor next is another by that
        ask(device, "update_job_execution", thing_name=name, job_id=first, status="SUCCEEDED")
        told = [device("event")["ok"] for _ in range(2)]
        assert [one["job_id"] for one in told[0]["jobs"]["QUEUED"]] == [second]
        assert told[1]["execution"]["job_id"] == second
        iot.cancel_job(jobId=second)
        told = [device("event")["ok"] for _ in range(2)]
        assert not told[0].get("jobs")
        assert "execution" not in told[1]


@pytest.fixture
def listening(server: RunningServer) -> Iterator[Callable[..., Any]]:
    """Connect paho as a thing that listens to a filter; `got` has what came."""
    clients: list[Any] = []

    def make(thing: Enrolled, topic_filter: str) -> Any:
        client: Any = paho.Client(thing.name)
        context = ssl.create_default_context(cafile=thing.files["ca"])
        context.load_cert_chain(thing.files["certificate"], thing.files["key"])
        client.tls_set_context(context)
        client.reconnect_delay_set(60, 60)
        client.got, client.ended = queue.Queue(), queue.Queue()
        ready: queue.Queue[int] = queue.Queue()
        client.on_connect = lambda *_: client.subscribe(topic_filter, 1)
        client.on_subscribe = lambda *_: ready.put(0)
        client.on_disconnect = lambda *_: client.ended.put(0)
        client.on_message = lambda _client, _data, one: client.got.put((one.topic, json.loads(one.payload)))
        client.connect(server.endpoints["aws"]["data_endpoint"], 8883)
        client.loop_start()
        ready.get(timeout=20)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.disconnect()
        client.loop_stop()


def test_the_end_of_a_job_is_accepted_before_its_thing_is_told_what_is_left(
    enroll: Enroll, iot: Any, listening: Callable[..., Any]
) -> None:
    """Measured by MiniStack's contributors (ministackorg/ministack#1535); a begun job changes neither list."""
    thing = enroll(a_name("order"), *OWN_JOBS)
    job_id = a_job(iot, thing.name)
    until_on(iot, job_id, thing.name)
    base = f"$aws/things/{thing.name}/jobs/"
    device = listening(thing, f"{base}#")
    for status in ("IN_PROGRESS", "SUCCEEDED"):
        device.publish(f"{base}{job_id}/update", json.dumps({"status": status}), 1)
    told = [device.got.get(timeout=20) for _ in range(4)]
    accepted = f"{job_id}/update/accepted"
    assert [topic.removeprefix(base) for topic, _ in told] == [accepted, accepted, "notify", "notify-next"]
    assert (told[2][1]["jobs"], set(told[3][1])) == ({}, {"timestamp"})


@pytest.mark.parametrize(
    "wrong",
    [
        ("get", b"{", "InvalidJson"),
        ("get", b"[]", "InvalidRequest"),
        ("J/update", b'{"clientToken": "t"}', "InvalidRequest"),
        ("J/update", b'{"status": "CANCELED"}', "InvalidStateTransition"),
        ("J/update", b'{"status": "SUCCEEDED", "executionNumber": 2}', "ResourceNotFound"),
        ("J/update", b'{"status": "SUCCEEDED", "expectedVersion": "7"}', "VersionMismatch"),
        ("J/update", b'{"status": "IN_PROGRESS", "stepTimeoutInMinutes": 0}', "InvalidRequest"),
        ("start-next", b'{"statusDetails": {"a b": "x"}}', "InvalidRequest"),
        ("what%20is/get", b"{}", "InvalidRequest"),
        ("other-job/get", b"{}", "ResourceNotFound"),
    ],
)
def test_what_is_wrong_is_told_on_rejected_and_changes_nothing(
    enroll: Enroll, iot: Any, listening: Callable[..., Any], wrong: tuple[str, bytes, str]
) -> None:
    rest, payload, code = wrong
    thing = enroll(a_name("wrong"), *OWN_JOBS)
    job_id = a_job(iot, thing.name)
    until_on(iot, job_id, thing.name)
    base = f"$aws/things/{thing.name}/jobs/"
    device = listening(thing, f"{base}#")
    topic = base + rest.replace("J/", f"{job_id}/")
    device.publish(topic, payload, 1)
    told, said = device.got.get(timeout=20)
    assert (told, said["code"]) == (f"{topic}/rejected", code)
    assert ("executionState" in said) == (code == "VersionMismatch")
    assert execution(iot, job_id, thing.name)["versionNumber"] == 1


def test_a_thing_does_not_touch_another_s_jobs(
    enroll: Enroll, iot: Any, server: RunningServer, listening: Callable[..., Any]
) -> None:
    mine, other = enroll(a_name("mine"), *OWN_JOBS), enroll(a_name("other"), *OWN_JOBS)
    job_id = a_job(iot, mine.name, other.name)
    until_on(iot, job_id, mine.name, other.name)
    device = listening(mine, f"$aws/things/{mine.name}/jobs/#")
    device.publish(f"$aws/things/{other.name}/jobs/{job_id}/update", b'{"status": "FAILED"}', 1)
    device.ended.get(timeout=20)
    assert server.why(mine.name)["code"] == "awsiot.policy_denied"
    assert things_of(iot, job_id) == {mine.name: "QUEUED", other.name: "QUEUED"}


# ---- devices by HTTPS


def test_a_device_does_its_job_over_https(iot: Any, data: Any) -> None:
    thing = a_thing(iot)
    assert data.get_pending_job_executions(thingName=thing)["queuedJobs"] == []
    assert "execution" not in data.start_next_pending_job_execution(thingName=thing)
    job_id = a_job(iot, thing)
    until_on(iot, job_id, thing)
    (waiting,) = data.get_pending_job_executions(thingName=thing)["queuedJobs"]
    assert waiting["jobId"] == job_id
    assert isinstance(waiting["queuedAt"], int)
    known = data.describe_job_execution(thingName=thing, jobId="$next", includeJobDocument=False)["execution"]
    assert (known["jobId"], "jobDocument" in known) == (job_id, False)
    begun = data.start_next_pending_job_execution(thingName=thing, statusDetails={"step": "1"}, stepTimeoutInMinutes=5)[
        "execution"
    ]
    assert (begun["status"], json.loads(begun["jobDocument"])) == ("IN_PROGRESS", DOCUMENT)
    assert 0 < begun["approximateSecondsBeforeTimedOut"] <= 300
    told = data.update_job_execution(
        thingName=thing,
        jobId=job_id,
        status="SUCCEEDED",
        statusDetails={"step": "2"},
        expectedVersion=2,
        executionNumber=1,
        includeJobExecutionState=True,
        includeJobDocument=True,
    )
    assert told["executionState"] == {"status": "SUCCEEDED", "statusDetails": {"step": "2"}, "versionNumber": 3}
    assert json.loads(told["jobDocument"]) == DOCUMENT
    assert refused(data.describe_job_execution, thingName=thing, jobId=job_id) == "TerminalStateException"
    late = refused(data.update_job_execution, thingName=thing, jobId=job_id, status="FAILED")
    assert late == "InvalidStateTransitionException"


def test_a_device_asks_for_its_jobs_with_its_certificate(enroll: Enroll, iot: Any, server: RunningServer) -> None:
    names = a_name("https"), a_name("https")
    mine, other = (enroll(name, *OWN_JOBS, statement(ASKS, f"{ARN}thing/{name}")) for name in names)
    job_id = a_job(iot, mine.name, other.name)
    until_on(iot, job_id, mine.name, other.name)
    context = ssl.create_default_context(cafile=mine.files["ca"])
    context.load_cert_chain(mine.files["certificate"], mine.files["key"])
    base = f"https://{server.endpoints['aws']['data_endpoint']}:8443/things/"

    def asked(path: str, method: str = "GET", body: bytes | None = None) -> Any:
        request = urllib.request.Request(base + path, body, method=method)
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            return json.loads(answer.read())

    assert asked(f"{mine.name}/jobs")["queuedJobs"][0]["jobId"] == job_id
    assert asked(f"{mine.name}/jobs/$next", "PUT", b"{}")["execution"]["jobId"] == job_id
    assert asked(f"{mine.name}/jobs/{job_id}", "POST", b'{"status": "REJECTED"}') == {}
    for path, method, body in (
        (f"{other.name}/jobs", "GET", None),
        (f"{other.name}/jobs/{job_id}", "GET", None),
        (f"{other.name}/jobs/{job_id}", "POST", b'{"status": "FAILED"}'),
        (f"{other.name}/jobs/$next", "PUT", b"{}"),
    ):
        with pytest.raises(urllib.error.HTTPError) as caught:
            asked(path, method, body)
        assert caught.value.code == 403
        caught.value.close()
    assert things_of(iot, job_id) == {mine.name: "REJECTED", other.name: "QUEUED"}


# ---- operators


def test_a_job_is_made_described_and_listed(iot: Any) -> None:
    thing, tags = a_thing(iot), [{"Key": "site", "Value": "7"}]
    settings: dict[str, Any] = {
        "jobExecutionsRolloutConfig": {
            "maximumPerMinute": 50,
            "exponentialRate": {
                "baseRatePerMinute": 10,
                "incrementFactor": 1.5,
                "rateIncreaseCriteria": {"numberOfNotifiedThings": 5},
            },
        },
        "abortConfig": {
            "criteriaList": [
                {
                    "failureType": "ALL",
                    "action": "CANCEL",
                    "thresholdPercentage": 12.5,
                    "minNumberOfExecutedThings": 4,
                }
            ]
        },
        "timeoutConfig": {"inProgressTimeoutInMinutes": 30},
        "jobExecutionsRetryConfig": {"criteriaList": [{"failureType": "FAILED", "numberOfRetries": 2}]},
    }
    job_id = a_job(iot, thing, description="Version 2", tags=tags, **settings)
    told = iot.describe_job(jobId=job_id)["job"]
    assert {name: told[name] for name in settings} == settings
    assert (told["jobArn"], told["targets"]) == (f"{ARN}job/{job_id}", [f"{ARN}thing/{thing}"])
    assert (told["targetSelection"], told["status"], told["description"]) == ("SNAPSHOT", "IN_PROGRESS", "Version 2")
    assert abs(told["createdAt"].timestamp() - time.time()) < 60
    assert json.loads(iot.get_job_document(jobId=job_id)["document"]) == DOCUMENT
    assert iot.list_tags_for_resource(resourceArn=told["jobArn"])["tags"] == tags
    assert refused(iot.create_job, jobId=job_id, targets=told["targets"], document="{}") == (
        "ResourceAlreadyExistsException"
    )
    assert refused(iot.describe_job, jobId="nobody-made-it") == "ResourceNotFoundException"


def test_jobs_are_listed_by_status_group_and_selection_in_pages(iot: Any) -> None:
    group = a_group(iot)
    mine = [a_job(iot, groups=(group,), targetSelection="CONTINUOUS") for _ in range(3)]
    other = a_job(iot, a_thing(iot), targetSelection="SNAPSHOT")
    page = iot.list_jobs(thingGroupName=group, maxResults=2)
    rest = iot.list_jobs(thingGroupName=group, maxResults=2, nextToken=page["nextToken"])
    assert [one["jobId"] for one in (*page["jobs"], *rest["jobs"])] == mine
    assert "nextToken" not in rest

    def listed(**asked: str) -> set[str]:
        found = iot.get_paginator("list_jobs").paginate(**asked)
        return {one["jobId"] for part in found for one in part["jobs"]}

    assert listed(targetSelection="SNAPSHOT") & {*mine, other} == {other}
    iot.cancel_job(jobId=mine[0])
    assert listed(status="CANCELED") & {*mine, other} == {mine[0]}
    assert listed(status="IN_PROGRESS") & {*mine, other} == {*mine[1:], other}


def test_a_job_is_updated_and_canceled_with_a_reason(iot: Any) -> None:
    thing = a_thing(iot)
    job_id = a_job(iot, thing)
    iot.update_job(jobId=job_id, description="Another", timeoutConfig={"inProgressTimeoutInMinutes": 5})
    told = iot.describe_job(jobId=job_id)["job"]
    assert (told["description"], told["timeoutConfig"]) == ("Another", {"inProgressTimeoutInMinutes": 5})
    until_on(iot, job_id, thing)
    answer = iot.cancel_job(jobId=job_id, reasonCode="WRONG_1", comment="It was the wrong one")
    assert (answer["jobId"], answer["description"]) == (job_id, "Another")
    told = iot.describe_job(jobId=job_id)["job"]
    assert (told["reasonCode"], told["comment"], told["forceCanceled"]) == ("WRONG_1", "It was the wrong one", False)
    until(lambda: things_of(iot, job_id) == {thing: "CANCELED"})
    assert iot.describe_job(jobId=job_id)["job"]["jobProcessDetails"]["numberOfCanceledThings"] == 1
    assert refused(iot.update_job, jobId=job_id, description="Late") == "InvalidStateTransitionException"


def test_a_job_is_canceled_by_force_and_deleted(iot: Any, data: Any) -> None:
    thing = a_thing(iot)
    job_id = a_job(iot, thing)
    until_on(iot, job_id, thing)
    data.start_next_pending_job_execution(thingName=thing)
    assert refused(iot.delete_job, jobId=job_id) == "InvalidStateTransitionException"
    iot.cancel_job(jobId=job_id, force=True)
    until(lambda: things_of(iot, job_id) == {thing: "CANCELED"})
    assert execution(iot, job_id, thing)["forceCanceled"] is True
    iot.delete_job(jobId=job_id)
    until(lambda: job_id not in {one["jobId"] for one in iot.list_jobs(maxResults=250)["jobs"]})
    assert refused(iot.describe_job_execution, jobId=job_id, thingName=thing) == "ResourceNotFoundException"


def test_job_executions_are_listed_by_job_and_by_thing(iot: Any, data: Any) -> None:
    things = [a_thing(iot) for _ in range(3)]
    first, second = a_job(iot, *things), a_job(iot, things[0])
    until_on(iot, first, *things)
    until_on(iot, second, things[0])
    data.update_job_execution(thingName=things[0], jobId=first, status="SUCCEEDED")
    assert things_of(iot, first, status="QUEUED") == dict.fromkeys(things[1:], "QUEUED")
    page = iot.list_job_executions_for_job(jobId=first, maxResults=2)
    rest = iot.list_job_executions_for_job(jobId=first, maxResults=2, nextToken=page["nextToken"])
    assert (len(page["executionSummaries"]), len(rest["executionSummaries"])) == (2, 1)

    def of_thing(**asked: str) -> dict[str, str]:
        found = iot.list_job_executions_for_thing(thingName=things[0], **asked)["executionSummaries"]
        return {one["jobId"]: one["jobExecutionSummary"]["status"] for one in found}

    assert of_thing() == {first: "SUCCEEDED", second: "QUEUED"}
    assert of_thing(status="SUCCEEDED") == of_thing(jobId=first) == {first: "SUCCEEDED"}


def test_a_job_execution_is_canceled_and_deleted(iot: Any, data: Any) -> None:
    thing = a_thing(iot)
    job_id = a_job(iot, thing)
    until_on(iot, job_id, thing)
    data.start_next_pending_job_execution(thingName=thing)
    names = {"jobId": job_id, "thingName": thing}
    assert refused(iot.cancel_job_execution, **names) == "InvalidStateTransitionException"
    assert refused(iot.cancel_job_execution, force=True, expectedVersion=7, **names) == "VersionConflictException"
    iot.cancel_job_execution(force=True, expectedVersion=2, statusDetails={"why": "wrong"}, **names)
    known = iot.describe_job_execution(executionNumber=1, **names)["execution"]
    assert (known["status"], known["statusDetails"]) == ("CANCELED", {"detailsMap": {"why": "wrong"}})
    assert refused(iot.describe_job_execution, executionNumber=2, **names) == "ResourceNotFoundException"
    iot.delete_job_execution(executionNumber=1, **names)
    assert refused(iot.describe_job_execution, **names) == "ResourceNotFoundException"


def test_targets_are_associated_with_a_job_that_goes_on(iot: Any) -> None:
    first, later = a_thing(iot), a_thing(iot)
    job_id = a_job(iot, groups=(a_group(iot, first),), targetSelection="CONTINUOUS")
    more = a_group(iot)
    iot.associate_targets_with_job(jobId=job_id, targets=[f"{ARN}thinggroup/{more}"], comment="one more")
    assert iot.describe_job(jobId=job_id)["job"]["comment"] == "one more"
    until_on(iot, job_id, first)
    iot.add_thing_to_thing_group(thingGroupName=more, thingName=later)
    until_on(iot, job_id, first, later)


def test_a_job_is_made_of_a_job_template(iot: Any) -> None:
    name, timeout = a_name("template"), {"inProgressTimeoutInMinutes": 5}
    made = iot.create_job_template(
        jobTemplateId=name, description="An update", document=json.dumps(DOCUMENT), timeoutConfig=timeout
    )
    assert made["jobTemplateArn"] == f"{ARN}jobtemplate/{name}"
    told = iot.describe_job_template(jobTemplateId=name)
    assert (told["description"], json.loads(told["document"]), told["timeoutConfig"]) == (
        "An update",
        DOCUMENT,
        timeout,
    )
    assert name in {one["jobTemplateId"] for one in iot.list_job_templates(maxResults=250)["jobTemplates"]}
    job_id, thing = a_name("job"), a_thing(iot)
    iot.create_job(jobId=job_id, targets=[f"{ARN}thing/{thing}"], jobTemplateArn=made["jobTemplateArn"])
    job = iot.describe_job(jobId=job_id)["job"]
    assert (job["jobTemplateArn"], job["description"], job["timeoutConfig"]) == (
        made["jobTemplateArn"],
        "An update",
        timeout,
    )
    assert json.loads(iot.get_job_document(jobId=job_id)["document"]) == DOCUMENT
    again = a_name("template")
    iot.create_job_template(jobTemplateId=again, description="Of a job", jobArn=job["jobArn"])
    assert iot.describe_job_template(jobTemplateId=again)["timeoutConfig"] == timeout
    assert refused(iot.create_job_template, jobTemplateId=again, description="x", document="{}") == (
        "ResourceAlreadyExistsException"
    )
    iot.delete_job_template(jobTemplateId=name)
    assert refused(iot.describe_job_template, jobTemplateId=name) == "ResourceNotFoundException"


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ('{"a": "' + "x" * (32 * 1024 - 9) + '"}', None),
        ('{"a": "' + "x" * (32 * 1024 - 8) + '"}', "InvalidRequestException"),
        ("no JSON", "InvalidRequestException"),
        ('{"signed": "${aws:iot:code-sign-signature:s3://bucket/key}"}', "NotImplementedException"),
    ],
)
def test_a_document_has_32_kib_at_most_and_nothing_that_nobody_fills_in(
    iot: Any, document: str, code: str | None
) -> None:
    given = {"jobId": a_name("document"), "targets": [f"{ARN}thing/{a_thing(iot)}"], "document": document}
    if code is None:
        iot.create_job(**given)
        assert iot.get_job_document(jobId=given["jobId"])["document"] == document
    else:
        assert refused(iot.create_job, **given) == code


def test_what_becomes_of_jobs_is_announced_where_that_is_switched_on(
    enroll: Enroll, iot: Any, data: Any, listening: Callable[..., Any]
) -> None:
    wanted = {kind: {"Enabled": True} for kind in ("JOB", "JOB_EXECUTION")}
    iot.update_event_configurations(eventConfigurations=wanted)
    hears = listening(enroll(a_name("hears")), "$aws/events/#")
    thing = a_thing(iot)
    job_id = a_job(iot, thing)
    until_on(iot, job_id, thing)
    data.update_job_execution(thingName=thing, jobId=job_id, status="SUCCEEDED")
    told: dict[str, Any] = {}
    while len(told) < 2:
        topic, body = hears.got.get(timeout=20)
        if f"/{job_id}/" in topic:
            told[topic] = body
    assert told[f"$aws/events/jobExecution/{job_id}/succeeded"]["thingArn"] == f"{ARN}thing/{thing}"
    assert told[f"$aws/events/job/{job_id}/completed"]["status"] == "COMPLETED"


def test_the_aws_cli_and_our_own_make_and_show_the_same_jobs(
    iot: Any, data: Any, server: RunningServer, tmp_path: Path
) -> None:
    def aws(*words: str) -> Any:
        environment = {**server.environment, "HOME": str(tmp_path)}
        done = subprocess.run(["aws", *words], capture_output=True, text=True, env=environment, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout or "{}")

    first, second = a_thing(iot), a_thing(iot)
    ours, theirs = a_name("ours"), a_name("theirs")
    (tmp_path / "job.json").write_text(json.dumps(DOCUMENT))
    target = f"{ARN}thing/{first}"
    aws("iot", "create-job", "--job-id", theirs, "--targets", target, "--document", f"file://{tmp_path}/job.json")
    made = ("aws", "job", "create", ours, str(tmp_path / "job.json"), "--thing", first, "--thing", second)
    (row,) = server.rows(*made, "--timeout", "30", "--rate", "600", "--description", "Both")
    assert (row["job"], row["status"], row["selection"]) == (ours, "IN_PROGRESS", "SNAPSHOT")
    until_on(iot, ours, first, second)
    assert aws("iot", "describe-job", "--job-id", ours)["job"]["timeoutConfig"] == {"inProgressTimeoutInMinutes": 30}
    assert json.loads(aws("iot", "get-job-document", "--job-id", ours)["document"]) == DOCUMENT
    assert {ours, theirs} <= {row["job"] for row in server.rows("aws", "job", "ls", "--status", "IN_PROGRESS")}
    data.update_job_execution(thingName=first, jobId=ours, status="FAILED", statusDetails={"why": "full"})
    (row,) = server.rows("aws", "job", "executions", ours, "--status", "FAILED")
    assert (row["thing"], row["details"]) == (first, {"why": "full"})
    (whole,) = server.rows("aws", "job", "show", ours)
    assert (whole["things"], whole["document"]) == ({"QUEUED": 1, "FAILED": 1}, DOCUMENT)
    assert server.attempt("aws", "job", "rm", ours, "--yes").returncode != 0
    server.run("aws", "job", "cancel", ours, "--yes")
    until(lambda: things_of(iot, ours)[second] == "CANCELED")
    server.run("aws", "job", "rm", ours, "--yes")
    until(lambda: ours not in {row["job"] for row in server.rows("aws", "job", "ls")})
    assert server.attempt("aws", "job", "show", ours).returncode == 3
    wrong = server.attempt("aws", "job", "create", a_name("ours"), str(tmp_path / "job.json"))
    assert "--thing" in wrong.stderr
