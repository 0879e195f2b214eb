"""An AWS account whose things go from worker to worker: what was promised at one of them is kept at the others."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from birthmark.broker.rules.leases import LEASE_S
from birthmark.mqtt.packets import Disconnect, WillMessage
from simulation.aws import ANSWERS, DELTA, TOPIC, Account, Thing, an_account
from simulation.rooms import a_house
from simulation.virtual import Fate
from support.aws.device import document, statement
from support.kills.history import Outcome

pytestmark = pytest.mark.integration


@contextlib.asynccontextmanager
async def an_account_on(tmp_path: Path, count: int = 2) -> AsyncIterator[Account]:
    """Yield an account on so many workers; in the end nothing may be found in what its clients wrote down."""
    async with a_house(tmp_path, count) as house:
        account = await an_account(house)
        yield account
        await house.recovered()
        await account.collected()
        assert account.findings() == []


def got(account: Account, thing: Thing) -> list[str]:
    return [seen.value for seen in account.book.seen(f"got by {thing.name}")]


async def test_what_is_published_at_one_worker_reaches_a_thing_at_another(tmp_path: Path) -> None:
    async with an_account_on(tmp_path) as account:
        hears, pump = await account.thing("hears", TOPIC), await account.thing("pump")
        await account.connected(hears, 0)
        await account.connected(pump, 1)
        pump.publish(3)
        await account.house.until(lambda: not pump.unacknowledged)
        await account.house.live_on(1.0)
        assert got(account, hears) == ["pump.1", "pump.2", "pump.3"]


async def test_what_is_published_while_a_thing_is_away_waits_in_its_session(tmp_path: Path) -> None:
    async with an_account_on(tmp_path) as account:
        hears, pump = await account.thing("hears", TOPIC), await account.thing("pump")
        await account.connected(hears, 0)
        hears.line.say(Disconnect())
        await account.connected(pump, 1)
        pump.publish(2)
        await account.house.until(lambda: not pump.unacknowledged)
        await account.connected(hears, 1)
        await account.house.live_on(1.0)
        assert got(account, hears) == ["pump.1", "pump.2"]


async def test_what_a_thing_did_not_acknowledge_comes_again_at_another_worker(tmp_path: Path) -> None:
    async with an_account_on(tmp_path) as account:
        hears, pump = await account.thing("hears", TOPIC), await account.thing("pump")
        await account.connected(hears, 0)
        hears.acknowledges = False
        await account.connected(pump, 0)
        pump.publish(2)
        await account.house.until(lambda: len(got(account, hears)) == 2)
        hears.acknowledges = True
        await account.connected(hears, 1)
        await account.house.live_on(1.0)
        assert got(account, hears) == ["pump.1", "pump.2"] * 2


async def test_a_session_of_a_worker_that_died_goes_on_at_another(tmp_path: Path) -> None:
    async with an_account_on(tmp_path) as account:
        hears, pump = await account.thing("hears", TOPIC), await account.thing("pump")
        await account.connected(hears, 0)
        await account.connected(pump, 1)
        pump.publish(1)
        await account.house.kill(0)
        pump.publish(1)
        await account.connected(hears, 1)
        await account.house.until(lambda: not pump.unacknowledged)
        await account.house.live_on(3 * LEASE_S)
        assert set(got(account, hears)) == {"pump.1", "pump.2"}


@pytest.mark.parametrize("dies", [True, False])
async def test_the_will_of_a_thing_is_heard_whether_its_line_or_its_worker_dies(tmp_path: Path, dies: bool) -> None:
    async with an_account_on(tmp_path) as account:
        hears, pump = await account.thing("hears", "t/will"), await account.thing("pump")
        pump.will = WillMessage("t/will", b"pump is gone", 1)
        await account.connected(hears, 1)
        line = await account.connected(pump, 0)
        if dies:
            await account.house.kill(0)
        else:
            line.cut()
        await account.house.until(lambda: got(account, hears) == ["pump is gone"], most_s=3 * LEASE_S)
        pump.will = None


async def test_a_message_whose_commit_is_lost_is_not_acknowledged_and_comes_when_it_is_sent_again(
    tmp_path: Path,
) -> None:
    async with an_account_on(tmp_path) as account:
        hears, pump = await account.thing("hears", TOPIC), await account.thing("pump")
        await account.connected(hears, 0)
        hears.line.say(Disconnect())
        line = await account.connected(pump, 1)
        pump.publish(1)
        await account.house.next_is("commit", Fate.LOST, line.worker)
        await account.house.until(lambda: line.is_over)
        await account.connected(pump, 0)
        await account.house.until(lambda: not pump.unacknowledged)


async def test_a_session_that_a_worker_could_not_let_go_of_is_free_when_its_engine_is_back(tmp_path: Path) -> None:
    async with an_account_on(tmp_path, 3) as account:
        hears, pump = await account.thing("hears", TOPIC), await account.thing("pump")
        line = await account.connected(hears, 1)
        await account.connected(pump, 2)
        hears.connect(0)
        await account.house.until_asked("commit", line.worker)  # by which it lets go of the session
        await account.house.kill(0)  # who is to have it
        await account.house.next_is("commit", Fate.LOST, line.worker)
        pump.publish(1)
        await account.house.until(lambda: not pump.unacknowledged, most_s=5.0)


async def test_a_publisher_that_moves_is_heard_in_its_order(tmp_path: Path) -> None:
    async with an_account_on(tmp_path, 3) as account:
        hears, pump = await account.thing("hears", TOPIC), await account.thing("pump")
        await account.connected(hears, 2)
        for place in (0, 1, 0):
            await account.connected(pump, place)
            pump.publish(3)
        await account.house.until(lambda: not pump.unacknowledged)


async def test_updates_of_a_shadow_at_two_workers_each_make_one_version(tmp_path: Path) -> None:
    async with an_account_on(tmp_path) as account:
        lamp = await account.thing("lamp", *ANSWERS, DELTA)
        await account.connected(lamp, 0)
        asked = [account.update(place, "lamp") for place in (0, 1, 1)]
        own = [lamp.update("lamp") for _ in range(2)]
        await account.house.until(lambda: all(one.is_over for one in asked) and all(one.is_over for one in own))
        versions = [one.doing.version or 0 for one in asked] + [one.version or 0 for one in own]
        assert sorted(versions) == [1, 2, 3, 4, 5]


async def test_a_delta_reaches_a_thing_at_another_worker(tmp_path: Path) -> None:
    async with an_account_on(tmp_path) as account:
        lamp = await account.thing("lamp", *ANSWERS, DELTA)
        await account.connected(lamp, 1)
        asked = account.update(0, "lamp")
        await account.well(asked)
        await account.house.live_on(1.0)
        assert [seen.value for seen in account.book.seen("delta")] == [(asked.doing.value, 1)]


async def test_a_delta_waits_for_a_thing_that_is_away(tmp_path: Path) -> None:
    async with an_account_on(tmp_path) as account:
        lamp = await account.thing("lamp", *ANSWERS, DELTA)
        await account.connected(lamp, 0)
        await account.house.kill(0)
        asked = account.update(1, "lamp")
        await account.well(asked)
        await account.connected(lamp, 1)
        await account.house.live_on(1.0)
        assert (asked.doing.value, 1) in [seen.value for seen in account.book.seen("delta")]


async def test_an_update_of_a_shadow_that_has_no_answer_is_made_or_not(tmp_path: Path) -> None:
    async with an_account_on(tmp_path) as account:
        lamp = await account.thing("lamp", *ANSWERS, DELTA)
        await account.connected(lamp, 0)
        for fate in (Fate.ANSWER_LOST, Fate.LOST):
            asked = account.update(1, "lamp")
            await account.house.next_is("commit", fate, asked.worker)
            await account.until_answered(asked)
            assert asked.doing.outcome is Outcome.UNKNOWN
        await account.well(account.update(1, "lamp"))
        read = lamp.read("lamp")
        await account.house.until(lambda: read.is_over)
        assert read.version == 2


async def test_an_update_at_a_worker_that_was_taken_for_dead_may_have_been_made(tmp_path: Path) -> None:
    async with an_account_on(tmp_path) as account:
        lamp = await account.thing("lamp", *ANSWERS, DELTA)
        await account.connected(lamp, 1)
        await account.well(account.update(0, "lamp"))
        lamp.line.say(Disconnect())
        asked = account.update(0, "lamp")
        await account.house.next_is("commit", Fate.DONE, asked.worker)
        await account.house.until_asked("commit", asked.worker)  # of what is told of it
        account.house.stop(0)
        await account.house.live_on(3 * LEASE_S)
        account.house.go_on()
        await account.house.without("beside", lambda: asked.is_over)  # it does not know yet that it is dead
        assert asked.doing.outcome is Outcome.UNKNOWN


async def test_a_certificate_that_is_made_inactive_at_one_worker_does_nothing_more_at_another(tmp_path: Path) -> None:
    async with an_account_on(tmp_path) as account:
        pump = await account.thing("pump")
        line = await account.connected(pump, 1)
        pump.publish(1)
        await account.house.until(lambda: not pump.unacknowledged)
        await account.well(account.set_status(0, pump, "INACTIVE"))
        assert line.driver.is_over
        again = pump.connect(1)
        await account.house.until(lambda: again.is_over)
        assert not again.is_open


async def test_a_worker_that_stands_still_takes_nothing_of_a_certificate_that_was_revoked_meanwhile(
    tmp_path: Path,
) -> None:
    async with an_account_on(tmp_path) as account:
        hears, pump = await account.thing("hears", TOPIC), await account.thing("pump")
        await account.connected(hears, 0)
        line = await account.connected(pump, 1)
        account.house.stop(1)
        await account.well(account.set_status(0, pump, "REVOKED"))
        pump.publish(2)
        account.house.go_on()
        await account.house.until(lambda: line.is_over)
        assert account.book.values("publish") == []
        assert got(account, hears) == []


async def test_a_right_that_is_taken_at_one_worker_is_not_had_at_another(tmp_path: Path) -> None:
    async with an_account_on(tmp_path) as account:
        pump = await account.thing("pump")
        await account.connected(pump, 1)
        await account.well(account.detach(0, pump, "publish"))
        pump.publish(1)
        await account.house.until(lambda: not pump.unacknowledged)
        await account.well(account.attach(0, pump, "publish"))
        pump.publish(1)
        await account.house.until(lambda: not pump.unacknowledged)
        assert [one.outcome for one in account.book.doings("publish")] == [Outcome.FAILED, Outcome.OK]


async def test_what_was_refused_and_is_sent_again_comes_behind_what_was_taken_where_it_was_refused(
    tmp_path: Path,
) -> None:
    """Nobody heard that it was refused: its sender sends both again."""
    async with an_account_on(tmp_path) as account:
        hears, pump = await account.thing("hears", TOPIC), await account.thing("pump")
        await account.connected(hears, 0)
        line = await account.connected(pump, 1)
        await account.well(account.detach(0, pump, "publish"))
        pump.publish(2)
        line.is_over = True  # it hears no more, and its worker does not know
        await account.house.next_is("bytes", Fate.DONE)
        asked = account.attach(0, pump, "publish")
        await account.house.without("bytes", lambda: asked.is_over)
        await account.house.live_on(1.0)
        await account.connected(pump, 1)
        await account.house.live_on(1.0)
        assert account.book.values("publish") == ["pump.1", "pump.2"]
        assert got(account, hears) == ["pump.2", "pump.1", "pump.2"]


async def test_a_policy_that_says_something_else_at_one_worker_says_so_at_another(tmp_path: Path) -> None:
    async with an_account_on(tmp_path) as account:
        pump = await account.thing("pump")
        await account.connected(pump, 1)
        elsewhere = document(statement("iot:Publish", "arn:aws:iot:us-east-1:000000000000:topic/another"))
        taken = account.book.begun("taken publish", "pump", "another topic")
        await account.well(account.say(0, "publish", elsewhere, taken))
        pump.publish(1)
        await account.house.until(lambda: not pump.unacknowledged)
        assert account.book.values("publish") == []


async def test_who_may_hear_no_more_hears_nothing_of_what_is_published_from_then_on(tmp_path: Path) -> None:
    async with an_account_on(tmp_path) as account:
        hears, pump = await account.thing("hears", TOPIC), await account.thing("pump")
        await account.connected(hears, 1)
        await account.connected(pump, 0)
        pump.publish(1)
        await account.house.until(lambda: bool(got(account, hears)))
        await account.well(account.detach(0, hears, "hear"))
        pump.publish(1)
        await account.house.until(lambda: not pump.unacknowledged)
        await account.house.live_on(1.0)
        assert got(account, hears) == ["pump.1"]
