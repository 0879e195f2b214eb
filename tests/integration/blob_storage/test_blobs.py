"""Blobs on both databases: conditional writes, quotas, and files on disk that match their rows."""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from birthmark.blob_storage import service, store
from birthmark.blob_storage.model import StorageQuotas
from birthmark.blob_storage.rules import (
    BlobConditions,
    BlobExistsError,
    BlobNotFoundError,
    BlobPath,
    BlobSegment,
    BlockListInvalidError,
    ConditionNotMetError,
    ContainerExistsError,
    ContainerNotFoundError,
)
from birthmark.blob_storage.service import (
    ACCOUNT_USAGE,
    MAX_WRITES_OF_OWNER,
    ORPHAN_AGE,
    BlobContent,
    BlobStorage,
    ContentDigestError,
    StorageBusyError,
    StorageQuotaError,
    WriteScope,
    file_store,
)
from birthmark.blob_storage.service.file_store import FileStore, StorageUnavailableError
from birthmark.blob_storage.wire import FEW_BLOCKS, BlobRequestInvalidError, BlockReference, ListRequest
from birthmark.errors import BirthmarkError
from birthmark.store import Changes, Database, open_database
from support.fakes import NOON, FakeClock, SeededEntropy

pytestmark = pytest.mark.integration
HOUR = timedelta(hours=1)
SMALL = StorageQuotas(device_files=3, device_bytes=100, hub_files=10, hub_bytes=250)


class World:
    def __init__(self, database: Database, clock: FakeClock, folder: Path) -> None:
        self.database, self.clock, self.folder = database, clock, folder
        self.storage = self.worker(0)

    def worker(self, seed: int, quotas: StorageQuotas = SMALL) -> BlobStorage:
        entropy = SeededEntropy(seed)
        return BlobStorage(self.database, self.clock, entropy, FileStore(self.folder, self.clock, entropy), quotas)

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    async def used(self, owner: str) -> tuple[int, int]:
        row = await self.database.one(store.GET_USAGE, account="hub", owner=owner)
        return (0, 0) if row is None else (int(row["files"]), int(row["bytes"]))

    async def read(self, name: str) -> bytes:
        path = place(name)
        with await self.storage.open(path, await self.storage.get(path)) as file:
            return file.read()


@contextlib.asynccontextmanager
async def a_world(database_url: str, folder: Path) -> AsyncIterator[World]:
    clock = FakeClock()
    database = await open_database(database_url, clock)
    try:
        world = World(database, clock, folder)
        await world.storage.create_container("hub", "uploads")
        yield world
    finally:
        await database.close()


def place(name: str) -> BlobPath:
    return BlobPath("hub", "uploads", name)


def scope(name: str, owner: str = "d1", *, if_none_match: str = "", if_match: str = "") -> WriteScope:
    return WriteScope(place(name), owner, BlobConditions(if_match, if_none_match))


def content(*pieces: bytes, md5: bytes | None = None, crc64: bytes | None = None) -> BlobContent:
    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces:
            await asyncio.sleep(0)
            yield piece

    return BlobContent(stream(), md5, crc64)


async def test_a_blob_is_stored_replaced_and_deleted_with_its_file(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        first = await world.storage.put(scope("a"), content(b"one", b"two"))
        assert (await world.read("a"), await world.used("d1")) == (b"onetwo", (1, 6))
        world.clock.move(HOUR)
        second = await world.storage.put(scope("a"), content(b"x"))
        assert second.etag != first.etag
        assert (second.created_at, second.modified_at) == (NOON, NOON + HOUR)
        assert (await world.read("a"), len(world.files())) == (b"x", 1)
        await world.storage.delete(scope("a"))
        assert (world.files(), await world.used("d1"), await world.used(ACCOUNT_USAGE)) == ([], (0, 0), (0, 0))
        with pytest.raises(BlobNotFoundError):
            await world.storage.get(place("a"))


async def test_a_container_exists_before_its_blobs(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        with pytest.raises(ContainerExistsError):
            await world.storage.create_container("hub", "uploads")
        with pytest.raises(ContainerNotFoundError):
            await world.storage.put(WriteScope(BlobPath("hub", "none", "a")), content(b"x"))
        with pytest.raises(ContainerNotFoundError):
            await world.storage.page("other-hub", "uploads", ListRequest())


async def test_of_two_who_create_one_blob_at_once_one_wins(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        workers = [world.worker(seed) for seed in (1, 2, 3)]
        tries = [one.put(scope("a", "", if_none_match="*"), content(b"data")) for one in workers]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sorted(type(one).__name__ for one in results) == ["BlobExistsError", "BlobExistsError", "StoredBlob"]
        assert (len(world.files()), await world.used(ACCOUNT_USAGE)) == (1, (1, 4))


async def test_a_write_with_an_outdated_etag_changes_nothing(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        first = await world.storage.put(scope("a"), content(b"1"))
        await world.storage.put(scope("a"), content(b"2"))
        for write in (
            world.storage.put(scope("a", if_match=first.etag), content(b"3")),
            world.storage.set_metadata(scope("a", if_match=first.etag), {"x": "y"}),
            world.storage.delete(scope("a", if_match=first.etag)),
        ):
            with pytest.raises(ConditionNotMetError):
                await write
        assert (await world.read("a"), len(world.files())) == (b"2", 1)


@pytest.mark.parametrize("pieces", [(b"x" * 101,), (b"x" * 60, b"x" * 60)])
async def test_a_file_above_the_quota_is_refused_while_it_arrives(
    database_url: str, tmp_path: Path, pieces: tuple[bytes, ...]
) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        with pytest.raises(StorageQuotaError):
            await world.storage.put(scope("a"), content(*pieces, b"never read"))
        assert (world.files(), await world.used("d1")) == ([], (0, 0))


async def test_the_quota_holds_for_writers_of_several_workers_at_once(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        workers = [world.worker(seed) for seed in range(1, 7)]
        tries = [one.put(scope(f"f{seed}"), content(b"x" * 40)) for seed, one in enumerate(workers)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        refused = [one for one in results if isinstance(one, StorageQuotaError)]
        assert (len(refused), await world.used("d1"), len(world.files())) == (4, (2, 80), 2)


async def test_the_count_of_files_is_limited_and_the_hub_has_a_quota_of_its_own(
    database_url: str, tmp_path: Path
) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        for name in ("a", "b", "c"):
            await world.storage.put(scope(name), content(b""))
        with pytest.raises(StorageQuotaError):
            await world.storage.put(scope("d"), content(b""))
        for owner in ("d2", "d3"):
            await world.storage.put(scope(f"{owner}/x", owner), content(b"x" * 100))
        with pytest.raises(StorageQuotaError) as refused:
            await world.storage.put(scope("d4/x", "d4"), content(b"x" * 60))
        assert refused.value.facts["owner"] in {"hub hub", "device d4"}
        await world.storage.put(scope("d2/x", "d2"), content(b"y" * 90))  # overwriting a file within the quota


async def test_content_that_does_not_match_its_digest_is_not_stored(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        for wrong in (content(b"data", md5=bytes(16)), content(b"data", crc64=bytes(8))):
            with pytest.raises(ContentDigestError):
                await world.storage.put(scope("a"), wrong)
        assert world.files() == []


async def test_blocks_become_a_blob_in_the_order_of_the_list(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        for name, data in (("YQ==", b"aa"), ("Yg==", b"bb"), ("YQ==", b"AA"), ("Yw==", b"cc")):
            await world.storage.put_block(scope("f"), name, content(data), HOUR)
        assert await world.used("d1") == (3, 6)
        order = [BlockReference("Latest", "Yg=="), BlockReference("Uncommitted", "YQ==")]
        await world.storage.put_block_list(scope("f"), order, content())
        assert (await world.read("f"), await world.used("d1"), len(world.files())) == (b"bbAA", (1, 4), 1)
        with pytest.raises(BlockListInvalidError):
            await world.storage.put_block_list(scope("f"), [BlockReference("Latest", "Yw==")], content())
        await world.storage.put_block(scope("f"), "ZA==", content(b"dd"), HOUR)
        order = [
            BlockReference("Committed", "YQ=="),
            BlockReference("Latest", "ZA=="),
            BlockReference("Latest", "Yg=="),
        ]
        await world.storage.put_block_list(scope("f"), order, content())
        assert await world.read("f") == b"AAddbb"


async def test_a_list_that_is_larger_than_its_content_is_refused(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        await world.storage.put_block(scope("f"), "YQ==", content(b""), HOUR)
        few = [BlockReference("Latest", "YQ==")] * FEW_BLOCKS
        with pytest.raises(BlobRequestInvalidError):
            await world.storage.put_block_list(scope("f"), [*few, *few], content())
        await world.storage.put_block_list(scope("f"), few, content())


async def test_a_page_of_blobs_has_no_blocks(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        await world.storage.put_block(scope("f"), "YQ==", content(b"a"), HOUR)
        made = await world.storage.put_block_list(scope("f"), [BlockReference("Latest", "YQ==")], content())
        page, _ = await world.storage.page(made.account, made.container, ListRequest())
        assert list(page) == [replace(made, blocks="[]")]


async def test_concurrent_lists_of_the_same_blocks_stay_within_the_quota(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        await world.storage.put_block(scope("f"), "YQ==", content(b"a" * 20), HOUR)
        order = [BlockReference("Latest", "YQ==")] * 4
        commits = [world.storage.put_block_list(scope("f"), order, content()) for _ in range(10)]
        results = await asyncio.gather(*commits, return_exceptions=True)
        assert sum(isinstance(one, StorageQuotaError) for one in results) >= 8
        assert (await world.used("d1"), len(world.files())) == ((1, 80), 1)


async def test_blocks_that_expire_are_removed_and_free_their_quota(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        await world.storage.put_block(scope("f"), "YQ==", content(b"aa"), HOUR)
        await world.storage.remove_expired()
        assert await world.used("d1") == (1, 2)
        world.clock.move(2 * HOUR)
        await world.storage.remove_expired()
        assert (world.files(), await world.used("d1"), await world.used(ACCOUNT_USAGE)) == ([], (0, 0), (0, 0))


async def test_only_old_files_without_a_row_are_removed(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        await world.storage.put(scope("kept"), content(b"1"))
        await world.storage.put_block(scope("kept"), "YQ==", content(b"2"), HOUR)
        for name in ("0" * 32, "f" * 32):
            path = world.folder / name[:2] / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"left behind")
        (world.folder / "of-an-operator.txt").write_text("not ours")
        old = (NOON - 2 * ORPHAN_AGE).timestamp()
        for path in world.files():
            os.utime(path, (old, old))
        os.utime(world.folder / "ff" / ("f" * 32), (NOON.timestamp(), NOON.timestamp()))
        assert await world.storage.remove_orphans() == 1
        assert len(world.files()) == 4
        assert await world.read("kept") == b"1"


async def test_a_file_that_a_restored_folder_lacks_is_told_as_such(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        blob = await world.storage.put(scope("a"), content(b"1"))
        (path,) = world.files()
        path.unlink()
        with pytest.raises(StorageUnavailableError):
            await world.storage.open(place("a"), blob)
        await world.storage.put(scope("a"), content(b"2"))
        with pytest.raises(ConditionNotMetError):
            await world.storage.open(place("a"), blob)
        assert await world.read("a") == b"2"


async def test_a_write_whose_guard_fails_leaves_no_file(database_url: str, tmp_path: Path) -> None:
    class EndedError(BirthmarkError):
        """The upload has ended."""

    async with a_world(database_url, tmp_path / "files") as world:
        guard = Changes().run(store.CONTAINER_IS_THERE, expect=1, otherwise=EndedError(), key_account="x", key_name="y")
        for write in (
            world.storage.put(WriteScope(place("a"), "d1", guard=guard), content(b"1")),
            world.storage.put_block(WriteScope(place("a"), "d1", guard=guard), "YQ==", content(b"1"), HOUR),
        ):
            with pytest.raises(EndedError):
                await write
        assert (world.files(), await world.used("d1")) == ([], (0, 0))


async def test_a_stream_that_breaks_leaves_no_file(database_url: str, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 10
        raise ConnectionResetError

    async with a_world(database_url, tmp_path / "files") as world:
        with pytest.raises(ConnectionResetError):
            await world.storage.put(scope("a"), BlobContent(broken()))
        assert (world.files(), await world.used("d1")) == ([], (0, 0))
        await world.storage.put(scope("a"), content(b"x" * 100))  # nothing of it counts as pending


async def test_concurrent_writes_of_a_device_are_limited(database_url: str, tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        await gate.wait()
        yield b""

    async with a_world(database_url, tmp_path / "files") as world:
        tasks = [
            asyncio.ensure_future(world.storage.put(scope(f"s{number}"), BlobContent(slow())))
            for number in range(MAX_WRITES_OF_OWNER)
        ]
        await asyncio.sleep(0.2)
        with pytest.raises(StorageBusyError):
            await world.storage.put(scope("more"), content(b""))
        await world.storage.put(scope("other", "d2"), content(b""))  # of another device
        gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_devices_that_use_all_slots_do_not_block_the_first_upload_of_others(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        await gate.wait()
        yield b""

    monkeypatch.setattr(service, "MAX_WRITES", 4)
    async with a_world(database_url, tmp_path / "files") as world:
        tasks = [
            asyncio.ensure_future(world.storage.put(scope(f"s{number}", "greedy"), BlobContent(slow())))
            for number in range(4)
        ]
        await asyncio.sleep(0.2)
        with pytest.raises(StorageBusyError):
            await world.storage.put(scope("more", "greedy"), content(b""))
        await world.storage.put(scope("first", "d2"), content(b""))
        gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_list_is_paged_by_prefix_in_the_order_of_code_points(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        names = ["d/B", "d/a", "d/é", "e/x", "d"]
        for name in names:
            await world.storage.put(scope(name, ""), content(b""))
        found, marker = await world.storage.page("hub", "uploads", ListRequest("d/", "", 2))
        assert ([one.name for one in found], marker) == (["d/B", "d/a"], "d/a")
        found, marker = await world.storage.page("hub", "uploads", ListRequest("d/", marker, 2))
        assert ([one.name for one in found], marker) == (["d/é"], "")


async def test_blobs_with_much_metadata_make_short_pages(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        names = [f"f{number:03}" for number in range(120)]
        storage = world.worker(1, StorageQuotas())
        for name in names:
            await storage.put(scope(name, ""), replace(content(b""), metadata={"a": "x" * 8000}))
        listed, marker, sizes = list[str](), "", list[int]()
        while True:
            found, marker = await world.storage.page("hub", "uploads", ListRequest("", marker))
            listed += [one.name for one in found]
            sizes.append(sum(len(one.metadata["a"]) for one in found))
            if not marker:
                break
        assert listed == names
        assert max(sizes) <= service.MAX_PAGE_CHARS + 50 * 8000


async def test_block_lists_of_a_device_are_copied_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_store, "COPY_BYTES", 3)
    copying, most, real = Counter[bool](), 0, file_store._FileWriter.copy
    parts = list[int]()

    def copy(writer: Any, segments: Sequence[BlobSegment]) -> None:
        nonlocal most
        copying[True] += 1
        most = max(most, copying[True])
        parts.append(sum(one.size for one in segments))
        real(writer, segments)
        copying[True] -= 1

    monkeypatch.setattr(file_store._FileWriter, "copy", copy)
    async with a_world(f"sqlite:///{tmp_path}/x.db", tmp_path / "files") as world:
        for name in ("f", "g"):
            await world.storage.put_block(scope(name), "YQ==", content(b"abcdefgh"), HOUR)
        order = [BlockReference("Latest", "YQ==")] * 2
        await asyncio.gather(*(world.storage.put_block_list(scope(name), order, content()) for name in ("f", "g")))
        assert [await world.read(name) for name in ("f", "g")] == [b"abcdefgh" * 2] * 2
    assert (most, parts) == (1, [3, 3, 3, 3, 3, 1] * 2)


async def test_an_existing_blob_is_not_overwritten_if_the_request_forbids_it(database_url: str, tmp_path: Path) -> None:
    async with a_world(database_url, tmp_path / "files") as world:
        await world.storage.put(scope("a"), content(b"1"))
        with pytest.raises(BlobExistsError):
            await world.storage.put(scope("a", if_none_match="*"), content(b"2"))
        assert await world.read("a") == b"1"
