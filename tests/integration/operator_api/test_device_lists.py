"""The lists of the operator interface that pages are drawn from: the audit's latest rows, refusals, devices."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from birthmark.auth.principals import MACHINE
from birthmark.devices.search import DeviceSearch
from birthmark.errors import ForbiddenError, InvalidRequestError
from birthmark.operator_api import audit, refusals
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows
from birthmark.operator_api.devices import device_endpoints
from birthmark.pki.certificates import Certificate, Thumbprint
from birthmark.refusals import Ledger
from birthmark.refusals.presented_certificates import CertificateNotKeptError
from birthmark.store import Changes, open_database
from support.fakes import FakeClock, SeededEntropy
from support.kills.interleaved import opened
from support.kills.interleaved_operations import fill

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


async def get(table: Sequence[Endpoint], path: str, **query: str) -> Rows:
    """Return what a route answers to a query as it stands in a URL."""
    (one,) = (one for one in table if (one.method, one.template) == ("GET", path))
    answer: Rows = await one.handler(ApiRequest({}, msgspec.convert(query, one.query, strict=False), None, MACHINE))
    return answer


async def pages(table: Sequence[Endpoint], path: str, place: str, **query: str) -> list[Mapping[str, Any]]:
    answer = await get(table, path, **query)
    told = [*answer.items]
    while answer.next is not None:
        answer = await get(table, path, **query, **{place: answer.next})
        told += answer.items
    return told


async def test_the_latest_rows_of_the_audit_are_told(database_url: str) -> None:
    database = await open_database(database_url, FakeClock())
    for number in range(5):
        await database.commit(Changes().audit("user:anna", "dps.enroll", f"pump-{number % 2}", number=number))
    table = audit.endpoints(database, b"", FakeClock())
    told = await pages(table, "/audit/latest", "before", actor="user:anna", action="dps.", limit="2")
    alone = await pages(table, "/audit/latest", "before", subject="pump-1")
    await database.close()
    assert [row["detail"]["number"] for row in told] == [4, 3, 2, 1, 0]
    assert [row["seq"] for row in alone] == [4, 2]


@pytest.mark.parametrize("query", [{"limit": "251"}, {"limit": "0"}, {"actor": ""}, {"action": "a" * 513}, {"to": "x"}])
async def test_what_is_asked_of_the_audit_is_bounded(tmp_path: Path, query: dict[str, str]) -> None:
    database = await open_database(f"sqlite:///{tmp_path}/x.db", FakeClock())
    with pytest.raises(msgspec.ValidationError):
        await get(audit.endpoints(database, b"", FakeClock()), "/audit/latest", **query)
    await database.close()


async def nobody(thumbprint: Thumbprint) -> Certificate:
    raise CertificateNotKeptError(thumbprint=thumbprint.hex())


async def test_refusals_are_told_by_code_page_by_page_and_by_reason(database_url: str) -> None:
    clock = FakeClock()
    database = await open_database(database_url, clock)
    book = Ledger(database, clock, SeededEntropy())
    table = refusals.endpoints(database, nobody, clock)
    for error in (ForbiddenError(), InvalidRequestError(), ForbiddenError()):
        clock.move(timedelta(seconds=1))
        book.record(error, address="192.0.2.1", device_id="pump-1")
        await book.wait_until_written()
    newest = await get(table, "/refusals", limit="1")
    assert newest.next is None
    others = await get(table, "/refusals", before=newest.items[0]["id"])
    (reason, *_) = (await get(table, "/refusals/reasons", back_s="3600")).items
    by_code = (await get(table, "/refusals", code=reason["code"], subject="PUMP-1")).items
    await database.close()
    assert len(others.items) == 2
    assert len(by_code) == reason["count"]
    assert reason["latest"] == by_code[0]
    assert set(reason) == {"code", "count", "before", "is_new", "latest"}


async def test_devices_are_told_with_their_state_and_counted(database_url: str, tmp_path: Path) -> None:
    async with opened(tmp_path, FakeClock(), database_url) as (rooms, _):
        await fill(rooms)
        table = device_endpoints(rooms.devices, DeviceSearch(rooms.devices, FakeClock()))
        every = await pages(table, "/devices", "after", limit="1")
        assert every == (await get(table, "/devices")).items
        (own,) = (row for row in every if row["name"] == "own")
        assert (own["at"], own["places"], own["state"]) == ("dps/main", ["dps/main"], "unassigned")
        assert (await get(table, "/figures/found")).items[0]["count"] == len(every)
        away = await get(table, "/devices", state="away", at="hub/hub")
        assert [row["name"] for row in away.items] == ["device-1", "of-group"]
        assert (await get(table, "/devices", state="ending", ending_s="60")).items == []
        with pytest.raises(msgspec.ValidationError):
            await get(table, "/devices", state="lost")
        counted = (await get(table, "/figures/devices")).items
        assert counted[0] == {"at": "aws", "on_record": 1, "connected": 0, "disabled": None, "unassigned": None}
