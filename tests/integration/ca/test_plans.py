"""How the database finds what the CA asks of it, among very many certificates, also of one name."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from birthmark.ca import store
from birthmark.clock_and_entropy import SystemClock
from birthmark.store import Statement, open_database

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "x.db"

    async def made() -> None:
        await (await open_database(f"sqlite:///{path}", SystemClock())).close()

    asyncio.run(made())
    return path


def plan_of(file: Path, one: Statement) -> Sequence[str]:
    sql = one.compiled("sqlite").sql
    with sqlite3.connect(file) as database:
        return [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?"))]


def test_a_serial_number_is_found_without_its_issuer(file: Path) -> None:
    assert plan_of(file, store.BY_SERIAL) == ["SEARCH ca_certificates USING INDEX ca_certificates_serial (serial=?)"]


def test_the_names_that_a_certificate_asked_for_are_found_one_after_the_other(file: Path) -> None:
    (plan,) = plan_of(file, store.NEXT_NAME_BELOW)
    assert plan == "SEARCH ca_certificates USING COVERING INDEX ca_certificates_parent (parent=? AND name>?)"


@pytest.mark.parametrize("one", [store.HOLDERS, store.LIVE_OF_NAME, store.LIVE_PAGE])
def test_what_is_alive_of_a_name_is_found_past_all_that_ended_or_was_taken_back(file: Path, one: Statement) -> None:
    (plan,) = plan_of(file, one)
    assert plan.startswith("SEARCH ca_certificates USING INDEX ca_certificates_live (name=? AND ")


def test_what_is_alive_of_a_key_is_found_past_all_that_ended_or_was_taken_back(file: Path) -> None:
    (plan,) = plan_of(file, store.LIVE_OF_KEY)
    assert plan.endswith("ca_certificates_key (key_digest=? AND revoked_at=? AND not_after>?)")


def test_a_request_is_decided_past_all_that_ended_or_was_taken_back_of_its_name(file: Path) -> None:
    plan = plan_of(file, store.STANDING)
    assert "SEARCH ca_certificates USING INDEX ca_certificates_live (name=? AND not_after>?)" in plan
    assert not any(step.startswith("SCAN ca_") for step in plan)


def test_what_was_taken_back_of_a_name_since_is_found_past_all_that_is_good(file: Path) -> None:
    (plan,) = plan_of(file, store.TAKEN_BACK_SINCE)
    assert plan.endswith("USING COVERING INDEX ca_certificates_taken_back (name=? AND revoked_at>?)")


def test_what_registered_or_asked_itself_is_found_past_all_else_that_one_certificate_asked_for(file: Path) -> None:
    (plan,) = plan_of(file, store.REGISTERED_BELOW)
    assert plan.endswith("INDEX ca_certificates_registered (parent=? AND name=?)")
    (plan,) = plan_of(file, store.HAS_ASKED)
    assert plan.endswith("INDEX ca_certificates_parent (parent=? AND name=? AND revoked_at=?)")
    steps = plan_of(file, store.ASKED_BELOW)
    assert sum("INDEX ca_certificates_parent (parent=? AND name=? AND revoked_at=?)" in step for step in steps) == 2
    assert not any("SCAN ca_" in step or "TEMP B-TREE" in step for step in steps)


def test_what_was_taken_back_of_others_is_found_past_all_good_keys_of_a_name(file: Path) -> None:
    assert plan_of(file, store.OTHERS_TAKEN_BACK)[0].endswith("ca_keys_name (name=? AND revoked_at>?)")
