"""File uploads over HTTP on both databases: who may write what, for how long, and what the service learns."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from birthmark.auth.shared_access_policy_keys import Which
from birthmark.blob_storage.http import routes
from birthmark.blob_storage.model import SasClaims, StorageQuotas
from birthmark.blob_storage.rules import BlobPath
from birthmark.blob_storage.service import BlobStorage
from birthmark.blob_storage.service.file_store import FileStore, StorageUnavailableError
from birthmark.blob_storage.wire import format_sas
from birthmark.errors import BirthmarkError
from birthmark.iothub.model import AuthenticationType, DeviceAuthentication, Hub, space_of
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.file_uploads import (
    MAX_OPEN,
    NOTIFICATIONS,
    FileNameInvalidError,
    TooManyUploadsError,
    UnknownUploadError,
    UploadEnd,
    UploadNotStoredError,
    UploadSettings,
    UploadTarget,
    account_of,
)
from birthmark.iothub.service.registry import UnknownDeviceError
from birthmark.iothub.wire import DeviceBody
from birthmark.net.http_route_wrappers import Endpoints
from birthmark.store import Database, open_database
from support.fakes import FakeClock, SeededEntropy
from support.server.asgi import Answer, request

pytestmark = pytest.mark.integration
HOST = "hub.example:8443"
SAS = DeviceAuthentication(AuthenticationType.SAS)
PUT = {"x-ms-blob-type": "BlockBlob", "host": HOST}


class World:
    def __init__(self, database: Database, clock: FakeClock, folder: Path) -> None:
        self.database, self.clock, entropy = database, clock, SeededEntropy()
        storage = BlobStorage(database, clock, entropy, FileStore(folder, clock, entropy), StorageQuotas())
        settings = UploadSettings(ttl_s=3600)
        self.iothub = IotHub.of(database, clock, entropy, storage=storage, uploads=settings)
        self.files, self.storage = self.iothub.files, storage
        self.refused: list[BirthmarkError] = []
        self.app = Endpoints(routes(storage, self.files, self.record), _no_websocket)
        self.hub: Hub

    def record(self, error: BirthmarkError, _request: object) -> str:
        self.refused.append(error)
        return "tracking"

    async def add(self, *devices: str) -> None:
        for name in devices:
            await self.iothub.registry.put(self.hub, name, DeviceBody(name), SAS, None, actor="test")

    async def begin(self, name: str = "f.txt", device: str = "d1") -> UploadTarget:
        return await self.files.begin(self.hub, device, name)

    async def end(self, target: UploadTarget, device: str = "d1", *, is_success: bool = True) -> None:
        await self.files.end(self.hub, device, UploadEnd(target.correlation_id, is_success=is_success), HOST)

    async def call(self, method: str, path: str, sas: str, body: bytes = b"", **headers: Any) -> Answer:
        return await request(
            self.app, method, f"https://{HOST}/storage/{path}?{sas}", headers={**PUT, **headers}, body=body
        )

    async def put(self, target: UploadTarget, body: bytes = b"data") -> Answer:
        return await self.call("PUT", f"{target.container}/{target.blob}", target.sas, body)

    async def notifications(self) -> list[dict[str, Any]]:
        letters = await self.files.notifications.letters(space_of("main"), NOTIFICATIONS)
        return [self.files.record_of(one) for one in letters]


async def _no_websocket(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError


@contextlib.asynccontextmanager
async def a_world(database_url: str, folder: Path) -> AsyncIterator[World]:
    clock = FakeClock()
    database = await open_database(database_url, clock)
    try:
        world = World(database, clock, folder)
        world.hub = await world.iothub.hubs.create("main", "hub.example", actor="test")
        await world.add("d1", "d2")
        yield world
    finally:
        await database.close()


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.headers.get("x-ms-error-code", "")


FAILED = (403, "AuthenticationFailed")
MISMATCH = (403, "AuthorizationPermissionMismatch")


async def test_a_stored_file_is_told_to_the_service_with_its_true_size(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        target = await world.begin("logs/a b.txt")
        assert (await world.call("PUT", f"uploads/{target.blob}", target.sas, b"data")).status == 201
        await world.end(target)
        (told,) = await world.notifications()
        assert {name: told[name] for name in ("deviceId", "blobName", "blobSizeInBytes", "blobUri")} == {
            "deviceId": "d1",
            "blobName": "d1/logs/a b.txt",
            "blobSizeInBytes": 4,
            "blobUri": "https://hub.example:8443/storage/uploads/d1/logs/a%20b.txt",
        }


async def test_a_signature_ends_with_its_upload(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        target = await world.begin()
        assert (await world.put(target)).status == 201
        await world.end(target)
        assert code(await world.put(target, b"replayed")) == FAILED
        assert (await world.storage.get(_path(target))).size == 4
        with pytest.raises(UnknownUploadError):
            await world.end(target)


async def test_a_signature_expires(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        target = await world.begin()
        world.clock.move(timedelta(hours=1))
        assert code(await world.put(target)) == FAILED
        assert "has expired" in str(world.refused[0])
        with pytest.raises(UnknownUploadError):
            await world.end(target)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sp=cw", "sp=rcw"),
        ("sr=b", "sr=c"),
        ("se=2026-06-01T13", "se=2026-06-02T13"),
        ("sv=2021", "sv=2022"),
        ("si=", "si=x"),
        ("sig=", "sig=A"),
        ("sig=", "no="),
    ],
)
async def test_an_altered_signature_is_refused(tmp_path: Path, old: str, new: str) -> None:
    async with a_world(f"sqlite:///{tmp_path / 'x.db'}", tmp_path / "files") as world:
        target = await world.begin()
        assert old in target.sas
        altered = target._replace(sas=target.sas.replace(old, new, 1))
        assert code(await world.put(altered)) == FAILED


async def test_a_signature_is_for_one_name_and_for_writing_only(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        target = await world.begin()
        assert (await world.put(target)).status == 201
        for name in ("d2/f.txt", "d1/g.txt", "d1/f.txt/../g.txt", "f.txt"):
            assert code(await world.call("PUT", f"uploads/{name}", target.sas, b"x")) == FAILED
        assert code(await world.call("GET", f"uploads/{target.blob}", target.sas)) == MISMATCH
        assert code(await world.call("DELETE", f"uploads/{target.blob}", target.sas)) == MISMATCH
        listing = f"restype=container&comp=list&{target.sas}"
        assert code(await world.call("GET", "uploads", listing)) == FAILED


async def test_a_signature_of_another_hub_or_of_rotated_keys_is_refused(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        target = await world.begin()
        other = await world.iothub.hubs.create("other", "other.example", actor="test")
        claims = SasClaims("uploads", "cw", world.clock.now() + timedelta(hours=1), target.blob)
        assert code(await world.put(target._replace(sas=format_sas(account_of(other), claims)))) == FAILED
        sides: tuple[Which, Which] = ("primary", "secondary")
        for which in sides:
            await world.iothub.hubs.rotate("main", "iothubowner", which, actor="test")
        assert code(await world.put(target)) == FAILED


async def test_a_body_is_not_read_before_its_signature_is_valid(tmp_path: Path) -> None:
    async with a_world(f"sqlite:///{tmp_path / 'x.db'}", tmp_path / "files") as world:
        sent: list[Any] = []

        async def receive() -> Any:
            raise AssertionError("the body was read")

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"host", HOST.encode()), (b"x-ms-blob-type", b"BlockBlob"), (b"content-length", b"1000000000")]
        scope = {
            "type": "http",
            "method": "PUT",
            "path": "/storage/uploads/d1/f.txt",
            "query_string": b"sv=2021-12-02&sig=AAAA",
            "headers": headers,
            "extensions": {},
        }
        await world.app(scope, receive, send)
        assert sent[0]["status"] == 403


async def test_a_device_ends_only_its_own_uploads(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        target = await world.begin()
        await world.put(target)
        with pytest.raises(UnknownUploadError):
            await world.end(target, "d2")
        assert await world.notifications() == []
        await world.end(target)


async def test_a_device_that_reports_a_file_it_did_not_upload_is_refused(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        first = await world.begin()
        await world.put(first)
        await world.end(first)
        world.clock.move(timedelta(seconds=10))
        again = await world.begin()  # the file of before does not count
        with pytest.raises(UploadNotStoredError):
            await world.end(again)
        await world.end(again, is_success=False)
        assert len(await world.notifications()) == 1


@pytest.mark.parametrize("name", ["../d2/f", "a/../../d2/f", "/f", "a//b", ".", "a\\b", "a\nb", "x" * 1022, ""])
async def test_a_name_that_is_no_path_below_the_device_is_refused(tmp_path: Path, name: str) -> None:
    async with a_world(f"sqlite:///{tmp_path / 'x.db'}", tmp_path / "files") as world:
        with pytest.raises(FileNameInvalidError):
            await world.begin(name)


async def test_a_device_whose_id_is_a_dot_segment_uploads_nothing(tmp_path: Path) -> None:
    async with a_world(f"sqlite:///{tmp_path / 'x.db'}", tmp_path / "files") as world:
        await world.add("..")
        with pytest.raises(FileNameInvalidError):
            await world.begin("uploads/d1/f", "..")


async def test_ten_uploads_of_a_device_are_open_at_once_until_they_end_or_expire(
    database_url: str, tmp_path: Path
) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        tries = [world.begin(f"f{number}") for number in range(MAX_OPEN + 3)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        opened = [one for one in results if isinstance(one, UploadTarget)]
        refused = [one for one in results if isinstance(one, TooManyUploadsError)]
        assert (len(opened), len(refused)) == (MAX_OPEN, 3)
        await world.begin("of-another", "d2")
        await world.end(opened[0], is_success=False)
        await world.begin("more")
        world.clock.move(timedelta(hours=1))
        assert len({(await world.begin(f"later{number}")).correlation_id for number in range(MAX_OPEN)}) == MAX_OPEN


async def test_the_signature_of_a_deleted_device_is_refused(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        target = await world.begin()
        await world.iothub.registry.remove(world.hub, "d1", None, actor="test")
        assert (await world.put(target)).status in {403, 404}
        with pytest.raises(UnknownDeviceError):
            await world.begin()


@pytest.mark.parametrize("is_deleted", [True, False])
async def test_the_signature_of_a_disabled_or_recreated_device_is_refused(
    database_url: str, tmp_path: Path, *, is_deleted: bool
) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        target = await world.begin()
        if is_deleted:
            await world.iothub.registry.remove(world.hub, "d1", None, actor="test")
            world.clock.move(timedelta(seconds=1))
            await world.add("d1")
        else:
            await world.iothub.registry.set_enabled(world.hub, "d1", is_enabled=False, actor="test")
        assert code(await world.put(target)) == FAILED


async def test_a_signature_that_may_only_create_overwrites_nothing(tmp_path: Path) -> None:
    async with a_world(f"sqlite:///{tmp_path}/x.db", tmp_path / "files") as world:
        signed = await world.files.sign_container(
            world.hub, "reports", "c", timedelta(hours=1), creates=True, actor="test"
        )
        assert (await world.call("PUT", "reports/a", signed.sas, b"one")).status == 201
        assert (await world.call("PUT", "reports/a", signed.sas, b"two")).status == 409


async def test_a_time_that_cannot_be_is_refused(tmp_path: Path) -> None:
    async with a_world(f"sqlite:///{tmp_path}/x.db", tmp_path / "files") as world:
        target = await world.begin()
        time = {"if-modified-since": "Mon, 30 Nov 99999999999999 22:00:00 GMT"}
        answer = await world.call("PUT", f"{target.container}/{target.blob}", target.sas, b"x", **time)
        assert code(answer) == (400, "InvalidHeaderValue")


async def test_the_files_of_a_deleted_hub_are_gone(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        target = await world.begin()
        await world.put(target)
        await world.iothub.hubs.delete("main", actor="test")
        assert await world.storage.find(_path(target)) is None


async def test_a_hub_without_a_folder_takes_no_files(tmp_path: Path) -> None:
    async with a_world(f"sqlite:///{tmp_path / 'x.db'}", tmp_path / "files") as world:
        bare = IotHub.of(world.database, world.clock, SeededEntropy(1))
        with pytest.raises(StorageUnavailableError):
            await bare.files.begin(world.hub, "d1", "f.txt")


async def test_a_header_or_an_operation_that_would_be_ignored_is_refused(tmp_path: Path) -> None:
    async with a_world(f"sqlite:///{tmp_path / 'x.db'}", tmp_path / "files") as world:
        target = await world.begin()
        path = f"uploads/{target.blob}"
        lease = {"x-ms-lease-id": "1"}
        assert code(await world.call("PUT", path, target.sas, b"x", **lease)) == (400, "UnsupportedHeader")
        kind = {"x-ms-blob-type": "PageBlob"}
        assert code(await world.call("PUT", path, target.sas, b"x", **kind)) == (400, "InvalidHeaderValue")
        query = f"comp=snapshot&{target.sas}"
        assert code(await world.call("PUT", path, query, b"x")) == (400, "UnsupportedQueryParameter")
        md5 = {"content-md5": "AAAAAAAAAAAAAAAAAAAAAA=="}
        assert code(await world.call("PUT", path, target.sas, b"x", **md5)) == (400, "Md5Mismatch")
        blocks = f"comp=blocklist&{target.sas}"
        assert code(await world.call("PUT", path, blocks, b"<a/>")) == (400, "InvalidXmlDocument")
        assert await world.storage.find(_path(target)) is None


async def test_new_metadata_of_an_older_file_do_not_count_as_an_upload(tmp_path: Path) -> None:
    async with a_world(f"sqlite:///{tmp_path / 'x.db'}", tmp_path / "files") as world:
        first = await world.begin()
        await world.put(first)
        await world.end(first)
        world.clock.move(timedelta(seconds=10))
        target = await world.begin()
        query = f"comp=metadata&{target.sas}"
        refused = await world.call("PUT", f"{target.container}/{target.blob}", query, b"", **{"x-ms-meta-a": "1"})
        assert code(refused) == (400, "UnsupportedQueryParameter")
        with pytest.raises(UploadNotStoredError):
            await world.end(target)


async def test_reads_answer_ranges_and_conditions(tmp_path: Path) -> None:
    async with a_world(f"sqlite:///{tmp_path / 'x.db'}", tmp_path / "files") as world:
        target = await world.begin()
        await world.put(target, b"0123456789")
        claims = SasClaims("uploads", "rl", world.clock.now() + timedelta(hours=1))
        sas, path = format_sas(account_of(world.hub), claims), f"uploads/{target.blob}"
        whole = await world.call("GET", path, sas)
        assert (whole.status, whole.body, whole.headers["content-length"]) == (200, b"0123456789", "10")
        part = await world.call("GET", path, sas, range="bytes=2-3")
        assert (part.status, part.body, part.headers["content-range"]) == (206, b"23", "bytes 2-3/10")
        assert (await world.call("GET", path, sas, body=b"", **{"x-ms-range": "bytes=8-"})).body == b"89"
        assert code(await world.call("GET", path, sas, range="bytes=10-")) == (416, "InvalidRange")
        etag = whole.headers["etag"]
        assert (await world.call("GET", path, sas, body=b"", **{"if-none-match": etag})).status == 304
        assert code(await world.call("GET", path, sas, body=b"", **{"if-match": '"other"'})) == (412, "ConditionNotMet")
        head = await world.call("HEAD", path, sas)
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "10")
        assert code(await world.call("HEAD", "uploads/d1/none", sas)) == (404, "BlobNotFound")


def _path(target: UploadTarget) -> BlobPath:
    return BlobPath("main", target.container, target.blob)
