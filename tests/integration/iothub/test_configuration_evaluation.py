"""Evaluation of configurations on a real database: after changes, after kills, by two workers, in phases."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from birthmark.iothub import configuration_store, store
from birthmark.iothub.model import Configuration, ConfigurationKind, DeviceAuthentication, RolloutPlan
from birthmark.iothub.rules.configurations import ConfigurationExistsError, ConfigurationInvalidError, is_in_phase
from birthmark.iothub.service import IotHub
from birthmark.iothub.wire import DeviceBody, DeviceCapabilities
from birthmark.iothub.wire.configurations import ConfigurationRequest
from birthmark.store import open_database
from support.azure.query_world import SAS, World, a_world
from support.fakes import FakeClock, SeededEntropy

pytestmark = pytest.mark.integration


def request(condition: str, priority: int = 0, **values: Any) -> ConfigurationRequest:
    content = {"": values}
    return ConfigurationRequest(None, ConfigurationKind.DEVICE, content, condition, priority, None, {}, None)


async def create(
    world: World, name: str, condition: str, priority: int = 0, plan: RolloutPlan | None = None, **values: Any
) -> Configuration:
    wanted = request(condition, priority, **values)
    return await world.iothub.configurations.create(world.hub, name, wanted, plan=plan, actor="test")


async def evaluated(world: World) -> None:
    """Do all work that is due: changed configurations, and changed twins."""
    await world.iothub.evaluation.evaluate_changed_configurations()
    await world.iothub.index.index_all()


async def desired(world: World, name: str) -> dict[str, Any]:
    return (await world.iothub.twins.get(world.hub, name)).desired.values


async def statuses(world: World, name: str) -> dict[str, str]:
    twin = await world.iothub.twins.get(world.hub, name)
    return {one: state.status for one, state in twin.configurations.items()}


async def a_device(world: World, name: str, authentication: DeviceAuthentication = SAS) -> None:
    await world.iothub.registry.put(world.hub, name, DeviceBody(name), authentication, None, actor="test")


async def test_a_device_that_is_created_later_gets_what_targets_it(database_url: str) -> None:
    async with a_world(database_url) as world:
        await create(world, "all", "*", x=1)
        await create(world, "named", "deviceId = 'later'", y=2)
        await evaluated(world)
        await a_device(world, "later")
        await evaluated(world)
        assert await desired(world, "later") == {"x": 1, "y": 2}


async def test_long_paths_are_refused_because_each_twin_records_them(database_url: str) -> None:
    async with a_world(database_url) as world:
        long: dict[str, Any] = {f"{number}{'x' * 500}": None for number in range(20)}
        with pytest.raises(ConfigurationInvalidError):
            await create(world, "long", "*", **long)


async def test_paths_that_overlap_are_refused(tmp_path: Any) -> None:
    async with a_world(f"sqlite:///{tmp_path}/x.db") as world:
        overlapping: list[dict[str, Any]] = [{"a": 1, "a.b": 2}, {"": {}, "a": 1}]
        for paths in overlapping:
            with pytest.raises(ConfigurationInvalidError, match="overlap"):
                await create(world, "over", "*", **paths)
        beside: dict[str, Any] = {"a.b": 1, "a.bc": 2, "ab": 3}
        await create(world, "beside", "*", **beside)


async def test_an_error_in_a_condition_has_its_position_there(tmp_path: Any) -> None:
    async with a_world(f"sqlite:///{tmp_path}/x.db") as world:
        with pytest.raises(ConfigurationInvalidError, match="at position 12 "):
            await create(world, "fan", "tags.site == 'north'", x=1)


async def test_a_device_without_a_twin_is_targeted(database_url: str) -> None:
    async with a_world(database_url) as world:
        await a_device(world, "plain")
        await create(world, "all", "*", x=1)
        await evaluated(world)
        assert (await desired(world, "plain"), await statuses(world, "plain")) == ({"x": 1}, {"all": "Applied"})


async def test_a_condition_on_the_status_follows_a_disabled_device(database_url: str) -> None:
    async with a_world(database_url) as world:
        await a_device(world, "d")
        await create(world, "off", "status = 'disabled'", x=1)
        await evaluated(world)
        assert await desired(world, "d") == {}
        await world.iothub.registry.set_enabled(world.hub, "d", is_enabled=False, actor="test")
        await evaluated(world)
        assert await desired(world, "d") == {"x": 1}


async def test_another_worker_continues_after_a_kill(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.has("d", {"site": "north"})
        await create(world, "north", "tags.site = 'north'", x=1)
        database = await open_database(database_url, FakeClock(), worker="second")
        try:
            second = IotHub.of(database, FakeClock(), SeededEntropy(2))
            await second.load()
            await second.evaluation.evaluate_changed_configurations()
        finally:
            await database.close()
        assert await desired(world, "d") == {"x": 1}


async def test_two_workers_at_once_leave_each_twin_in_one_state(postgres_url: str) -> None:
    async with a_world(postgres_url) as world:
        for number in range(40):
            await world.has(f"d-{number}", {"n": number % 4})
        await create(world, "low", "tags.n < 3", 1, x=1, y=1)
        await create(world, "high", "tags.n > 0", 2, x=2)
        database = await open_database(postgres_url, FakeClock(), worker="second")
        try:
            second = IotHub.of(database, FakeClock(), SeededEntropy(2))
            await second.load()
            both = (world.iothub.evaluation, second.evaluation)
            await asyncio.gather(*(one.evaluate_changed_configurations() for one in both))
            await asyncio.gather(*(one.sweep() for one in both))
        finally:
            await database.close()
        expected: list[dict[str, int]] = [{"x": 1, "y": 1}, {"x": 2, "y": 1}, {"x": 2, "y": 1}, {"x": 2}]
        for number in range(40):
            twin = await world.iothub.twins.get(world.hub, f"d-{number}")
            assert (twin.desired.values, twin.desired.version <= 3) == (expected[number % 4], True)


async def test_the_sweep_finds_a_twin_whose_change_was_not_seen(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.has("d", {"site": "south"})
        await create(world, "north", "tags.site = 'north'", x=1)
        await evaluated(world)
        await world.iothub.twins.desire(world.hub, "d", {"tags": {"site": "north"}}, None, replaces=False, actor="test")
        as_read = await world.database.one(store.GET_TWIN, hub="main", device_id="d")
        assert as_read is not None
        assert as_read["unindexed"] == store.CHANGED
        await world.iothub.evaluation.sweep()
        assert await desired(world, "d") == {"x": 1}


async def test_a_deleted_configuration_leaves_no_row_and_its_id_is_free(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.has("d", {"site": "north"})
        await create(world, "north", "*", x=1)
        await evaluated(world)
        await world.iothub.configurations.delete(world.hub, "north", None, actor="test")
        again = await create(world, "north", "*", y=2)
        await evaluated(world)
        assert await desired(world, "d") == {"y": 2}
        await world.iothub.configurations.delete(world.hub, "north", again.etag, actor="test")
        await evaluated(world)
        assert await desired(world, "d") == {}
        assert await world.database.all(configuration_store.CONFIGURATIONS_OF, hub="main") == []


async def test_configurations_end_with_their_hub(database_url: str) -> None:
    async with a_world(database_url) as world:
        await create(world, "north", "*", x=1)
        await world.iothub.hubs.delete("main", actor="test")
        assert await world.database.all(configuration_store.CONFIGURATIONS_OF, hub="main") == []
        await world.iothub.evaluation.evaluate_changed_configurations()


async def test_an_unchanged_configuration_changes_no_twin_again(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.has("d", {"site": "north"})
        await create(world, "all", "*", x=1)
        await evaluated(world)
        before = await world.iothub.twins.get(world.hub, "d")
        await world.iothub.evaluation.sweep()
        await evaluated(world)
        assert await world.iothub.twins.get(world.hub, "d") == before


async def test_the_phases_of_a_rollout_reach_more_devices_each(tmp_path: Any) -> None:
    async with a_world(f"sqlite:///{tmp_path}/x.db") as world:
        names = [f"d-{number:03}" for number in range(100)]
        for name in names:
            await a_device(world, name)
        made = await create(world, "fan", "*", plan=RolloutPlan((10, 50, 100), 60), x=1)
        await evaluated(world)
        first = {name for name in names if await desired(world, name)}
        assert first == {name for name in names if is_in_phase(made, name)}
        assert 0 < len(first) < 30
        world.clock.move(timedelta(seconds=30))
        await world.iothub.evaluation.advance_rollouts()
        await evaluated(world)
        assert {name for name in names if await desired(world, name)} == first, "the phase is not over"
        world.clock.move(timedelta(seconds=31))
        await world.iothub.evaluation.advance_rollouts()
        await evaluated(world)
        second = {name for name in names if await desired(world, name)}
        assert first < second < set(names)
        world.clock.move(timedelta(seconds=61))
        await world.iothub.evaluation.advance_rollouts()
        await evaluated(world)
        assert {name for name in names if await desired(world, name)} == set(names)


async def test_a_rollout_stops_when_too_many_devices_match_its_stop_condition(tmp_path: Any) -> None:
    async with a_world(f"sqlite:///{tmp_path}/x.db") as world:
        names = [f"d-{number:03}" for number in range(100)]
        for name in names:
            await a_device(world, name)
        plan = RolloutPlan((50, 100), 60, "properties.reported.fan = 'failed'", stop_percent=0)
        await create(world, "fan", "*", plan=plan, x=1)
        await evaluated(world)
        reached = [name for name in names if await desired(world, name)]
        device = await world.iothub.registry.device(world.hub, reached[0])
        await world.iothub.twins.report(world.hub, device, {"fan": "failed"}, None)
        world.clock.move(timedelta(seconds=61))
        await world.iothub.evaluation.advance_rollouts()
        await evaluated(world)
        found = await world.iothub.configurations.get(world.hub, "fan")
        assert found.rollout is not None
        assert (found.rollout.phase, found.rollout.stopped) == (
            0,
            f"1 of {len(reached)} devices match the stop condition",
        )
        assert [name for name in names if await desired(world, name)] == reached
        await world.iothub.configurations.set_rollout(world.hub, "fan", 1, is_stopped=False, actor="test")
        await evaluated(world)
        assert all([await desired(world, name) for name in names])


async def test_a_preview_shows_what_happens_and_changes_nothing(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.has("one", {"site": "north"})
        await world.has("two", {"site": "south"})
        await create(world, "low", "*", 1, x=1, y=1)
        await evaluated(world)
        proposed = await world.iothub.configurations.proposed(
            world.hub, "high", request("tags.site = 'north'", 5, x=2, z=3), None
        )
        found = [one async for one in world.iothub.previews.preview(world.hub, proposed)]
        assert [(one.name, [(c.path, c.before, c.after, c.by) for c in one.changes]) for one in found] == [
            ("one", [("x", 1, 2, "high"), ("z", None, 3, "high")])
        ]
        assert await desired(world, "one") == {"x": 1, "y": 1}


async def test_why_names_the_reason_for_which_one_is_not_applied(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.has("one", {"site": "north"})
        await create(world, "low", "*", 1, x=1)
        await create(world, "high", "*", 5, x=2)
        await evaluated(world)
        device = await world.iothub.registry.device(world.hub, "one")
        found = await world.iothub.previews.explain(world.hub, device)
        assert [(one.configuration.id, one.reason) for one in found] == [
            ("high", ""),
            ("low", "configurations with a higher priority set all of its paths"),
        ]
        assert await statuses(world, "one") == {"high": "Applied", "low": "Targeted"}


async def test_a_deployment_adds_modules_to_an_edge_device(database_url: str) -> None:
    async with a_world(database_url) as world:
        body = DeviceBody("edge", capabilities=DeviceCapabilities(iot_edge=True))
        await world.iothub.registry.put(world.hub, "edge", body, SAS, None, actor="test")
        content: dict[str, dict[str, Any]] = {
            "$edgeAgent": {"": {"modules": {"camera": {}}}},
            "$edgeHub": {"": {"routes": {}}},
        }
        wanted = ConfigurationRequest(None, ConfigurationKind.DEPLOYMENT, content, "*", 1, None, {}, None)
        await world.iothub.configurations.create(world.hub, "base", wanted, actor="test")
        await evaluated(world)
        names = [one.module_id for one in await world.iothub.registry.modules.of(world.hub, "edge")]
        assert (names, await statuses(world, "edge/$edgeAgent")) == (
            ["$edgeAgent", "$edgeHub", "camera"],
            {"base": "Applied"},
        )


async def test_a_preview_names_the_modules_that_a_deployment_deletes(tmp_path: Any) -> None:
    async with a_world(f"sqlite:///{tmp_path}/x.db") as world:
        body = DeviceBody("edge", capabilities=DeviceCapabilities(iot_edge=True))
        await world.iothub.registry.put(world.hub, "edge", body, SAS, None, actor="test")
        for name, module in (("first", "camera"), ("second", "door")):
            content: dict[str, dict[str, Any]] = {
                "$edgeAgent": {"": {"modules": {module: {}}}},
                "$edgeHub": {"": {"routes": {}}},
            }
            priority = 1 if name == "first" else 2
            wanted = ConfigurationRequest(None, ConfigurationKind.DEPLOYMENT, content, "*", priority, None, {}, None)
            proposed = await world.iothub.configurations.proposed(world.hub, name, wanted, None)
            found = [one async for one in world.iothub.previews.preview(world.hub, proposed)]
            changes = {change.path: change.after for change in found[0].changes if change.path.endswith(": module")}
            await world.iothub.configurations.create(world.hub, name, wanted, actor="test")
            await evaluated(world)
        assert changes == {"camera: module": "deleted", "door: module": "created"}
        names = [one.module_id for one in await world.iothub.registry.modules.of(world.hub, "edge")]
        assert names == ["$edgeAgent", "$edgeHub", "door"]


async def test_a_preview_of_a_new_configuration_refuses_the_id_of_an_existing_one(tmp_path: Any) -> None:
    async with a_world(f"sqlite:///{tmp_path}/x.db") as world:
        await create(world, "fan", "*", x=1)
        with pytest.raises(ConfigurationExistsError):
            await world.iothub.configurations.proposed(world.hub, "fan", request("*", 5, x=2), None, is_new=True)


async def test_a_phase_without_devices_does_not_end_while_a_stop_condition_needs_some(tmp_path: Any) -> None:
    async with a_world(f"sqlite:///{tmp_path}/x.db") as world:
        made = await create(world, "fan", "*", plan=RolloutPlan((1, 100), 60, "tags.bad = true"), x=1)
        name = next(one for one in (f"d-{number}" for number in range(100)) if not is_in_phase(made, one))
        await a_device(world, name)
        await evaluated(world)
        world.clock.move(timedelta(seconds=61))
        await world.iothub.evaluation.advance_rollouts()
        await evaluated(world)
        assert await desired(world, name) == {}
        device = await world.iothub.registry.device(world.hub, name)
        (status,) = await world.iothub.previews.explain(world.hub, device)
        assert (status.state, status.reason) == (None, "phase 2 of its rollout has not begun")


async def test_resuming_a_rollout_that_runs_changes_nothing(tmp_path: Any) -> None:
    async with a_world(f"sqlite:///{tmp_path}/x.db") as world:
        made = await create(world, "fan", "*", plan=RolloutPlan((1, 100), 60), x=1)
        world.clock.move(timedelta(seconds=30))
        again = await world.iothub.configurations.set_rollout(world.hub, "fan", None, is_stopped=False, actor="test")
        assert (again.etag, again.rollout) == (made.etag, made.rollout)
