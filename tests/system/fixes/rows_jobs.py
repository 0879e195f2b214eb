"""Jobs at AWS IoT: asked for by an SDK, by operators and as devices do."""

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import boto3
from botocore.config import Config
from fixes.desk import Desk, Row, steps
from fixes.rows_aws import call

ARN = "arn:aws:iot:us-east-1:000000000000:"


def ask(operation: str, *, service: str = "iot-jobs-data", **arguments: Any) -> Callable[[Desk], Any]:
    """Return an action of the SDK on the data plane, of jobs unless another service is named."""

    def act(desk: Desk) -> Any:
        known = desk.scene.environment
        data = boto3.client(
            service,
            endpoint_url=known["AWS_ENDPOINT_URL_IOT"],
            region_name=known["AWS_REGION"],
            aws_access_key_id=known["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=known["AWS_SECRET_ACCESS_KEY"],
            verify=known["AWS_CA_BUNDLE"],
            config=Config(retries={"total_max_attempts": 1}),
        )
        return getattr(data, operation)(**arguments)

    return act


def making(job: str, thing: str) -> Callable[[Desk], Any]:
    return call("create_job", jobId=job, targets=[f"{ARN}thing/{thing}"], document=json.dumps({"a": 1}))


def on(job: str, thing: str) -> Callable[[Desk], Any]:
    """Return what puts a job on a thing, and waits until it is there."""

    def act(desk: Desk) -> None:
        desk.iot.create_thing(thingName=thing)
        making(job, thing)(desk)
        while not desk.iot.list_job_executions_for_thing(thingName=thing)["executionSummaries"]:
            pass

    return act


def many_jobs(desk: Desk) -> None:
    desk.iot.create_thing(thingName="fix-many-jobs")
    for number in range(201):
        making(f"fix-many-{number}", "fix-many-jobs")(desk)


def update(job: str, thing: str, **more: Any) -> Callable[[Desk], Any]:
    return ask("update_job_execution", jobId=job, thingName=thing, **{"status": "SUCCEEDED", **more})


def has_a_file(desk: Desk) -> None:
    """Put a job on a thing that has a file to fetch; its URL is left in the scene."""
    folder = desk.server.data / "buckets" / "fix-files"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "firmware").write_bytes(bytes(8 << 20))
    desk.iot.create_thing(thingName="fix-files")
    document = json.dumps({"url": "${aws:iot:s3-presigned-url:s3://fix-files/firmware}"})
    desk.iot.create_job(jobId="fix-files", targets=[f"{ARN}thing/fix-files"], document=document)
    while not desk.iot.list_job_executions_for_thing(thingName="fix-files")["executionSummaries"]:
        pass
    told = ask("start_next_pending_job_execution", thingName="fix-files")(desk)["execution"]
    desk.scene.environment["FILE"] = "/" + json.loads(told["jobDocument"])["url"].split("/", 3)[3]


def fetching(desk: Desk, target: str) -> bytes:
    host = desk.server.endpoints["aws"]["data_endpoint"]
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


def many_readers(desk: Desk) -> None:
    asked = fetching(desk, desk.scene.environment["FILE"])
    with ExitStack() as held:
        for _ in range(4):
            reader = held.enter_context(desk.tls(8443))
            reader.sendall(asked)
            reader.recv(1)
        desk.raw(asked)


JOBS: Mapping[str, Row] = {
    "awsiot.unknown_job": Row(call("describe_job", jobId="fix-nobody"), is_instead=True),
    "awsiot.unknown_job_template": Row(call("describe_job_template", jobTemplateId="fix-nobody"), is_instead=True),
    "awsiot.job_exists": Row(making("fix-twice", "fix-twice"), on("fix-twice", "fix-twice"), is_instead=True),
    "awsiot.job_state": Row(call("delete_job", jobId="fix-state"), on("fix-state", "fix-state"), is_instead=True),
    "awsiot.unknown_job_execution": Row(
        call("describe_job_execution", jobId="fix-execution", thingName="fix-other"),
        on("fix-execution", "fix-execution"),
        is_instead=True,
    ),
    "awsiot.job_execution_state": Row(
        call("cancel_job_execution", jobId="fix-ended", thingName="fix-ended"),
        steps(on("fix-ended", "fix-ended"), update("fix-ended", "fix-ended")),
        is_instead=True,
    ),
    "awsiot.job_execution_version": Row(
        update("fix-job-version", "fix-job-version", expectedVersion=7),
        on("fix-job-version", "fix-job-version"),
        is_instead=True,
    ),
    "awsiot.job_cancel_version": Row(
        call("cancel_job_execution", jobId="fix-cancel", thingName="fix-cancel", expectedVersion=7),
        on("fix-cancel", "fix-cancel"),
        is_instead=True,
    ),
    "awsiot.job_status_not_for_devices": Row(
        update("fix-not-yours", "fix-not-yours", status="CANCELED"),
        on("fix-not-yours", "fix-not-yours"),
        is_instead=True,
    ),
    "awsiot.mqtt_only_topic": Row(
        ask("publish", service="iot-data", topic="$aws/things/fix/jobs/get", payload=b"{}"), is_instead=True
    ),
    "awsiot.job_execution_over": Row(
        ask("describe_job_execution", jobId="fix-over", thingName="fix-over"),
        steps(on("fix-over", "fix-over"), update("fix-over", "fix-over")),
        is_instead=True,
    ),
    "awsiot.job_request_invalid": Row(
        update("fix-status", "fix-status", statusDetails={"a b": "x"}), on("fix-status", "fix-status"), is_instead=True
    ),
    "awsiot.file_link": Row(
        lambda desk: desk.raw(fetching(desk, "/job-files/fix/firmware?thing=fix&expires=1&signature=none")),
        is_instead=True,
    ),
    "awsiot.file_readers": Row(many_readers, has_a_file, is_instead=True),
    "awsiot.job_limit": Row(many_jobs, is_instead=True),
}
