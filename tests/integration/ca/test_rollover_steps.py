"""Steps of an exchange of the root: each from the state that was looked at, and on record only where it can be done."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from birthmark.ca import ca_directory
from birthmark.ca.cross_certificates import OLD_WITH_NEW
from birthmark.ca.ocsp_responder import OcspResponder
from birthmark.ca.passphrase_sources import Passphrase
from birthmark.ca.root_generation_directories import Generations
from birthmark.ca.root_rollover import Rollovers
from birthmark.ca.rules.root_rollover import Phase
from birthmark.ca.service import CertificateAuthority
from birthmark.errors import BirthmarkError, ChangedMeanwhileError, UnavailableError
from birthmark.pki.ocsp import OcspResponse, UnsignedStatus
from birthmark.store import Changes, open_database, reloading_cache
from birthmark.store.postgresql.database import PostgresUnavailableError
from support.fakes import NOON, FakeClock, SeededEntropy
from support.pki.ocsp_requests import a_request
from support.pki.pki_builders import a_ca
from support.store.between import leave_the_next_commit_open

pytestmark = pytest.mark.integration


@contextlib.asynccontextmanager
async def an_exchange(url: str, data: Path) -> AsyncIterator[Rollovers]:
    clock, entropy = FakeClock(), SeededEntropy()
    made = ca_directory.create(data / "ca", "Test", now=NOON, entropy=entropy)
    database = await open_database(url, clock)
    roots = Generations(data, made.generations[0], Passphrase(data / "ca"), clock, entropy)
    rollovers = Rollovers(made, roots, database, clock)
    await rollovers.load()
    try:
        yield rollovers
        await rollovers.stop()
    finally:
        await database.close()


async def test_of_two_operators_the_second_does_not_take_the_step_after_the_firsts(
    database_url: str, tmp_path: Path
) -> None:
    async with an_exchange(database_url, tmp_path) as rollovers:
        await rollovers.start("first")
        seen = Phase.OLD_SIGNS.value  # by both
        assert (await rollovers.step_forward(1.0, "first", seen)).phase is Phase.NEW_SIGNS
        for step in (rollovers.step_forward(1.0, "second", seen), rollovers.step_back("second", seen)):
            with pytest.raises(ChangedMeanwhileError):
                await step
        current, _ = await rollovers.status()
        assert current is not None
        assert current.phase is Phase.NEW_SIGNS
        assert (await rollovers.step_forward(1.0, "second")).phase is Phase.FINISHED, "who names no state asks for any"


async def test_an_exchange_is_measured_aside(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with an_exchange(database_url, tmp_path) as rollovers:
        await rollovers.start("operator")

        async def at_once(*_: object, **__: object) -> None:
            pytest.fail("the inventory is read while everybody waits")

        for read in ("one", "all"):
            if not database_url.startswith("postgresql"):  # which reads in a process of its own
                monkeypatch.setattr(rollovers.database, read, at_once)
        _, progress = await rollovers.status()
        assert progress.devices == 0


async def test_a_step_whose_files_are_lost_is_not_on_record(database_url: str, tmp_path: Path) -> None:
    async with an_exchange(database_url, tmp_path) as rollovers:
        started = await rollovers.start("operator")
        (link,) = tmp_path.glob(f"*/{OLD_WITH_NEW}*")
        content = link.read_bytes()
        link.write_bytes(b"junk")
        with pytest.raises(BirthmarkError):
            await rollovers.step_forward(1.0, "operator")
        link.write_bytes(content)
        await rollovers.load()
        current, _ = await rollovers.status()
        assert current == started
        assert (await rollovers.step_forward(1.0, "operator")).phase is Phase.NEW_SIGNS


async def test_a_step_whose_answer_is_lost_is_followed_all_the_same(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with an_exchange(database_url, tmp_path) as rollovers:
        started, commit = await rollovers.start("operator"), rollovers.database.commit

        async def lost(changes: Changes) -> None:
            await commit(changes)
            raise PostgresUnavailableError(reason="the answer was lost", may_be_kept=True)

        with monkeypatch.context() as patched:
            patched.setattr(rollovers.database, "commit", lost)
            with pytest.raises(UnavailableError):
                await rollovers.step_forward(1.0, "operator")
        current, _ = await rollovers.status()
        assert current is not None
        assert current.phase is Phase.NEW_SIGNS
        assert rollovers.hierarchy.anchor.thumbprint == started.new
        assert (await rollovers.step_forward(1.0, "operator")).phase is Phase.FINISHED


async def test_a_step_that_is_kept_after_its_answer_was_lost_is_followed_when_it_is(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading_cache, "_LOOK_EVERY_S", 0.01)
    async with an_exchange(database_url, tmp_path) as rollovers:
        started = await rollovers.start("operator")
        keep = leave_the_next_commit_open(rollovers.database)
        with pytest.raises(UnavailableError):
            await rollovers.step_forward(1.0, "operator")
        assert rollovers.hierarchy.anchor.thumbprint == started.old
        await keep()
        async with asyncio.timeout(5):
            while rollovers.hierarchy.anchor.thumbprint != started.new:
                await asyncio.sleep(0.01)


async def test_an_end_whose_answer_is_lost_abandons_the_new_root_when_it_is_kept(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading_cache, "_LOOK_EVERY_S", 0.01)
    async with an_exchange(database_url, tmp_path) as rollovers:
        started = await rollovers.start("operator")
        keep = leave_the_next_commit_open(rollovers.database)
        with pytest.raises(UnavailableError):
            await rollovers.step_back("operator")
        assert rollovers.is_running
        await keep()
        async with asyncio.timeout(5):
            while rollovers.is_running:
                await asyncio.sleep(0.01)
        assert [one.thumbprint for one in rollovers.hierarchy.anchors] == [started.old]
        assert (await rollovers.start("operator")).new != started.new


async def test_a_root_that_was_given_up_is_so_also_for_the_start_after_a_kill(
    database_url: str, tmp_path: Path
) -> None:
    class Killed(BaseException): ...

    def killed() -> None:
        raise Killed

    async with an_exchange(database_url, tmp_path) as rollovers:
        given_up = (await rollovers.start("operator")).new
        rollovers.changed = killed  # with the step on record, and nothing done by it
        with pytest.raises(Killed):
            await rollovers.step_back("operator")
        made = ca_directory.load(tmp_path / "ca", Passphrase(tmp_path / "ca"))
        clock = FakeClock()
        roots = Generations(tmp_path, made.generations[0], Passphrase(tmp_path / "ca"), clock, SeededEntropy(8))
        again = Rollovers(made, roots, rollovers.database, clock)
        await again.load()
        assert (await again.start("operator")).new != given_up
        await again.stop()


async def test_a_root_that_could_not_be_given_up_signs_all_the_same(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(_changes: Changes) -> None:
        raise UnavailableError

    async with an_exchange(database_url, tmp_path) as rollovers:
        started = await rollovers.start("operator")
        with monkeypatch.context() as patched:
            patched.setattr(rollovers.database, "commit", refused)
            with pytest.raises(UnavailableError):
                await rollovers.step_back("operator")
        assert (await rollovers.step_forward(1.0, "operator")).phase is Phase.NEW_SIGNS
        assert (await rollovers.step_forward(1.0, "operator")).phase is Phase.FINISHED
        assert rollovers.hierarchy.anchor.thumbprint == started.new
        assert (await rollovers.start("operator")).old == started.new


async def test_nobody_is_told_of_a_record_that_is_as_it_was(database_url: str, tmp_path: Path) -> None:
    async with an_exchange(database_url, tmp_path) as rollovers:
        await rollovers.start("operator")
        told: list[None] = []
        rollovers.changed = lambda: told.append(None)
        await rollovers.load()
        assert not told


@pytest.mark.parametrize("is_given_up", [True, False])
async def test_ocsp_answers_below_each_new_root_also_when_there_are_as_many_cas_as_before(
    database_url: str, tmp_path: Path, *, is_given_up: bool
) -> None:
    async with an_exchange(database_url, tmp_path) as rollovers:
        made = rollovers.hierarchy
        answers = OcspResponder(
            CertificateAuthority(made, rollovers.database, FakeClock(), SeededEntropy()), lambda _: True
        )
        for _ in range(2):
            await rollovers.start("operator")
            newer = made.generations[1].issuing.certificate
            assert isinstance(await answers.answer(a_request(5, newer), "192.0.2.1"), OcspResponse)
            assert await answers.answer(a_request(5, a_ca().certificate), "192.0.2.1") is UnsignedStatus.UNAUTHORIZED
            if is_given_up:
                await rollovers.step_back("operator")
            else:
                await rollovers.step_forward(0.0, "operator")
                await rollovers.step_forward(0.0, "operator")
