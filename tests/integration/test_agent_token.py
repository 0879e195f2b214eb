"""A running agent whose token is away for a while, or is reset, goes on when it is back, with the keys that it had."""

import asyncio
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from birthmark.agent.connection_loop import Loop
from birthmark.agent.control_socket import ControlCommand
from birthmark.agent.embedded_agent import AgentDevice, identity_of
from birthmark.keys.pkcs11_library_lifecycle import find_softhsm, stop_library
from birthmark.secure_elements.softhsm_element import initialize_token
from support.agent.faults import PIN, Servers, VirtualOrders, labels_in
from support.agent.world import LIFETIME, certified

pytestmark = pytest.mark.integration
_FAILURES = 4
_TROUBLE = ("failed", "not renewed", "certificate not renewed")


class Chip:
    """The token of a device, in somebody's hands."""

    def __init__(self, directory: Path) -> None:
        self.tokens, self.away = directory / "tokens", directory / "away"

    def pull(self, how: str) -> None:
        self.tokens.rename(self.away)
        if how == "pulled":
            self.tokens.mkdir()

    def put_back(self) -> None:
        if self.tokens.exists():
            self.tokens.rmdir()
        self.away.rename(self.tokens)

    def reset(self) -> None:
        """End all sessions behind the back of who has them, as a reset does."""
        library, count, slots = ctypes.CDLL(str(find_softhsm().resolve())), ctypes.c_ulong(8), (ctypes.c_ulong * 8)()
        library.C_GetSlotList(ctypes.c_ubyte(1), slots, ctypes.byref(count))
        for slot in slots[: count.value]:
            library.C_CloseAllSessions(ctypes.c_ulong(slot))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    monkeypatch.setenv("SOFTHSM2_CONF", "")
    initialize_token(tmp_path / "chip", "device", PIN)
    yield Servers(tmp_path, store="token")
    stop_library()
    os.environ.pop("SOFTHSM2_CONF", None)


@pytest.mark.parametrize("how", ["pulled", "gone"])
@pytest.mark.parametrize("is_connected", [True, False])
async def test_a_token_that_was_away_for_some_attempts_is_used_when_it_is_back(
    world: Servers, how: str, *, is_connected: bool
) -> None:
    chip, orders, told = Chip(world.directory / "chip"), VirtualOrders(world.clock), list[str]()

    def tell(event: str, _facts: dict[str, object]) -> None:
        told.append(event)
        if event == "connected" and told.count(event) == 1:
            chip.pull(how)
            world.clock.move(0.85 * LIFETIME)
            if not is_connected:
                world.connections[-1].lose()
        elif event in _TROUBLE and sum(one in _TROUBLE for one in told) == _FAILURES:
            chip.put_back()
        elif event == "renewed":
            orders.give(ControlCommand.STOP)

    agent = world.device()
    async with asyncio.timeout(60):
        await Loop(agent, orders, tell).run()
    assert told[-2:] == ["renewed", "stopped"]
    assert told.count("disconnected") == (not is_connected)
    agent.identities.keys.close()
    assert sorted(labels_in(world)) == ["device-id", "est-id"]


async def test_a_renewal_goes_on_after_the_chip_was_reset(world: Servers) -> None:
    chip, orders, told = Chip(world.directory / "chip"), VirtualOrders(world.clock), list[str]()

    def tell(event: str, _facts: dict[str, object]) -> None:
        told.append(event)
        if event == "connected":
            chip.reset()
            world.clock.move(0.85 * LIFETIME)
        elif event == "renewed":
            orders.give(ControlCommand.STOP)

    async with asyncio.timeout(60):
        await Loop(world.device(), orders, tell).run()
    assert told == ["connected", "certificate renewed", "renewing", "renewed", "stopped"]


async def test_a_program_s_renewal_goes_on_after_the_chip_was_reset(world: Servers) -> None:
    agent = world.device()
    device = AgentDevice(agent, identity_of(agent, await certified(agent)))
    before = device.identity.thumbprint
    Chip(world.directory / "chip").reset()
    assert (await device.renew()).thumbprint != before
