"""The data directory when starts go wrong: two at once, one that was cut off, a disk that was full."""

import asyncio
import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from birthmark.ca.ca_directory import UNNOTED, CaForeignError, CaLostError
from birthmark.ca.key_files import SecretExposedError, SecretForeignError, SecretUnreadableError
from birthmark.clock_and_entropy import SystemEntropy
from birthmark.operator_api.client.server_discovery_and_api_client import (
    ForeignFileError,
    OperatorClient,
    ServerNotRunningError,
)
from birthmark.operator_api.data_directory_lock import DirectoryInUseError, is_served
from birthmark.pki.certificates import Certificate
from birthmark.pki.issuance import SigningKey
from birthmark.server.data_dir import (
    DataDirectory,
    DataDirectoryError,
    DataDirectoryExposedError,
    DataDirectoryForeignError,
    RecordsLostError,
)
from birthmark.server.server_certificate_renewal import FreshContext
from support.fakes import FakeClock, SeededEntropy

_MADE: list[DataDirectory] = []


@pytest.fixture(autouse=True)
def nobody_holds_it_afterwards() -> Iterator[None]:
    yield
    while _MADE:
        _MADE.pop().release()


def a_directory(path: Path) -> DataDirectory:
    _MADE.append(DataDirectory(path / "data", FakeClock(), SeededEntropy()))
    return _MADE[-1]


def test_a_second_server_is_refused_and_leaves_the_first_ones_endpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("birthmark.operator_api.data_directory_lock._PATIENCE", 1)
    first, second = a_directory(tmp_path), a_directory(tmp_path)
    first.prepare()
    first.write("endpoints.json", b"{}", is_secret=True)
    with pytest.raises(DirectoryInUseError):
        second.prepare()
    second.release()
    assert (first.path / "endpoints.json").exists()
    assert is_served(first.path)
    first.release()
    assert not (first.path / "endpoints.json").exists()
    second.prepare()
    second.release()


def test_the_token_goes_nowhere_when_the_server_has_ended(tmp_path: Path) -> None:
    directory = a_directory(tmp_path)
    directory.prepare()
    parts = dict.fromkeys(("trust_bundle", "est", "dps", "iothub", "aws")) | {
        "health_url": "http://127.0.0.1:1/healthz"
    }
    directory.write("endpoints.json", json.dumps(parts).encode(), is_secret=True)
    directory.secret("operator.token")
    assert OperatorClient.of(directory.path).url == "http://127.0.0.1:1"
    directory._lock.release()  # killed
    with pytest.raises(ServerNotRunningError):
        OperatorClient.of(directory.path)


def test_an_empty_database_where_a_server_ran_before_is_refused_until_it_is_wanted(tmp_path: Path) -> None:
    directory = a_directory(tmp_path)
    directory.prepare()
    first = directory.hierarchy()
    directory.secret("operator.token")
    with pytest.raises(RecordsLostError) as refused:
        directory.hierarchy()
    assert f"`rm -f {directory.path}/operator.token " in refused.value.explain_fix()
    (directory.path / "operator.token").unlink()
    assert directory.hierarchy().issuers == first.issuers


def test_a_directory_that_anyone_may_write_is_refused(tmp_path: Path) -> None:
    directory = a_directory(tmp_path)
    directory.path.mkdir()
    directory.path.chmod(0o777)
    with pytest.raises(DataDirectoryExposedError):
        directory.prepare()


def test_a_directory_that_a_group_may_write_is_refused(tmp_path: Path) -> None:
    directory = a_directory(tmp_path)
    directory.path.mkdir()
    directory.path.chmod(0o770)
    with pytest.raises(DataDirectoryExposedError):
        directory.prepare()


def as_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as somebody to whom the test's own files are a stranger's (root's are everybody's, so not root)."""
    owner = 4242
    real = os.fstat, Path.stat

    def renumbered(status: os.stat_result) -> os.stat_result:
        return os.stat_result((*status[:4], owner, *status[5:]))

    monkeypatch.setattr(os, "fstat", lambda descriptor: renumbered(real[0](descriptor)))
    monkeypatch.setattr(Path, "stat", lambda self, **options: renumbered(real[1](self, **options)))


def test_a_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = a_directory(tmp_path)
    directory.path.mkdir(mode=0o700)
    as_another_user(monkeypatch)
    with pytest.raises(DataDirectoryForeignError) as refused:
        directory.prepare()
    assert "4242" in refused.value.explain_cause()


def test_a_secret_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = a_directory(tmp_path)
    directory.prepare()
    directory.hierarchy()
    directory.secret("operator.token")
    as_another_user(monkeypatch)
    for read in (lambda: directory.secret("operator.token"), lambda: directory.hierarchy(UNNOTED)):
        with pytest.raises(SecretForeignError):
            read()
    directory.release()


def test_a_database_that_others_may_read_is_refused(tmp_path: Path) -> None:
    directory = a_directory(tmp_path)
    directory.path.mkdir(mode=0o700)
    (directory.path / "birthmark.db").touch(mode=0o644)
    with pytest.raises(SecretExposedError):
        directory.prepare()


def test_a_ca_certificate_that_others_may_write_is_refused(tmp_path: Path) -> None:
    directory = a_directory(tmp_path)
    directory.prepare()
    directory.hierarchy()
    (directory.path / "ca" / "root.pem").chmod(0o666)
    with pytest.raises(SecretExposedError):
        directory.hierarchy()
    directory.release()


@pytest.mark.parametrize("leave", [False, True])
def test_a_lost_ca_is_never_made_anew(tmp_path: Path, leave: bool) -> None:
    directory = a_directory(tmp_path)
    directory.prepare()
    root = directory.hierarchy().root.certificate.thumbprint.hex()
    shutil.rmtree(directory.path / "ca")
    if leave:
        (directory.path / "ca").mkdir()
    for known in (root, UNNOTED):
        with pytest.raises(CaLostError) as refused:
            directory.hierarchy(known)
    assert "Restore" in refused.value.explain_fix()
    directory.release()


def test_a_ca_that_the_database_does_not_belong_to_is_refused(tmp_path: Path) -> None:
    directory = a_directory(tmp_path)
    directory.prepare()
    directory.hierarchy()
    with pytest.raises(CaForeignError):
        directory.hierarchy("00" * 32)
    directory.release()


def test_a_planted_token_or_address_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "endpoints.json").write_text("{}")
    real = os.fstat

    def planted(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        return os.stat_result((*status[:4], 4242, *status[5:]))

    monkeypatch.setattr(os, "fstat", planted)
    with pytest.raises(ForeignFileError):
        OperatorClient.of(tmp_path)


def test_no_secret_is_open_to_others_without_a_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        directory = a_directory(tmp_path)
        directory.prepare()
        directory.server_certificate(directory.hierarchy(), [])
        directory.secret("operator.token")
        directory.write("endpoints.json", b"{}", is_secret=True)
    finally:
        os.umask(before)
    secret = [path for path in directory.path.rglob("*") if path.suffix != ".pem"]
    assert [str(path) for path in secret if path.stat().st_mode & 0o077] == []
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    directory.release()


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    directory = a_directory(tmp_path)
    directory.prepare()
    monkeypatch.setattr(os, "fsync", full)
    for step in (directory.hierarchy, lambda: directory.secret("operator.token")):
        with pytest.raises(DataDirectoryError) as refused:
            step()
        assert "No space left on device" in refused.value.explain_cause()
    directory.release()


def test_an_empty_secret_lets_nobody_in(tmp_path: Path) -> None:
    directory = a_directory(tmp_path)
    directory.prepare()
    (directory.path / "est.password").touch(mode=0o600)
    with pytest.raises(SecretUnreadableError):
        directory.secret("est.password")
    directory.release()


def test_workers_that_need_another_certificate_at_one_moment_make_one(tmp_path: Path) -> None:
    directory = a_directory(tmp_path)
    directory.prepare()
    hierarchy = directory.hierarchy()
    directory.secret("tls.passphrase")

    def served(names: Sequence[str]) -> bytes:  # by a worker of its own: the directory has only files in common
        worker = DataDirectory(directory.path, FakeClock(), SystemEntropy(), is_held=True)
        chain, key = worker.server_certificate(hierarchy, names)
        assert chain[0].public_key() == key.public_key()
        return chain[0].der

    with ThreadPoolExecutor(8) as workers:
        for number in range(10):
            assert len(set(workers.map(served, [[f"{number}.example"]] * 8))) == 1
    directory.release()


@pytest.mark.anyio
async def test_a_worker_that_could_not_take_another_certificate_looks_again_in_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("birthmark.server.server_certificate_renewal._AGAIN_S", 0.01)
    directory = a_directory(tmp_path)
    directory.prepare()
    hierarchy = directory.hierarchy()
    old, new = (directory.server_certificate(hierarchy, [name]) for name in ("old.example", "new.example"))
    answers = iter([old, None])

    def load() -> tuple[Sequence[Certificate], SigningKey]:
        if (answer := next(answers, new)) is None:
            raise DataDirectoryError(path=tmp_path, reason="full")
        return answer

    context = FreshContext(load)
    context.start()
    await asyncio.sleep(0.05)  # it waits for the next hour
    context.refresh_if_changed()  # what comes at the hour, or by an event
    assert context.certificate_error
    async with asyncio.timeout(10):
        while context.leaf != new[0][0]:
            await asyncio.sleep(0.01)
    await context.stop()
    directory.release()


@pytest.mark.anyio
async def test_a_clock_that_is_set_beyond_its_end_has_the_certificate_made_anew_in_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("birthmark.server.server_certificate_renewal._AGAIN_S", 0.01)
    clock = FakeClock()
    directory = DataDirectory(tmp_path / "data", clock, SeededEntropy())
    directory.prepare()
    hierarchy = directory.hierarchy()
    context = FreshContext(lambda: directory.server_certificate(hierarchy, ["one.example"]), now=clock.now)
    context.start()
    clock.move(timedelta(days=700))
    async with asyncio.timeout(10):
        while not context.is_good(clock.now()):
            await asyncio.sleep(0.01)
    await context.stop()
    directory.release()


def test_a_start_cut_off_between_key_and_certificate_is_made_good(tmp_path: Path) -> None:
    directory = a_directory(tmp_path)
    directory.prepare()
    hierarchy = directory.hierarchy()
    directory.server_certificate(hierarchy, ["one.example"])
    old = (directory.path / "tls" / "server.pem").read_bytes()
    directory.server_certificate(hierarchy, ["two.example"])
    (directory.path / "tls" / "server.pem").write_bytes(old)
    chain, key = directory.server_certificate(hierarchy, ["one.example"])
    assert chain[0].public_key() == key.public_key()
    directory.release()


def test_the_servers_certificate_is_made_anew_while_the_server_runs(tmp_path: Path) -> None:
    clock = FakeClock()
    directory = DataDirectory(tmp_path / "data", clock, SeededEntropy())
    directory.prepare()
    hierarchy = directory.hierarchy()
    context = FreshContext(lambda: directory.server_certificate(hierarchy, ["one.example"]))
    first = context()
    clock.move(timedelta(days=300))
    context.refresh()
    assert context() is first
    clock.move(timedelta(days=80))
    context.refresh()
    assert context() is not first
    clock.move(timedelta(days=17))
    (made, *_), _ = directory.server_certificate(hierarchy, ["one.example"])
    assert made.not_after > clock.now() + timedelta(days=300)
    directory.release()


def test_the_servers_certificate_of_a_clock_that_was_ahead_is_made_anew(tmp_path: Path) -> None:
    clock = FakeClock()
    directory = DataDirectory(tmp_path / "data", clock, SeededEntropy())
    directory.prepare()
    hierarchy = directory.hierarchy()
    clock.move(timedelta(days=30))
    directory.server_certificate(hierarchy, ["one.example"])
    clock.move(-timedelta(days=30))
    (made, *_), _ = directory.server_certificate(hierarchy, ["one.example"])
    assert made.not_before <= clock.now()
    clock.move(-timedelta(days=30))  # the root begins in the future, too: another one would not begin earlier
    (same, *_), _ = directory.server_certificate(hierarchy, ["one.example"])
    assert same == made
    directory.release()


def test_a_renewal_that_fails_leaves_the_old_certificate(tmp_path: Path) -> None:
    directory = a_directory(tmp_path)
    directory.prepare()
    hierarchy = directory.hierarchy()
    answers = iter([directory.server_certificate(hierarchy, [])])

    def load() -> tuple[Sequence[Certificate], SigningKey]:
        if (answer := next(answers, None)) is None:
            raise DataDirectoryError(path=tmp_path, reason="full")
        return answer

    context = FreshContext(load)
    first = context()
    context.refresh()
    assert context() is first
    directory.release()


@pytest.mark.parametrize("name", ["issuing.pem", "issuing.key"])
def test_a_lost_issuing_ca_is_not_replaced_by_the_root(tmp_path: Path, name: str) -> None:
    directory = a_directory(tmp_path)
    directory.prepare()
    root = directory.hierarchy().root.certificate.thumbprint.hex()
    (directory.path / "ca" / name).unlink()
    with pytest.raises((CaLostError, SecretUnreadableError)):
        directory.hierarchy(root)
    directory.release()


@pytest.mark.parametrize("name", ["ca", "tls"])
def test_a_directory_inside_that_others_may_write_is_refused(tmp_path: Path, name: str) -> None:
    directory = a_directory(tmp_path)
    directory.prepare()
    made = directory.hierarchy()
    directory.server_certificate(made, [])
    (directory.path / name).chmod(0o777)
    with pytest.raises(SecretExposedError):
        directory.server_certificate(directory.hierarchy(), [])
    directory.release()
