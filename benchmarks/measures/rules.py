"""P45 to P47: topic rules and jobs: what nobody wants, what is republished, what a device says of its job."""

import json
import sqlite3
import time
from itertools import count
from typing import Any

import boto3
from askers import Ask, Asker, message
from botocore.config import Config
from crowd import Crowd, open_client
from rig import Rig, cpu_us_each
from swarm import Broker

from birthmark.message_routing.write_ahead_log import TopicSubscribers
from birthmark.operator_api.client.server_discovery_and_api_client import client_for
from measures.documents import _Documents
from measures.fan_out import registered_at_aws
from measures.ingest import CONNECTIONS
from measures.measure import Measure, Sample

RULES, TOPICS, LOOKS = 1000, 500, 200
PUBLISHERS, IN_FLIGHT, ROUNDS = 50, 10, 20
_BUDGET_US, _UNWANTED_US = 25.0, 0.5
_ROLE = "arn:aws:iam::000000000000:role/bench"
_PATIENCE_S = 60


def _iot(rig: Rig) -> Any:
    aws = rig.server.endpoints["aws"]
    return boto3.client(
        "iot",
        endpoint_url=aws["endpoint_url"],
        region_name=aws["region"],
        aws_access_key_id=aws["access_key_id"],
        aws_secret_access_key=aws["secret_access_key"],
        verify=rig.server.endpoints["trust_bundle"],
        config=Config(retries={"max_attempts": 1}),
    )


class Unwanted(Measure):
    """What a publish costs more where a thousand rules are on record and none wants it: in this process."""

    name, title, peer = "P45", "a message that none of 1,000 rules wants", "a budget of 0.5 us"
    unit, gate, aim = "us", 1.0, 0.5

    def __init__(self, rig: Rig) -> None:
        del rig
        self._wanted = TopicSubscribers()
        shapes = ("site/{}/+", "site/{}/#", "+/{}/state", "a/b/{}")
        self._wanted.set_rules((shapes[number % 4].format(number), f"rule{number}") for number in range(RULES))
        self._topics = [f"plant/{number}/telemetry" for number in range(TOPICS)]

    def round(self) -> Sample:
        by, began = self._wanted.by, time.process_time()
        for _ in range(LOOKS):
            for topic in self._topics:
                by(topic)
        assert not any(map(by, self._topics))
        return Sample((time.process_time() - began) / (LOOKS * TOPICS) * 1e6, _UNWANTED_US)


class Republished(Measure):
    """What a message costs more that a rule selects and republishes, durably noted first; nobody subscribed."""

    name, title, peer = "P46", "a message that a rule selects and republishes, more", "a budget of 25 us"
    unit, gate, aim = "us", 1.0, 0.8

    def __init__(self, rig: Rig) -> None:
        self._rig, self._iot = rig, _iot(rig)
        device = rig.once("device of AWS", registered_at_aws)
        self._crowd = Crowd(Broker(rig.server.address, 8883), [device] * PUBLISHERS, "ruled")
        self._client = client_for(rig.server.data)
        self._runs = count()

    def round(self) -> Sample:
        pid = self._rig.server.pid
        without = cpu_us_each(pid, lambda: self._crowd.publish(IN_FLIGHT, ROUNDS, [], "plain"))
        name = f"bench{next(self._runs)}"
        action = {"republish": {"topic": "out/${topic(2)}", "roleArn": _ROLE, "qos": 1}}
        payload = {
            "sql": "SELECT temperature, humidity FROM 'ruled/+' WHERE temperature > 20",
            "actions": [action],
            "awsIotSqlVersion": "2016-03-23",
        }
        self._iot.create_topic_rule(ruleName=name, topicRulePayload=payload)
        ruled = cpu_us_each(pid, lambda: self._through(name))
        self._iot.delete_topic_rule(ruleName=name)
        return Sample(ruled - without, _BUDGET_US)

    def _through(self, name: str) -> int:
        sent = self._crowd.publish(IN_FLIGHT, ROUNDS, [], "ruled")
        deadline = time.monotonic() + _PATIENCE_S
        while self._client.get(f"/aws/rules/{name}")["sent"] < sent:
            assert time.monotonic() < deadline, "the rule does not come after"
            time.sleep(0.2)
        return sent


class JobSteps(_Documents):
    """A hundred devices begin their next job and end it, one request at a time."""

    name, title = "P47", "start-next and update of a job, durable, 100 devices"
    rounds = 30
    versions = "SELECT coalesce(sum(version - 1), 0) FROM aws_job_executions"

    def _ready(self) -> tuple[list[Asker], Ask]:
        rig, self._iot = self._rig, _iot(self._rig)
        self._made = 0
        broker, device = Broker(rig.server.address, 8883), rig.once("device of AWS", registered_at_aws)
        self._iot.create_thing_group(thingGroupName="bench-jobs")
        for number in range(CONNECTIONS):
            self._iot.create_thing(thingName=f"job-{number}")
            self._iot.add_thing_to_thing_group(thingName=f"job-{number}", thingGroupName="bench-jobs")
        askers = [
            Asker(
                open_client(broker, device, f"job-{number}", clean=True),
                [(f"$aws/things/job-{number}/jobs/{what}", 1) for what in ("start-next/+", "+/update/+", "get/+")],
                b"/accepted",
            )
            for number in range(CONNECTIONS)
        ]
        return askers, self._step

    def round(self) -> Sample:
        self._roll_out(self.rounds // 2)
        return super().round()

    def _step(self, number: int, n: int) -> bytes:
        place = f"$aws/things/job-{number}/jobs"
        if n == 0:  # before the first round
            return message(f"{place}/get", b"{}", 1)
        if n % 2:
            job = self._askers[number].last.partition(b'"jobId":"')[2].partition(b'"')[0].decode()
            return message(f"{place}/{job}/update", json.dumps({"status": "SUCCEEDED"}).encode(), 1)
        return message(f"{place}/start-next", b"{}", 1)

    def _roll_out(self, jobs: int) -> None:
        group = "arn:aws:iot:us-east-1:000000000000:thinggroup/bench-jobs"
        for number in range(self._made, self._made + jobs):
            self._iot.create_job(jobId=f"bench-{number}", targets=[group], document="{}")
            deadline = time.monotonic() + _PATIENCE_S
            while self._queued(f"bench-{number}") < CONNECTIONS:
                assert time.monotonic() < deadline, "the job does not go out"
                time.sleep(0.05)
        self._made += jobs

    def _queued(self, job: str) -> int:
        with sqlite3.connect(f"file:{self._rig.server.data}/birthmark.db?mode=ro", uri=True) as database:
            asked = "SELECT count(*) FROM aws_job_executions WHERE job_id = ?"
            return int(database.execute(asked, (job,)).fetchone()[0])
