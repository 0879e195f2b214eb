"""Import and export of the registry by the unmodified azure-iot-hub, with files in a container of the hub."""

import json
import subprocess
from pathlib import Path

import pytest

from birthmark.testing.cloud import Cloud
from support.azure.clients import run_python
from support.azure.node_clients import in_node
from support.server.servers import RunningServer

pytestmark = pytest.mark.system

PRELUDE = """
import json, os, time
from azure.iot.hub import IoTHubJobManager, IoTHubRegistryManager
from azure.iot.hub.models import JobProperties, Twin, TwinProperties
from azure.storage.blob import ContainerClient

text = os.environ["IOTHUB_CONNECTION_STRING"]
jobs, registry = IoTHubJobManager.from_connection_string(text), IoTHubRegistryManager.from_connection_string(text)
url = os.environ["URL"]
container = ContainerClient.from_container_url(url)
if not container.exists():
    container.create_container()

def run(**properties):
    made = jobs.create_import_export_job(JobProperties(**properties))
    for _ in range(400):
        found = jobs.get_import_export_job(made.job_id)
        if found.status in {"completed", "failed", "cancelled"}:
            return found
        time.sleep(0.05)
    raise SystemExit("never ended")

def put(*lines):
    container.upload_blob("devices.txt", "\\n".join(map(json.dumps, lines)), overwrite=True)

def imported(*lines):
    put(*lines)
    found = run(type="import", input_blob_container_uri=url, output_blob_container_uri=url)
    log = container.download_blob("importErrors.log").readall().decode()
    return found, [json.loads(line) for line in log.splitlines()]
"""


def in_hub(server: RunningServer, script: str, name: str = "registry") -> list[str]:
    url: str = server.rows("hub", "file", "sas", name, "--permissions", "rcwdl")[0]["url"]
    done = run_python(PRELUDE + script, {**server.environment, "URL": url})
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.splitlines()


def test_devices_are_exported_and_imported_with_keys_modules_and_twins(server: RunningServer) -> None:
    said = in_hub(
        server,
        """
key = "a" * 43 + "="
registry.create_device_with_sas("export-1", key, key, "enabled")
registry.create_module_with_sas("export-1", "camera", "me", key, key)
registry.update_twin("export-1", Twin(tags={"site": "n"}, properties=TwinProperties(desired={"v": 1})))
registry.create_device_with_x509("export-2", "A" * 64, "B" * 64, "disabled")
found = run(type="export", output_blob_container_uri=url, exclude_keys_in_export=False)
print(found.type, found.status, found.progress)
text = container.download_blob("devices.txt").readall()
lines = [json.loads(line) for line in text.splitlines()]
print([(one["id"], one.get("moduleId")) for one in lines])
before = [registry.get_device(name) for name in ("export-1", "export-2")]
for name in ("export-1", "export-2"):
    registry.delete_device(name)
found = run(type="import", input_blob_container_uri=url, output_blob_container_uri=url)
print(found.status, container.download_blob("importErrors.log").readall())
after = [registry.get_device(name) for name in ("export-1", "export-2")]
print([one.authentication.as_dict() for one in before] == [one.authentication.as_dict() for one in after])
print([one.status for one in after])
twin = registry.get_twin("export-1")
print(twin.tags, twin.properties.desired["v"], registry.get_module("export-1", "camera").managed_by)
found = run(type="export", output_blob_container_uri=url, output_blob_name="bare.txt", exclude_keys_in_export=True)
print(found.status, key.encode() in container.download_blob("bare.txt").readall())
print(len(jobs.get_import_export_jobs()) >= 3)
""",
    )
    assert said == [
        "export completed 100",
        "[('export-1', None), ('export-1', 'camera'), ('export-2', None)]",
        "completed b''",
        "True",
        "['enabled', 'disabled']",
        "{'site': 'n'} 1 me",
        "completed False",
        "True",
    ]


def test_every_import_mode_has_its_effect_and_each_failed_line_is_in_the_log(server: RunningServer) -> None:
    said = in_hub(
        server,
        """
found, errors = imported(
    {"id": "mode-1", "importMode": "create", "tags": {"a": 1}},
    {"id": "mode-1", "importMode": "create"},
    {"id": "mode-2"},
    {"id": "mode-3", "importMode": "update"},
    {"id": "a b"},
    {"id": "mode-4", "importMode": "burn"},
)
print(found.status, [(one["line"], one["id"], one["errorCode"]) for one in errors])
etag = registry.get_device("mode-1").etag
found, errors = imported(
    {"id": "mode-1", "importMode": "createOrUpdateIfMatchETag", "eTag": "wrong", "status": "disabled"},
    {"id": "mode-1", "importMode": "updateIfMatchETag", "eTag": etag, "status": "disabled"},
    {"id": "mode-1", "importMode": "updateTwin", "tags": {"b": 2}},
    {"id": "mode-1", "importMode": "updateTwinIfMatchETag", "twinETag": "wrong", "tags": {"c": 3}},
    {"id": "mode-2", "importMode": "deleteIfMatchETag", "eTag": "wrong"},
    {"id": "mode-2", "importMode": "delete"},
    {"id": "mode-5", "importMode": "createOrUpdate", "properties": {"desired": {"d": 1}, "reported": {"r": 2}}},
)
print(found.status, [(one["line"], one["id"], one["errorCode"]) for one in errors])
print(registry.get_device("mode-1").status, registry.get_twin("mode-1").tags)
print(registry.get_twin("mode-5").properties.desired["d"], registry.get_twin("mode-5").properties.reported["r"])
""",
    )
    created = [(2, "mode-1", "DeviceAlreadyExists"), (4, "mode-3", "DeviceNotFound")]
    created += [(5, "a b", "ArgumentInvalid"), (6, "", "ArgumentInvalid")]
    conditional = [(line, name, "PreconditionFailed") for line, name in ((1, "mode-1"), (4, "mode-1"), (5, "mode-2"))]
    assert said == [
        f"completed {created}",
        f"completed {conditional}",
        "disabled {'a': 1, 'b': 2}",
        "1 2",
    ]


def test_a_job_is_cancelled_and_listed(server: RunningServer) -> None:
    said = in_hub(
        server,
        """
put({"id": "cancelled"})
made = jobs.create_import_export_job(JobProperties(type="export", output_blob_container_uri=url))
found = jobs.cancel_import_export_job(made.job_id)
print(jobs.get_import_export_job(made.job_id).status in {"cancelled", "completed"})
print(made.job_id in [one.job_id for one in jobs.get_import_export_jobs()])
""",
    )
    assert said == ["True", "True"]


def test_node_exports_and_imports_the_registry(cloud: Cloud, server: RunningServer) -> None:
    in_hub(server, "put()", "node-registry")
    url: str = server.rows("hub", "file", "sas", "node-registry", "--permissions", "rcwdl")[0]["url"]
    script = """
const {Registry} = require('azure-iothub');
const registry = Registry.fromConnectionString(process.env.IOTHUB_CONNECTION_STRING);
const url = process.env.URL;
const body = (answer) => answer.responseBody || answer;
const ended = async (job) => {
  let found;
  await until(async () => {
    found = body(await registry.getJob(job.jobId));
    return ['completed', 'failed'].includes(found.status);
  }, 'ended');
  return found.status;
};
say(await ended(body(await registry.exportDevicesToBlob(url, true))));
const started = body(await registry.importDevicesFromBlob(url, url));
say(await ended(started));
say(body(await registry.listJobs()).some((one) => one.jobId === started.jobId));
await registry.cancelJob(started.jobId);
"""
    assert in_node(cloud, script, URL=url) == ["completed", "completed", "true"]


def test_an_operator_exports_and_imports_files_in_the_same_form(server: RunningServer, tmp_path: Path) -> None:
    in_hub(server, 'registry.create_device_with_sas("operator-1", "", "", "enabled")', "operator")
    file = tmp_path / "devices.txt"
    server.run("hub", "export", str(file), "--keys")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    (line,) = [one for one in lines if one["id"] == "operator-1"]
    server.run("hub", "device", "rm", "operator-1", "--yes")
    file.write_text(f"\ufeff{json.dumps(line)}\n\n{{}}\n")
    done = server.attempt("hub", "import", str(tmp_path))  # a folder
    assert done.returncode == 7
    assert "line 3: iothub.body_invalid" in done.stdout
    assert "Imported 1 of 2 lines." in done.stdout
    said = in_hub(
        server, 'print(registry.get_device("operator-1").authentication.symmetric_key.primary_key)', "operator"
    )
    assert said == [line["authentication"]["symmetricKey"]["primaryKey"]]


def test_a_file_in_utf_16_is_refused_with_the_command_that_converts_it(server: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "devices.txt"
    file.write_text('{"id": "operator-2"}\n', encoding="utf-16")
    done = server.attempt("hub", "import", str(file))
    assert done.returncode != 0
    command = done.stderr.partition("import the new file: `")[2].partition("`")[0]
    subprocess.run(command, shell=True, check=True)
    server.run("hub", "import", str(tmp_path / "devices.utf8.txt"))


def test_a_signature_for_a_missing_container_needs_the_permission_to_create_it(server: RunningServer) -> None:
    assert "blob_storage.container_not_found" in server.attempt("hub", "file", "sas", "missing").stderr
    server.run("hub", "file", "sas", "missing", "--permissions", "rcwdl", "--lasts", "10m")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("output_blob_container_uri='https://example.com/storage/registry?sig=x'", "its host is not this hub"),
        ("output_blob_container_uri='https://169.254.169.254/latest'", "it is not a container of this hub"),
        ("output_blob_container_uri=url.replace('sp=rcwdl', 'sp=rcwd')", "was not issued by this server"),
        ("output_blob_container_uri=url, include_configurations=True", "includeConfigurations"),
        ("output_blob_container_uri=url, storage_authentication_type='identityBased'", "keyBased"),
    ],
)
def test_a_foreign_container_or_an_option_that_is_not_served_is_refused(
    server: RunningServer, change: str, expected: str
) -> None:
    said = in_hub(
        server,
        f"""
try:
    run(type="export", {change})
except Exception as error:
    print(error.response.status_code, error.response.text)
""",
    )
    assert said[0].startswith("400 ")
    assert expected in said[0]
    assert "sig=" not in said[0]
