"""The real rooms of several workers on one database, in virtual time."""

from pathlib import Path

import pytest

from birthmark.iothub import wire
from birthmark.iothub.model import AuthenticationType, DeviceAuthentication
from birthmark.mqtt.packets import Connect
from pki_builders import a_device
from simulation.lines import Client, peer_of
from simulation.rooms import HOST, a_house

pytestmark = pytest.mark.integration


async def test_a_device_connects(tmp_path: Path) -> None:
    async with a_house(tmp_path) as house:
        certificate = a_device(common_name="pump").certificate
        on_record = DeviceAuthentication(AuthenticationType.SELF_SIGNED, certificate.thumbprint)
        iothub = house.worker(0).rooms.iothub
        hub = iothub.hubs.by_name("main")
        await house.done(0, iothub.registry.put(hub, "pump", wire.DeviceBody("pump"), on_record, None, actor="test"))
        client = Client("pump", peer_of(certificate))
        line = client.begin(house.worker(1), Connect("pump", username=wire.render_username(HOST, "pump", "")))
        await house.until(lambda: line.is_open or line.is_over)
        assert line.is_open
