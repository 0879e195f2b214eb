"""Jobs' files: documents by reference, presigned URLs that things fetch in parts, and templates that AWS manages."""

import http.client
import json
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from support.aws.clients import until
from support.aws.device import ARN, Enrolled
from support.server.servers import RunningServer

pytestmark = [pytest.mark.system, pytest.mark.serve]
NUMBERS = count(1)
FIRMWARE = bytes(range(256)) * 32768  # 8 MiB
S3 = "https://s3.us-east-1.amazonaws.com"


@pytest.fixture
def bucket(server: RunningServer) -> Path:
    made = server.data / "buckets" / "firmware"
    made.mkdir(parents=True, exist_ok=True)
    (made / "pump.bin").write_bytes(FIRMWARE)
    (made / "job.json").write_text(
        '{"operation": "install", "url": "${aws:iot:s3-presigned-url:s3://firmware/pump.bin}"}'
    )
    return made


@pytest.fixture
def data(client: Callable[..., Any]) -> Any:
    return client("iot-jobs-data")


@pytest.fixture
def context(server: RunningServer) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=server.endpoints["trust_bundle"])


def a_name(what: str) -> str:
    return f"{what}-file-{next(NUMBERS)}"


def a_job(iot: Any, **more: Any) -> tuple[str, str]:
    thing, job_id = a_name("thing"), a_name("job")
    iot.create_thing(thingName=thing)
    iot.create_job(jobId=job_id, targets=[f"{ARN}thing/{thing}"], **more)
    until(lambda: iot.list_job_executions_for_thing(thingName=thing)["executionSummaries"])
    return thing, job_id


def refused(call: Callable[..., Any], **given: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**given)
    return str(caught.value.response["Error"]["Code"])


def a_url(iot: Any, data: Any, **config: Any) -> str:
    document = json.dumps({"url": f"${{aws:iot:s3-presigned-url:{S3}/firmware/pump.bin}}"})
    thing, _ = a_job(iot, document=document, presignedUrlConfig=config or {"expiresInSec": 600})
    begun = data.start_next_pending_job_execution(thingName=thing)["execution"]
    return str(json.loads(begun["jobDocument"])["url"])


def status_of(url: str, context: ssl.SSLContext, method: str = "GET", **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, None, headers, method=method), context=context) as got:
            return int(got.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def memory_kib(server: RunningServer) -> int:
    """Return the most memory that the server ever had."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(peak)


def test_a_job_s_document_is_read_from_a_bucket(iot: Any, data: Any, bucket: Path) -> None:
    source = f"{S3}/firmware/job.json"
    thing, job_id = a_job(iot, documentSource=source)
    (bucket / "job.json").write_text("{}")  # it was read when the job was made
    assert iot.describe_job(jobId=job_id)["documentSource"] == source
    assert "s3-presigned-url" in iot.get_job_document(jobId=job_id)["document"]
    begun = data.start_next_pending_job_execution(thingName=thing)["execution"]
    assert json.loads(begun["jobDocument"])["url"].startswith("https://")
    name = a_name("template")
    iot.create_job_template(jobTemplateId=name, description="d", documentSource=source)
    told = iot.describe_job_template(jobTemplateId=name)
    assert (told["documentSource"], told["document"]) == (source, "{}")


@pytest.mark.parametrize(
    "wrong",
    [
        {"documentSource": f"{S3}/firmware/absent.json"},
        {"documentSource": f"{S3}/firmware/pump.bin"},
        {"documentSource": f"{S3}/firmware/../secret"},
        {"documentSource": "https://example.com/job.json"},
        {"documentSource": f"{S3}/firmware/job.json", "document": "{}"},
        {"document": f'{{"u": "${{aws:iot:s3-presigned-url:{S3}/firmware/absent}}"}}'},
        {"document": '{"u": "${aws:iot:s3-presigned-url:https://example.com/a}"}'},
        {"document": "{}", "presignedUrlConfig": {"expiresInSec": 3601}},
        {"document": "{}", "documentParameters": {"a": "b"}},
        {"document": '{"a": "${aws:iot:parameter:a}"}'},
    ],
)
def test_what_a_document_cannot_be_made_of_is_refused_when_the_job_is_made(
    iot: Any, bucket: Path, wrong: dict[str, Any]
) -> None:
    thing = a_name("thing")
    iot.create_thing(thingName=thing)
    given = {"jobId": a_name("job"), "targets": [f"{ARN}thing/{thing}"], **wrong}
    assert refused(iot.create_job, **given) == "InvalidRequestException"
    assert refused(iot.describe_job, jobId=given["jobId"]) == "ResourceNotFoundException"


@pytest.mark.parametrize("key", ["app-1.2.3+45.bin", "a b.bin", "ä.bin"])
def test_a_file_of_any_name_is_fetched_by_its_url(
    iot: Any, data: Any, bucket: Path, context: ssl.SSLContext, key: str
) -> None:
    (bucket / key).write_bytes(b"firmware")
    document = json.dumps({"url": f"${{aws:iot:s3-presigned-url:{S3}/firmware/{key}}}"}, ensure_ascii=False)
    thing, _ = a_job(iot, document=document, presignedUrlConfig={"expiresInSec": 600})
    begun = data.start_next_pending_job_execution(thingName=thing)["execution"]
    with urllib.request.urlopen(json.loads(begun["jobDocument"])["url"], context=context) as got:
        assert got.read() == b"firmware"


def test_a_thing_gets_a_new_url_each_time_and_operators_see_none(
    iot: Any, data: Any, bucket: Path, enroll: Callable[..., Enrolled]
) -> None:
    document = json.dumps({"url": f"${{aws:iot:s3-presigned-url-v2:{S3}/firmware/pump.bin}}"})
    role = "arn:aws:iam::000000000000:role/r"
    name = a_name("mqtt")
    with enroll(name).jobs(5) as device:
        device("connect")
        device("stream", operation="next_job_execution_changed", fields={"thing_name": name})
        job_id = a_name("job")
        iot.create_job(
            jobId=job_id,
            targets=[f"{ARN}thing/{name}"],
            document=document,
            presignedUrlConfig={"roleArn": role, "expiresInSec": 60},
        )
        urls = [device("event")["ok"]["execution"]["job_document"]["url"]]
        for operation in ("start_next_pending_job_execution", "describe_job_execution"):
            where = {"thing_name": name} | ({"job_id": job_id} if operation.startswith("describe") else {})
            told = device("ask", operation=operation, fields=where)["ok"]["execution"]
            urls.append(told["job_document"]["url"])
    told = data.describe_job_execution(thingName=name, jobId=job_id)["execution"]
    urls.append(json.loads(told["jobDocument"])["url"])
    told = data.update_job_execution(thingName=name, jobId=job_id, status="SUCCEEDED", includeJobDocument=True)
    urls.append(json.loads(told["jobDocument"])["url"])
    assert all(urlsplit(url).path == "/job-files/firmware/pump.bin" for url in urls)
    assert iot.get_job_document(jobId=job_id)["document"] == document
    assert iot.describe_job(jobId=job_id)["job"]["presignedUrlConfig"] == {"roleArn": role, "expiresInSec": 60}


def test_a_file_that_was_cut_off_is_fetched_on_from_where_it_was(
    iot: Any, data: Any, bucket: Path, server: RunningServer, tmp_path: Path
) -> None:
    url = a_url(iot, data)
    context = ssl.create_default_context(cafile=server.endpoints["trust_bundle"])
    parts = urlsplit(url)
    line = http.client.HTTPSConnection(parts.netloc, context=context, timeout=20)
    line.request("GET", f"{parts.path}?{parts.query}")
    answer = line.getresponse()
    assert (answer.status, answer.headers["Accept-Ranges"]) == (200, "bytes")
    file = tmp_path / "firmware"
    file.write_bytes(answer.read(1_000_000))
    answer.close()
    line.close()
    command = ["curl", "-sS", "--fail", "--cacert", server.endpoints["trust_bundle"], "-C", "-", "-o", str(file), url]
    subprocess.run(command, check=True, timeout=60)
    assert file.read_bytes() == FIRMWARE


def test_a_firmware_of_a_hundred_megabytes_comes_over_a_line_that_is_cut_again_and_again(
    iot: Any, data: Any, bucket: Path, server: RunningServer, tmp_path: Path
) -> None:
    whole = bytes(range(251)) * (100_000_000 // 251)
    (bucket / "pump.bin").write_bytes(whole)
    url, file = a_url(iot, data), tmp_path / "firmware"
    before = memory_kib(server)
    command = ["curl", "-sS", "--fail", "--cacert", server.endpoints["trust_bundle"], "-C", "-", "-o", str(file), url]
    grown = [0]
    for _ in range(3):
        slow = [*command, "--limit-rate", "20M", "--max-time", "1"]
        cut = subprocess.run(slow, check=False, timeout=60, capture_output=True)
        assert cut.returncode == 28, cut.stderr
        grown.append(file.stat().st_size)
    assert grown == sorted(set(grown)), "each piece began where the one before was cut"
    subprocess.run(command, check=True, timeout=60)
    assert file.read_bytes() == whole
    assert memory_kib(server) - before < 32 * 1024


def test_a_slow_reader_holds_nobody_back(iot: Any, data: Any, bucket: Path, context: ssl.SSLContext) -> None:
    slow, fast = a_url(iot, data), a_url(iot, data)
    parts = urlsplit(slow)
    line = http.client.HTTPSConnection(parts.netloc, context=context, timeout=20)
    line.request("GET", f"{parts.path}?{parts.query}")  # and reads nothing of it
    answer = line.getresponse()
    with urllib.request.urlopen(fast, context=context, timeout=20) as other:
        assert other.read() == FIRMWARE
    assert answer.read() == FIRMWARE
    line.close()


def test_head_ranges_and_a_file_that_changed(iot: Any, data: Any, bucket: Path, context: ssl.SSLContext) -> None:
    url = a_url(iot, data)

    def fetched(method: str = "GET", **headers: str) -> Any:
        request = urllib.request.Request(url, None, {name.replace("_", "-"): headers[name] for name in headers})
        request.method = method
        return urllib.request.urlopen(request, context=context, timeout=20)

    with fetched("HEAD") as got:
        assert (got.read(), got.headers["Content-Length"]) == (b"", str(len(FIRMWARE)))
        etag = got.headers["ETag"]
    with fetched(Range="bytes=10-19", If_Range=etag) as got:
        assert (got.status, got.read()) == (206, FIRMWARE[10:20])
        assert got.headers["Content-Range"] == f"bytes 10-19/{len(FIRMWARE)}"
    with fetched(Range="bytes=0-1,4-5") as got:
        assert (got.status, len(got.read())) == (200, len(FIRMWARE))
    assert status_of(url, context, Range=f"bytes={len(FIRMWARE)}-") == 416
    (bucket / "pump.bin").write_bytes(b"other")
    with fetched(Range="bytes=1-2", If_Range=etag) as got:
        assert (got.status, got.read()) == (200, b"other")
    (bucket / "pump.bin").unlink()
    assert status_of(url, context) == 400


def test_a_url_that_was_changed_opens_nothing(iot: Any, data: Any, bucket: Path, context: ssl.SSLContext) -> None:
    url = a_url(iot, data)
    assert status_of(url, context) == 200
    (bucket / "other.bin").write_bytes(b"x")
    for wrong in (
        url.replace("pump.bin", "other.bin"),
        url.replace("/pump.bin", "/../../operator.token"),
        url.replace("expires=", "expires=9"),
        url.split("?", 1)[0],
        url.split("/job-files", 1)[0] + "/job-files/",
        url.split("/job-files", 1)[0] + "/job-files/firmware/",
    ):
        assert status_of(wrong, context) == 403
    assert status_of(url, context, "PUT") == status_of(url, context, "DELETE") == 405


def test_a_managed_template_s_job_has_its_parameters(iot: Any, data: Any, bucket: Path) -> None:
    names = [one["templateName"] for one in iot.list_managed_job_templates()["managedJobTemplates"]]
    assert {"AWS-Reboot", "AWS-Download-File"} <= set(names)
    first = iot.list_managed_job_templates(maxResults=1)
    assert [one["templateName"] for one in first["managedJobTemplates"]] == names[:1]
    rest = iot.list_managed_job_templates(nextToken=first["nextToken"])
    assert [one["templateName"] for one in rest["managedJobTemplates"]] == names[1:]
    (only,) = iot.list_managed_job_templates(templateName="AWS-Reboot")["managedJobTemplates"]
    told = iot.describe_managed_job_template(templateName="AWS-Download-File")
    assert [one["key"] for one in told["documentParameters"] if not one["optional"]] == ["downloadUrl", "filePath"]
    assert refused(iot.describe_managed_job_template, templateName="AWS-Absent") == "ResourceNotFoundException"
    wrong = refused(iot.describe_managed_job_template, templateName="AWS-Reboot", templateVersion="2.0")
    assert wrong == "ResourceNotFoundException"
    parameters = {"downloadUrl": f"${{aws:iot:s3-presigned-url:{S3}/firmware/pump.bin}}", "filePath": "/tmp/p"}
    thing, job_id = a_job(iot, jobTemplateArn=told["templateArn"], documentParameters=parameters)
    job = iot.describe_job(jobId=job_id, beforeSubstitution=True)["job"]
    assert (job["documentParameters"], job["jobTemplateArn"]) == (parameters, told["templateArn"])
    assert iot.get_job_document(jobId=job_id, beforeSubstitution=True)["document"] == told["document"]
    after = json.loads(iot.get_job_document(jobId=job_id)["document"])["steps"][0]["action"]
    assert (after["input"]["args"], after["runAsUser"]) == ([*parameters.values()], "")
    begun = json.loads(data.start_next_pending_job_execution(thingName=thing)["execution"]["jobDocument"])
    url, where = begun["steps"][0]["action"]["input"]["args"]
    assert (urlsplit(url).path, where) == ("/job-files/firmware/pump.bin", "/tmp/p")
    assert only["templateArn"].endswith("::jobtemplate/AWS-Reboot:1.0")


def test_our_own_command_takes_parameters(server: RunningServer, iot: Any, tmp_path: Path) -> None:
    thing, job_id = a_name("thing"), a_name("job")
    iot.create_thing(thingName=thing)
    (tmp_path / "job.json").write_text('{"to": "${aws:iot:parameter:version}"}')
    made = ("aws", "job", "create", job_id, str(tmp_path / "job.json"), "--thing", thing)
    assert "version" in server.attempt(*made).stderr
    server.run(*made, "--parameter", "version=2.1")
    (row,) = server.rows("aws", "job", "show", job_id)
    assert row["document"] == {"to": "2.1"}
