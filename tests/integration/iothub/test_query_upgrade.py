"""Twins of an earlier version: their terms are written in the background, and until then queries look at all."""

from typing import Any

import pytest
from sqlalchemy import text

from birthmark.iothub import store
from birthmark.store import Changes, statement
from birthmark.store.schema_migration import script_for
from support.azure.query_world import a_world

pytestmark = pytest.mark.integration


async def test_what_an_upgrade_finds_is_searched_before_and_after_it_is_indexed(database_url: str) -> None:
    async with a_world(database_url) as world:
        for number in range(3):
            await world.has(f"d-{number}", {"n": number})
        await world.iothub.index.index_all()
        # As the migration leaves it: no terms, and each twin with the column's default.
        await world.database.commit(Changes().run(statement(text("DELETE FROM hub_terms"))))
        default: Any = store.twins.c.unindexed.server_default
        undone = statement(text(f"UPDATE hub_twins SET unindexed = {default.arg}"))
        await world.database.commit(Changes().run(undone))
        assert await world.iothub.index.unindexed() == 3
        for _ in range(2):
            assert await world.found("tags.n >= 1") == ["d-1", "d-2"]
            await world.iothub.index.index_all()
        assert await world.iothub.index.unindexed() == 0


async def test_device_ids_are_in_the_order_of_code_points_on_both_engines(database_url: str) -> None:
    async with a_world(database_url) as world:
        for name in ("b", "B", "a", "_", "A-1", "a.1", "a-1"):
            await world.has(name, {"x": 1})
        await world.iothub.index.index_all()
        names = sorted(("b", "B", "a", "_", "A-1", "a.1", "a-1"))
        assert await world.found("tags.x = 1") == names
        assert await world.found("NOT is_defined(tags.y)") == names
        assert [device.device_id for device in await world.iothub.registry.devices(world.hub)] == names


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_each_engine_gets_its_own_order(engine: str) -> None:
    script = script_for(engine, "0020") or ""
    assert ('ALTER COLUMN device_id TYPE text COLLATE "C"' in script) == (engine == "postgresql")
