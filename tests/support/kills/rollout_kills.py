"""A job to the devices of a swarm while the server is killed: each execution ends once, right; nothing is told twice.

Of the devices some fail, and are tried once more: which, and whether they fail again, follows from their names, so what
each has to end with is known before. A client that hears everything counts what devices are told.
"""

import json
import random
import signal
import ssl
import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from birthmark.swarm.rules.jobs import SimulatedJob, fails
from support.kills.kills import Kill, kill_server
from support.server.servers import BIRTHMARK, RunningServer, clean_environment

PATIENCE_S = 1800.0
SHARE = 0.02
JOB, GROUP = "rollout", "swarm"
ARN = "arn:aws:iot:us-east-1:000000000000:"
_SCENARIO = """
duration = "3h"
[target]
to = "local-aws"
mqtt = "5"
[group.press]
devices = {devices}
name = "press-{{n}}"
ramp = 200
interval = "0s"
job = "200ms"
jobs_fail = "{share:.0%}"
"""
_ABORT = {"failureType": "ALL", "action": "CANCEL", "thresholdPercentage": 5.0, "minNumberOfExecutedThings": 100}


class Operator:
    """Asks as an operator does, again and again where the server is away."""

    def __init__(self, server: RunningServer) -> None:
        self._iot: Any = server.cloud.boto3(config=Config(max_pool_connections=16, retries={"total_max_attempts": 1}))

    def __call__(self, operation: str, **given: Any) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return getattr(self._iot, operation)(**given)
            except (BotoCoreError, ClientError) as error:
                code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
                if code == "ResourceAlreadyExistsException":
                    return None
                if time.monotonic() > deadline or "InvalidRequest" in code:
                    raise
                time.sleep(0.2)

    def pages(self, operation: str, entries: str, **given: Any) -> Iterator[Any]:
        token: dict[str, str] = {}
        while True:
            page = self(operation, maxResults=250, **given, **token)
            yield from page[entries]
            if "nextToken" not in page:
                return
            token = {"nextToken": page["nextToken"]}


class Listener:
    """Hears what devices are told is next, by a session that stays.

    What MQTT hands over again after a kill is the same message, to the byte; what is told again has another time.
    """

    def __init__(self, server: RunningServer, operator: Operator, directory: Path) -> None:
        made = operator("create_keys_and_certificate", setAsActive=True)
        files = directory / "listener.pem", directory / "listener.key"
        files[0].write_text(made["certificatePem"])
        files[1].write_text(made["keyPair"]["PrivateKey"])
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}
        operator("create_policy", policyName="listener", policyDocument=json.dumps(policy))
        operator("attach_policy", policyName="listener", target=made["certificateArn"])
        self.told: defaultdict[str, set[bytes]] = defaultdict(set)
        self._client: Any = paho.Client("listener", clean_session=False)
        context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
        context.load_cert_chain(*files)
        self._client.tls_set_context(context)
        self._client.reconnect_delay_set(1, 2)
        self._client.on_connect = lambda *_: self._client.subscribe("$aws/things/+/jobs/notify-next", 1)
        self._client.on_message = self._heard
        self._client.connect(server.endpoints["aws"]["data_endpoint"], 8883)
        self._client.loop_start()

    def _heard(self, _client: Any, _data: Any, message: Any) -> None:
        execution = json.loads(message.payload).get("execution")
        if execution is not None:
            what = f"{message.topic.split('/')[2]} {execution['jobId']} {execution['executionNumber']}"
            self.told[what].add(message.payload)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def devices(server: RunningServer, directory: Path, count: int) -> Iterator[list[dict[str, Any]]]:
    """Let a swarm of so many devices live, in a process of its own; what it says of itself is yielded."""
    (directory / "swarm.toml").write_text(_SCENARIO.format(devices=count, share=SHARE))
    environment = clean_environment(HOME=str(directory), BIRTHMARK_DATA=str(server.data))
    command = [BIRTHMARK, "swarm", "run", "swarm.toml", "--json"]
    said: list[dict[str, Any]] = []
    process = subprocess.Popen(command, cwd=directory, env=environment, stdout=subprocess.PIPE, text=True)

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with suppress(ValueError):
                said.append(json.loads(line))

    reading = threading.Thread(target=read)
    reading.start()
    try:
        yield said
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)
        reading.join()
        assert process.stdout is not None
        process.stdout.close()


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def right(name: str) -> tuple[str, int]:
    """Return how the job has to end on a device, and in which try."""
    if not fails(name, SimulatedJob(JOB, 1), SHARE):
        return "SUCCEEDED", 1
    return ("FAILED" if fails(name, SimulatedJob(JOB, 2), SHARE) else "SUCCEEDED"), 2


def keep_on(
    server: RunningServer, each: int, dice: random.Random, directory: Path, *, kill: Kill = kill_server, kills: int = 5
) -> dict[str, Any]:
    """Let a job go out to `each` devices while the server is killed; return what was wrong, with figures."""
    operator = Operator(server)
    names = [f"press-{number}" for number in range(each)]
    with devices(server, directory, each) as said:
        until(lambda: any(one.get("states", {}).get("connected", 0) >= each for one in said[-3:]), "all are connected")
        operator("create_thing_group", thingGroupName=GROUP)
        with ThreadPoolExecutor(8) as pool:
            add = lambda name: operator("add_thing_to_thing_group", thingGroupName=GROUP, thingName=name)  # noqa: E731
            list(pool.map(add, names))
        listener = Listener(server, operator, directory)
        began = time.monotonic()
        operator(
            "create_job",
            jobId=JOB,
            targets=[f"{ARN}thinggroup/{GROUP}"],
            document='{"operation": "install"}',
            jobExecutionsRolloutConfig={"maximumPerMinute": 1000},
            abortConfig={"criteriaList": [_ABORT]},
            jobExecutionsRetryConfig={"criteriaList": [{"failureType": "FAILED", "numberOfRetries": 1}]},
        )
        spread_s = max(20.0, each / 1000 * 60) / max(kills, 1)
        for _ in range(kills):
            time.sleep(dice.uniform(0, spread_s))
            kill(server, dice)
        until(lambda: operator("describe_job", jobId=JOB)["job"]["status"] != "IN_PROGRESS", "the job is over")
        took = time.monotonic() - began
        job = operator("describe_job", jobId=JOB)["job"]
        listener.close()
    found = {
        one["thingArn"].rpartition("/")[2]: one["jobExecutionSummary"]
        for one in operator.pages("list_job_executions_for_job", "executionSummaries", jobId=JOB)
    }
    ends = {name: (one["status"], one["executionNumber"]) for name, one in found.items()}
    twice = [what for what, messages in listener.told.items() if len(messages) > 1]
    faults = [f"the job is {job['status']}: {job.get('comment')}"] if job["status"] != "COMPLETED" else []
    faults += [
        f"{name} ended {ends.get(name)}, and not {right(name)}" for name in names if ends.get(name) != right(name)
    ]
    faults += [f"told twice: {what}" for what in twice]
    faults += [f"on {name}, which is no device of the group" for name in found.keys() - set(names)]
    return {
        "each": each,
        "kills": kills,
        "seconds": round(took, 1),
        "ends": dict(Counter(f"{status} in try {number}" for status, number in ends.values())),
        "told": len(listener.told),
        "faults": faults[:20],
    }
