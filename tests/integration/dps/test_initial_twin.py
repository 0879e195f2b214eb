"""What an enrollment says of a device's twin is what its twin begins with, and touches no twin that is there."""

from datetime import timedelta

import msgspec
import pytest

from birthmark.dps.wire import BodyInvalidError
from birthmark.iothub.service.twins import Twins
from support.azure.dps_world import DpsWorld, a_dps, an_individual
from support.pki.pki_builders import a_device

pytestmark = pytest.mark.integration
TWIN = {"tags": {"site": "osaka"}, "properties": {"desired": {"interval": 30}}}


async def enroll(world: DpsWorld, twin: object) -> None:
    document = msgspec.structs.replace(an_individual("device-1", DEVICE), initial_twin=twin)
    await world.enrollments.put(world.instance, document, None, actor="test")


DEVICE = a_device(common_name="device-1")


async def test_a_new_device_begins_with_the_twin_of_its_enrollment(database_url: str) -> None:
    async with a_dps(database_url) as world:
        await enroll(world, TWIN)
        await world.register(DEVICE)
        twin = await Twins(world.database, world.clock, world.registry).get(world.hub, "device-1")
        assert (twin.tags, twin.desired.values, twin.desired.version) == ({"site": "osaka"}, {"interval": 30}, 2)


async def test_what_was_changed_since_outlives_a_registration(database_url: str) -> None:
    async with a_dps(database_url) as world:
        await enroll(world, TWIN)
        await world.register(DEVICE)
        twins = Twins(world.database, world.clock, world.registry)
        await twins.desire(world.hub, "device-1", {"tags": {"site": "kyoto"}}, None, replaces=False, actor="test")
        world.clock.move(timedelta(minutes=5))
        await world.register(DEVICE)
        assert (await twins.get(world.hub, "device-1")).tags == {"site": "kyoto"}


@pytest.mark.parametrize(
    "twin", [{"tags": 1}, {"tags": {"a.b": 1}}, {"properties": []}, {"properties": {"desired": {"$a": 1}}}]
)
async def test_what_no_twin_may_hold_is_refused_where_it_is_put_on_record(database_url: str, twin: object) -> None:
    async with a_dps(database_url) as world:
        with pytest.raises(BodyInvalidError, match="initialTwin"):
            await enroll(world, twin)
