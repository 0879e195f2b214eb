"""A file on its way into another's place: cut, resumed, bounded, checked."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from birthmark.agent.jobs.file_update import FileUpdate
from birthmark.agent.jobs.model import JobCutError, JobFailedError, ReplaceableFile, ReplaceAction
from birthmark.device_transports.errors import LinkLostError, ServerUntrustedError
from birthmark.device_transports.openssl.resumable_download import Begin, DownloadResponse, Take

DATA = bytes(range(256)) * 100
URL = "https://files.example.com/pumps/1.json"


@dataclass
class Server:
    """Sends a file; it is told what goes wrong at each request, one after the other."""

    data: bytes = DATA
    cuts: list[int | Exception | DownloadResponse] = field(default_factory=list)
    takes_ranges: bool = True
    tells_size: bool = True
    asked: list[int] = field(default_factory=list)

    async def fetch(self, url: str, offset: int, begin: Begin, take: Take, timeout_s: float) -> DownloadResponse:
        self.asked.append(offset)
        cut = self.cuts.pop(0) if self.cuts else len(self.data)
        if isinstance(cut, Exception):
            raise cut
        if isinstance(cut, DownloadResponse):
            begin(cut)
            return cut
        if offset > len(self.data):
            return DownloadResponse(416)
        start = offset if self.takes_ranges else 0
        sent = DownloadResponse(206 if start else 200, start, len(self.data) if self.tells_size else None)
        assert begin(sent)
        for at in range(start, min(cut, len(self.data)), 1000):
            take(self.data[at : min(at + 1000, cut)])
        if cut < len(self.data):
            raise LinkLostError(host="files.example.com", reason="test")
        return sent


@dataclass
class Desk:
    """One file that may be replaced, in a directory of its own."""

    directory: Path
    pauses: list[float] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.directory / "settings[1].json"

    @property
    def left(self) -> list[str]:
        return sorted(one.name for one in self.directory.iterdir() if one != self.path)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def replacing(
        self, server: Server, data: bytes = DATA, *, size: int | None = None, most: int = 2 * len(DATA)
    ) -> FileUpdate:
        wanted = ReplaceAction(
            "settings", ReplaceableFile(self.path, (URL,), most), URL, hashlib.sha256(data).hexdigest(), size
        )
        return FileUpdate(wanted, server.fetch, self.sleep)

    async def failed(self, server: Server, data: bytes = DATA, *, size: int | None = None, most: int = 10**6) -> str:
        with pytest.raises(JobFailedError) as caught:
            await self.replacing(server, data, size=size, most=most).work()
        return str(caught.value)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_it_takes_the_others_place_with_its_mode(desk: Desk) -> None:
    desk.path.write_bytes(b"before")
    desk.path.chmod(0o751)
    assert await desk.replacing(Server()).work() == {"bytes": str(len(DATA))}
    assert (desk.path.read_bytes(), desk.path.stat().st_mode & 0o7777, desk.left) == (DATA, 0o751, [])


async def test_a_new_one_is_its_owners_alone(desk: Desk) -> None:
    await desk.replacing(Server()).work()
    assert desk.path.stat().st_mode & 0o7777 == 0o600


async def test_a_line_that_is_cut_goes_on_where_it_was(desk: Desk) -> None:
    server = Server(cuts=[5000, 5000, 12_000])
    await desk.replacing(server).work()
    assert (desk.path.read_bytes(), server.asked) == (DATA, [0, 5000, 5000, 12_000])
    assert desk.pauses == [1.0, 2.0, 4.0]


async def test_who_starts_anew_goes_on_with_what_came_before(desk: Desk) -> None:
    with pytest.raises(ZeroDivisionError):
        await desk.replacing(Server(cuts=[7000, ZeroDivisionError()])).work()
    server = Server()
    await desk.replacing(server).work()
    assert (desk.path.read_bytes(), server.asked, desk.left) == (DATA, [7000], [])


async def test_a_server_without_ranges_sends_it_whole_again(desk: Desk) -> None:
    server = Server(cuts=[5000], takes_ranges=False)
    await desk.replacing(server).work()
    assert desk.path.read_bytes() == DATA


async def test_what_was_put_together_wrong_is_fetched_once_more_whole(desk: Desk) -> None:
    part = desk.replacing(Server())._part
    part.write_bytes(b"x" * 5000)
    server = Server()
    await desk.replacing(server).work()
    assert (desk.path.read_bytes(), server.asked) == (DATA, [5000, 0])


async def test_what_is_larger_than_it_was_wanted_for_is_begun_anew(desk: Desk) -> None:
    desk.replacing(Server())._part.write_bytes(b"x" * (len(DATA) + 1))
    server = Server()
    await desk.replacing(server).work()
    assert (desk.path.read_bytes(), server.asked) == (DATA, [len(DATA) + 1, 0])


async def test_another_digest_leaves_what_is_there(desk: Desk) -> None:
    desk.path.write_bytes(b"before")
    assert "digest" in await desk.failed(Server(data=b"theirs" * 100))
    assert (desk.path.read_bytes(), desk.left) == (b"before", [])


@pytest.mark.parametrize("tells_size", [True, False])
async def test_no_more_is_kept_than_is_allowed(desk: Desk, tells_size: bool) -> None:
    endless = Server(data=bytes(10**6), tells_size=tells_size)
    assert "more than 20000 bytes" in await desk.failed(endless, most=20_000)
    assert "it is larger than the 10 bytes in the job document" in await desk.failed(endless, size=10)
    assert desk.left == []


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(desk: Desk, status: int) -> None:
    server = Server(cuts=[DownloadResponse(status)])
    assert "redirects are not followed" in await desk.failed(server)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [204, 400, 403, 404])
async def test_an_answer_without_a_file_is_a_failure(desk: Desk, status: int) -> None:
    assert f"returned {status}" in await desk.failed(Server(cuts=[DownloadResponse(status)]))


async def test_a_server_that_may_answer_later_is_asked_again(desk: Desk) -> None:
    await desk.replacing(Server(cuts=[DownloadResponse(503), DownloadResponse(429)])).work()
    assert desk.path.read_bytes() == DATA


async def test_a_url_that_ends_in_the_middle_is_asked_for_anew_and_nothing_is_lost(desk: Desk) -> None:
    with pytest.raises(JobCutError):
        await desk.replacing(Server(cuts=[5000, DownloadResponse(403)])).work()
    server = Server()
    await desk.replacing(server).work()
    assert server.asked == [5000]


async def test_a_server_that_is_not_who_was_meant_is_not_asked_again(desk: Desk) -> None:
    server = Server(cuts=[ServerUntrustedError(host="files.example.com", port=443, reason="test")])
    assert "not trusted" in await desk.failed(server)
    assert len(server.asked) == 1


async def test_a_part_from_elsewhere_than_was_asked_for_is_a_failure(desk: Desk) -> None:
    assert "started at 9" in await desk.failed(Server(cuts=[5000, DownloadResponse(206, 9, len(DATA))]))


def _a_link(path: Path, other: Path) -> None:
    path.symlink_to(other)


def _a_second_name(path: Path, other: Path) -> None:
    os.link(other, path)


def _a_pipe(path: Path, _other: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("put", [_a_link, _a_second_name, _a_pipe])
async def test_what_lies_where_the_parts_go_is_not_written_to(desk: Desk, put: Callable[[Path, Path], None]) -> None:
    other = desk.directory / "other"
    other.write_bytes(b"mine")
    put(desk.replacing(Server())._part, other)
    assert "already exists" in await desk.failed(Server())
    assert other.read_bytes() == b"mine"


async def test_a_link_or_a_directory_in_its_place_stays(desk: Desk) -> None:
    other = desk.directory / "other"
    other.write_bytes(b"mine")
    desk.path.symlink_to(other)
    assert "is a symbolic link" in await desk.failed(Server())
    assert (desk.path.is_symlink(), other.read_bytes()) == (True, b"mine")
    desk.path.unlink()
    desk.path.mkdir()
    assert "is not a file" in await desk.failed(Server())


async def test_what_other_jobs_left_is_removed_and_nothing_else(desk: Desk) -> None:
    kept = [".settings[1].json.new", ".settings1.json.0123456789abcdef.part", "z"]
    for name in (*kept, ".settings[1].json.0123456789abcdef.part"):
        (desk.directory / name).touch()
    await desk.replacing(Server()).work()
    assert desk.left == sorted(kept)


async def test_what_is_there_already_is_not_fetched(desk: Desk) -> None:
    desk.path.write_bytes(DATA)
    server = Server()
    assert (await desk.replacing(server).work())["step"] == "it was there already"
    assert server.asked == []


async def test_a_directory_that_is_not_there_is_a_failure_of_the_job(tmp_path: Path) -> None:
    assert "cannot be replaced" in await Desk(tmp_path / "gone").failed(Server())
