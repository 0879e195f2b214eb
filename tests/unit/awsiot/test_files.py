"""Files over HTTPS: which bytes are wanted, and readers that are slow, gone, or too many."""

import asyncio
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from birthmark.awsiot.http import job_file_downloads as http
from birthmark.awsiot.service.job_documents_and_s3_files import MAX_READING_OF_THING, JobFiles, TooManyReadersError
from birthmark.awsiot.service.s3_buckets import BucketFileError, BucketKeyError, Buckets
from birthmark.net import file_range_response
from support.fakes import FakeClock

ETAG, MODIFIED = '"e"', "Thu, 01 Jan 2026 12:00:00 GMT"


def a_request(method: str = "GET", **headers: str) -> Request:
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": method, "headers": fields, "query_string": b"", "path": "/"})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("bytes=0-9", range(10)),
        ("bytes=90-", range(90, 100)),
        ("bytes=90-500", range(90, 100)),
        ("bytes=-30", range(70, 100)),
        ("bytes=-500", range(100)),
        ("bytes=100-", range(0)),
        ("bytes=-0", range(0)),
        ("bytes=9-3", None),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("lines=0-9", None),
        ("bytes=0-99999999999999999999", None),
    ],
)
def test_one_range_is_served_and_all_of_it_for_anything_else(text: str, wanted: range | None) -> None:
    assert http.range_of(a_request(range=text), 100, ETAG, MODIFIED) == wanted


def test_a_range_of_an_empty_file_is_none() -> None:
    assert http.range_of(a_request(range="bytes=0-"), 0, ETAG, MODIFIED) == range(0)


@pytest.mark.parametrize(("known", "is_same"), [(ETAG, True), (MODIFIED, True), ('"other"', False), ('W/"e"', False)])
def test_a_range_of_what_the_file_was_is_all_of_what_it_is(known: str, is_same: bool) -> None:
    made = http.range_of(a_request(range="bytes=5-", if_range=known), 10, ETAG, MODIFIED)
    assert made == (range(5, 10) if is_same else None)


def test_only_get_has_ranges() -> None:
    assert http.range_of(a_request("HEAD", range="bytes=5-"), 10, ETAG, MODIFIED) is None


class Reader:
    """A peer: takes `takes` pieces, and then no more; or goes."""

    def __init__(self, takes: int = 1000, goes_after: int | None = None) -> None:
        self.takes, self.goes_after = takes, goes_after
        self.got: list[dict[str, Any]] = []
        self.gone = asyncio.Event()
        self.is_cut = False

    def abort(self) -> None:
        self.is_cut = True

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body" and message.get("more_body"):
            if not self.takes:
                await asyncio.Event().wait()
            self.takes -= 1
        self.got.append(dict(message))
        if self.goes_after is not None and len(self.got) > self.goes_after:
            self.gone.set()
            await asyncio.sleep(0)

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def reads(self, path: Path, method: str = "GET", **headers: str) -> None:
        request = a_request(method, **headers)
        scope = {**request.scope, "extensions": {"connection": self}}
        with ExitStack() as held:
            file = held.enter_context(path.open("rb"))
            await http._response(file, request, held.pop_all())(scope, self.receive, self.send)
        assert file.closed

    @property
    def body(self) -> bytes:
        return b"".join(one.get("body", b"") for one in self.got)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "file"
    made.write_bytes(bytes(range(256)) * 1024)
    return made


async def test_a_file_is_sent_in_pieces_whole_or_from_where_it_was_cut(file: Path) -> None:
    whole, rest, head = Reader(), Reader(), Reader()
    await whole.reads(file)
    assert whole.body == file.read_bytes()
    assert max(len(one.get("body", b"")) for one in whole.got) == file_range_response.PIECE_BYTES
    await rest.reads(file, range="bytes=70000-")
    assert (rest.got[0]["status"], rest.body) == (206, file.read_bytes()[70000:])
    await head.reads(file, "HEAD")
    assert head.body == b""
    assert (b"content-length", b"262144") in head.got[0]["headers"]


async def test_a_range_behind_the_end_says_how_long_the_file_is(file: Path) -> None:
    reader = Reader()
    await reader.reads(file, range="bytes=262144-")
    assert reader.got[0]["status"] == 416
    assert (b"content-range", b"bytes */262144") in reader.got[0]["headers"]
    assert (reader.body, reader.is_cut) == (b"", False)


async def test_who_takes_nothing_any_more_is_let_go(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_range_response, "PIECE_S", 0.0)
    reader = Reader(takes=1)
    await reader.reads(file)
    assert (reader.is_cut, len(reader.body)) == (True, file_range_response.PIECE_BYTES)


async def test_for_who_is_gone_nothing_more_is_read(file: Path) -> None:
    reader = Reader(goes_after=1)
    await reader.reads(file)
    assert len(reader.body) < file.stat().st_size
    assert not reader.is_cut


async def test_a_file_that_became_shorter_is_cut_and_not_filled_up(file: Path) -> None:
    class Cuts(Reader):
        async def send(self, message: Any) -> None:
            await super().send(message)
            file.write_bytes(b"")

    reader = Cuts()
    await reader.reads(file)
    assert reader.is_cut


def test_a_thing_fetches_a_few_files_at_a_time(tmp_path: Path) -> None:
    async def secret() -> bytes:
        return b"s"

    files = JobFiles(Buckets(tmp_path), secret, FakeClock(datetime(2026, 1, 1, tzinfo=UTC)), str)
    with ExitStack() as held:
        for _ in range(MAX_READING_OF_THING):
            held.enter_context(files.reading("pump-1"))
        with pytest.raises(TooManyReadersError), files.reading("pump-1"):
            pass
        with files.reading("pump-2"):
            pass
    with files.reading("pump-1"):
        pass


def test_only_plain_files_of_the_bucket_are_opened(tmp_path: Path) -> None:
    import os

    root = tmp_path / "buckets"
    (root / "one").mkdir(parents=True)
    (root / "two").mkdir()
    (tmp_path / "secret").write_text("s")
    (root / "two" / "file").write_text("2")
    (root / "one" / "file").write_text("1")
    (root / "one" / "out").symlink_to(tmp_path / "secret")
    (root / "one" / "across").symlink_to(root / "two" / "file")
    (root / "one" / "within").symlink_to(root / "one" / "file")
    os.mkfifo(root / "one" / "pipe")
    (root / "one" / "folder").mkdir()
    buckets = Buckets(root)
    with buckets.opened("one", "within") as file:
        assert file.read() == b"1"
    for key in ("out", "across", "pipe", "folder", "absent"):
        with pytest.raises(BucketFileError):
            buckets.opened("one", key)
    for key in ("../two/file", "/etc/passwd", "a//b", "./file", "a\0b", "a\nb", "a" * 256, "a/../../b"):
        with pytest.raises(BucketKeyError):
            buckets.opened("one", key)
    with pytest.raises(BucketKeyError):
        buckets.opened("..", "secret")


@pytest.mark.parametrize(
    "key", ["year=2026/device=p1/x.json", "app-1.2.3+45.bin", "a b.bin", "ä.bin", "t:1@x", "温度/1"]
)
def test_a_key_is_any_printable_text_as_at_amazon_s3(tmp_path: Path, key: str) -> None:
    path = Buckets(tmp_path).new("lake", key)
    path.write_bytes(b"1")
    with Buckets(tmp_path).opened("lake", key) as file:
        assert (path, file.read()) == (tmp_path / "lake" / key, b"1")
