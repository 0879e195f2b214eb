"""What a database counts of its commits, and what waits."""

import asyncio

import pytest

from birthmark.ca.domain_events import CertificateIssued
from birthmark.store import Changes, open_database
from birthmark.store.core_tables import COUNT_OUTBOX
from support.fakes import FakeClock

pytestmark = pytest.mark.integration


async def test_changes_of_one_tick_wait_together_and_share_a_commit(database_url: str) -> None:
    database = await open_database(database_url, FakeClock())
    commits = database.commits
    assert (commits.waiting, sum(commits.sizes.counts)) == (0, 0)
    events = [CertificateIssued(f"d{number}", bytes([number]), "device") for number in range(3)]
    waiting = [database.submit(Changes().event(event)) for event in events]
    assert commits.waiting == 3
    await asyncio.gather(*waiting)
    assert (commits.waiting, sum(commits.sizes.counts), commits.sizes.total) == (0, 1, 3)
    assert (sum(commits.seconds.counts), commits.seconds.total > 0) == (1, True)
    row = await database.one(COUNT_OUTBOX)
    assert row is not None
    assert row["total"] == 3
    await database.close()
