"""Jobs on both databases: at their pace, each once and told once; ended by time, by failures and by operators."""

import json
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from birthmark.awsiot.model import ExecutionStatus, JobExecution, JobStatus, ThingName
from birthmark.awsiot.rules import job_executions as rules
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.job_executions import JobExecutions
from birthmark.awsiot.service.job_rollout import Rollout
from birthmark.awsiot.service.jobs import JobService
from birthmark.awsiot.service.thing_groups import DynamicGroupError, UnknownThingGroupError
from birthmark.awsiot.service.things import UnknownThingError
from birthmark.awsiot.wire.jobs import DeviceUpdate
from birthmark.broker.model import BrokerMessage, Done
from birthmark.errors import UnavailableError
from support.aws.account import ACCOUNT, ME, an_aws_account
from support.fakes import FakeClock
from support.store.between import before_the_next_commit, leave_the_next_commit_open

pytestmark = pytest.mark.integration
S = ExecutionStatus


class Listener:
    """Hears everything that things are told of their jobs."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []

    def may_have_subscribers(self, topic: str) -> bool:
        return True

    def publish(self, messages: Sequence[BrokerMessage], done: Done) -> Awaitable[None] | None:
        self.heard += [(one.topic.removeprefix("$aws/things/"), json.loads(one.payload)) for one in messages]
        done(None)
        return None

    @property
    def topics(self) -> list[str]:
        return [topic for topic, _ in self.heard]


class World:
    def __init__(self, aws: AwsIot, clock: FakeClock) -> None:
        self.aws, self.clock, self.listener = aws, clock, Listener()
        self.jobs, self.executions, self.rollout = aws.jobs, aws.jobs.executions, aws.rollout
        self.executions.audience = lambda: self.listener

    def another_worker(self) -> tuple[JobExecutions, Rollout]:
        """Return what another worker on the same database has."""
        database, clock = self.executions.database, self.clock
        executions = JobExecutions(
            *(ACCOUNT, database, clock, self.executions.entropy, self.executions.files),
            announcer=self.aws.events,
            audience=lambda: self.listener,
        )
        jobs = JobService(executions, self.aws.things, self.aws.thing_groups)
        return executions, Rollout(database, clock, jobs)

    async def things(self, count: int, group: str = "") -> list[str]:
        names = [f"t{number:03}" for number in range(count)]
        for name in names:
            await self.aws.things.create(ThingName(name), {}, None, None, **ME)
        if group:
            await self.aws.thing_groups.create(ThingName(group), None, None, None, **ME)
            for name in names:
                await self.aws.thing_groups.add(group, name, **ME)
        return names

    async def job(self, job_id: str, *targets: str, is_continuous: bool = False, **settings: Any) -> None:
        arns = [ACCOUNT.arn(*target.split("/")) for target in targets]
        await self.jobs.create(job_id, arns, "{}", None, settings, is_continuous=is_continuous, **ME)

    async def statuses(self, job_id: str) -> list[str]:
        return [one.status.value for one in (await self.executions.of_job(job_id, "", "", 250)).items]

    async def ends(self, job_id: str, thing: str, status: str) -> JobExecution:
        made, _ = await self.executions.update(thing, job_id, DeviceUpdate(status=status))
        await self.executions.notify([thing])
        return made

    async def status(self, job_id: str) -> JobStatus:
        return (await self.jobs.get(job_id)).status


@asynccontextmanager
async def a_world(database_url: str) -> AsyncIterator[World]:
    async with an_aws_account(database_url) as (aws, clock):
        yield World(aws, clock)


async def test_a_job_goes_to_every_thing_once_and_ends_with_the_last(database_url: str) -> None:
    async with a_world(database_url) as world:
        names = await world.things(3, "g")
        await world.job("j", "thinggroup/g", "thing/t001")
        await world.rollout.step()
        assert await world.statuses("j") == ["QUEUED"] * 3
        assert sorted(world.listener.topics) == sorted(
            f"{name}/jobs/{what}" for name in names for what in ("notify", "notify-next")
        )
        for name in names:
            assert await world.status("j") is JobStatus.IN_PROGRESS
            await world.ends("j", name, "SUCCEEDED")
            await world.rollout.step()
        assert await world.status("j") is JobStatus.COMPLETED
        assert await world.executions.counts("j") == {S.SUCCEEDED: 3}


async def test_a_thing_in_two_targets_has_the_job_once_and_one_that_is_gone_has_none(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(2, "g")
        await world.job("j", "thinggroup/g", "thing/t000")
        await world.aws.things.delete("t000", None, **ME)
        await world.rollout.step()
        assert [one.thing for one in (await world.executions.of_job("j", "", "", 9)).items] == ["t001"]


async def test_a_thing_that_is_deleted_keeps_no_job_from_its_end(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(1)
        await world.job("j", "thing/t000")
        await world.rollout.step()
        await world.aws.things.delete("t000", None, **ME)
        await world.rollout.step()
        assert (await world.statuses("j"), await world.status("j")) == (["REMOVED"], JobStatus.COMPLETED)


async def test_targets_have_to_be_there_and_to_be_filled_by_hand(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.aws.thing_groups.create(
            ThingName("dynamic"), None, None, None, query=json.dumps({"queryString": "thingName:t"}), **ME
        )
        with pytest.raises(UnknownThingError):
            await world.job("j", "thing/nobody")
        with pytest.raises(UnknownThingGroupError):
            await world.job("j", "thinggroup/nobody")
        with pytest.raises(DynamicGroupError):
            await world.job("j", "thinggroup/dynamic")
        with pytest.raises(rules.UnknownJobError):
            await world.jobs.get("j")


async def test_who_joins_a_group_later_gets_a_continuous_job_and_no_snapshot(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(2)
        await world.aws.thing_groups.create(ThingName("g"), None, None, None, **ME)
        await world.aws.thing_groups.add("g", "t001", **ME)
        await world.job("for-ever", "thinggroup/g", is_continuous=True)
        await world.job("once", "thinggroup/g")
        await world.rollout.step()
        await world.ends("for-ever", "t001", "SUCCEEDED")
        await world.aws.thing_groups.add("g", "t000", **ME)  # before it in the order of names
        world.rollout.registry_changed()
        await world.rollout.step()
        assert await world.statuses("for-ever") == ["QUEUED", "SUCCEEDED"]
        assert await world.statuses("once") == ["QUEUED"]
        assert await world.status("for-ever") is JobStatus.IN_PROGRESS


async def test_a_thing_that_leaves_the_group_loses_what_is_queued_and_keeps_what_it_began(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(2, "g")
        await world.job("j", "thinggroup/g", is_continuous=True)
        await world.rollout.step()
        await world.executions.start_next("t000", None, None)
        for thing in ("t000", "t001"):
            await world.aws.thing_groups.remove("g", thing, **ME)
        world.rollout.registry_changed()
        await world.rollout.step()
        assert await world.statuses("j") == ["IN_PROGRESS", "REMOVED"]
        assert (await world.executions.get("j", "t001")).version == 1
        assert world.listener.topics[-2:] == ["t001/jobs/notify", "t001/jobs/notify-next"]


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED"])
async def test_a_thing_that_joins_again_gets_a_continuous_job_again(database_url: str, status: str) -> None:
    async with a_world(database_url) as world:
        await world.things(1, "g")
        await world.job("j", "thinggroup/g", is_continuous=True)
        await world.rollout.step()
        await world.ends("j", "t000", status)
        world.clock.move(timedelta(seconds=1))
        await world.aws.thing_groups.remove("g", "t000", **ME)
        await world.aws.thing_groups.add("g", "t000", **ME)
        for _ in range(2):
            world.rollout.registry_changed()
            await world.rollout.step()
        known = await world.executions.get("j", "t000")
        assert (known.status, known.number, known.version) == (S.QUEUED, 2, 1)


async def test_a_thing_that_is_a_target_itself_keeps_its_job_outside_of_the_group(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(1, "g")
        await world.job("j", "thinggroup/g", "thing/t000", is_continuous=True)
        await world.rollout.step()
        await world.aws.thing_groups.remove("g", "t000", **ME)
        world.rollout.registry_changed()
        await world.rollout.step()
        assert await world.statuses("j") == ["QUEUED"]


@pytest.mark.parametrize(("begun", "told"), [("first", []), ("second", ["t000/jobs/notify-next"])])
async def test_a_thing_is_told_of_a_job_that_it_begins_where_that_was_not_the_next(
    database_url: str, begun: str, told: list[str]
) -> None:
    async with a_world(database_url) as world:
        await world.things(1)
        for job in ("first", "second"):
            await world.job(job, "thing/t000")
            await world.rollout.step()
            world.clock.move(timedelta(seconds=1))
        world.listener.heard.clear()
        await world.ends(begun, "t000", "IN_PROGRESS")
        assert world.listener.topics == told


async def test_a_group_may_be_added_to_a_continuous_job_alone(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(2, "g")
        await world.job("for-ever", "thing/t000", is_continuous=True)
        await world.job("once", "thing/t000")
        await world.jobs.associate("for-ever", [ACCOUNT.arn("thinggroup", "g")], "more", **ME)
        await world.rollout.step()
        assert await world.statuses("for-ever") == ["QUEUED"] * 2
        with pytest.raises(rules.JobStateError):
            await world.jobs.associate("once", [ACCOUNT.arn("thinggroup", "g")], None, **ME)


async def test_a_job_goes_out_at_its_pace(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(10, "g")
        await world.job("j", "thinggroup/g", jobExecutionsRolloutConfig={"maximumPerMinute": 6})
        for seconds, number in ((0, 1), (5, 1), (6, 2), (30, 5), (3600, 10)):
            world.clock.move(timedelta(seconds=seconds))
            await world.rollout.step()
            assert len(await world.statuses("j")) == number


async def test_a_job_that_fails_too_often_stops_itself(database_url: str) -> None:
    async with a_world(database_url) as world:
        names = await world.things(4)
        criteria = {"failureType": "FAILED", "action": "CANCEL", "thresholdPercentage": 50}
        settings: dict[str, Any] = {"abortConfig": {"criteriaList": [criteria | {"minNumberOfExecutedThings": 2}]}}
        await world.job("j", *(f"thing/{name}" for name in names), **settings)
        await world.rollout.step()
        await world.executions.update("t003", "j", DeviceUpdate(status="IN_PROGRESS"))
        await world.ends("j", "t000", "FAILED")
        await world.rollout.step()
        assert await world.status("j") is JobStatus.IN_PROGRESS
        await world.ends("j", "t001", "SUCCEEDED")
        await world.rollout.step()
        assert await world.status("j") is JobStatus.CANCELED
        assert await world.statuses("j") == ["FAILED", "SUCCEEDED", "CANCELED", "IN_PROGRESS"]
        assert (await world.ends("j", "t003", "SUCCEEDED")).status is S.SUCCEEDED  # what was begun may end


async def test_a_device_that_takes_too_long_times_out_and_may_try_again(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(1)
        retries = {"criteriaList": [{"failureType": "TIMED_OUT", "numberOfRetries": 1}]}
        timeout = {"inProgressTimeoutInMinutes": 10}
        await world.job("j", "thing/t000", timeoutConfig=timeout, jobExecutionsRetryConfig=retries)
        await world.rollout.step()
        for wanted in (("QUEUED", 2), ("TIMED_OUT", 2)):
            assert await world.executions.start_next("t000", None, 5) is not None
            world.clock.move(timedelta(minutes=4))
            await world.executions.update("t000", "j", DeviceUpdate(status="IN_PROGRESS", step_timeout_in_minutes=-1))
            world.clock.move(timedelta(minutes=5))
            await world.rollout.step()
            assert await world.statuses("j") == ["IN_PROGRESS"]
            world.clock.move(timedelta(minutes=1))
            await world.rollout.step()
            known = await world.executions.get("j", "t000")
            assert (known.status.value, known.number) == wanted
        await world.rollout.step()
        assert await world.status("j") is JobStatus.COMPLETED


async def test_a_try_that_failed_is_followed_by_another_with_versions_of_its_own(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(1)
        retries = {"criteriaList": [{"failureType": "FAILED", "numberOfRetries": 1}]}
        await world.job("j", "thing/t000", jobExecutionsRetryConfig=retries)
        await world.rollout.step()
        assert (await world.ends("j", "t000", "FAILED")).number == 1
        known = await world.executions.get("j", "t000")
        assert (known.status, known.number, known.version) == (S.QUEUED, 2, 1)
        assert world.listener.topics.count("t000/jobs/notify-next") == 2  # the second try is another execution
        assert (await world.ends("j", "t000", "FAILED")).number == 2
        assert await world.statuses("j") == ["FAILED"]


@pytest.mark.parametrize(("force", "left"), [(False, "IN_PROGRESS"), (True, "CANCELED")])
async def test_a_canceled_job_takes_back_what_is_queued_and_by_force_the_rest(
    database_url: str, force: bool, left: str
) -> None:
    async with a_world(database_url) as world:
        await world.things(2)
        await world.job("j", "thing/t000", "thing/t001")
        await world.rollout.step()
        await world.executions.start_next("t000", None, None)
        await world.jobs.cancel("j", "WRONG", "wrong", force=force, **ME)
        assert await world.executions.start_next("t001", None, None) is None  # at once, whatever is behind
        with pytest.raises(rules.ExecutionStateError):
            await world.ends("j", "t001", "SUCCEEDED")
        await world.rollout.step()
        assert await world.statuses("j") == [left, "CANCELED"]
        assert world.listener.heard[-1][1].get("execution") is None
        with pytest.raises(rules.JobStateError):
            await world.jobs.cancel("j", None, None, force=False, **ME)


async def test_a_job_is_deleted_with_all_of_its_executions(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(2)
        await world.job("j", "thing/t000", "thing/t001")
        await world.rollout.step()
        with pytest.raises(rules.JobStateError):
            await world.jobs.delete("j", force=False, **ME)
        await world.jobs.delete("j", force=True, **ME)
        assert await world.executions.next("t000") is None
        await world.rollout.step()
        with pytest.raises(rules.UnknownJobError):
            await world.jobs.get("j")
        assert [topic for topic, body in world.listener.heard[-4:] if not body.get("jobs") and "execution" not in body]
        await world.job("j", "thing/t000")  # its id is free
        await world.rollout.step()
        assert await world.statuses("j") == ["QUEUED"]


async def test_an_execution_is_canceled_and_deleted_as_it_is_expected(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(1)
        await world.job("j", "thing/t000")
        await world.rollout.step()
        await world.executions.start_next("t000", None, None)
        with pytest.raises(rules.ExecutionStateError):
            await world.executions.cancel("j", "t000", None, None, force=False, **ME)
        with pytest.raises(rules.CancelVersionError):
            await world.executions.cancel("j", "t000", 1, None, force=True, **ME)
        with pytest.raises(rules.ExecutionStateError):
            await world.executions.delete("j", "t000", 1, force=False, **ME)
        await world.executions.cancel("j", "t000", 2, {"why": "wrong"}, force=True, **ME)
        known = await world.executions.get("j", "t000")
        assert (known.status, known.force_canceled, known.details) == (S.CANCELED, True, {"why": "wrong"})
        with pytest.raises(rules.UnknownExecutionError):
            await world.executions.delete("j", "t000", 2, force=False, **ME)
        await world.executions.delete("j", "t000", 1, force=False, **ME)
        with pytest.raises(rules.UnknownExecutionError):
            await world.executions.get("j", "t000")


# ---- others at the same time, and after


async def test_two_that_go_on_with_a_job_put_it_on_each_thing_once_and_tell_it_once(database_url: str) -> None:
    async with a_world(database_url) as world:
        names = await world.things(5, "g")
        await world.job("j", "thinggroup/g", jobExecutionsRolloutConfig={"maximumPerMinute": 1000})
        _, other = world.another_worker()
        world.clock.move(timedelta(minutes=1))
        before_the_next_commit(world.executions.database, other.step)
        await world.rollout.step()
        assert await world.statuses("j") == ["QUEUED"] * 5
        assert sorted(world.listener.topics) == sorted({*world.listener.topics})
        assert len(world.listener.topics) == 2 * len(names)
        assert (await world.jobs.get("j")).rolled == 5


async def test_who_goes_on_after_another_begins_where_that_was(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(4, "g")
        await world.job("j", "thinggroup/g", jobExecutionsRolloutConfig={"maximumPerMinute": 60})
        await world.rollout.step()
        _, other = world.another_worker()
        world.clock.move(timedelta(seconds=2))
        await other.step()
        assert len(await world.statuses("j")) == 3
        world.clock.move(timedelta(seconds=2))
        await world.rollout.step()
        assert len(world.listener.topics) == len({*world.listener.topics}) == 8


async def test_what_a_worker_owed_when_it_died_another_tells_once(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(1)
        await world.job("j", "thing/t000")

        async def died(things: object) -> None:
            raise UnavailableError

        dying, rollout = world.another_worker()
        dying.notify = died  # type: ignore[method-assign] # as if it were killed after its commit
        with pytest.raises(UnavailableError):
            await rollout.step()
        assert world.listener.heard == []
        await world.rollout.step()
        assert world.listener.heard == []  # it may be about to tell it
        world.clock.move(timedelta(seconds=3))
        for _ in range(2):
            await world.rollout.step()
        assert world.listener.topics == ["t000/jobs/notify", "t000/jobs/notify-next"]


async def test_of_two_updates_of_one_version_one_counts(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(1)
        await world.job("j", "thing/t000")
        await world.rollout.step()
        other, _ = world.another_worker()

        async def faster() -> None:
            await other.update("t000", "j", DeviceUpdate(status="SUCCEEDED", expected_version=1))

        before_the_next_commit(world.executions.database, faster)
        with pytest.raises(rules.ExecutionVersionError):
            await world.executions.update("t000", "j", DeviceUpdate(status="FAILED", expected_version=1))
        assert await world.statuses("j") == ["SUCCEEDED"]


async def test_a_job_that_is_canceled_meanwhile_is_not_begun(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(1)
        await world.job("j", "thing/t000")
        await world.rollout.step()

        async def cancel() -> None:
            await world.jobs.cancel("j", None, None, force=False, **ME)

        before_the_next_commit(world.executions.database, cancel)
        assert await world.executions.start_next("t000", None, None) is None
        assert await world.statuses("j") == ["QUEUED"]
        await world.rollout.step()
        assert await world.statuses("j") == ["CANCELED"]


@pytest.mark.parametrize("is_kept", [True, False])
async def test_a_portion_that_may_have_been_kept_goes_out_once(database_url: str, is_kept: bool) -> None:
    async with a_world(database_url) as world:
        await world.things(3, "g")
        await world.job("j", "thinggroup/g")
        keep = leave_the_next_commit_open(world.executions.database)
        with pytest.raises(UnavailableError):
            await world.rollout.step()
        if is_kept:
            await keep()
        world.clock.move(timedelta(seconds=3))
        await world.rollout.step()
        assert await world.statuses("j") == ["QUEUED"] * 3
        assert len(world.listener.topics) == len({*world.listener.topics}) == 6


async def test_an_update_whose_answer_was_lost_is_not_made_twice(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(1)
        await world.job("j", "thing/t000")
        await world.rollout.step()
        keep = leave_the_next_commit_open(world.executions.database)
        update = DeviceUpdate(status="IN_PROGRESS", expected_version=1)
        with pytest.raises(UnavailableError):
            await world.executions.update("t000", "j", update)
        await keep()
        with pytest.raises(rules.ExecutionVersionError):  # and with it, how far it is
            await world.executions.update("t000", "j", update)
        assert (await world.executions.get("j", "t000")).version == 2


# ---- time


def in_minutes(world: World, minutes: int) -> str:
    return f"{world.clock.now() + timedelta(minutes=minutes):%Y-%m-%dT%H:%M}"


async def test_a_job_begins_when_it_is_to_and_no_sooner(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(2, "g")
        await world.job("j", "thinggroup/g", schedulingConfig={"startTime": in_minutes(world, 40)})
        await world.rollout.step()
        assert (await world.status("j"), await world.statuses("j")) == (JobStatus.SCHEDULED, [])
        world.clock.move(timedelta(minutes=41))
        await world.rollout.step()
        assert (await world.status("j"), await world.statuses("j")) == (JobStatus.IN_PROGRESS, ["QUEUED"] * 2)
        assert len(world.listener.topics) == 4


async def test_a_scheduled_job_begins_once_whichever_worker_looks(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(1)
        await world.job("j", "thing/t000", schedulingConfig={"startTime": in_minutes(world, 40)})
        world.clock.move(timedelta(minutes=41))
        _, other = world.another_worker()
        before_the_next_commit(world.jobs.database, other.step)
        await world.rollout.step()
        await world.rollout.step()
        assert await world.statuses("j") == ["QUEUED"]
        assert len(world.listener.topics) == 2


async def test_a_clock_that_is_put_back_keeps_a_job_that_began(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(1)
        await world.job("j", "thing/t000", schedulingConfig={"startTime": in_minutes(world, 40)})
        world.clock.move(timedelta(minutes=41))
        await world.rollout.step()
        world.clock.jump(timedelta(minutes=-41))
        await world.rollout.step()
        assert (await world.status("j"), await world.statuses("j")) == (JobStatus.IN_PROGRESS, ["QUEUED"])


@pytest.mark.parametrize(
    ("behavior", "statuses", "status"),
    [
        ("STOP_ROLLOUT", ["IN_PROGRESS", "QUEUED"], JobStatus.IN_PROGRESS),
        ("CANCEL", ["IN_PROGRESS", "CANCELED"], JobStatus.CANCELED),
        ("FORCE_CANCEL", ["CANCELED", "CANCELED"], JobStatus.CANCELED),
    ],
)
async def test_at_its_end_time_a_job_does_as_it_says(
    database_url: str, behavior: str, statuses: list[str], status: JobStatus
) -> None:
    async with a_world(database_url) as world:
        await world.things(3, "g")
        config = {"endTime": in_minutes(world, 40), "endBehavior": behavior}
        await world.job("j", "thing/t000", "thing/t001", schedulingConfig=config)
        await world.rollout.step()
        await world.executions.start_next("t000", None, None)
        world.clock.move(timedelta(minutes=41))
        await world.rollout.step()
        await world.rollout.step()
        assert (await world.statuses("j"), await world.status("j")) == (statuses, status)


async def test_a_job_whose_time_is_over_goes_to_nobody_else_and_ends_with_the_last(database_url: str) -> None:
    async with a_world(database_url) as world:
        names = await world.things(3, "g")
        config = {"endTime": in_minutes(world, 40)}
        retries = {"criteriaList": [{"failureType": "ALL", "numberOfRetries": 5}]}
        await world.job(
            *("j", "thinggroup/g"),
            is_continuous=True,
            schedulingConfig=config,
            jobExecutionsRetryConfig=retries,
        )
        await world.rollout.step()
        world.clock.move(timedelta(minutes=41))
        await world.aws.things.create(ThingName("late"), {}, None, None, **ME)
        await world.aws.thing_groups.add("g", "late", **ME)
        world.rollout.registry_changed()
        await world.rollout.step()
        for name in names:
            await world.ends("j", name, "FAILED")
        await world.rollout.step()
        assert await world.statuses("j") == ["FAILED"] * 3  # and is tried again no more
        assert await world.status("j") is JobStatus.COMPLETED


async def test_a_job_goes_out_while_a_window_is_open(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(1, "g")
        opens = world.clock.now() + timedelta(hours=2)
        window = {"startTime": f"cron({opens.minute} {opens.hour} * * ? *)", "durationInMinutes": 10}
        config = {"maintenanceWindows": [window]}
        await world.job("j", "thinggroup/g", is_continuous=True, schedulingConfig=config)
        await world.rollout.step()
        assert await world.statuses("j") == []
        world.clock.move(timedelta(hours=2, minutes=1))
        await world.rollout.step()
        assert await world.statuses("j") == ["QUEUED"]
        world.clock.move(timedelta(minutes=10))
        await world.aws.things.create(ThingName("late"), {}, None, None, **ME)
        await world.aws.thing_groups.add("g", "late", **ME)
        world.rollout.registry_changed()
        await world.rollout.step()
        assert await world.statuses("j") == ["QUEUED"]
        world.clock.move(timedelta(hours=23, minutes=50))
        await world.rollout.step()
        assert await world.statuses("j") == ["QUEUED"] * 2


async def test_a_scheduled_job_is_changed_canceled_and_deleted_as_one_that_goes_on(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(1)
        for name in ("j", "k"):
            await world.job(name, "thing/t000", schedulingConfig={"startTime": in_minutes(world, 40)})
        await world.jobs.update("j", "another", {}, **ME)
        with pytest.raises(rules.JobStateError):
            await world.jobs.delete("j", force=False, **ME)
        await world.jobs.cancel("j", None, None, force=False, **ME)
        await world.jobs.delete("k", force=True, **ME)
        world.clock.move(timedelta(minutes=41))
        await world.rollout.step()
        assert await world.status("j") is JobStatus.CANCELED
        with pytest.raises(rules.UnknownJobError):
            await world.status("k")
        assert world.listener.topics == []


# ---- pause


async def test_a_job_that_is_paused_goes_to_no_more_things_until_it_is_resumed(database_url: str) -> None:
    async with a_world(database_url) as world:
        names = await world.things(30, "g")
        await world.job("j", "thinggroup/g", jobExecutionsRolloutConfig={"maximumPerMinute": 60})
        await world.rollout.step()
        world.clock.move(timedelta(seconds=4))
        await world.rollout.step()
        queued = len(await world.statuses("j"))
        assert 0 < queued < len(names)
        await world.jobs.pause("j", **ME)
        assert (await world.jobs.pause("j", **ME)).paused_at is not None  # again is no harm
        world.clock.move(timedelta(hours=1))
        await world.rollout.step()
        assert len(await world.statuses("j")) == queued
        await world.ends("j", names[0], "SUCCEEDED")  # who has it goes on
        await world.jobs.resume("j", **ME)
        await world.rollout.step()
        assert len(await world.statuses("j")) == queued  # what was missed does not go out at once
        world.clock.move(timedelta(seconds=60))
        await world.rollout.step()
        assert len(await world.statuses("j")) == len(names)


async def test_a_paused_job_that_everybody_has_still_ends(database_url: str) -> None:
    async with a_world(database_url) as world:
        await world.things(1)
        await world.job("j", "thing/t000")
        await world.rollout.step()
        await world.jobs.pause("j", **ME)
        await world.ends("j", "t000", "SUCCEEDED")
        await world.rollout.step()
        assert await world.status("j") is JobStatus.COMPLETED
        with pytest.raises(rules.JobStateError):
            await world.jobs.pause("j", **ME)
        with pytest.raises(rules.UnknownJobError):
            await world.jobs.resume("nobody", **ME)
