"""What time it is, on a device whose clock may be years off."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.agent.clock_sync_transports import TimeServers
from birthmark.agent.trusted_clock import BUILT, Timekeeper
from birthmark.device_transports.identity_and_trust import ServerTrust
from birthmark.device_transports.openssl.server_time import StatedTime
from birthmark.device_transports.ports import HttpResponse
from support.agent.world import CONFIG, LIFETIME, World, certified
from support.fakes import NOON, FakeClock

YEAR = timedelta(days=365)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_a_clock_that_may_be_right_is_believed() -> None:
    time = Timekeeper(FakeClock(NOON))
    assert (time.now(), time.is_off, time.why) == (NOON, False, "")


def test_a_clock_that_starts_in_1970_shows_the_latest_time_that_was_learnt() -> None:
    time = Timekeeper(FakeClock(EPOCH), floor=NOON)
    assert time.now() == NOON
    assert "1970-01-01" in time.why


def test_it_is_never_earlier_than_the_program() -> None:
    assert Timekeeper(FakeClock(EPOCH)).now() == BUILT


@pytest.mark.parametrize("wrong", [-56 * YEAR, -2 * HOUR, 2 * HOUR, 10 * YEAR])
def test_a_learnt_time_counts_until_the_clock_is_set_right(wrong: timedelta) -> None:
    machine = FakeClock(NOON + wrong)
    time = Timekeeper(machine)
    assert time.learn(NOON, "est.test")
    assert time.now() == NOON
    assert "est.test" in time.why
    machine.move(HOUR)
    assert time.now() == NOON + HOUR
    machine._now = NOON + HOUR  # by NTP, or by hand
    assert time.now() == NOON + HOUR
    assert not time.is_off


def test_a_machine_that_slept_is_no_clock_that_was_set() -> None:
    machine = FakeClock(NOON + 10 * YEAR)
    time = Timekeeper(machine)
    time.learn(NOON, "est.test")
    machine._now += 8 * HOUR  # the monotonic clock stood still
    assert time.now() == NOON + 8 * HOUR


def test_a_few_minutes_are_no_reason_to_doubt_a_clock() -> None:
    time = Timekeeper(FakeClock(NOON + timedelta(minutes=4)))
    assert not time.learn(NOON, "est.test")
    assert not time.is_off


@pytest.mark.parametrize(
    ("stated", "believed"),
    [(NOON, True), (NOON - 2 * HOUR, False), (NOON + 20 * HOUR, False), (NOON.replace(tzinfo=None), False)],
    ids=["within", "before what was known", "after the chain", "without a zone"],
)
def test_a_stated_time_counts_within_the_chain_that_states_it_and_not_before_the_floor(
    stated: datetime, believed: bool
) -> None:
    time = Timekeeper(FakeClock(EPOCH), floor=NOON - HOUR)
    assert time.may_be(stated, NOON - YEAR, NOON + 10 * HOUR) is believed


def test_a_chain_that_begins_later_states_no_earlier_time() -> None:
    assert not Timekeeper(FakeClock(EPOCH), floor=BUILT).may_be(NOON, NOON + HOUR, NOON + YEAR)


@given(st.lists(st.integers(-10_000, 10_000), max_size=20))
def test_the_time_never_goes_back_behind_what_was_learnt(hours: list[int]) -> None:
    machine = FakeClock(NOON)
    time = Timekeeper(machine)
    for number, amount in enumerate(hours):
        if number % 2 and NOON + amount * HOUR >= time.floor:
            time.learn(NOON + amount * HOUR, "server")
        machine._now = NOON + amount * HOUR
        assert time.now() >= time.floor


async def told(time: Timekeeper, stated: datetime, chain_ends: datetime) -> None:
    """A server whose chain ends then says what time it is, beside an answer, and whenever it is asked."""

    async def ask(_url: str, _trust: ServerTrust) -> StatedTime:
        return StatedTime(stated, NOON - YEAR, chain_ends)

    servers = TimeServers(time, ask, lambda: None, [("https://est.test/cacerts", ServerTrust)])
    await servers.heard(HttpResponse(200, {"date": format_datetime(stated, usegmt=True)}, b""), "https://est.test/x")


async def test_no_answer_moves_the_time_beyond_the_chain_of_who_answers() -> None:
    time = Timekeeper(FakeClock(NOON))
    await told(time, NOON + 10 * YEAR, chain_ends=NOON + YEAR)
    assert (time.now(), time.floor < NOON) == (NOON, True)


@pytest.mark.parametrize("wrong", [-56 * YEAR, 0 * YEAR, 2 * HOUR, 10 * YEAR])
async def test_an_answer_puts_a_wrong_clock_right(wrong: timedelta) -> None:
    time = Timekeeper(FakeClock(NOON + wrong))
    await told(time, NOON, chain_ends=NOON + YEAR)
    assert (time.now(), time.is_confirmed) == (NOON, True)


@pytest.mark.parametrize("wrong", [-56 * YEAR, 10 * YEAR])
async def test_a_device_starts_with_a_clock_years_off_and_keeps_its_identity(tmp_path: Path, wrong: timedelta) -> None:
    world = World(tmp_path)
    agent = world.agent()
    await agent.apply()
    before = await certified(agent)
    world.clock._now += wrong
    world.server_offset = -wrong
    world.boot = "another"
    again = world.agent()
    held = await certified(again)
    assert held.leaf == before.leaf
    await again.connect(held)
    due = again.renewal_due_in(held)
    assert due is not None
    assert HOUR < due <= LIFETIME


async def test_a_clock_in_1970_does_not_keep_a_certificate_that_is_over_alive(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.agent().apply()
    world.clock._now -= 56 * YEAR
    world.server_offset = 56 * YEAR + 10 * LIFETIME
    world.boot = "another"
    held = await certified(world.agent())
    assert held.leaf.not_after > NOON + 10 * LIFETIME


async def test_a_clock_ahead_with_nobody_to_ask_is_told_the_time_by_a_new_certificate(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent()
    await agent.apply()
    before = await certified(agent)
    world.clock._now += 10 * YEAR
    world.server_offset = -10 * YEAR
    world.tells_time = False
    again = world.agent()
    assert (await certified(again)).leaf != before.leaf
    assert abs(again.clock.now() - NOON) < HOUR


async def test_the_offset_is_kept_for_this_start_of_the_machine_and_the_floor_for_good(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent(CONFIG)
    agent.clock.learn(NOON - HOUR, "est.test")
    agent._keep_time()
    assert world.agent().clock.now() == NOON - HOUR
    world.boot = "another"
    assert world.agent().clock.floor == NOON - HOUR - timedelta(minutes=5)
    assert world.agent().clock.now() == NOON


async def test_one_servers_wrong_date_moves_no_right_clock_and_nothing_for_good(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent(CONFIG)
    await agent.apply()
    before = await certified(agent)
    await told(agent.clock, NOON + 400 * 24 * HOUR, chain_ends=NOON + 10 * YEAR)
    agent._keep_time()
    assert (agent.clock.now(), agent.clock.is_off) == (NOON, False)
    assert (await certified(agent)).leaf == before.leaf
    world.boot = "another"
    assert world.agent().clock.now() == NOON


async def test_two_servers_that_agree_put_a_clock_right_that_might_have_been(tmp_path: Path) -> None:
    wrong, urls = Timekeeper(FakeClock(NOON - 20 * 24 * HOUR)), ["https://est.test/", "https://dps.test/"]

    async def ask(_url: str, _trust: ServerTrust) -> StatedTime:
        return StatedTime(NOON, NOON - YEAR, NOON + YEAR)

    assert not await TimeServers(wrong, ask, lambda: None, [(urls[0], ServerTrust), (urls[0], ServerTrust)]).inquire()
    assert await TimeServers(wrong, ask, lambda: None, [(url, ServerTrust) for url in urls]).inquire()
    assert wrong.now() == NOON


def test_a_server_that_is_wrong_on_a_wrong_clock_moves_the_floor_no_further_than_both() -> None:
    time = Timekeeper(FakeClock(EPOCH))
    time.learn(NOON + 10 * YEAR, "est.test")
    assert (time.now(), time.floor) == (NOON + 10 * YEAR, BUILT)


def test_a_certificate_of_the_far_future_is_supposed_and_forgotten() -> None:
    time = Timekeeper(FakeClock(EPOCH))
    time.suppose(NOON + 64 * YEAR)
    assert time.now() == NOON + 64 * YEAR
    assert time.may_be(NOON, NOON - YEAR, NOON + YEAR)
    time.learn(NOON, "est.test")
    time.suppose(NOON + 64 * YEAR)
    assert (time.now(), time.floor) == (NOON, BUILT)


async def test_what_was_learnt_wrongly_before_can_be_forgotten(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent(CONFIG)
    agent.update(seen_at=NOON + 64 * YEAR)
    agent = world.agent(CONFIG)
    assert agent.clock.now() > NOON + 63 * YEAR
    assert "birthmark agent forget-time" in agent.clock.why
    agent.forget_time()
    assert (agent.clock.now(), agent.clock.why) == (NOON, "")
    assert world.agent(CONFIG).clock.now() == NOON


@pytest.mark.parametrize("ahead", [HOUR, 20 * 24 * HOUR, YEAR])
async def test_a_certificate_that_begins_later_gives_way_to_one_that_has_begun(
    tmp_path: Path, ahead: timedelta
) -> None:
    """Its server's clock was ahead for a while: nobody takes it now, and the server that signed it is right again."""
    world = World(tmp_path)
    world.server_offset = ahead
    await world.agent().apply()
    world.server_offset = timedelta(0)
    world.clock._now += timedelta(seconds=30)
    held = await certified(world.agent())
    assert held.leaf.not_before <= world.clock.now()


async def test_as_long_as_the_servers_clock_is_ahead_another_certificate_is_asked_for_now_and_then(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    agent = world.agent()
    agent.clock.is_confirmed = True
    world.server_offset, world.tells_time = 20 * 24 * HOUR, False
    asked = []
    for _ in range(5):
        await agent.ensure()
        asked.append(len(world.requests))
        world.clock.move(timedelta(seconds=100))
    assert asked == [1, 2, 2, 2, 3]


async def test_where_no_other_certificate_is_to_be_had_the_one_that_begins_later_stays(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent()
    agent.clock.is_confirmed = True
    world.server_offset, world.tells_time = 20 * 24 * HOUR, False
    before = await certified(agent)
    world.failing.add("est")
    assert (await certified(agent)).leaf == before.leaf
