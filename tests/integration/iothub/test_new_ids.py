"""Ids for which MQTT has no topic: none is created, and those of earlier versions stay."""

import pytest

from birthmark.dps.model import DeviceIdInvalidError as EnrolledIdInvalidError
from birthmark.iothub import store
from birthmark.iothub.model import DeviceIdInvalidError, parse_device_id
from birthmark.iothub.wire import DeviceBody
from birthmark.store import Changes
from support.azure.dps_world import BY_HAND, a_dps
from support.pki.pki_builders import a_device

pytestmark = pytest.mark.integration
IDS = pytest.mark.parametrize("name", ["a#b", "a+b"])


@IDS
async def test_no_device_module_or_enrollment_gets_such_an_id(database_url: str, name: str) -> None:
    async with a_dps(database_url) as world:
        with pytest.raises(DeviceIdInvalidError):
            await world.registry.put(world.hub, name, DeviceBody(), BY_HAND, None, actor="test")
        device = await world.registry.put(world.hub, "one", DeviceBody(), BY_HAND, None, actor="test")
        with pytest.raises(DeviceIdInvalidError):
            await world.registry.modules.put(device, name, BY_HAND, actor="test")
        with pytest.raises(EnrolledIdInvalidError):
            await world.individual("device-1", a_device(), device_id=name)


@IDS
async def test_a_device_of_an_earlier_version_is_changed_and_deleted(database_url: str, name: str) -> None:
    async with a_dps(database_url) as world:
        made = world.registry._device(world.hub, parse_device_id(name), BY_HAND, world.clock.now(), is_iot_edge=False)
        await world.database.commit(Changes().run(store.ADD_DEVICE, **store.device_row(made)))
        await world.registry.put(world.hub, name, DeviceBody(status="disabled"), BY_HAND, "*", actor="test")
        assert not (await world.registry.device(world.hub, name)).is_enabled
        await world.registry.remove(world.hub, name, None, actor="test")
