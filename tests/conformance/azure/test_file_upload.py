"""File upload by the unmodified SDKs: azure-iot-device with azure-storage-blob, and Node's `uploadToBlob`."""

import pytest

from birthmark.testing.cloud import AzureDevice, Cloud
from support.azure.clients import needs_443, run_python
from support.azure.node_clients import in_node
from support.server.servers import RunningServer

pytestmark = pytest.mark.system

PRELUDE = """
import asyncio, json, os, sys
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.iot.device import IoTHubDeviceClient
from azure.storage.blob import BlobBlock, BlobClient, ContainerClient, ContentSettings

def device():
    return IoTHubDeviceClient.create_from_connection_string(os.environ["DEVICE"])

def url_of(info):
    return "https://{hostName}/{containerName}/{blobName}{sasToken}".format(**info)

def code_of(call):
    try:
        call()
    except HttpResponseError as error:
        return error.status_code, error.response.headers["x-ms-error-code"]
    return None
"""


def upload(cloud: Cloud, device: AzureDevice, script: str, **more: str) -> list[str]:
    needs_443(cloud)
    done = run_python(PRELUDE + script, device.environment(DEVICE=device.connection_string, **more))
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.splitlines()


def container_url(server: RunningServer, name: str, permissions: str = "racwdl") -> str:
    """Return the URL of a container for storage clients, as the operator gets it."""
    url: str = server.rows("hub", "file", "sas", name, "--permissions", permissions)[0]["url"]
    return url


def in_container(server: RunningServer, name: str, script: str, permissions: str = "racwdl") -> list[str]:
    """Run a script that has the client of a new container."""
    url = container_url(server, name, permissions)
    made = "container = ContainerClient.from_container_url(os.environ['URL'])\n"
    done = run_python(PRELUDE + made + script, {**server.environment, "URL": url})
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.splitlines()


def test_a_device_uploads_a_file_and_reports_its_end(cloud: Cloud, server: RunningServer) -> None:
    said = upload(
        cloud,
        cloud.azure_device("uploads-file", at="hub", auth="key"),
        """
client = device()
info = client.get_storage_info_for_blob("logs/today.txt")
assert set(info) == {"correlationId", "hostName", "containerName", "blobName", "sasToken"}, info
blob = BlobClient.from_blob_url(url_of(info))
made = blob.upload_blob(b"hello" * 100_000)
assert made["etag"] and made["last_modified"]
client.notify_blob_upload_status(info["correlationId"], True, 200, "OK")
print(code_of(lambda: blob.upload_blob(b"again", overwrite=True)))
client.shutdown()
""",
    )
    assert said == ["(403, 'AuthenticationFailed')"]
    (row,) = server.rows("hub", "file", "ls", "--prefix", "uploads-file/")
    assert (row["name"], row["size"]) == ("uploads-file/logs/today.txt", 500_000)


def test_the_signature_of_an_upload_is_for_one_name_and_only_for_writing(cloud: Cloud) -> None:
    said = upload(
        cloud,
        cloud.azure_device("uploads-scope", at="hub", auth="key"),
        """
client = device()
info = client.get_storage_info_for_blob("mine.txt")
blob = BlobClient.from_blob_url(url_of(info))
blob.upload_blob(b"mine")
print(code_of(blob.download_blob), code_of(blob.delete_blob))
other = BlobClient.from_blob_url(url_of({**info, "blobName": "other-device/theirs.txt"}))
print(code_of(lambda: other.upload_blob(b"x")))
altered = url_of(info).replace("sp=cw", "sp=racwdl")
print(code_of(BlobClient.from_blob_url(altered).download_blob))
container = ContainerClient.from_container_url("https://{hostName}/{containerName}{sasToken}".format(**info))
print(code_of(lambda: list(container.list_blobs())))
client.shutdown()
""",
    )
    failed = "(403, 'AuthenticationFailed')"
    mismatch = "(403, 'AuthorizationPermissionMismatch')"
    assert said == [f"{mismatch} {mismatch}", failed, failed, failed]


def test_names_that_would_leave_the_folder_of_a_device_are_refused(cloud: Cloud) -> None:
    said = upload(
        cloud,
        cloud.azure_device("uploads-names", at="hub", auth="key"),
        """
client = device()
for name in ("../other/x", "a/../../x", "/x", "a//b", "a\\\\b", "x" * 1100):
    try:
        client.get_storage_info_for_blob(name)
        print("accepted", name)
    except Exception as error:
        print(str(error.__cause__)[:29])
client.shutdown()
""",
    )
    assert said == ["HTTP operation returned: 400 "] * 6


def test_ten_uploads_are_open_at_once(cloud: Cloud) -> None:
    said = upload(
        cloud,
        cloud.azure_device("uploads-ten", at="hub", auth="key"),
        """
client = device()
infos = [client.get_storage_info_for_blob(f"f{number}") for number in range(10)]
try:
    client.get_storage_info_for_blob("f10")
except Exception as error:
    print(type(error.__cause__).__name__ if error.__cause__ else type(error).__name__)
client.notify_blob_upload_status(infos[0]["correlationId"], False, 500, "gave up")
print(client.get_storage_info_for_blob("f10")["blobName"])
client.shutdown()
""",
    )
    assert said[1:] == ["uploads-ten/f10"]
    assert "Thrott" in said[0] or "ServiceError" in said[0]


def test_a_file_of_many_blocks_is_read_listed_and_deleted(server: RunningServer) -> None:
    said = in_container(
        server,
        "blocks",
        """
container.create_container()
print(code_of(container.create_container))
blob = container.get_blob_client("big/file.bin")
data = os.urandom(9 * 1024 * 1024 + 5)
blob = BlobClient.from_blob_url(blob.url, max_single_put_size=1024 * 1024, max_block_size=1024 * 1024)
blob.upload_blob(data, max_concurrency=4, metadata={"site": "north"}, content_settings=ContentSettings("text/plain"))
found = blob.get_blob_properties()
print(found.size == len(data), found.metadata, found.content_settings.content_type, found.blob_type)
print(blob.download_blob().readall() == data, blob.download_blob(offset=5, length=7).readall() == data[5:12])
print(code_of(lambda: blob.upload_blob(b"x")))
container.upload_blob("small.txt", b"", metadata={"a": "1"})
print(container.download_blob("small.txt").readall())
listed = list(container.list_blobs(include=["metadata"], results_per_page=1))
print([(one.name, one.size, one.metadata) for one in listed])
print([one.name for one in container.list_blobs(name_starts_with="big/")])
container.delete_blob("big/file.bin")
print(blob.exists(), code_of(blob.delete_blob))
print([one.name for one in container.list_blobs()])
""",
    )
    size = 9 * 1024 * 1024 + 5
    assert said == [
        "(409, 'ContainerAlreadyExists')",
        "True {'site': 'north'} text/plain BlobType.BLOCKBLOB",
        "True True",
        "(409, 'BlobAlreadyExists')",
        "b''",
        f"[('big/file.bin', {size}, {{'site': 'north'}}), ('small.txt', 0, {{'a': '1'}})]",
        "['big/file.bin']",
        "False (404, 'BlobNotFound')",
        "['small.txt']",
    ]


def test_staged_blocks_are_committed_in_the_order_of_the_list(server: RunningServer) -> None:
    said = in_container(
        server,
        "staged",
        """
container.create_container()
blob = container.get_blob_client("log")
for name in ("a", "b", "c"):
    blob.stage_block(name, name.encode() * 3)
blob.commit_block_list([BlobBlock("b"), BlobBlock("a")])
print(blob.download_blob().readall())
print(code_of(lambda: blob.commit_block_list([BlobBlock("c")])))
blob.stage_block("d", b"ddd")
blob.commit_block_list([BlobBlock("a"), BlobBlock("d"), BlobBlock("b")])
print(blob.download_blob().readall())
""",
    )
    assert said == ["b'bbbaaa'", "(400, 'InvalidBlockList')", "b'aaadddbbb'"]


def test_conditional_writes_of_metadata_have_one_winner(server: RunningServer) -> None:
    said = in_container(
        server,
        "checkpoints",
        """
container.create_container()
blob = container.get_blob_client("hub/group/ownership/0")
print(code_of(lambda: blob.set_blob_metadata({"ownerid": "one"})))
made = blob.upload_blob(b"", metadata={"ownerid": "one"})
from azure.core import MatchConditions
only = {"etag": made["etag"], "match_condition": MatchConditions.IfNotModified}
changed = blob.set_blob_metadata({"ownerid": "two"}, **only)
print(changed["etag"] != made["etag"], code_of(lambda: blob.set_blob_metadata({"ownerid": "three"}, **only)))
print(blob.get_blob_properties().metadata)
""",
    )
    assert said == ["(404, 'BlobNotFound')", "True (412, 'ConditionNotMet')", "{'ownerid': 'two'}"]


def test_a_signature_permits_only_what_it_names(server: RunningServer) -> None:
    in_container(server, "limited", "container.create_container()\ncontainer.upload_blob('x', b'1')")
    said = in_container(
        server,
        "limited",
        """
print(container.download_blob("x").readall(), code_of(lambda: container.upload_blob("y", b"2")))
print(code_of(lambda: list(container.list_blobs())), code_of(lambda: container.delete_blob("x")))
""",
        "r",
    )
    mismatch = "(403, 'AuthorizationPermissionMismatch')"
    assert said == [f"b'1' {mismatch}", f"{mismatch} {mismatch}"]


def test_node_uploads_a_stream_and_the_service_is_notified(cloud: Cloud, server: RunningServer) -> None:
    needs_443(cloud)
    said = in_node(
        cloud,
        """
const {Client: Device} = require('azure-iot-device'), {Mqtt} = require('azure-iot-device-mqtt');
const {Client: Service, Registry} = require('azure-iothub'), {Readable} = require('node:stream');
const {ContainerClient} = require('@azure/storage-blob');
const connection = process.env.IOTHUB_CONNECTION_STRING;
const keys = {type: 'sas', symmetricKey: {primaryKey: key, secondaryKey: key}};
await Registry.fromConnectionString(connection).create({deviceId: 'uploads-node', authentication: keys});
const service = Service.fromConnectionString(connection);
await service.open();
const receiver = await told((call) => service.getFileNotificationReceiver(call));
const told_of = [];
receiver.on('message', (message) => told_of.push(message));
const device = Device.fromConnectionString(`HostName=${host};DeviceId=uploads-node;SharedAccessKey=${key}`, Mqtt);
const data = Buffer.alloc(9 * 1024 * 1024 + 1, 'z');
await told((call) => device.uploadToBlob('a/b.bin', Readable.from([data]), data.length, call));
const mine = (one) => JSON.parse(one.data).deviceId === 'uploads-node';
await until(() => told_of.some(mine), 'notified');
const notification = told_of.find(mine), record = JSON.parse(notification.data);
say(record.deviceId, record.blobName, record.blobSizeInBytes, Object.keys(record).length);
await told((call) => receiver.complete(notification, call));
const container = new ContainerClient(process.env.URL);
const blob = container.getBlobClient('uploads-node/a/b.bin');
say((await blob.downloadToBuffer()).equals(data));
for await (const one of container.listBlobsFlat({prefix: 'uploads-node/'})) say(one.name);
await container.getBlockBlobClient('uploads-node/c.txt').upload('text', 4);
say((await (await blob.delete())._response).status);
await service.close();
""",
        URL=container_url(server, "uploads"),
    )
    assert said == [
        "uploads-node uploads-node/a/b.bin 9437185 6",
        "true",
        "uploads-node/a/b.bin",
        "202",
    ]
