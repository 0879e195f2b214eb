"""Scheduled jobs on both engines: each device ends in exactly one state, whatever happens meanwhile."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from birthmark.errors import UnavailableError
from birthmark.iothub import job_store
from birthmark.iothub.domain_events import HubJobChanged
from birthmark.iothub.model import HubJobStatus, HubJobType
from birthmark.iothub.rules import scheduled_jobs as rules
from birthmark.iothub.rules.tier_throttles_and_quotas import Edition, Tier
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.job_runner import HubJobRunner
from birthmark.iothub.wire import DeviceBody
from birthmark.iothub.wire.scheduled_jobs import JobOrder
from birthmark.store import open_database
from support.azure.job_world import Fleet, JobWorld, a_job_world, begun
from support.azure.query_world import SAS
from support.fakes import SeededEntropy

pytestmark = pytest.mark.integration


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/x.db"


async def fans(world: JobWorld, *names: str) -> list[Any]:
    twins = [await world.iothub.twins.get(world.hub, name) for name in names]
    return [twin.desired.values.get("fan") for twin in twins]


async def test_a_twin_update_reaches_the_devices_that_fit_when_it_starts(database_url: str) -> None:
    async with a_job_world(database_url) as world:
        await world.devices("a", "b")
        await world.has("c", {"site": "south"})
        await world.create("update", "tags.site = 'north'")
        await world.devices("late")
        job = await world.ended("update")
        assert (job.status, job.total, job.succeeded, job.failed) == (HubJobStatus.COMPLETED, 3, 3, 0)
        assert await fans(world, "a", "b", "c", "late") == [1, 1, None, 1]
        assert (await world.iothub.twins.get(world.hub, "a")).desired.version == 2


async def test_a_method_is_called_once_on_each_device_that_is_online(database_url: str) -> None:
    async with a_job_world(database_url) as world:
        await world.devices("a", "b", "c")
        world.fleet.names |= {"a", "b"}
        await world.create("look", method=True)
        job = await world.ended("look")
        assert (job.status, job.succeeded, job.failed, job.running) == (HubJobStatus.COMPLETED, 2, 1, 0)
        assert await world.outcomes("look") == {"a": "completed", "b": "completed", "c": "failed 404103"}
        assert world.fleet.calls == {"a": 1, "b": 1}
        assert (await world.rows("look"))["a"].outcome == '{"status": 200, "payload": {"heard": "look"}}'


async def test_more_devices_than_a_page_are_all_reached(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_job_world(sqlite_url) as world:
        await world.devices(*(f"d-{number:03}" for number in range(job_store.EACH + 30)))
        await world.create("many")
        assert (await world.ended("many")).succeeded == job_store.EACH + 30


async def test_a_job_starts_at_its_time_and_is_shown_as_queued_until_it_has_a_place(database_url: str) -> None:
    async with a_job_world(database_url) as world:
        await world.devices("a")
        await world.create("later", starts_at=world.clock.now() + timedelta(hours=1))
        await world.iothub.job_runner.step()
        assert (await world.job("later")).status is HubJobStatus.SCHEDULED
        assert [one.job_id for one in await world.iothub.jobs.page(world.hub, status="scheduled")] == ["later"]
        world.clock.move(timedelta(hours=1))
        assert [one.job_id for one in await world.iothub.jobs.page(world.hub, status="queued")] == ["later"]
        assert (await world.ended("later")).succeeded == 1


async def test_a_cancelled_job_begins_no_further_device(database_url: str) -> None:
    async with a_job_world(database_url) as world:
        await world.iothub.hubs.set_tier("main", Edition(Tier.S1), actor="test")
        names = [f"d-{number:02}" for number in range(15)]
        await world.devices(*names)
        is_called, goes_on = asyncio.Event(), asyncio.Event()

        async def respond(_name: str) -> tuple[int, Any]:
            if len(world.fleet.calls) == 10:
                is_called.set()
            await goes_on.wait()
            return 200, None

        world.fleet.names |= set(names)
        world.fleet.responds = respond
        await world.create("look", method=True)
        await world.iothub.job_runner.step()
        await asyncio.wait_for(is_called.wait(), 10)
        cancelled = await world.iothub.jobs.cancel(world.hub, "look", actor="test")
        assert cancelled.status is HubJobStatus.CANCELLED
        world.iothub.job_runner.wake(HubJobChanged("main", "look"))
        goes_on.set()
        job = await world.ended("look")
        assert (job.status, job.succeeded, job.canceled) == (HubJobStatus.CANCELLED, 10, 5)
        with pytest.raises(rules.HubJobEndedError):
            await world.iothub.jobs.cancel(world.hub, "look", actor="test")


async def test_what_is_not_done_within_the_time_window_fails(database_url: str) -> None:
    async with a_job_world(database_url) as world:
        await world.iothub.hubs.set_tier("main", Edition(Tier.S1), actor="test")
        names = [f"d-{number:02}" for number in range(12)]
        await world.devices(*names)
        world.fleet.names |= set(names)
        is_called = asyncio.Event()

        async def respond(name: str) -> tuple[int, Any]:
            if len(world.fleet.calls) == 10:
                is_called.set()
            if name != "d-00":
                await asyncio.sleep(30)
            return 200, None

        world.fleet.responds = respond
        await world.create("look", method=True, max_s=1)
        await world.iothub.job_runner.step()
        await asyncio.wait_for(is_called.wait(), 10)
        await asyncio.sleep(1)  # the calls are cut by a timer, which no fake clock moves
        world.clock.move(timedelta(seconds=1))
        job = await world.ended("look")
        assert (job.status, job.succeeded, job.failed) == (HubJobStatus.COMPLETED, 1, 11)
        assert set((await world.outcomes("look")).values()) == {"completed", "failed 504101"}


async def test_a_device_deleted_meanwhile_fails_and_the_others_are_updated(database_url: str) -> None:
    async with a_job_world(database_url) as world:
        await world.iothub.hubs.set_tier("main", Edition(Tier.S1), actor="test")
        await world.devices(*(f"d-{number:02}" for number in range(12)))
        await world.create("update")
        await world.iothub.job_runner.step()
        await world.reached("update", 10)
        await world.iothub.registry.remove(world.hub, "d-10", None, actor="test")
        world.clock.move(timedelta(seconds=1))
        assert (await world.ended("update")).status is HubJobStatus.COMPLETED
        outcomes = await world.outcomes("update")
        assert (outcomes["d-10"], outcomes["d-11"]) == ("failed 404001", "completed")


async def test_a_twin_that_would_be_too_large_fails_with_its_reason(sqlite_url: str) -> None:
    async with a_job_world(sqlite_url) as world:
        await world.has("full", {f"t{number}": "x" * 3000 for number in range(2)})
        await world.devices("a")
        content = {"tags": {"more": "x" * 3000}, "etag": "*"}
        order = JobOrder(HubJobType.TWIN, "*", content, None, 60)
        await world.iothub.jobs.create(world.hub, "grow", order, actor="test")
        await world.ended("grow")
        assert await world.outcomes("grow") == {"a": "completed", "full": "failed 400004"}
        assert "too large" in str((await world.rows("grow"))["full"].error)


async def test_an_unavailable_database_fails_no_device(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_job_world(sqlite_url) as world:
        await world.devices("a")
        desire, failures = world.iothub.twins.desire, [UnavailableError(), UnavailableError()]

        async def unsteady(*given: Any, **named: Any) -> Any:
            if failures:
                raise failures.pop()
            return await desire(*given, **named)

        monkeypatch.setattr(world.iothub.twins, "desire", unsteady)
        await world.create("update")
        await world.ended("update")
        assert await world.outcomes("update") == {"a": "completed"}


async def test_modules_are_selected_by_their_collection(database_url: str) -> None:
    async with a_job_world(database_url) as world:
        await world.devices("a", "b")
        for name in ("a", "b"):
            device = await world.iothub.registry.device(world.hub, name)
            await world.iothub.registry.modules.put(device, "pump", SAS, managed_by="", actor="test")
        await world.create("update", "from devices.modules where deviceId = 'b'")
        await world.ended("update")
        assert await world.outcomes("update") == {"b/pump": "completed"}
        assert await fans(world, "a/pump", "b/pump") == [None, 1]


async def test_a_disabled_device_has_its_twin_updated(database_url: str) -> None:
    async with a_job_world(database_url) as world:
        off = DeviceBody("off", status="disabled")
        await world.iothub.registry.put(world.hub, "off", off, SAS, None, actor="test")
        await world.create("update")
        await world.ended("update")
        assert await world.outcomes("update") == {"off": "completed"}


async def test_a_tier_bounds_how_many_jobs_run(database_url: str) -> None:
    async with a_job_world(database_url) as world:
        await world.iothub.hubs.set_tier("main", Edition(Tier.S1), actor="test")
        await world.devices("a")
        world.fleet.names.add("a")
        goes_on = asyncio.Event()

        async def respond(_name: str) -> tuple[int, Any]:
            await goes_on.wait()
            return 200, None

        world.fleet.responds = respond
        for name in ("first", "second"):
            await world.create(name, method=True)
        await world.iothub.job_runner.step()
        await world.iothub.job_runner.step()
        assert [(await world.job(name)).status.value for name in ("first", "second")] == ["running", "scheduled"]
        goes_on.set()
        for name in ("first", "second"):
            assert (await world.ended(name)).succeeded == 1


async def test_the_pace_of_a_tier_bounds_the_devices_a_second(sqlite_url: str) -> None:
    async with a_job_world(sqlite_url) as world:
        await world.iothub.hubs.set_tier("main", Edition(Tier.S1), actor="test")
        await world.devices(*(f"d-{number:02}" for number in range(12)))
        await world.create("update", max_s=60)
        await world.iothub.job_runner.step()
        await world.reached("update", 10)
        world.clock.move(timedelta(seconds=0.1))
        await world.reached("update", 11)
        assert (await world.job("update")).pending == 1
        world.clock.move(timedelta(seconds=1))
        assert (await world.ended("update")).succeeded == 12


async def test_an_id_is_free_again_once_the_history_is_trimmed(database_url: str) -> None:
    async with a_job_world(database_url) as world:
        await world.devices("a")
        await world.create("update")
        await world.ended("update")
        with pytest.raises(rules.HubJobExistsError):
            await world.create("update")
        world.clock.move(timedelta(days=29))
        await world.iothub.job_runner.trim()
        assert (await world.job("update")).total == 1
        world.clock.move(timedelta(days=2))
        await world.iothub.job_runner.trim()
        with pytest.raises(rules.UnknownHubJobError):
            await world.job("update")
        assert await world.rows("update") == {}
        await world.create("update")


async def test_a_hub_takes_its_jobs_with_it(database_url: str) -> None:
    async with a_job_world(database_url) as world:
        await world.devices("a")
        await world.create("update")
        await world.ended("update")
        await world.iothub.hubs.delete("main", actor="test")
        assert await world.rows("update") == {}


async def test_a_hub_has_a_bounded_number_of_jobs_that_have_not_ended(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MAX_OPEN", 2)
    async with a_job_world(sqlite_url) as world:
        later = world.clock.now() + timedelta(days=1)
        for name in "ab":
            await world.create(name, starts_at=later)
        with pytest.raises(rules.TooManyHubJobsError):
            await world.create("c", starts_at=later)
        await world.iothub.jobs.cancel(world.hub, "a", actor="test")
        await world.create("c", starts_at=later)


async def another(world: JobWorld, database_url: str) -> tuple[IotHub, Fleet, Any]:
    """Return a second worker on the same database."""
    database = await open_database(database_url, world.clock, worker="two")
    iothub = IotHub.of(database, world.clock, SeededEntropy(2))
    await iothub.hubs.load()
    fleet = Fleet(world.fleet.names)
    begun(iothub, fleet, "mqtt-two", is_alone=False)
    return iothub, fleet, database


@pytest.mark.parametrize("method", [False, True], ids=["twins", "methods"])
async def test_two_workers_that_both_lead_do_nothing_twice(postgres_url: str, *, method: bool) -> None:
    async with a_job_world(postgres_url) as world:
        names = [f"d-{number:02}" for number in range(40)]
        await world.devices(*names)
        world.fleet.names |= set(names)
        iothub, fleet, database = await another(world, postgres_url)
        await world.create("both", method=method)

        async def step(runner: HubJobRunner) -> None:
            while (await world.job("both")).is_open:
                await runner.step()
                await asyncio.sleep(0.01)

        async with asyncio.timeout(30):
            await asyncio.gather(step(world.iothub.job_runner), step(iothub.job_runner))
        job = await world.job("both")
        assert (job.status, job.total, job.succeeded) == (HubJobStatus.COMPLETED, 40, 40)
        calls = world.fleet.calls + fleet.calls
        assert set(calls.values()) == ({1} if method else set())
        versions = {(await world.iothub.twins.get(world.hub, name)).desired.version for name in names}
        assert versions == {1 if method else 2}
        await iothub.job_runner.stop()
        await database.close()


async def test_a_method_whose_worker_died_is_not_called_again(database_url: str) -> None:
    async with a_job_world(database_url) as world:
        await world.devices("a", "b")
        world.fleet.names |= {"a", "b"}
        is_called = asyncio.Event()

        async def respond(name: str) -> tuple[int, Any]:
            if name == "a":
                is_called.set()
                await asyncio.Event().wait()
            return 200, None

        world.fleet.responds = respond
        await world.create("look", method=True)
        await world.iothub.job_runner.step()
        await asyncio.wait_for(is_called.wait(), 10)
        await world.iothub.job_runner.stop()  # as a kill does, it leaves the row as it is
        assert (await world.outcomes("look"))["a"] == "running"
        await world.iothub.free_held("mqtt")
        job = await world.ended("look")
        assert (job.status, world.fleet.calls["a"]) == (HubJobStatus.COMPLETED, 1)
        assert (await world.outcomes("look"))["a"] == "failed 500001"


async def test_the_devices_of_jobs_are_queried_by_job_status_and_device(database_url: str) -> None:
    async with a_job_world(database_url) as world:
        await world.devices("a", "b", "c")
        world.fleet.names |= {"a", "b"}
        for name in ("one", "two"):
            await world.create(name, method=True)
            await world.ended(name)

        async def found(where: str) -> list[str]:
            answer = await world.asked(f"SELECT * FROM devices.jobs WHERE {where}")
            assert answer.item_type == "DeviceJob"
            return [f"{row['jobId']} {row['deviceId']}" for row in answer.rows]

        assert await found("devices.jobs.jobId = 'one'") == ["one a", "one b", "one c"]
        assert await found("devices.jobs.jobId = 'two' AND devices.jobs.status = 'failed'") == ["two c"]
        assert await found("deviceId = 'b'") == ["one b", "two b"]
        assert await found("error.code = '404103'") == ["one c", "two c"]
        assert await found("outcome.deviceMethodResponse.status = 200 AND jobId = 'two'") == ["two a", "two b"]
