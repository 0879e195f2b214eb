"""Imports and exports on both databases: one at a time, resumed after a kill, ended by a cancellation."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from birthmark.blob_storage.model import StorageQuotas
from birthmark.blob_storage.rules import BlobPath
from birthmark.blob_storage.service import BlobContent, BlobStorage, WriteScope
from birthmark.blob_storage.service.file_store import FileStore
from birthmark.errors import ChangedMeanwhileError
from birthmark.iothub import store
from birthmark.iothub.error_mapping import http_error
from birthmark.iothub.model import Hub
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.registry_jobs import KEEP, RegistryJobRunningError, RegistryJobs, UnknownRegistryJobError
from birthmark.iothub.wire import BodyInvalidError
from birthmark.iothub.wire.registry_jobs import ContainerUriError, RegistryJobRequest
from birthmark.store import Changes, Database, open_database
from support.fakes import FakeClock, SeededEntropy

pytestmark = pytest.mark.integration
HOST = "hub.example"


class World:
    def __init__(self, database: Database, clock: FakeClock, folder: Path) -> None:
        self.database, self.clock, entropy = database, clock, SeededEntropy()
        self.storage = BlobStorage(database, clock, entropy, FileStore(folder, clock, entropy), StorageQuotas())
        self.iothub = IotHub.of(database, clock, entropy, storage=self.storage)
        self.jobs = self.iothub.registry_jobs
        self.hub: Hub

    async def url(self, permissions: str = "rcwdl") -> str:
        signed = await self.iothub.files.sign_container(
            self.hub, "registry", permissions, timedelta(hours=1), actor="test"
        )
        return signed.url(HOST)

    async def put(self, *lines: object) -> None:
        text = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)

        async def stream() -> AsyncIterator[bytes]:
            yield text

        await self.storage.put(WriteScope(BlobPath("main", "registry", "devices.txt")), BlobContent(stream()))

    async def start(self, *, is_import: bool = True) -> store.RegistryJob:
        url = await self.url()
        asked = RegistryJobRequest(
            is_import, url if is_import else "", "devices.txt", url, "errors" if is_import else "devices.txt", True
        )
        return await self.jobs.create(self.hub, asked, HOST, actor="test")

    async def run(self) -> None:
        """Run the jobs that a leader finds, once."""
        task = asyncio.ensure_future(self.jobs.keep_running(lambda error: http_error(error)[1]))
        async with asyncio.timeout(20):
            while await self.database.all(store.RUNNING_REGISTRY_JOBS):
                await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def text(self, name: str) -> bytes:
        path = BlobPath("main", "registry", name)
        with await self.storage.open(path, await self.storage.get(path)) as file:
            return file.read()

    async def devices(self) -> list[str]:
        return [one.device_id for one in await self.iothub.registry.devices(self.hub)]


@contextlib.asynccontextmanager
async def a_world(database_url: str, folder: Path) -> AsyncIterator[World]:
    clock = FakeClock()
    database = await open_database(database_url, clock)
    try:
        world = World(database, clock, folder)
        world.hub = await world.iothub.hubs.create("main", HOST, actor="test")
        await world.storage.create_container("main", "registry")
        yield world
    finally:
        await database.close()


async def test_an_import_creates_devices_and_logs_what_failed(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        await world.put({"id": "a"}, b"no JSON", b"", {"id": "b"}, b"x" * 300_000, {"id": "b", "importMode": "create"})
        job = await world.start()
        await world.run()
        done = await world.jobs.get(world.hub, job.job_id)
        assert (done.status, done.done, done.total, await world.devices()) == ("completed", 5, 5, ["a", "b"])
        errors = [json.loads(line) for line in (await world.text("errors")).splitlines()]
        expected = [(2, "ArgumentInvalid"), (4, "ArgumentInvalid"), (5, "DeviceAlreadyExists")]
        assert [(one["line"], one["errorCode"]) for one in errors] == expected


async def test_an_export_has_one_line_per_device_and_can_be_imported_again(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        await world.put(*({"id": f"d{number:03}", "tags": {"n": number}} for number in range(230)))
        await world.start()
        await world.run()
        job = await world.start(is_import=False)
        await world.run()
        assert (await world.jobs.get(world.hub, job.job_id)).done == 200  # by pages
        lines = [json.loads(line) for line in (await world.text("devices.txt")).splitlines()]
        assert [line["id"] for line in lines] == [f"d{number:03}" for number in range(230)]
        assert lines[7]["tags"] == {"n": 7}
        again = await world.start()
        await world.run()
        assert (await world.jobs.get(world.hub, again.job_id)).status == "completed"
        assert await world.text("errors") == b""


async def test_an_import_without_keys_leaves_the_keys_of_existing_devices(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        sas = {"type": "sas"}
        await world.put({"id": "a", "authentication": sas}, {"id": "a", "moduleId": "m", "authentication": sas})
        await world.start()
        await world.run()

        async def keys() -> list[object]:
            return [(await world.iothub.registry.identity(world.hub, name)).authentication for name in ("a", "a/m")]

        before = await keys()
        await world.put(
            {"id": "a", "authentication": sas, "statusReason": "spare"},
            {"id": "a", "moduleId": "m", "importMode": "update", "authentication": sas},
        )
        await world.start()
        await world.run()
        assert await keys() == before
        assert (await world.iothub.registry.device(world.hub, "a")).status_reason == "spare"


async def test_a_hub_runs_one_job_at_a_time(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        await world.put({"id": "a"})
        results = await asyncio.gather(*(world.start() for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in results].count(RegistryJobRunningError) == 2
        await world.run()
        await world.start()


async def test_a_file_name_that_is_not_valid_is_refused(tmp_path: Path) -> None:
    async with a_world(f"sqlite:///{tmp_path}/one.db", tmp_path / "files") as world:
        url = await world.url()
        for name in ("../devices.txt", "\U00020000" * 300):
            with pytest.raises(BodyInvalidError):
                await world.jobs.create(
                    world.hub, RegistryJobRequest(False, "", "", url, name, True), HOST, actor="test"
                )


async def test_a_job_that_fails_unexpectedly_does_not_stop_those_of_other_hubs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(f"sqlite:///{tmp_path}/one.db", tmp_path / "files") as world:
        found: list[str] = []

        async def run(job: store.RegistryJob, _: object) -> None:
            found.append(job.hub)
            if job.hub == "broken":
                raise RuntimeError
            await world.database.commit(world.jobs._ending(job, "completed", ""))

        await world.start()
        (row,) = await world.database.all(store.RUNNING_REGISTRY_JOBS)
        broken = replace(store.REGISTRY_JOBS.of(row), hub="broken", job_id="x", running_hub="broken")
        await world.database.commit(Changes().run(store.ADD_REGISTRY_JOB, **store.REGISTRY_JOBS.row(broken)))
        monkeypatch.setattr(RegistryJobs, "_run", lambda _self, job, name, _actor_now: run(job, name))
        task = asyncio.ensure_future(world.jobs.keep_running(str))
        async with asyncio.timeout(10):
            while {*found} != {"broken", "main"}:
                await asyncio.sleep(0.01)
        assert not task.done()
        task.cancel()


async def test_lines_that_were_applied_before_a_kill_are_no_errors_after_it(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        lines = [{"id": f"d{number}", "importMode": "create"} for number in range(5)]
        await world.put(*lines, {"id": "d0", "importMode": "delete"})
        job = await world.start()
        world.clock.move(timedelta(seconds=5))
        real, calls = world.jobs.bulk.do, 0

        async def killed(hub: Hub, items: Any, *, actor: str) -> Any:
            nonlocal calls
            if (calls := calls + 1) > 4:
                raise RuntimeError("killed")
            return await real(hub, items, actor=actor)

        patched: Any = world.jobs.bulk
        patched.do = killed
        with pytest.raises(RuntimeError):
            await world.jobs._run(job, lambda error: error.code, lambda actor, _hub: actor)
        patched.do = real
        read = await world.jobs.get(world.hub, job.job_id)
        assert (read.status, read.done, read.tried) == ("running", 0, 6)
        await world.run()
        assert await world.devices() == ["d1", "d2", "d3", "d4"]
        assert await world.text("errors") == b""


async def test_a_line_of_which_a_kill_left_a_part_is_completed(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        properties = {"desired": {"a": 1}, "reported": {"b": 2}}
        await world.put(
            {"id": "d", "importMode": "create", "properties": properties},
            {"id": "d", "moduleId": "m", "importMode": "create", "properties": properties},
        )
        job = await world.start()

        async def killed(*_: object, **_more: object) -> Any:
            raise RuntimeError("killed")

        for name in ("report", "report", "desire"):  # of the device, of the module, and before that of the module
            patched: Any = world.jobs.twins
            real = getattr(patched, name)
            setattr(patched, name, killed)
            with pytest.raises(RuntimeError):
                await world.jobs._run(job, lambda error: error.code, lambda actor, _hub: actor)
            setattr(patched, name, real)
            job = await world.jobs.get(world.hub, job.job_id)
        await world.run()
        assert await world.text("errors") == b""
        for name in ("d", "d/m"):
            twin = await world.iothub.twins.get(world.hub, name)
            assert (twin.desired.values, twin.reported.values) == ({"a": 1}, {"b": 2})


async def test_an_import_of_a_user_who_lost_the_rights_ends(tmp_path: Path) -> None:
    async with a_world(f"sqlite:///{tmp_path}/x.db", tmp_path / "files") as world:
        await world.put({"id": "d"})
        job = await world.start()

        def actor_now(_actor: str, _hub: Hub) -> str:
            raise UnknownRegistryJobError(hub="main", job_id="any error")

        await world.jobs._run(job, lambda error: error.code, actor_now)
        ended = await world.jobs.get(world.hub, job.job_id)
        assert (ended.status, "any error" in ended.failure, await world.devices()) == ("failed", True, [])


async def test_a_worker_that_was_replaced_writes_no_progress(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        await world.put({"id": "a"})
        job = await world.start()
        await world.jobs._step(job, done=1, tried=1, total=2)
        with pytest.raises(ChangedMeanwhileError):
            await world.jobs._step(replace(job, done=0), done=1, tried=1, total=2)


async def test_a_cancelled_job_writes_nothing_more(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        await world.put({"id": "a"})
        job = await world.start()
        assert (await world.jobs.cancel(world.hub, job.job_id, actor="test")).status == "cancelled"
        await world.jobs._run(job, lambda error: error.code, lambda actor, _hub: actor)
        assert await world.devices() == []
        assert (await world.jobs.cancel(world.hub, job.job_id, actor="test")).status == "cancelled"
        with pytest.raises(UnknownRegistryJobError):
            await world.jobs.cancel(world.hub, "other", actor="test")


async def test_an_import_without_input_fails_with_the_reason(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        job = await world.start()
        await world.run()
        done = await world.jobs.get(world.hub, job.job_id)
        assert (done.status, done.failure) == ("failed", "The blob devices.txt does not exist")


async def test_an_input_that_changes_during_an_import_ends_it(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        await world.put({"id": "a"})
        job = await world.start()
        await world.jobs._step(job, done=0, tried=1, total=1, etag='"of-before"')
        await world.run()
        assert (await world.jobs.get(world.hub, job.job_id)).failure.endswith("devices.txt was changed")


@pytest.mark.parametrize("permissions", ["l", "r"])
async def test_a_container_whose_signature_does_not_permit_the_job_is_refused(tmp_path: Path, permissions: str) -> None:
    async with a_world(f"sqlite:///{tmp_path / 'x.db'}", tmp_path / "files") as world:
        url = await world.url(permissions)
        asked = RegistryJobRequest(True, url, "devices.txt", url, "errors", False)
        with pytest.raises(ContainerUriError):
            await world.jobs.create(world.hub, asked, HOST, actor="test")


async def test_jobs_are_forgotten_with_their_errors_after_thirty_days(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        await world.put(b"no JSON")
        job = await world.start()
        await world.run()
        world.clock.move(KEEP + timedelta(days=1))
        await world.put({"id": "a"})
        later = await world.start()
        await world.run()
        await world.start()
        await world.run()
        known = [one.job_id for one in await world.jobs.all(world.hub)]
        assert job.job_id not in known
        assert later.job_id in known
        left = await world.database.all(
            store.REGISTRY_JOB_ERRORS_PAGE, hub="main", job_id=job.job_id, after=0, limit=10
        )
        assert left == []
