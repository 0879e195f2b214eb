"""An audit chain that was edited, cut, recomputed or exchanged is found out, on each real engine."""

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from birthmark.audit.chain_verification import (
    HEADS_OF_ALL,
    LAST_ROW,
    RESTORED,
    AuditBreakFoundError,
    AuditBrokenError,
    AuditContradictedError,
    AuditCutError,
    AuditHeadError,
    record_chain_break,
    verify_chain,
    verify_chains,
)
from birthmark.audit.chain_verification import ROWS as ROWS_OF_CHAIN
from birthmark.audit.signed_heads import HEADS, AuditKey, Head, parse_head, parse_heads
from birthmark.audit.verification_report_json import entries, report
from birthmark.errors import BirthmarkError
from birthmark.store import AuditRow, Changes, Database, Statement, insert, open_database, upsert
from birthmark.store.compiled_statements import CompiledStatement
from birthmark.store.core_tables import audit, audit_heads
from birthmark.store.signed_audit_chain import GENESIS, head_body, link
from support.fakes import FakeClock

pytestmark = pytest.mark.integration
KEY, OTHER = AuditKey("the key"), AuditKey("another key")
ROWS = 5


async def sql(database: Database, text: str) -> None:
    """Edit the database as somebody would who holds it, but not the key."""
    made = Statement(lambda _engine: None)  # type: ignore[arg-type,return-value]  # what the fixture made is there
    made._compiled = {engine: CompiledStatement(text, (), {}) for engine in ("sqlite", "postgresql")}
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
            await verify_chains(database, key=KEY.public_key, **options)
        except BirthmarkError as error:
            return error
        return None
    finally:
        await database.close()


async def nothing(_database: Database) -> None:
    """Leave it is."""


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
    head = parse_head(json.dumps((await exported_at(database)).as_json()).encode())
    await sql(database, "DELETE FROM audit WHERE seq > 2")
    await database.close()
    database = await open_database(database_url, FakeClock(), signer=KEY)
    await write(database, 1)  # with the key: it looks whole from inside
    assert (await verify_chain(database, key=KEY.public_key)).rows == 3
    with pytest.raises(AuditCutError) as refused:
        await verify_chains(database, key=KEY.public_key, exported=[head])
    assert refused.value.facts["signed"] == "5"
    await write(database, 4)
    with pytest.raises(AuditContradictedError) as contradicted:
        await verify_chains(database, key=KEY.public_key, exported=[head])
    assert contradicted.value.facts["seq"] == "5"
    await database.close()


async def test_a_head_of_another_key_proves_nothing(database_url: str) -> None:
    database = await open_database(database_url, FakeClock(), signer=OTHER)
    await write(database)
    head = (await verify_chain(database, key=OTHER.public_key)).head
    assert head is not None
    for options in ({"key": KEY.public_key}, {"key": KEY.public_key, "exported": [head]}):
        with pytest.raises(AuditHeadError):
            await verify_chains(database, **options)
    await database.close()


async def test_a_start_that_finds_the_chain_cut_writes_it_down_for_good(database_url: str) -> None:
    database = await open_database(database_url, FakeClock(), signer=KEY)
    await write(database)
    await sql(database, "DELETE FROM audit WHERE seq > 2")
    await database.close()
    database = await open_database(database_url, FakeClock(), signer=KEY)
    assert "row 5" in (await record_chain_break(database, KEY, is_key_new=False) or "")
    await write(database)
    assert await record_chain_break(database, KEY, is_key_new=False) is None
    with pytest.raises(AuditBreakFoundError) as refused:
        await verify_chain(database, key=KEY.public_key)
    assert refused.value.facts["seq"] == "3"
    await database.close()


async def test_a_database_from_before_heads_were_signed_is_taken_as_it_is(database_url: str) -> None:
    database = await open_database(database_url, FakeClock())
    await write(database)
    await database.close()
    database = await open_database(database_url, FakeClock(), signer=KEY)
    assert await record_chain_break(database, KEY, is_key_new=True) is None
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
        assert "empty" in (await record_chain_break(database, KEY, is_key_new=is_key_new) or "")
        await sql(database, "DELETE FROM audit_heads")
        await sql(database, "DELETE FROM audit")
        await database.close()
        database = await open_database(database_url, FakeClock(), signer=KEY)
    assert await record_chain_break(database, KEY, is_key_new=True, is_used=False) is None
    await database.close()


async def two_chains(url: str) -> tuple[Database, Database]:
    """Two workers of one installation, each of which has seen the other's rows."""
    clock = FakeClock()
    first = await open_database(url, clock, worker="w1", signer=KEY)
    second = await open_database(url, clock, worker="w2", signer=KEY)
    for database in (first, second) * 2:
        clock.move(timedelta(seconds=2))
        await write(database, 1)  # looks where the other is
        await settled(database)
        await write(database, 1)  # and says it
    clock.move(timedelta(seconds=2))
    await write(first, 1)  # w1 has seen 4 rows of w2, and w2 4 of the 5 of w1
    await settled(first)
    clock.move(timedelta(seconds=2))
    await write(first, 1)
    return first, second


async def settled(database: Database) -> None:
    """Let it see where the other chains end."""
    looking = getattr(database, "_looking", None)
    if looking is not None:
        await looking


async def found_after(url: str, *texts: str) -> BirthmarkError | None:
    """Let two workers write, edit the database, and return what verification says."""
    first, second = await two_chains(url)
    try:
        for text in texts:
            await sql(first, text)
        try:
            await verify_chains(first, key=KEY.public_key)
        except BirthmarkError as error:
            return error
        return None
    finally:
        await first.close()
        await second.close()


async def test_chains_of_several_workers_are_each_whole_and_tell_of_each_other(database_url: str) -> None:
    first, second = await two_chains(database_url)
    verified = await verify_chains(first, key=KEY.public_key)
    assert [(one.chain, one.rows) for one in verified] == [("w1", 6), ("w2", 4)]
    heads = [one.head for one in verified if one.head is not None]
    assert [[(seen.chain, seen.seq) for seen in head.seen] for head in heads] == [[("w2", 4)], [("w1", 4)]]
    assert report(verified)["rows"] == 10
    assert [entry["chain"] async for entry in entries(first, verified)] == ["w1"] * 6 + ["w2"] * 4
    await first.close()
    await second.close()


async def test_a_chain_that_is_gone_with_its_head_is_missed_by_another(database_url: str) -> None:
    found = await found_after(
        database_url, "DELETE FROM audit WHERE chain = 'w2'", "DELETE FROM audit_heads WHERE chain = 'w2'"
    )
    assert isinstance(found, AuditCutError)
    assert (found.facts["chain"], found.facts["signed"]) == ("w2", "4")
    assert found.facts["source"] == "The signed head of chain w1"


async def old_head(url: str) -> tuple[Database, Database, str]:
    """Return two workers, and the statement that puts the second's head of its second row in place again."""
    clock = FakeClock()
    first = await open_database(url, clock, worker="w1", signer=KEY)
    second = await open_database(url, clock, worker="w2", signer=KEY)
    await write(second, 2)
    row = (await second.all(HEADS_OF_ALL))[0]
    head = HEADS.of(row)
    await write(second, 2)

    def literal(value: bytes) -> str:
        return f"X'{value.hex()}'" if url.startswith("sqlite") else f"'\\x{value.hex()}'"

    again = (
        f"UPDATE audit_heads SET seq = {head.seq}, at = {head.at_micros}, digest = {literal(bytes(head.digest))}, "
        f"signature = {literal(bytes(head.signature))}, others = '{head.others}' WHERE chain = 'w2'"
    )
    clock.move(timedelta(seconds=2))
    await write(first, 1)
    await settled(first)
    await write(first, 1)
    return first, second, again


async def test_an_old_head_that_is_put_in_place_with_its_rows_is_contradicted_by_another_chain(
    database_url: str,
) -> None:
    first, second, again = await old_head(database_url)
    await sql(first, "DELETE FROM audit WHERE chain = 'w2' AND seq > 2")
    await sql(first, again)
    assert (await verify_chain(first, key=KEY.public_key, chain="w2")).rows == 2  # by itself it looks whole
    with pytest.raises(AuditCutError) as refused:
        await verify_chains(first, key=KEY.public_key)
    assert (refused.value.facts["chain"], refused.value.facts["seq"], refused.value.facts["signed"]) == ("w2", "2", "4")
    await second.close()
    second = await open_database(database_url, FakeClock(), worker="w2", signer=KEY)
    noted = await record_chain_break(second, KEY, is_key_new=False)
    assert noted is not None
    assert "The signed head of chain w1 confirms row 4" in noted
    await write(second, 3)  # it goes on, and what is rewritten is another chain
    with pytest.raises(AuditContradictedError):
        await verify_chains(first, key=KEY.public_key)
    await first.close()
    await second.close()


async def test_an_old_head_over_newer_rows_is_named(database_url: str) -> None:
    first, second, again = await old_head(database_url)
    await sql(first, again)
    with pytest.raises(AuditHeadError, match="has no head that confirms it"):
        await verify_chains(first, key=KEY.public_key)
    await first.close()
    await second.close()


async def test_heads_that_were_swapped_are_named(database_url: str) -> None:
    found = await found_after(
        database_url,
        "UPDATE audit_heads SET chain = 'w3' WHERE chain = 'w1'",
        "UPDATE audit_heads SET chain = 'w1' WHERE chain = 'w2'",
        "UPDATE audit_heads SET chain = 'w2' WHERE chain = 'w3'",
    )
    assert isinstance(found, AuditHeadError)
    assert "the signature of its head is wrong" in found.explain_cause()


async def test_what_a_head_tells_of_others_cannot_be_edited(database_url: str) -> None:
    found = await found_after(database_url, "UPDATE audit_heads SET others = '[]' WHERE chain = 'w1'")
    assert isinstance(found, AuditHeadError)


async def test_what_a_worker_saw_once_it_tells_of_after_a_restart_too(database_url: str) -> None:
    first, second = await two_chains(database_url)
    await sql(first, "DELETE FROM audit WHERE chain = 'w2'")
    await sql(first, "DELETE FROM audit_heads WHERE chain = 'w2'")
    await first.close()
    await second.close()
    first = await open_database(database_url, FakeClock(), worker="w1", signer=KEY)
    await write(first, 1)
    with pytest.raises(AuditCutError) as refused:
        await verify_chains(first, key=KEY.public_key)
    assert refused.value.facts["chain"] == "w2"
    await first.close()


async def test_a_head_that_nobody_here_signed_is_not_vouched_for(database_url: str) -> None:
    unauthenticated = await open_database(database_url, FakeClock(), worker="w2", signer=OTHER)
    await write(unauthenticated)
    first = await open_database(database_url, FakeClock(), worker="w1", signer=KEY)
    await write(first, 1)
    head = (await verify_chain(first, key=KEY.public_key, chain="w1")).head
    assert head is not None
    assert head.seen == ()
    await first.close()
    await unauthenticated.close()


async def test_an_exported_head_tells_of_the_other_chains_too(database_url: str) -> None:
    first, second = await two_chains(database_url)
    verified = await verify_chains(first, key=KEY.public_key)
    exported = parse_heads("\n".join(json.dumps(one.head.as_json()) for one in verified if one.head).encode())
    assert [head.chain for head in exported] == ["w1", "w2"]
    await verify_chains(first, key=KEY.public_key, exported=exported)
    await sql(first, "DELETE FROM audit")
    await sql(first, "DELETE FROM audit_heads")
    with pytest.raises(AuditCutError):
        await verify_chains(first, key=KEY.public_key, exported=exported[:1])
    await first.close()
    await second.close()


async def test_a_head_of_the_first_format_is_verified_and_followed_by_one_of_the_second(database_url: str) -> None:
    database = await open_database(database_url, FakeClock(), signer=KEY)
    await write(database)
    row = (await database.all(HEADS_OF_ALL))[0]
    signature = KEY.sign(head_body("main", row["seq"], row["at"], bytes(row["digest"]), None)).hex()
    literal = f"X'{signature}'" if database_url.startswith("sqlite") else f"'\\x{signature}'"
    await sql(database, f"UPDATE audit_heads SET others = NULL, signature = {literal}")
    (verified,) = await verify_chains(database, key=KEY.public_key)
    assert verified.head is not None
    exported = parse_head(json.dumps({k: v for k, v in verified.head.as_json().items() if k != "others"}).encode())
    await database.close()
    database = await open_database(database_url, FakeClock(), signer=KEY)
    assert await record_chain_break(database, KEY, is_key_new=False) is None
    await write(database, 1)
    (verified,) = await verify_chains(database, key=KEY.public_key, exported=[exported])
    assert verified.head is not None
    assert (verified.rows, verified.head.others) == (ROWS + 1, "[]")
    await database.close()


async def test_a_chain_that_a_server_writes_meanwhile_is_verified_up_to_its_end(database_url: str) -> None:
    database = await open_database(database_url, FakeClock(), signer=KEY)
    await write(database)
    is_first = True
    real: Any = database.all

    async def all_and_write(statement: Statement, /, **params: Any) -> Any:
        nonlocal is_first
        rows = await real(statement, **params)
        if statement is ROWS_OF_CHAIN and not rows and is_first:
            is_first = False
            await write(database, 2)
        return rows

    patched: Any = database
    patched.all = all_and_write
    (verified,) = await verify_chains(database, key=KEY.public_key)
    assert verified.rows == ROWS + 2
    await database.close()


async def test_a_gap_is_whole_where_a_restored_backup_says_so(database_url: str) -> None:
    database = await open_database(database_url, FakeClock(), signer=KEY)
    await write(database)
    before = await database.one(LAST_ROW, chain="main")
    assert before is not None
    for told_from, action, is_whole in ((ROWS, RESTORED, True), (ROWS - 1, RESTORED, False), (ROWS, "x", False)):
        detail = json.dumps({"from": told_from}, separators=(",", ":"))
        row, seq = AuditRow("restore", action, "server", detail), ROWS + 100
        digest = link(bytes(before["digest"]), "main", seq, 1, row)
        signed = KEY.sign(head_body("main", seq, 1, digest, "[]"))
        facts = {"actor": row.actor, "action": row.action, "subject": row.subject, "detail": row.detail}
        head = {"key": KEY.public_key, "signature": signed, "others": "[]"}
        changes = Changes().run(insert(audit), chain="main", seq=seq, at=1, digest=digest, **facts)  # type: ignore[arg-type]  # columns by name
        changes.run(upsert(audit_heads), chain="main", seq=seq, at=1, digest=digest, **head)  # type: ignore[arg-type]  # as above
        await database.commit(changes)
        if is_whole:
            (verified,) = await verify_chains(database, key=KEY.public_key)
            assert (verified.rows, verified.left_out) == (seq, 99)
            assert report([verified])["rows"] == ROWS + 1
        else:
            with pytest.raises(AuditBrokenError):
                await verify_chains(database, key=KEY.public_key)
        await sql(database, f"DELETE FROM audit WHERE seq = {seq}")
    await database.close()
