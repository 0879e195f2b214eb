"""Queries of enrollments and registrations on both engines: pages that end, and are bounded."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from birthmark.dps.enrollment_document import AttestationMechanism, EnrollmentDocument
from birthmark.dps.service import EnrollmentQueries, queries
from birthmark.dps.service.queries import QueryTooBroadError
from support.azure.dps_world import DpsWorld, a_dps

pytestmark = pytest.mark.integration
GROUP_KEY = b"k" * 32


@contextlib.asynccontextmanager
async def a_world(database_url: str) -> AsyncIterator[tuple[DpsWorld, EnrollmentQueries]]:
    async with a_dps(database_url) as world:
        yield world, EnrollmentQueries(world.enrollments, world.registrations, world.clock)


async def enrolled(world: DpsWorld, name: str, status: str = "enabled", **more: Any) -> None:
    attestation = AttestationMechanism("symmetricKey")
    document = EnrollmentDocument(attestation=attestation, registration_id=name, provisioning_status=status, **more)
    await world.enrollments.put(world.instance, document, None, actor="test")


async def pages(asked: EnrollmentQueries, world: DpsWorld, text: str, limit: int) -> list[list[str]]:
    after, found = "", []
    while True:
        page = await asked.enrollments(world.instance, text, after, limit, is_group=False)
        found.append([row["registrationId"] for row in page.rows])
        if page.after is None:
            return found
        after = page.after


async def test_pages_end_with_the_last_record_that_fits(database_url: str) -> None:
    async with a_world(database_url) as (world, asked):
        for number in range(6):
            await enrolled(world, f"d-{number}", "disabled" if number % 2 else "enabled")
        assert await pages(asked, world, "SELECT * FROM enrollments", 3) == [
            ["d-0", "d-1", "d-2"],
            ["d-3", "d-4", "d-5"],
        ]
        off = "SELECT * FROM enrollments WHERE provisioningStatus = 'disabled'"
        assert await pages(asked, world, off, 2) == [["d-1", "d-3"], ["d-5"]]
        assert await pages(asked, world, off, 3) == [["d-1", "d-3", "d-5"]]
        by_id = "SELECT * FROM enrollments WHERE registrationId IN ['D-5', 'd-0', 'none', 'd-3']"
        assert await pages(asked, world, by_id, 2) == [["d-0", "d-3"], ["d-5"]]


async def test_the_largest_page_is_not_taken_for_the_last(database_url: str) -> None:
    names = [f"d-{number:03}" for number in range(201)]
    async with a_world(database_url) as (world, asked):
        for name in names:
            await enrolled(world, name)
        found = await pages(asked, world, "SELECT * FROM enrollments", 100)
        assert [len(page) for page in found] == [100, 100, 1]
        assert [name for page in found for name in page] == names


async def test_a_page_of_large_records_ends_early_and_goes_on(database_url: str) -> None:
    names, texts = [f"d-{number:02}" for number in range(50)], {f"t{number}": "x" * 4_000 for number in range(7)}
    async with a_world(database_url) as (world, asked):
        for name in names:
            await enrolled(world, name, initial_twin={"properties": {"desired": texts}})
        found = await pages(asked, world, "SELECT * FROM enrollments", 100)
        assert [name for page in found for name in page] == names
        assert len(found) == 2


async def test_a_page_looks_at_so_many_and_is_continued_or_refused(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "MAX_READ", 2)
    monkeypatch.setattr(queries, "_EACH", 2)
    async with a_world(database_url) as (world, asked):
        for number in range(6):
            await enrolled(world, f"d-{number}", "enabled" if number in {1, 2} else "disabled")
        on = "SELECT * FROM enrollments WHERE provisioningStatus = 'enabled'"
        first = await asked.enrollments(world.instance, on, "", 10, is_group=False)
        assert ([row["registrationId"] for row in first.rows], first.after) == (["d-1"], "d-1")
        second = await asked.enrollments(world.instance, on, "d-1", 10, is_group=False)
        assert ([row["registrationId"] for row in second.rows], second.after) == (["d-2"], "d-3")
        with pytest.raises(QueryTooBroadError):
            await asked.enrollments(world.instance, on, "d-3", 10, is_group=False)


async def test_the_registrations_of_a_group_are_found_by_what_became_of_them(database_url: str) -> None:
    async with a_world(database_url) as (world, asked):
        await world.key_group("g", GROUP_KEY)
        for number in range(3):
            await world.register_by_key(f"d-{number}", GROUP_KEY)
        for text, names in {
            "SELECT * FROM registrations WHERE status = 'assigned'": ["d-0", "d-1", "d-2"],
            "select * from deviceRegistrations": ["d-0", "d-1", "d-2"],  # as the SDK for Java names them
            "SELECT * FROM registrations WHERE deviceId = 'd-1'": ["d-1"],
            "SELECT * FROM registrations WHERE registrationId = 'd-2'": ["d-2"],
            f"SELECT * FROM registrations WHERE assignedHub != '{world.hub.host}'": [],
        }.items():
            found = await asked.registrations(world.instance, "G", text, "", 10)
            assert [row["registrationId"] for row in found.rows] == names, text
        other = await asked.registrations(
            world.instance, "other", "SELECT * FROM registrations WHERE registrationId = 'd-2'", "", 10
        )
        assert other.rows == []


async def test_a_condition_sees_no_key(database_url: str) -> None:
    async with a_world(database_url) as (world, asked):
        await enrolled(world, "d")
        for condition, is_found in (("is_null", True), ("is_string", False)):
            text = f"SELECT * FROM enrollments WHERE {condition}(attestation.symmetricKey.primaryKey)"
            found = await asked.enrollments(world.instance, text, "", 10, is_group=False)
            assert bool(found.rows) is is_found
