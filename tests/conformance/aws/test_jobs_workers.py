"""Jobs where two workers serve as one, on PostgreSQL: devices at either, a rollout that outlives its worker."""

import json
import signal
import ssl
import urllib.request
from collections import Counter
from typing import Any

import pytest

from birthmark.testing.cloud import Cloud
from support.aws.clients import Account, until
from support.aws.device import ARN
from support.server.readiness import until_workers_are_ready
from support.server.servers import RunningServer
from support.server.workers_of import below, hit

pytestmark = [pytest.mark.system, pytest.mark.serve(workers=2)]


@pytest.fixture
def data(cloud: Cloud) -> Any:
    return cloud.boto3("iot-jobs-data")


def a_group(iot: Any, name: str, count: int) -> list[str]:
    iot.create_thing_group(thingGroupName=name)
    things = [f"{name}-{number:02}" for number in range(count)]
    for thing in things:
        iot.create_thing(thingName=thing)
        iot.add_thing_to_thing_group(thingGroupName=name, thingName=thing)
    return things


def a_job(iot: Any, group: str, **more: Any) -> None:
    iot.create_job(jobId=group, targets=[f"{ARN}thinggroup/{group}"], document="{}", **more)


def statuses(iot: Any, job_id: str) -> Counter[str]:
    found = iot.list_job_executions_for_job(jobId=job_id, maxResults=250)["executionSummaries"]
    return Counter(one["jobExecutionSummary"]["status"] for one in found)


def test_devices_at_either_worker_are_told_once_and_do_their_job(account: Account, data: Any) -> None:
    (thing,) = a_group(account.iot, "either", 1)
    clients = account.subscribed(f"$aws/things/{thing}/jobs/#", 4)
    a_job(account.iot, "either")
    until(lambda: all(len(client.got) == 2 for client in clients), [client.got for client in clients])
    clients[0].publish(f"$aws/things/{thing}/jobs/start-next", "{}", 1)
    until(lambda: all(len(client.got) == 3 for client in clients), [client.got for client in clients])
    clients[1].publish(f"$aws/things/{thing}/jobs/either/update", '{"status": "SUCCEEDED"}', 1)
    until(lambda: all(len(client.got) == 6 for client in clients), [client.got for client in clients])
    for client in clients:
        topics = Counter(topic.rpartition("/jobs/")[2] for topic, _ in client.got)
        assert topics == {"notify": 2, "notify-next": 2, "start-next/accepted": 1, "either/update/accepted": 1}
    until(lambda: account.iot.describe_job(jobId="either")["job"]["status"] == "COMPLETED")


def test_a_rollout_outlives_its_worker_and_tells_nothing_twice(
    server: RunningServer, account: Account, data: Any
) -> None:
    things = a_group(account.iot, "outlives", 40)
    listener = account.client(clean=False)
    told: set[tuple[str, bytes]] = set()  # what MQTT hands over again, be it by the next worker, is not told again

    def heard(_client: Any, _data: Any, message: Any) -> None:
        if json.loads(message.payload).get("execution", {}).get("jobId") == "outlives":
            told.add((message.topic, message.payload))

    listener.on_message = heard
    listener.reconnect_delay_set(1, 1)
    listener.subscribe("$aws/things/+/jobs/notify-next", 1)
    a_job(account.iot, "outlives", jobExecutionsRolloutConfig={"maximumPerMinute": 400})
    for number in (1, 2):
        until(lambda number=number: sum(statuses(account.iot, "outlives").values()) >= 10 * number)  # type: ignore[misc]
        hit(below(server)[f"worker {number}"], signal.SIGKILL)
        until_workers_are_ready(server)
    until(lambda: statuses(account.iot, "outlives") == {"QUEUED": len(things)}, seconds=60)
    for thing in things:
        data.update_job_execution(thingName=thing, jobId="outlives", status="SUCCEEDED")
    until(lambda: account.iot.describe_job(jobId="outlives")["job"]["status"] == "COMPLETED")
    assert Counter(topic for topic, _ in told).most_common(1)[0][1] == 1


def test_a_url_of_a_file_holds_at_either_worker(server: RunningServer, account: Account, data: Any) -> None:
    folder = server.data / "buckets" / "firmware"
    folder.mkdir(parents=True)
    (folder / "pump.bin").write_bytes(b"firmware" * 100_000)
    (thing,) = a_group(account.iot, "files", 1)
    document = json.dumps({"url": "${aws:iot:s3-presigned-url:s3://firmware/pump.bin}"})
    account.iot.create_job(jobId="files", targets=[f"{ARN}thing/{thing}"], document=document)
    until(lambda: statuses(account.iot, "files") == {"QUEUED": 1})
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    for _ in range(4):  # each by a connection of its own, and so at whichever worker
        told = data.describe_job_execution(thingName=thing, jobId="files")["execution"]
        url = json.loads(told["jobDocument"])["url"]
        for _ in range(4):
            with urllib.request.urlopen(url, context=context, timeout=20) as answer:
                assert answer.read() == b"firmware" * 100_000
