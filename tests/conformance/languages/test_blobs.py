"""Azure's storage SDK for Go writes and reads files of a hub: those of devices, and those of an operator."""

import time
from base64 import b64decode
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from birthmark.testing.cloud import AzureDevice, Cloud
from support.azure import fresh_servers
from support.azure.sas_tokens import make_sas
from support.languages.programs import Program, Settings, another_ca
from support.server.servers import RunningServer

server, birthmark_server = fresh_servers.server, fresh_servers.birthmark_server
pytestmark = pytest.mark.system
BLOCK = 64 * 1024


def files_of(server: RunningServer, cloud: Cloud, permissions: str = "rcwdl", container: str = "logs") -> Settings:
    (row,) = server.rows("hub", "file", "sas", container, "--permissions", permissions)
    return {"CONTAINER_URL": row["url"], "CA_FILE": cloud.ca_file}


def blob_of(settings: Settings, name: str) -> Settings:
    url, _, signature = settings["CONTAINER_URL"].partition("?")
    return {**settings, "NAME": name, "BLOB_URL": f"{url}/{quote(name)}?{signature}"}


def url_for(device: AzureDevice, cloud: Cloud, name: str) -> str:
    """Have a device ask its hub for the URL of a file."""
    host = device.identity.hub_host
    token = make_sas(f"{host}/devices/{device.name}", b64decode(device.symmetric_key or ""), int(time.time()) + 600, "")
    answer = requests.post(
        f"https://{host}/devices/{device.name}/files?api-version=2021-04-12",
        json={"blobName": name},
        headers={"Authorization": token.removesuffix("&skn=")},
        verify=cloud.ca_file,
        timeout=30,
    )
    asked = answer.json()
    place = f"https://{asked['hostName']}/{asked['containerName']}/{quote(asked['blobName'])}"
    return f"{place}{asked['sasToken']}"


def test_a_file_of_many_blocks_is_written_read_listed_and_deleted(
    server: RunningServer, birthmark_cloud: Cloud, storage_sdk: Program
) -> None:
    settings = files_of(server, birthmark_cloud)
    storage_sdk.run("create", settings)
    for name, letters in (("day 1/pump.log", "abcde"), ("second.log", "x")):
        storage_sdk.run("upload", blob_of(settings, name) | {"LETTERS": letters})
    first = blob_of(settings, "day 1/pump.log")
    assert storage_sdk.run("download", first) == {"letters": "abcde", "middle": "ab"}
    known = {"name": "day 1/pump.log", "size": 5 * BLOCK, "metadata": {"Site": "north"}}
    assert storage_sdk.run("properties", first) == known
    listed = storage_sdk.run("list", settings)["files"]
    assert [(one["name"], one["size"]) for one in listed] == [("day 1/pump.log", 5 * BLOCK), ("second.log", BLOCK)]
    storage_sdk.run("delete", first)
    assert [one["name"] for one in storage_sdk.run("list", settings)["files"]] == ["second.log"]


def test_a_device_writes_the_one_file_that_it_asked_for(
    server: RunningServer, birthmark_cloud: Cloud, storage_sdk: Program
) -> None:
    device = birthmark_cloud.azure_device(at="hub", auth="key")
    url = url_for(device, birthmark_cloud, "day.log")
    settings = {"BLOB_URL": url, "LETTERS": "ab", "CA_FILE": birthmark_cloud.ca_file}
    storage_sdk.run("upload", settings)
    other = {**settings, "BLOB_URL": url.replace("day.log", "night.log")}
    assert "AuthenticationFailed" in storage_sdk.fail("upload", other)
    read = files_of(server, birthmark_cloud, "rl", "uploads")
    assert storage_sdk.run("download", blob_of(read, f"{device.name}/day.log"))["letters"] == "ab"


def test_a_signature_permits_only_what_it_names(
    server: RunningServer, birthmark_cloud: Cloud, storage_sdk: Program
) -> None:
    storage_sdk.run("create", files_of(server, birthmark_cloud))
    read = files_of(server, birthmark_cloud, "rl")
    assert "AuthorizationPermissionMismatch" in storage_sdk.fail(
        "upload", blob_of(read, "second.log") | {"LETTERS": "x"}
    )
    wrong = {**read, "CONTAINER_URL": read["CONTAINER_URL"].replace("sig=", "sig=AAAA")}
    assert "AuthenticationFailed" in storage_sdk.fail("list", wrong)


def test_what_is_not_there_is_said_by_its_code(
    server: RunningServer, birthmark_cloud: Cloud, storage_sdk: Program
) -> None:
    settings = files_of(server, birthmark_cloud)
    assert "ContainerNotFound" in storage_sdk.fail("list", settings)
    storage_sdk.run("create", settings)
    assert "ContainerAlreadyExists" in storage_sdk.fail("create", settings)
    assert "BlobNotFound" in storage_sdk.fail("download", blob_of(settings, "second.log"))


def test_a_client_that_trusts_another_ca_does_not_connect(
    server: RunningServer, birthmark_cloud: Cloud, storage_sdk: Program, tmp_path: Path
) -> None:
    assert storage_sdk.fail("create", files_of(server, birthmark_cloud) | another_ca(tmp_path))
    assert birthmark_cloud.why(code="tls.server_not_trusted")
