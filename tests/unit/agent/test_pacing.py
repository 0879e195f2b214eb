"""When the agent renews and comes back: as the server says, and not all at once."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from birthmark.agent.connection_loop import Loop
from birthmark.agent.control_socket import ControlCommand, ControlServer
from birthmark.agent.identity_lifecycle import Agent
from birthmark.agent.renewal_policy import (
    Renewal,
    RenewalSpan,
    moment_in,
    overdue_pause,
    pause_as_asked,
    renew_at,
    spread,
    warn_at,
)
from birthmark.agent.renewal_scheduler import RenewalTurn, RetryPace
from birthmark.agent.state_directory import DEVICE_ID
from birthmark.device_transports.ports import HttpResponse
from birthmark.dps.client import DpsBusyError
from birthmark.errors import BirthmarkError
from birthmark.est.client import EstServerBusyError
from birthmark.pki.path_validation import CertificateExpiredError
from support.agent.world import BOOTSTRAP, CONFIG, LIFETIME, World, certified
from support.fakes import NOON

HOUR = timedelta(hours=1)


async def test_a_window_is_kept_and_a_moment_in_it_chosen_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    start, end = NOON + 10 * HOUR, NOON + 12 * HOUR
    world.answers = {"renewal-window": f"{start.isoformat()}/{end.isoformat()}"}
    agent = world.agent()
    held = await certified(agent)
    at = agent.renew_at(held)
    assert at is not None
    assert start <= at <= end
    assert world.agent().renew_at(held) == at


async def test_a_changed_threshold_counts_for_the_present_certificate(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.answers = {"renewal-window": f"{(NOON + 10 * HOUR).isoformat()}/{(NOON + 12 * HOUR).isoformat()}"}
    held = await certified(world.agent())
    changed = world.agent(CONFIG.replace('threshold = "80%"', 'threshold = "10%"'))
    at = changed.renew_at(held)
    assert at is not None
    assert at < NOON + 5 * HOUR


async def test_devices_of_one_hour_choose_different_moments(tmp_path: Path) -> None:
    moments = set()
    for number in range(5):
        world = World(tmp_path / str(number))
        world.directory.mkdir()
        world.answers = {"renewal-window": f"{NOON.isoformat()}/{(NOON + 20 * HOUR).isoformat()}"}
        world.entropy._seed = number
        agent = world.agent()
        moments.add(agent.renew_at(await certified(agent)))
    assert len(moments) == 5


def test_a_window_outside_the_life_of_a_certificate_counts_as_far_as_it_reaches() -> None:
    after = (NOON + 30 * HOUR, NOON + 40 * HOUR)
    assert moment_in(after, NOON, NOON + LIFETIME, 0.5) == NOON + 30 * HOUR
    around = (NOON - 5 * HOUR, NOON + 100 * HOUR)
    assert NOON <= moment_in(around, NOON, NOON + LIFETIME, 1.0) <= NOON + LIFETIME


def test_what_was_issued_at_once_is_renewed_over_half_a_retry() -> None:
    assert spread(NOON, NOON + 10 * HOUR, HOUR, 0) == NOON
    assert spread(NOON, NOON + 10 * HOUR, HOUR, 1) == NOON + HOUR / 2


def test_what_is_renewed_a_fixed_time_before_the_end_of_a_long_life_is_renewed_before_the_end() -> None:
    months = Renewal(threshold=RenewalSpan(duration=timedelta(days=30)), retry=RenewalSpan(percent=4))
    for end in (NOON.replace(year=NOON.year + 20), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)):
        due = renew_at(NOON, end, months.threshold)
        assert due <= spread(due, end, months.retry.of(end - NOON), 1.0) < end
        assert due <= warn_at(NOON, end, months) <= end


def test_an_overdue_renewal_waits_within_what_is_left() -> None:
    assert overdue_pause(20 * HOUR, HOUR, 1.0) == HOUR
    assert overdue_pause(2 * HOUR, HOUR, 1.0) == HOUR / 2
    assert overdue_pause(-HOUR, HOUR, 1.0) == timedelta(0)


@pytest.mark.parametrize("status", [202, 429, 503])
async def test_a_server_that_says_when_is_asked_then_with_the_same_request(tmp_path: Path, status: int) -> None:
    world = World(tmp_path)
    agent = world.agent()
    held = await certified(agent)
    world.busy = HttpResponse(status, {"retry-after": "120"}, b"later")
    with pytest.raises(EstServerBusyError) as refused:
        await agent.renew(held)
    pause = RetryPace().failed(agent, refused.value, None, LIFETIME, LIFETIME).total_seconds()
    assert 120 <= pause <= 132
    world.busy = None
    again = world.agent()
    again.keeper.recover()
    await again.renew(held)
    assert world.requests[-1] == world.requests[-2]


async def test_a_first_certificate_that_somebody_must_approve_is_asked_for_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.busy = HttpResponse(202, {"retry-after": "60"}, b"")
    agent: Agent = world.agent(BOOTSTRAP)
    with pytest.raises(EstServerBusyError):
        await agent.apply()
    world.busy = None
    again = world.agent(BOOTSTRAP)
    again.keeper.recover()
    await again.apply()
    assert world.requests[0] == world.requests[1]
    assert not again.keeper.is_unfinished(DEVICE_ID)


def test_a_server_that_asks_for_a_pause_gets_it_and_up_to_a_tenth_more() -> None:
    assert pause_as_asked(100, 0.0) == timedelta(seconds=100)
    assert pause_as_asked(100, 1.0) == timedelta(seconds=110)


class Waits(ControlServer):
    """How long the loop means to wait; then it is told to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    async def wait(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.give(ControlCommand.STOP)


async def test_one_answer_does_not_put_a_device_to_sleep_for_a_week_that_has_no_identity_yet(tmp_path: Path) -> None:
    world, waits = World(tmp_path), Waits()
    world.busy = HttpResponse(503, {"retry-after": str(7 * 24 * 3600)}, b"later")
    await Loop(world.agent(), waits, lambda *_: None).run()
    assert 3600 <= waits.seconds[0] <= 1.1 * 3600


async def test_one_answer_does_not_put_a_device_to_sleep_for_a_week_whose_identity_has_expired(tmp_path: Path) -> None:
    world, waits = World(tmp_path), Waits()
    await certified(world.agent())
    world.clock.move(2 * LIFETIME)
    world.busy = HttpResponse(503, {"retry-after": str(7 * 24 * 3600)}, b"later")
    await Loop(world.agent(), waits, lambda *_: None).run()
    assert 3600 <= waits.seconds[0] <= 1.1 * 3600


BUSY_EST = EstServerBusyError(status=503, retry_after_s=7 * 24 * 3600, wait_s=1, text="later", url="https://est.test")
BUSY_DPS = DpsBusyError(host="dps.test", text="later", number="429", retry_after_s=7 * 24 * 3600)


@pytest.mark.parametrize("busy", [BUSY_EST, BUSY_DPS])
@pytest.mark.parametrize(("left", "least", "most"), [(8 * HOUR, 4 * HOUR, 4 * HOUR), (-HOUR, HOUR, 1.1 * HOUR)])
async def test_what_a_server_asks_for_does_not_keep_a_renewal_from_another_try_before_the_end(
    tmp_path: Path, left: timedelta, least: timedelta, most: timedelta, busy: BirthmarkError
) -> None:
    world = World(tmp_path)
    agent = world.agent()
    held = await certified(agent)
    world.clock.move(held.leaf.not_after - left - world.clock.now())
    assert least <= RenewalTurn(agent).failed(held, busy) <= most


async def test_renewals_that_give_what_is_over_already_wait_longer_each_time(tmp_path: Path) -> None:
    """The server's clock is days behind: each new certificate would be renewed at once."""
    world = World(tmp_path)
    world.clock.move(timedelta(days=10))  # its CA is that old
    agent = world.agent()
    agent.clock.raise_floor(world.clock.now())  # on which clock and server agreed before
    turn, held = RenewalTurn(agent), await certified(agent)
    world.server_offset = timedelta(days=-3)
    pauses = []
    for _ in range(3):
        held, hub = await agent.renew(held)
        assert hub is not None
        await hub.close()
        assert isinstance(turn.worked(held), CertificateExpiredError)
        pauses.append(turn.due_s(held, agent.renewal_due_in(held)) or 0.0)
    assert pauses[0] > 30
    assert sorted(pauses) == pauses


async def test_a_renewal_that_gives_what_lives_is_no_failure(tmp_path: Path) -> None:
    agent = World(tmp_path).agent()
    held, _ = await agent.renew(await certified(agent))
    assert RenewalTurn(agent).worked(held) is None
