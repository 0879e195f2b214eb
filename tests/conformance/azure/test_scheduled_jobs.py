"""Scheduled jobs as the vendors' unmodified clients create, read, list and cancel them."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.clients import run_python
from support.azure.credentials import Operator
from support.azure.node_clients import in_node

pytestmark = pytest.mark.system

JOBS = """
import os, time
from azure.iot.hub import IoTHubJobManager, IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod, QuerySpecification, Twin, TwinProperties
from azure.iot.hub.protocol.models import JobRequest
text = os.environ["IOTHUB_CONNECTION_STRING"]
registry, jobs = IoTHubRegistryManager.from_connection_string(text), IoTHubJobManager.from_connection_string(text)
query = registry.query_iot_hub

def make(name, **tags):
    registry.create_device_with_sas(name, "", "", "enabled")
    registry.update_twin(name, Twin(tags=tags), "*")

def ended(job_id):
    for _ in range(200):
        job = jobs.get_scheduled_job(job_id)
        if job.status in ("completed", "failed", "cancelled"):
            return job
        time.sleep(0.1)
    raise SystemExit(f"{job_id} is {job.status}")
"""


def in_python(cloud: Cloud, body: str) -> list[str]:
    done = run_python(JOBS + body, cloud.environment())
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_python_updates_the_twins_that_a_condition_selects(cloud: Cloud) -> None:
    assert in_python(
        cloud,
        """
for number in range(5):
    make(f"python-job-{number}", fleet="python-job" if number % 2 == 0 else "other")
update = Twin(etag="*", tags={"building": "43"}, properties=TwinProperties(desired={"fan": 3}))
made = jobs.create_scheduled_job("python-twins", JobRequest(
    job_id="python-twins", type="scheduleUpdateTwin", update_twin=update,
    query_condition="tags.fleet = 'python-job'", max_execution_time_in_seconds=60))
print(made.job_id, made.status, made.type)
job = ended("python-twins")
counts = job.device_job_statistics
print(job.status, counts.device_count, counts.succeeded_count, counts.failed_count, counts.pending_count)
print(job.update_twin.tags, job.query_condition, job.end_time >= job.start_time)
twins = [registry.get_twin(f"python-job-{number}") for number in range(5)]
print([(one.tags.get("building"), one.properties.desired.get("fan")) for one in twins])
""",
    ) == [
        "python-twins queued scheduleUpdateTwin",
        "completed 3 3 0 0",
        "{'building': '43'} tags.fleet = 'python-job' True",
        "[('43', 3), (None, None), ('43', 3), (None, None), ('43', 3)]",
    ]


def test_python_lists_jobs_cancels_one_and_hears_of_ids_that_are_taken_or_unknown(cloud: Cloud) -> None:
    assert in_python(
        cloud,
        """
from datetime import datetime, timedelta, timezone
later = datetime.now(timezone.utc) + timedelta(days=2)
request = JobRequest(job_id="python-later", type="scheduleDeviceMethod", query_condition="*", start_time=later,
    cloud_to_device_method=CloudToDeviceMethod(method_name="reboot", payload={"in": 5},
        response_timeout_in_seconds=30, connect_timeout_in_seconds=0))
made = jobs.create_scheduled_job("python-later", request)
print(made.status, abs(made.start_time - later) < timedelta(seconds=1), made.max_execution_time_in_seconds)
print(made.cloud_to_device_method.method_name, made.cloud_to_device_method.payload)
listed = jobs.query_scheduled_jobs("scheduleDeviceMethod", "scheduled")
print([one["jobId"] for one in listed.items if one["jobId"].startswith("python-later")], listed.type)
def told(call, *arguments):
    try:
        call(*arguments)
    except Exception as error:
        return error.response.status_code, error.response.headers["iothub-errorcode"]
print(told(jobs.create_scheduled_job, "python-later", request))
print(jobs.cancel_scheduled_job("python-later").status, jobs.get_scheduled_job("python-later").status)
print(told(jobs.cancel_scheduled_job, "python-later"))
print(told(jobs.get_scheduled_job, "python-nothing"))
""",
    ) == [
        "scheduled True 3600",
        "reboot {'in': 5}",
        "['python-later'] jobResponse",
        "(409, 'JobAlreadyExists')",
        "cancelled cancelled",
        "(409, 'Conflict')",
        "(404, 'JobNotFound')",
    ]


def test_python_queries_the_devices_of_a_job(cloud: Cloud) -> None:
    assert in_python(
        cloud,
        """
for number in range(3):
    make(f"python-row-{number}", fleet="python-row")
jobs.create_scheduled_job("python-rows", JobRequest(type="scheduleDeviceMethod",
    query_condition="tags.fleet = 'python-row'", max_execution_time_in_seconds=60,
    cloud_to_device_method=CloudToDeviceMethod(method_name="look", response_timeout_in_seconds=5)))
job = ended("python-rows")
print(job.status, job.device_job_statistics.failed_count)
text = "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'python-rows'"
first = query(QuerySpecification(query=text), None, 2)
rest = query(QuerySpecification(query=text), first.continuation_token, 2)
rows = [*first.items, *rest.items]
print([row.device_id for row in first.items], [row.device_id for row in rest.items], rest.continuation_token)
print({(row.status, row.additional_properties["error"]["code"]) for row in rows}, first.type)
text = "SELECT devices.jobs.status, COUNT() AS n FROM devices.jobs WHERE devices.jobs.jobId = 'python-rows' "
print(query(QuerySpecification(query=text + "GROUP BY devices.jobs.status")).items[0].additional_properties)
text = "SELECT * FROM devices.jobs WHERE devices.jobs.deviceId = 'python-row-1' AND devices.jobs.status = 'failed'"
print([row.additional_properties["jobId"] for row in query(QuerySpecification(query=text)).items])
""",
    ) == [
        "completed 3",
        "['python-row-0', 'python-row-1'] ['python-row-2'] None",
        "{('failed', '404103')} DeviceJob",
        "{'n': 3}",
        "['python-rows']",
    ]


def test_node_updates_twins_by_a_condition_and_by_ids_and_calls_a_method(cloud: Cloud) -> None:
    assert in_node(
        cloud,
        """
const { JobClient, Registry } = require('azure-iothub');
const { Client, Message } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');
const jobs = JobClient.fromConnectionString(process.env.IOTHUB_CONNECTION_STRING);
const registry = Registry.fromConnectionString(process.env.IOTHUB_CONNECTION_STRING);
for (const name of ['node-job-a', 'node-job-b', 'node-job-c']) {
  await registry.create({ deviceId: name, authentication: { symmetricKey: { primaryKey: key, secondaryKey: other } } });
  await registry.updateTwin(name, { tags: { fleet: name === 'node-job-c' ? 'x' : 'node-job' } }, '*');
}
const ended = async (id) => {
  let job;
  await until(async () => {
    job = (await jobs.getJob(id)).jobStatus;
    return ['completed', 'failed', 'cancelled'].includes(job.status);
  }, id);
  return job;
};
const patch = { etag: '*', properties: { desired: { level: 7 } } };
const made = await jobs.scheduleTwinUpdate('node-twins', "tags.fleet = 'node-job'", patch, new Date(), 60);
say(made.jobStatus.jobId, made.jobStatus.type);
say((await ended('node-twins')).deviceJobStatistics);
const seen = { etag: '*', tags: { seen: true } };
await jobs.scheduleTwinUpdate('node-ids', "deviceId IN ['node-job-c']", seen, new Date(), 60);
say((await ended('node-ids')).status, (await registry.getTwin('node-job-c')).responseBody.tags);
const device = Client.fromConnectionString(`HostName=${host};DeviceId=node-job-a;SharedAccessKey=${key}`, Mqtt);
device.onDeviceMethod('look', (request, response) => response.send(200, { heard: request.payload }, () => {}));
await device.open();
await sleep(300);
await jobs.scheduleDeviceMethod('node-method', "tags.fleet = 'node-job'",
  { methodName: 'look', payload: { a: 1 }, responseTimeoutInSeconds: 15 }, new Date(), 60);
say((await ended('node-method')).deviceJobStatistics);
const rows = registry.createQuery("SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'node-method'", 10);
for (const row of (await rows.next()).result) say(row.deviceId, row.status, row.outcome || row.error.code);
const query = jobs.createQuery('scheduleUpdateTwin', 'completed', 1);
const found = [];
while (query.hasMoreResults) found.push(...(await query.next(query.continuationToken)).result.map((one) => one.jobId));
say(found.filter((one) => one.startsWith('node-')));
await jobs.scheduleTwinUpdate('node-later', '*', patch, new Date(Date.now() + 3600000), 60);
say((await jobs.cancelJob('node-later')).jobStatus.status);
await device.close();
""",
    ) == [
        "node-twins scheduleUpdateTwin",
        '{"deviceCount":2,"failedCount":0,"succeededCount":2,"runningCount":0,"pendingCount":0}',
        'completed {"fleet":"x","seen":true}',
        '{"deviceCount":2,"failedCount":1,"succeededCount":1,"runningCount":0,"pendingCount":0}',
        'node-job-a completed {"deviceMethodResponse":{"status":200,"payload":{"heard":{"a":1}}}}',
        "node-job-b failed 404103",
        '["node-ids","node-twins"]',
        "cancelled",
    ]


@pytest.fixture
def operator(cloud: Cloud) -> Operator:
    return Operator(cloud)


def test_the_steps_of_az_iot_hub_job(operator: Operator) -> None:
    """`create`, `show`, `list`, `cancel`, as the command line was read to send them (azure-iot 0.25.0)."""
    for name in ("az-job-1", "az-job-2"):
        assert operator.hub("PUT", f"/devices/{name}", {"deviceId": name})[0] == 200
    order = {
        "jobId": "az-twins",
        "type": "scheduleUpdateTwin",
        "updateTwin": {"tags": {"az": "job"}, "etag": "*"},
        "queryCondition": "STARTSWITH(deviceId, 'az-job-')",
        "maxExecutionTimeInSeconds": 3600,
    }
    assert operator.hub("PUT", "/jobs/v2/az-twins", order)[0] == 200
    deadline = time.monotonic() + 20
    while (shown := operator.hub("GET", "/jobs/v2/az-twins")[1])["status"] != "completed":
        assert time.monotonic() < deadline, shown
        time.sleep(0.1)
    assert shown["deviceJobStatistics"]["succeededCount"] == 2
    status, listed = operator.hub("GET", "/jobs/v2/query?jobType=scheduleUpdateTwin&jobStatus=completed")
    assert (status, "az-twins" in [one["jobId"] for one in listed]) == (200, True)
    later = order | {"jobId": "az-later", "startTime": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    assert operator.hub("PUT", "/jobs/v2/az-later", later)[1]["status"] == "scheduled"
    assert operator.hub("POST", "/jobs/v2/az-later/cancel")[1]["status"] == "cancelled"
    assert operator.hub("GET", "/jobs/v2/az-nothing")[0] == 404


@pytest.mark.parametrize(
    "change",
    [
        {"type": "export"},
        {"queryCondition": ""},
        {"queryCondition": "tags.a LIKE 'x'"},
        {"queryCondition": "FROM devices.jobs"},
        {"updateTwin": {"etag": "AAA=", "tags": {}}},
        {"updateTwin": {"status": "disabled"}},
        {"updateTwin": {"properties": {"reported": {"a": 1}}}},
        {"startTime": "tomorrow"},
        {"startTime": "9999-12-31T23:59:59Z"},
        {"maxExecutionTimeInSeconds": -1},
        {"jobId": "another"},
        {"priority": 1},
    ],
)
def test_what_a_job_cannot_be_is_refused(operator: Operator, change: dict[str, Any]) -> None:
    order = {"type": "scheduleUpdateTwin", "updateTwin": {"tags": {"a": 1}, "etag": "*"}, "queryCondition": "*"}
    status, told = operator.hub("PUT", "/jobs/v2/az-wrong", order | change)
    assert (status, told["Message"][:26]) == (400, "ErrorCode:ArgumentInvalid;")
