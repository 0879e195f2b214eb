"""What only PostgreSQL has: how many round trips a batch costs, and what is seen of it when it is away."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import asyncpg
import pytest
from sqlalchemy import MetaData, Table, bindparam, select

from birthmark.audit.chain_verification import verify_chain, verify_chains
from birthmark.audit.signed_heads import AuditKey
from birthmark.broker.rules.leases import LEASE_S
from birthmark.bus import LocalBus
from birthmark.errors import ChangedMeanwhileError, NotFoundError, UnavailableError
from birthmark.store import Changes, Database, Statement, open_database, schema_migration, statement, upsert
from birthmark.store.compiled_statements import CompiledStatement
from birthmark.store.database import ValueRefusedError
from birthmark.store.plain_and_encrypted_column_types import blob, number, text
from birthmark.store.postgresql import batch_functions, outage_retry, writer_connection
from birthmark.store.postgresql.batch_functions import BatchSteps
from birthmark.store.postgresql.outage_retry import OPTIONS
from birthmark.store.postgresql.writer_connection import Writer
from support.fakes import FakeClock
from support.server.earlier import script_of_0_1_0
from support.services.pg_proxy import Counted, counting
from support.services.postgres import PostgresServer, a_postgres_server
from support.store.store_table import ADD, ALL, BUMP, GET, PUT, ThingTold, a_database, make_table, things

pytestmark = pytest.mark.integration
KEY = AuditKey("the key")


def a_change(name: str, n: int = 1) -> Changes:
    changes = Changes().run(ADD, id=name, n=n).run(BUMP, expect=1, key_id=name, key_n=n, n=n + 1)
    return changes.audit("ann", "thing.add", name).event(ThingTold(name))


@contextlib.asynccontextmanager
async def a_counted(url: str) -> AsyncIterator[tuple[Database, Counted]]:
    """A database that has met every statement, and what goes over the way to it."""
    async with counting(url) as counted:
        database = await open_database(counted.url, FakeClock(), signer=KEY)
        try:
            await make_table(database)
            for name in ("warm 1", "warm 2"):
                await database.commit(a_change(name))
            yield database, counted
        finally:
            await database.close()


@pytest.mark.parametrize("count", [1, 10, 100])
async def test_a_batch_of_any_size_costs_two_round_trips(postgres_url: str, count: int) -> None:
    async with a_counted(postgres_url) as (database, counted):
        before = counted.round_trips
        await asyncio.gather(*(database.commit(a_change(f"t{n}")) for n in range(count)))
        assert counted.round_trips - before == 2
        assert len(await database.all(ALL)) == count + 2


async def test_a_read_costs_one_round_trip(postgres_url: str) -> None:
    async with a_counted(postgres_url) as (database, counted):
        await database.one(GET, id="warm 1")
        before = counted.round_trips
        await database.one(GET, id="warm 1")
        assert counted.round_trips - before == 1


async def test_a_batch_with_refused_changes_costs_as_many_round_trips_whatever_its_size(postgres_url: str) -> None:
    async with a_counted(postgres_url) as (database, counted):
        costs = []
        for count in (3, 60):
            before = counted.round_trips
            outcomes = await asyncio.gather(
                *(database.commit(a_change(f"{count} {n // 3}")) for n in range(count)), return_exceptions=True
            )
            kept = [type(outcome) for outcome in outcomes]
            assert kept == [type(None), ChangedMeanwhileError, ChangedMeanwhileError] * (count // 3)
            costs.append(counted.round_trips - before)
        assert costs == [5, 5]  # the call, ROLLBACK, the call with savepoints, what we write about it, COMMIT
        assert (await verify_chain(database, key=KEY.public_key)).rows == 2 + 1 + 20


@pytest.mark.parametrize(
    ("refused", "groups"),
    [({30}, [3]), ({0}, [2]), ({59}, [2]), ({20, 40}, [3, 60])],
    ids=["one", "first", "last", "two"],
)
async def test_a_change_whose_condition_fails_is_refused_without_a_savepoint_for_each_other_one(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, refused: set[int], groups: list[int]
) -> None:
    tried: list[int] = []

    async def run_apart(self: Writer, steps: BatchSteps, ends: Sequence[int]) -> Sequence[str]:
        tried.append(len(ends))
        return await apart(self, steps, ends)

    apart = Writer.run_apart
    monkeypatch.setattr(Writer, "run_apart", run_apart)
    async with a_counted(postgres_url) as (database, _):
        await asyncio.gather(*(database.commit(a_change(f"{n}")) for n in range(60)))
        kept = [7 if n in refused else 2 for n in range(60)]
        changes = [
            Changes().run(BUMP, expect=1, key_id=f"{n}", key_n=kept[n], n=3).audit("ann", "thing.bump", f"{n}")
            for n in range(60)
        ]
        outcomes = await asyncio.gather(*(database.commit(one) for one in changes), return_exceptions=True)
        assert {n for n, outcome in enumerate(outcomes) if outcome is not None} == refused
        unchanged = {row["id"] for row in await database.all(ALL) if row["n"] == 2}
        assert unchanged == {f"{n}" for n in refused} | {"warm 1", "warm 2"}
        assert (await verify_chain(database, key=KEY.public_key)).rows == 2 + 60 + 60 - len(refused)
    assert tried == groups


async def test_statements_run_in_their_order_within_a_change_and_between_changes(postgres_url: str) -> None:
    async with a_database(postgres_url) as database:
        changes = Changes().run(PUT, id="a", n=1).run(BUMP, expect=1, key_id="a", key_n=1, n=2).run(PUT, id="a", n=7)
        later = Changes().run(BUMP, expect=1, key_id="a", key_n=7, n=8).run(BUMP, expect=0, key_id="a", key_n=7, n=9)
        await asyncio.gather(database.commit(changes), database.commit(later))
        row = await database.one(GET, id="a")
        assert row is not None
        assert row["n"] == 8


async def test_what_is_refused_says_so_by_its_own_write(postgres_url: str) -> None:
    async with a_database(postgres_url) as database:
        refusal = NotFoundError()
        changes = Changes().run(ADD, id="x", n=1).run(BUMP, expect=1, otherwise=refusal, key_id="y", key_n=1, n=2)
        neighbor = database.submit(Changes().run(ADD, id="z", n=1).run(BUMP, expect=1, key_id="z", key_n=1, n=2))
        with pytest.raises(NotFoundError) as refused:
            await database.commit(changes.run(ADD, id="w", n=1))
        assert refused.value is refusal
        await neighbor
        assert [(row["id"], row["n"]) for row in await database.all(ALL)] == [("z", 2)]


async def test_a_text_that_is_too_long_for_an_index_is_refused_alone(postgres_url: str) -> None:
    long = "".join(chr(0x20000 + secrets.randbelow(40_000)) for _ in range(1000))  # PostgreSQL compresses others
    async with a_database(postgres_url) as database:
        neighbor = database.submit(Changes().run(ADD, id="z", n=1).event(ThingTold("z")))
        with pytest.raises(ValueRefusedError):
            await database.commit(Changes().run(ADD, id=long, n=1))
        await neighbor
        assert [row["id"] for row in await database.all(ALL)] == ["z"]


async def test_a_change_whose_audit_subject_is_too_long_for_an_index_is_refused_alone(postgres_url: str) -> None:
    long = "".join(chr(0x20000 + secrets.randbelow(40_000)) for _ in range(1000))
    async with a_database(postgres_url) as database:
        neighbor = database.submit(Changes().run(ADD, id="z", n=1).audit("ann", "thing.add", "z"))
        with pytest.raises(ValueRefusedError):
            await database.commit(Changes().run(ADD, id="a", n=1).audit("ann", "thing.add", long))
        await neighbor
        assert [row["id"] for row in await database.all(ALL)] == ["z"]


VALUES = Table("test_values", MetaData(), text("id", key=True), text("word"), number("n"), blob("data"))
PUT_VALUES = upsert(VALUES)
GET_VALUES = statement(select(VALUES).where(VALUES.c.id == bindparam("id")))


async def test_every_value_comes_back_as_it_went(postgres_url: str) -> None:
    async with a_database(postgres_url) as database:
        made = await asyncpg.connect(postgres_url)
        await made.execute("CREATE TABLE test_values (id TEXT PRIMARY KEY, word TEXT, n BIGINT, data BYTEA)")
        await made.close()
        awkward: list[dict[str, Any]] = [
            {"word": 'it\'s $1 $code$ \\ \n {NULL} "x"', "n": -(2**63), "data": b""},
            {"word": None, "n": None, "data": None},
            {"word": "\u00e9\U0001f600", "n": 2**63 - 1, "data": bytes(range(256)) * 1000},
        ]
        rows = [{"id": str(place)} | row for place, row in enumerate(awkward)]
        await asyncio.gather(*(database.commit(Changes().run(PUT_VALUES, **row)) for row in rows))
        for row in rows:
            found = await database.one(GET_VALUES, id=row["id"])
            assert found is not None
            assert dict(found) == row


async def test_a_quiet_session_is_in_no_transaction(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_connection, "LINGER_S", 0.05)
    async with a_database(postgres_url) as database:
        await database.commit(Changes().run(ADD, id="a", n=1))
        beside = await asyncpg.connect(postgres_url)
        sql = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
        )
        async with asyncio.timeout(5):
            while await beside.fetchval(sql):
                await asyncio.sleep(0.02)
        await beside.close()
        await database.commit(Changes().run(ADD, id="b", n=1))


async def test_what_nobody_may_see_is_not_in_the_servers_log(postgres_of_its_own: PostgresServer) -> None:
    async with a_database(postgres_of_its_own.url) as database:
        await database.commit(Changes().run(ADD, id="a", n=1))
        secret = f"hush-{'x' * 20}"
        refused = Changes().run(PUT, id=secret, n=2).run(ADD, id="a", n=2)
        with pytest.raises(ChangedMeanwhileError):
            await database.commit(refused)
        assert secret not in (postgres_of_its_own.home / "log").read_text(errors="replace")


@pytest.fixture
def postgres_of_its_own() -> Iterator[PostgresServer]:
    """A server that a test may stop."""
    with a_postgres_server() as server:
        yield server


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_restart_of_the_server_is_seen_by_nobody_who_can_wait(
    postgres_of_its_own: PostgresServer, mode: str
) -> None:
    """Only what was between COMMIT and its answer may be refused, and that only when the server was torn away."""
    database = await open_database(postgres_of_its_own.url, FakeClock(), signer=KEY)
    try:
        await make_table(database)
        acknowledged: list[str] = []
        unsure: list[str] = []
        heard: list[str] = []
        bus = LocalBus(database)
        bus.on(ThingTold, lambda event: heard.append(event.word))
        bus.start()
        is_over = asyncio.Event()

        async def device(number: int) -> None:
            turn = 0
            while not is_over.is_set():
                name, turn = f"{number}/{turn}", turn + 1
                try:
                    await database.commit(a_change(name))
                except UnavailableError:
                    unsure.append(name)
                    continue
                acknowledged.append(name)
                assert await database.one(GET, id=name) is not None

        devices = [asyncio.create_task(device(number)) for number in range(20)]
        for _ in range(3):
            await asyncio.sleep(0.3)
            before = len(acknowledged)
            await asyncio.to_thread(postgres_of_its_own.restart, mode)
            async with asyncio.timeout(15):
                while len(acknowledged) < before + 40:
                    await asyncio.sleep(0.02)
        is_over.set()
        await asyncio.gather(*devices)
        kept = {row["id"] for row in await database.all(ALL)}
        assert set(acknowledged) <= kept
        assert kept <= {*acknowledged, *unsure}
        if mode == "fast":
            assert unsure == []
        assert len(unsure) <= 3 * 20
        async with asyncio.timeout(15):
            while len(heard) < len(kept):
                await asyncio.sleep(0.05)
        await bus.stop()
        assert sorted(heard) == sorted(kept)
        (verified,) = await verify_chains(database, key=KEY.public_key)
        assert verified.rows == len(kept)
    finally:
        await database.close()


async def test_a_server_that_stays_away_is_told_after_a_while_and_reads_and_writes_go_on_when_it_is_back(
    postgres_of_its_own: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage_retry, "PATIENCE_S", 0.5)
    async with a_database(postgres_of_its_own.url) as database:
        assert await database.is_reachable()
        postgres_of_its_own.stop("fast")
        assert not await database.is_reachable()
        with pytest.raises(UnavailableError):
            await asyncio.wait_for(database.commit(a_change("a")), 5)
        with pytest.raises(UnavailableError):
            await asyncio.wait_for(database.one(GET, id="a"), 5)
        postgres_of_its_own.start()
        assert await database.is_reachable()
        await database.commit(a_change("b"))
        assert [row["id"] for row in await database.all(ALL)] == ["b"]


async def test_a_heartbeat_is_tried_again_so_often_that_no_worker_is_taken_for_dead_after_an_outage(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        if asyncio.current_task() is not writing:
            await real(seconds)
        elif sum(waits) < 5:
            waits.append(seconds)
        else:
            monkeypatch.undo()

    async def connect() -> None:
        raise ConnectionRefusedError

    async with a_database(postgres_url) as database:
        monkeypatch.setattr(database._beside, "_connect", connect)  # type: ignore[attr-defined] # one engine's own
        monkeypatch.setattr(asyncio, "sleep", sleep)
        writing = asyncio.create_task(database.write_outside_batch(BUMP, n=1, key_id="a", key_n=0))
        assert not await writing
    assert 0 < max(waits) < LEASE_S / 3


async def test_a_commit_whose_connection_is_cut_before_commit_is_tried_again(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_counted(postgres_url) as (database, counted):
        held: Any = database._writer  # type: ignore[attr-defined]  # one engine's own
        real = held.run

        async def run_and_be_cut(steps: object) -> bool:
            monkeypatch.setattr(held, "run", real)
            done: bool = await real(steps)
            counted.cut()
            while not held._connection.is_closed():
                await asyncio.sleep(0.01)
            return done

        monkeypatch.setattr(held, "run", run_and_be_cut)
        await database.commit(a_change("once"))
        assert (await verify_chain(database, key=KEY.public_key)).rows == 3


async def test_a_commit_that_another_wrote_the_chain_beneath_goes_on_from_there(postgres_url: str) -> None:
    """A commit whose answer was lost may become visible after we looked where the chain ends."""
    async with a_counted(postgres_url) as (database, _):
        other = await open_database(postgres_url, FakeClock(), signer=KEY)
        await other.commit(Changes().audit("bob", "thing.look", "a").event(ThingTold("other")))
        await other.close()
        await database.commit(a_change("after"))
        assert (await verify_chain(database, key=KEY.public_key)).rows == 4


async def test_a_commit_of_a_session_that_was_lost_is_waited_for(postgres_url: str) -> None:
    """Else its events would become visible below numbers that the bus has passed."""
    async with a_database(postgres_url) as database:
        await database.commit(a_change("before"))
        private: Any = database
        lost = await asyncpg.connect(postgres_url)
        async with lost.transaction():
            await lost.execute(batch_functions.WAIT, private._writer._worker_lock)
            await lost.execute(
                "INSERT INTO outbox (worker, seq, kind, entity, version, body, at) "
                "VALUES ('main', 2, 'test.other_told', 'x', 0, '{}', 1)"
            )
            private._are_ends_known = False  # the answer to its COMMIT did not come
            later = asyncio.ensure_future(database.commit(a_change("after")))
            await asyncio.sleep(0.2)
            assert not later.done()
        await lost.close()
        await later
        rows = await database.events_after(0, 10)
        assert [(row["seq"], row["kind"]) for row in rows][1:] == [(2, "test.other_told"), (3, "test.thing_told")]


async def test_a_failure_that_is_not_the_servers_absence_is_told_at_once_and_logged(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_database(postgres_url) as database:
        made = await asyncpg.connect(postgres_url)
        await made.execute("DROP TABLE test_things")
        with caplog.at_level(logging.ERROR), pytest.raises(UnavailableError):
            await asyncio.wait_for(database.commit(Changes().run(ADD, id="a", n=1)), 2)
        assert "store.commit_failed" in caplog.text
        await made.close()
        await make_table(database)
        await database.commit(Changes().run(ADD, id="a", n=1))


async def test_a_statement_that_the_server_takes_for_a_mistake_fails_alone(postgres_url: str) -> None:
    async with a_database(postgres_url) as database:
        wrong = Statement(lambda _engine: select(things))
        wrong._compiled = {"postgresql": CompiledStatement("INSERT INTO", (), {})}
        for _ in range(2):
            with pytest.raises(UnavailableError):
                await database.commit(Changes().run(wrong))
            await database.commit(Changes().run(PUT, id="a", n=1).event(ThingTold("a")))
        assert len(await database.all(ALL)) == 1


async def test_an_upgrade_takes_as_long_as_it_takes(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = schema_migration.script_for
    slow = "SELECT pg_sleep(2); {}"
    monkeypatch.setattr(schema_migration, "script_for", lambda *given: (found := real(*given)) and slow.format(found))
    monkeypatch.setattr("birthmark.store.postgresql.database.OPTIONS", {**OPTIONS, "command_timeout": 1})
    both = await asyncio.gather(*(open_database(postgres_url, FakeClock(), worker=f"w{n}") for n in range(2)))
    for database in both:
        await database.close()


@pytest.mark.parametrize("is_used", [False, True], ids=["empty", "0.1.0"])
async def test_two_servers_that_start_at_once_migrate_once(postgres_url: str, is_used: bool) -> None:
    if is_used:
        old = await asyncpg.connect(postgres_url)
        await old.execute(script_of_0_1_0())
        await old.execute("INSERT INTO outbox (topic, body, at) VALUES ('iothub.device_changed', '{}', 1)")
        await old.close()
    opened = await asyncio.gather(*(open_database(postgres_url, FakeClock(), worker=f"w{n}") for n in range(4)))
    for database in opened:
        await database.commit(Changes().event(ThingTold(database.worker)).audit("ann", "thing.look", "a"))
        assert len(await database.events_after(0, 10)) == 1
        await database.close()
