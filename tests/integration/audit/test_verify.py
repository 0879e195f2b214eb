"""An audit chain that was edited, cut, recomputed or exchanged is found out, on each real engine."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from birthmark.audit.heads import AuditKey, Head, parse_head
from birthmark.audit.verify import (
    AuditBreakFoundError,
    AuditBrokenError,
    AuditContradictedError,
    AuditCutError,
    AuditHeadError,
    note_break,
    verify_chain,
)
from birthmark.errors import BirthmarkError
from birthmark.store import AuditRow, Changes, Database, Statement, open_database
from birthmark.store.chain import GENESIS, link
from birthmark.store.statements import Compiled
from fakes import FakeClock

pytestmark = pytest.mark.integration
KEY, OTHER = AuditKey("the key"), AuditKey("another key")
ROWS = 5


async def sql(database: Database, text: str) -> None:
    """Edit the database as somebody would who holds it, but not the key."""
    made = Statement(lambda _engine: None)  # type: ignore[arg-type,return-value]  # what the fixture made is there
    made._compiled = {engine: Compiled(text, (), {}) for engine in ("sqlite", "postgresql")}
    await database.commit(Changes().run(made))


async def write(database: Database, count: int = ROWS) -> None:
    for number in range(count):
        await database.commit(Changes().audit("operator", "test.did", f"thing-{number}"))


async def edited(url: str, body: Callable[[Database], Awaitable[None]], **options: Any) -> BirthmarkError | None:
    """Write a chain, let `body` edit it, and return what verification says."""
    database = await open_database(url, FakeClock(), signer=KEY)
    try:
        await write(database)
        await body(database)
        try:
            await verify_chain(database, key=KEY.public_key, **options)
        except BirthmarkError as error:
            return error
        return None
    finally:
        await database.close()


async def nothing(_database: Database) -> None:
    """Leave it as it is."""


async def test_a_chain_as_it_was_written_is_whole(database_url: str) -> None:
    assert (await edited(database_url, nothing)) is None


async def test_a_changed_row_is_named(database_url: str) -> None:
    async def body(database: Database) -> None:
        await sql(database, "UPDATE audit SET subject = 'thing-x' WHERE seq = 3")

    found = await edited(database_url, body)
    assert isinstance(found, AuditBrokenError)
    assert found.facts["seq"] == "3"


async def test_a_missing_row_is_named(database_url: str) -> None:
    async def body(database: Database) -> None:
        await sql(database, "DELETE FROM audit WHERE seq = 3")

    found = await edited(database_url, body)
    assert isinstance(found, AuditBrokenError)
    assert "rows 3 to 3 are missing" in found.explain_cause()


async def test_a_chain_that_was_cut_at_its_end_is_named(database_url: str) -> None:
    async def body(database: Database) -> None:
        await sql(database, "DELETE FROM audit WHERE seq > 2")

    found = await edited(database_url, body)
    assert isinstance(found, AuditCutError)
    assert (found.facts["seq"], found.facts["signed"]) == ("2", "5")


async def recompute(database: Database) -> None:
    await sql(database, "UPDATE audit SET actor = 'nobody' WHERE seq = 2")
    digest = GENESIS
    for seq in range(1, ROWS + 1):
        actor = "nobody" if seq == 2 else "operator"
        digest = link(digest, "main", seq, 1780315200000000, AuditRow(actor, "test.did", f"thing-{seq - 1}", "{}"))
        literal = f"X'{digest.hex()}'" if "Sqlite" in type(database).__name__ else f"'\\x{digest.hex()}'"
        await sql(database, f"UPDATE audit SET digest = {literal} WHERE seq = {seq}")


async def test_a_chain_that_was_recomputed_without_the_key_is_named(database_url: str) -> None:
    found = await edited(database_url, recompute)
    assert isinstance(found, AuditContradictedError)


@pytest.mark.parametrize("text", ["DELETE FROM audit_heads", "UPDATE audit_heads SET seq = seq - 1"])
async def test_a_head_that_is_missing_or_edited_is_named(database_url: str, text: str) -> None:
    async def body(database: Database) -> None:
        await sql(database, text)

    assert isinstance((await edited(database_url, body)), AuditHeadError)


async def exported_at(database: Database) -> Head:
    return (await verify_chain(database, key=KEY.public_key)).head  # type: ignore[return-value]  # what the fixture made is there


async def test_an_exported_head_contradicts_an_old_copy_that_was_put_in_place(database_url: str) -> None:
    database = await open_database(database_url, FakeClock(), signer=KEY)
    await write(database)
    head = parse_head(__import__("json").dumps((await exported_at(database)).as_json()).encode())
    await sql(database, "DELETE FROM audit WHERE seq > 2")
    await database.close()
    database = await open_database(database_url, FakeClock(), signer=KEY)
    await write(database, 1)  # with the key: it looks whole from inside
    assert (await verify_chain(database, key=KEY.public_key)).rows == 3
    with pytest.raises(AuditCutError) as refused:
        await verify_chain(database, key=KEY.public_key, exported=[head])
    assert refused.value.facts["signed"] == "5"
    await write(database, 4)
    with pytest.raises(AuditContradictedError) as contradicted:
        await verify_chain(database, key=KEY.public_key, exported=[head])
    assert contradicted.value.facts["seq"] == "5"
    await database.close()


async def test_a_head_of_another_key_proves_nothing(database_url: str) -> None:
    database = await open_database(database_url, FakeClock(), signer=OTHER)
    await write(database)
    head = (await verify_chain(database, key=OTHER.public_key)).head
    assert head is not None
    for options in ({"key": KEY.public_key}, {"key": KEY.public_key, "exported": [head]}):
        with pytest.raises(AuditHeadError):
            await verify_chain(database, **options)
    await database.close()


async def test_a_start_that_finds_the_chain_cut_writes_it_down_for_good(database_url: str) -> None:
    database = await open_database(database_url, FakeClock(), signer=KEY)
    await write(database)
    await sql(database, "DELETE FROM audit WHERE seq > 2")
    await database.close()
    database = await open_database(database_url, FakeClock(), signer=KEY)
    assert "row 5" in (await note_break(database, KEY, is_key_new=False) or "")
    await write(database)
    assert await note_break(database, KEY, is_key_new=False) is None
    with pytest.raises(AuditBreakFoundError) as refused:
        await verify_chain(database, key=KEY.public_key)
    assert refused.value.facts["seq"] == "3"
    await database.close()


async def test_a_database_from_before_heads_were_signed_is_taken_as_it_is(database_url: str) -> None:
    database = await open_database(database_url, FakeClock())
    await write(database)
    await database.close()
    database = await open_database(database_url, FakeClock(), signer=KEY)
    assert await note_break(database, KEY, is_key_new=True) is None
    await write(database, 1)
    assert (await verify_chain(database, key=KEY.public_key)).rows == ROWS + 1
    await database.close()


async def test_a_chain_that_is_gone_altogether_is_named_and_noted_at_the_next_start(database_url: str) -> None:
    database = await open_database(database_url, FakeClock(), signer=KEY)
    await write(database)
    await sql(database, "DELETE FROM audit")
    await sql(database, "DELETE FROM audit_heads")
    await database.close()
    database = await open_database(database_url, FakeClock(), signer=KEY)
    with pytest.raises(AuditHeadError):
        await verify_chain(database, key=KEY.public_key)
    for is_key_new in (False, True):
        assert "empty" in (await note_break(database, KEY, is_key_new=is_key_new) or "")
        await sql(database, "DELETE FROM audit_heads")
        await sql(database, "DELETE FROM audit")
        await database.close()
        database = await open_database(database_url, FakeClock(), signer=KEY)
    assert await note_break(database, KEY, is_key_new=True, is_used=False) is None
    await database.close()
