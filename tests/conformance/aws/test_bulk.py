"""Bulk registrations from a folder that stands for a bucket, by boto3: each line once, and told in reports."""

import base64
import json
import ssl
import urllib.error
import urllib.request
from itertools import count
from typing import Any

import pytest
from botocore.exceptions import ClientError

from support.aws.clients import until
from support.pki.pki_builders import a_csr
from support.server.servers import RunningServer

pytestmark = pytest.mark.system
ROLE = "arn:aws:iam::000000000000:role/registration"
NUMBERS = count()
BODY = json.dumps(
    {
        "Parameters": {"ThingName": {"Type": "String"}, "CSR": {"Type": "String"}},
        "Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "ThingName"}}},
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateSigningRequest": {"Ref": "CSR"}, "Status": "ACTIVE"},
            },
        },
    }
)


def a_pem(name: str) -> str:
    text = base64.b64encode(a_csr(name)).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----"


def a_file(server: RunningServer, lines: list[str]) -> dict[str, str]:
    """Put a file into a bucket, and return how it is named."""
    key = f"intake/{next(NUMBERS)}.json"
    path = server.data / "buckets" / "devices" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return {"inputFileBucket": "devices", "inputFileKey": key}


def ended(iot: Any, task_id: str) -> dict[str, Any]:
    """Wait for the end of a task, and return it."""
    found: dict[str, Any] = {}

    def is_over() -> bool:
        found.update(iot.describe_thing_registration_task(taskId=task_id))
        return bool(found["status"] != "InProgress")

    until(is_over, found)
    return found


def report(server: RunningServer, iot: Any, task_id: str, kind: str) -> list[dict[str, Any]]:
    (link,) = iot.list_thing_registration_task_reports(taskId=task_id, reportType=kind)["resourceLinks"]
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    with urllib.request.urlopen(link, context=context, timeout=10) as answer:
        return [json.loads(line) for line in answer.read().splitlines()]


def test_each_line_is_registered_or_told_why_not(server: RunningServer, iot: Any) -> None:
    names = [f"bulk-{next(NUMBERS)}" for _ in range(10)]
    lines = [json.dumps({"ThingName": name, "CSR": a_pem(name)}) for name in names]
    lines[3] = "no json"
    lines[5] = json.dumps({"ThingName": "a name with spaces", "CSR": a_pem("x")})
    where = a_file(server, lines)
    task_id = iot.start_thing_registration_task(templateBody=BODY, roleArn=ROLE, **where)["taskId"]
    found = ended(iot, task_id)
    assert (found["status"], found["successCount"], found["failureCount"]) == ("Completed", 8, 2)
    assert found["percentageProgress"] == 100
    results = report(server, iot, task_id, "RESULTS")
    assert [one["lineNumber"] for one in results] == [1, 2, 3, 5, 7, 8, 9, 10]
    assert results[0]["response"]["resourceArns"]["thing"].endswith(f":thing/{names[0]}")
    assert "BEGIN CERTIFICATE" in results[0]["response"]["certificatePem"]
    errors = report(server, iot, task_id, "ERRORS")
    assert [one["lineNumber"] for one in errors] == [4, 6]
    assert "Resources.thing" in errors[1]["errorMessage"]
    assert len(iot.list_thing_principals(thingName=names[9])["principals"]) == 1
    assert task_id in iot.list_thing_registration_tasks(status="Completed")["taskIds"]


def test_a_task_that_is_stopped_tries_no_more(server: RunningServer, iot: Any) -> None:
    names = [f"bulk-{next(NUMBERS)}" for _ in range(2000)]
    where = a_file(server, [json.dumps({"ThingName": name, "CSR": "no request"}) for name in names])
    task_id = iot.start_thing_registration_task(templateBody=BODY, roleArn=ROLE, **where)["taskId"]
    iot.stop_thing_registration_task(taskId=task_id)
    found = ended(iot, task_id)
    assert found["status"] == "Cancelled"
    assert found["failureCount"] < 2000
    with pytest.raises(ClientError, match="cannot be stopped"):
        iot.stop_thing_registration_task(taskId=task_id)


@pytest.mark.parametrize(
    ("bucket", "key"), [("devices", "../../est.seed"), ("devices", "nothing.json"), ("...", "x"), ("devices", "a//b")]
)
def test_nothing_outside_the_folder_is_read(bucket: str, key: str, iot: Any) -> None:
    with pytest.raises(ClientError):
        iot.start_thing_registration_task(templateBody=BODY, roleArn=ROLE, inputFileBucket=bucket, inputFileKey=key)


def test_a_report_is_for_who_has_its_link(server: RunningServer, iot: Any) -> None:
    where = a_file(server, ["no json"])
    task_id = iot.start_thing_registration_task(templateBody=BODY, roleArn=ROLE, **where)["taskId"]
    ended(iot, task_id)
    (link,) = iot.list_thing_registration_task_reports(taskId=task_id, reportType="ERRORS")["resourceLinks"]
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(link[:-1] + "x", context=context, timeout=10)
    assert caught.value.code == 404
    caught.value.close()
