"""Two that use one identity at two workers: neither worker sees both addresses, and it is noticed all the same."""

from pathlib import Path
from typing import Any

import pytest

from birthmark.refusals import refusals_about
from simulation.hub import a_hub
from simulation.rooms import House, a_house

pytestmark = pytest.mark.integration


async def look(house: House, *, judge: int) -> None:
    """Let every worker tell what it saw, and one put it together, as when they look at what there is to judge."""
    now = house.world.clock.now()
    for place in range(len(house.workers)):
        await house.done(place, house.worker(place).doors.alerting._tell_of_ends(now))
    await house.done(judge, house.worker(judge).doors.alerting._notice_two(now))
    await house.live_on(1.0)


async def connected_by_turns(hub: Any, device: Any, *places: tuple[int, str]) -> None:
    for place, address in places:
        line = await hub.connected(device, place)
        line.driver.address = address
        await hub.house.live_on(2.0)


@pytest.mark.parametrize("judge", [0, 1])
async def test_it_is_noticed_by_the_addresses_that_two_workers_saw(tmp_path: Path, judge: int) -> None:
    async with a_house(tmp_path, 2) as house:
        hub = await a_hub(house)
        device = await hub.device()
        await connected_by_turns(hub, device, *[(0, "10.0.0.1"), (1, "10.0.0.2")] * 2, (0, "10.0.0.1"))
        await look(house, judge=judge)
        found = await refusals_about(house.worker(judge).engine, device.name)
        assert {one.code for one in found} == {"mqtt.identity_contested"}
        assert {one.address for one in found} == {"10.0.0.1", "10.0.0.2"}
        await look(house, judge=judge)
        assert len(await refusals_about(house.worker(judge).engine, device.name)) == 2  # said once


async def test_a_device_that_goes_from_worker_to_worker_in_one_place_is_one(tmp_path: Path) -> None:
    async with a_house(tmp_path, 2) as house:
        hub = await a_hub(house)
        device = await hub.device()
        await connected_by_turns(hub, device, *[(0, "10.0.0.1"), (1, "10.0.0.1")] * 3)
        await look(house, judge=0)
        assert await refusals_about(house.worker(0).engine, device.name) == []
