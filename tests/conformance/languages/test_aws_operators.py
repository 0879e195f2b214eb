"""AWS SDKs of other languages manage things, shadows and jobs; a switch of endpoint and CA is all they take."""

import json
from functools import partial
from pathlib import Path

import pytest

from birthmark.testing.cloud import Cloud
from support.aws.clients import until
from support.languages.programs import Program, Settings, another_ca, messages_of, of_thing

pytestmark = pytest.mark.system


def operator(cloud: Cloud, **more: str) -> Settings:
    return cloud.variables | more


def test_it_creates_a_thing(birthmark_cloud: Cloud, aws_sdk: Program) -> None:
    made = aws_sdk.run("create", operator(birthmark_cloud, THING="pump-1"))
    assert aws_sdk.run("describe", operator(birthmark_cloud, THING="pump-1")) == {**made, "version": 1}


def test_a_certificate_that_it_creates_connects_a_device(
    birthmark_cloud: Cloud, aws_sdk: Program, tmp_path: Path
) -> None:
    thing = birthmark_cloud.aws_thing()
    made = aws_sdk.run("certificate", operator(birthmark_cloud, THING=thing.name, POLICY=thing.identity.policy_name))
    files = {"CERT_FILE": tmp_path / "new.pem", "KEY_FILE": tmp_path / "new.key"}
    files["CERT_FILE"].write_text(made["certificate"])
    files["KEY_FILE"].write_text(made["key"])
    settings = of_thing(thing) | {name: str(file) for name, file in files.items()} | messages_of("site/1", "hello")
    assert Program("go", "mqtt3").run("exchange", settings)["payload"] == "hello"


def test_it_updates_and_reads_a_shadow(birthmark_cloud: Cloud, aws_sdk: Program) -> None:
    thing = birthmark_cloud.aws_thing()
    desired = '{"state":{"desired":{"valve":"open"}}}'
    told = aws_sdk.run("shadow", operator(birthmark_cloud, THING=thing.name, PAYLOAD=desired))
    assert json.loads(told["shadow"])["state"] == {"desired": {"valve": "open"}, "delta": {"valve": "open"}}


def test_it_publishes_to_a_device(birthmark_cloud: Cloud, aws_sdk: Program) -> None:
    topic = messages_of("site/1", "hello")
    with Program("go", "mqtt3").start("listen", of_thing(birthmark_cloud.aws_thing()) | topic) as device:
        device.until("subscribed")
        aws_sdk.run("publish", operator(birthmark_cloud, **topic))
        assert device.until("topic")["payload"] == "hello"


def test_it_creates_a_job(birthmark_cloud: Cloud, aws_sdk: Program) -> None:
    thing = birthmark_cloud.aws_thing()
    order = operator(
        birthmark_cloud, JOB=f"job-{thing.name}-{aws_sdk.language}", TARGET=thing.identity.arn, PAYLOAD='{"version":2}'
    )
    assert aws_sdk.run("job", order) == {"status": "IN_PROGRESS"}


def test_a_thing_runs_a_job(birthmark_cloud: Cloud, aws_jobs_sdk: Program) -> None:
    thing = birthmark_cloud.aws_thing()
    order = {
        "JOB": f"run-{thing.name}-{aws_jobs_sdk.language}",
        "TARGET": thing.identity.arn,
        "PAYLOAD": '{"version":2}',
    }
    aws_jobs_sdk.run("job", operator(birthmark_cloud, **order))
    pending = partial(birthmark_cloud.boto3().list_job_executions_for_thing, thingName=thing.name)
    until(lambda: pending()["executionSummaries"])
    done = aws_jobs_sdk.run("execution", operator(birthmark_cloud, THING=thing.name))
    assert done == {"job": order["JOB"], "document": '{"version":2}'}


def test_an_unknown_thing_is_the_sdks_exception(birthmark_cloud: Cloud, aws_sdk: Program) -> None:
    assert "ResourceNotFoundException" in aws_sdk.fail("describe", operator(birthmark_cloud, THING="nowhere"))


def test_a_wrong_secret_is_refused(birthmark_cloud: Cloud, aws_sdk: Program) -> None:
    wrong = operator(birthmark_cloud, THING="pump-2", AWS_SECRET_ACCESS_KEY="wrong")
    assert "signature" in aws_sdk.fail("create", wrong).lower()


def test_a_client_that_trusts_another_ca_does_not_connect(
    birthmark_cloud: Cloud, aws_sdk: Program, tmp_path: Path
) -> None:
    wrong = operator(birthmark_cloud, THING="pump-3", **another_ca(tmp_path))
    assert "certif" in aws_sdk.fail("create", wrong).lower()
