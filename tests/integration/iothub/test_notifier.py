"""A device hears of each change of its twin and of each message, whichever service call made it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from birthmark.iothub import wire
from birthmark.iothub.model import AuthenticationType, C2dMessage, DeviceAuthentication, Hub, Twin, space_of
from birthmark.iothub.service import IotHub
from birthmark.iothub.wire import DeviceBody
from birthmark.store import open_database
from support.fakes import FakeClock, SeededEntropy

pytestmark = pytest.mark.integration
DEVICE = "pump-1"
Change = Callable[[IotHub, Hub], Awaitable[object]]
BULK = b'[{"id": "pump-1", "importMode": "updateTwin", "properties": {"desired": {"speed": 3}}}]'
PATCH: list[Any] = [{"op": "add", "path": "/speed", "value": 3}]
CHANGES: dict[str, Change] = {
    "a patch": lambda of, hub: of.twins.desire(
        hub, DEVICE, {"properties": {"desired": {"speed": 3}}}, None, replaces=False, actor="test"
    ),
    "a digital twin's patch": lambda of, hub: of.twins.patch_digital(hub, DEVICE, PATCH, None, actor="test"),
    "a configuration": lambda of, hub: of.twins.configure(hub, DEVICE, {"properties.desired.speed": 3}, actor="test"),
    "a bulk request": lambda of, hub: of.bulk.do(hub, wire.parse_bulk(BULK), actor="test"),
}


class Notified:
    """Notes what a device is notified of."""

    def __init__(self) -> None:
        self.patches: list[bytes | None] = []
        self.mail: list[tuple[str, str]] = []

    def desired_changed(self, before: Twin, after: Twin, patch: object, *, replaces: bool) -> None:
        self.patches.append(wire.desired_patch(before, after, patch, replaces=replaces))

    def notify_messages(self, hub: Hub, device_id: str) -> None:
        self.mail.append((hub.name, device_id))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[tuple[IotHub, Hub, Notified]]:
    clock = FakeClock()
    database = await open_database(f"sqlite:///{tmp_path}/x.db", clock)
    iothub = IotHub.of(database, clock, SeededEntropy())
    hub = await iothub.hubs.create("main", "hub.example", actor="test")
    proof = DeviceAuthentication(AuthenticationType.SAS)
    await iothub.registry.put(hub, DEVICE, DeviceBody(DEVICE), proof, None, actor="test")
    notified = Notified()
    iothub.notifier.fill(notified)
    yield iothub, hub, notified
    await database.close()


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_of_desired_properties_is_sent(world: tuple[IotHub, Hub, Notified], change: str) -> None:
    iothub, hub, notified = world
    await CHANGES[change](iothub, hub)
    (patch,) = notified.patches
    assert patch is not None
    assert b'"speed":3' in patch


async def test_a_message_is_delivered_when_it_is_queued_and_when_it_is_abandoned(
    world: tuple[IotHub, Hub, Notified],
) -> None:
    iothub, hub, notified = world
    await iothub.c2d.send(hub, DEVICE, C2dMessage(b"x", {}, {}), message_id="", feedback="", expiry=None, actor="test")
    letter = await iothub.c2d.inboxes.take(space_of(hub.name), DEVICE)
    assert letter is not None
    assert letter.lock is not None
    await iothub.c2d.abandon(hub, DEVICE, letter.lock)
    assert notified.mail == [("main", DEVICE)] * 2
