"""The agent inside a program: who may have it, and what its proof decides."""

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from birthmark import supervised_tasks
from birthmark.agent import connect, embedded_agent
from birthmark.agent.certificate_slot import HeldIdentity
from birthmark.agent.config import ConfigUnsupportedError
from birthmark.agent.control_socket import ControlCommand
from birthmark.agent.embedded_agent import AgentDevice, Identity, _wrap_prove, identity_of
from birthmark.agent.identity_lifecycle import Agent
from birthmark.agent.renewal_scheduler import NEVER_S
from birthmark.agent.running_instance import AgentRunningError, locked
from birthmark.agent.state_directory import EDGE_CA, AgentPaths
from birthmark.device_transports.errors import MqttRefusedError
from birthmark.errors import UnavailableError
from support.agent.world import CONFIG, LIFETIME, World, certified


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield World(tmp_path)


async def test_one_root_has_one_agent(world: World) -> None:
    agent = world.agent()
    config = world.directory / "config.toml"
    config.touch(mode=0o600)
    config.write_text(CONFIG.replace("TRUST", str(world.directory / "trust.pem")))
    with locked(agent.places.lock), pytest.raises(AgentRunningError) as refused:
        async with connect(config, root=agent.places.root):
            pass
    assert f"birthmark agent stop --root {agent.places.root}`" in refused.value.explain_fix()


async def test_a_device_without_a_certificate_is_refused_by_name_before_anything_is_done(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.touch(mode=0o600)
    config.write_text(
        '[provisioning]\nsource = "manual"\n'
        'connection_string = "HostName=hub.example;DeviceId=d;SharedAccessKey=a2V5"\n'
    )
    with pytest.raises(ConfigUnsupportedError) as refused:
        async with connect(config, root=tmp_path / "root"):
            pass
    assert "agent run" in refused.value.explain_fix()
    assert not (tmp_path / "root").exists()


async def test_callbacks_hear_of_each_renewal_with_the_files_in_place(world: World) -> None:
    agent = world.agent()
    device = AgentDevice(agent, identity_of(agent, await certified(agent)))
    heard: list[Identity] = []
    device.on_renewed(heard.append)
    fresh = await device.renew()
    assert heard == [fresh]
    assert fresh.certificate_file == AgentPaths(agent.places.root).certificate("device-id")
    assert fresh.key_file is not None
    assert fresh.key_file.exists()


async def test_a_program_that_gives_up_waiting_has_the_identity_that_is_on_the_disk(world: World) -> None:
    """And who was not told of it yet is told by what keeps it."""
    agent = world.agent()
    device = AgentDevice(agent, identity_of(agent, await certified(agent)))
    began, told = asyncio.Event(), asyncio.Queue[Identity]()

    async def slow(_identity: Identity) -> None:
        began.set()
        await asyncio.Event().wait()

    device.on_renewed(slow)
    device.on_renewed(told.put_nowait)
    renewing = asyncio.create_task(device.renew())
    await began.wait()
    await supervised_tasks.cancel_and_wait(renewing)
    current = agent.held()
    assert isinstance(current, HeldIdentity)
    assert device.identity.thumbprint == current.mark
    assert told.empty()
    keeping = asyncio.create_task(device.keep())
    assert await asyncio.wait_for(told.get(), 10) == device.identity
    await supervised_tasks.cancel_and_wait(keeping)
    assert (await asyncio.wait_for(_without(device, slow), 10)).thumbprint != current.mark


async def test_who_is_busy_with_the_first_identity_when_another_comes_is_told_of_it(world: World) -> None:
    """A program that connects, and asks for renewals when its connection ends, slept through the first one."""
    agent = world.agent()
    device = AgentDevice(agent, identity_of(agent, await certified(agent)))
    for _ in range(2):
        fresh = await device.renew()
        assert await asyncio.wait_for(anext(device.renewals()), 5) == fresh
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(device.renewals()), 0.05)


async def test_two_who_ask_for_renewals_get_each(world: World) -> None:
    agent = world.agent()
    device = AgentDevice(agent, identity_of(agent, await certified(agent)))
    both = device.renewals(), device.renewals()
    for _ in range(2):
        fresh = await device.renew()
        for renewals in both:
            assert await asyncio.wait_for(anext(renewals), 5) == fresh


async def test_a_callback_that_waits_for_what_it_cancelled_ends_nothing(world: World) -> None:
    """`task.cancel(); await task` without catching what that raises: upkeep ended in silence."""
    agent = world.agent()
    device, heard = AgentDevice(agent, identity_of(agent, await certified(agent))), asyncio.Queue[Identity]()

    async def ends_its_own(_identity: Identity) -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    device.on_renewed(ends_its_own)
    device.on_renewed(heard.put_nowait)
    keeping = asyncio.create_task(device.keep())
    for _ in range(2):
        assert device._orders.give(ControlCommand.RENEW)
        assert await asyncio.wait_for(heard.get(), 5) == device.identity
    assert not keeping.done()
    await supervised_tasks.cancel_and_wait(keeping)


@pytest.mark.parametrize("is_endless", [True, False])
async def test_a_proof_without_an_end_or_with_a_cancellation_of_its_own_proves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, *, is_endless: bool
) -> None:
    monkeypatch.setattr(embedded_agent, "PROVE_S", 0.05)

    async def prove(_identity: Identity) -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        if not is_endless:
            task.cancel()
        await task

    agent = world.agent()
    agent.prove = _wrap_prove(agent, prove)
    device = AgentDevice(agent, identity_of(agent, await certified(agent)))
    before = device.identity
    with pytest.raises(UnavailableError):
        await device.renew()
    assert device.identity == before


async def test_a_callback_may_renew(world: World) -> None:
    agent = world.agent()
    device = AgentDevice(agent, identity_of(agent, await certified(agent)))
    seen: list[Identity] = []

    async def once_more(identity: Identity) -> None:
        seen.append(identity)
        if len(seen) == 1:
            await device.renew()

    device.on_renewed(once_more)
    async with asyncio.timeout(10):
        await device.renew()
    assert len({one.thumbprint for one in seen}) == 2
    assert seen[-1] == device.identity


async def _without(device: AgentDevice, callback: object) -> Identity:
    device._callbacks.remove(callback)  # type: ignore[arg-type]  # whatever it is
    return await device.renew()


async def test_the_identity_is_the_new_one_before_the_proofs_connection_is_closed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = world.agent()
    device = AgentDevice(agent, identity_of(agent, await certified(agent)))
    before, closing = device.identity, asyncio.Event()

    class Hub:
        async def close(self) -> None:
            closing.set()
            await asyncio.Event().wait()

    renew = Agent.renew

    async def renewed(agent: Agent, held: Any) -> Any:
        fresh, hub = await renew(agent, held)
        assert hub is not None
        await hub.close()
        return fresh, Hub()

    monkeypatch.setattr(Agent, "renew", renewed)
    renewing = asyncio.create_task(device.renew())
    await closing.wait()
    await supervised_tasks.cancel_and_wait(renewing)
    assert device.identity.thumbprint != before.thumbprint
    assert device.identity.ssl_context() is not None


@pytest.mark.parametrize("problem", [OSError("no route"), RuntimeError("broken"), None])
async def test_what_the_programs_proof_raises_leaves_the_old_identity(world: World, problem: Exception | None) -> None:
    agent = world.agent()
    device = AgentDevice(agent, identity_of(agent, await certified(agent)))
    before, shown = device.identity, []

    async def prove(identity: Identity) -> None:
        shown.append(identity.certificate_file)
        if problem is not None:
            raise problem

    agent.prove = _wrap_prove(agent, prove)
    with pytest.raises(UnavailableError) if problem else contextlib.nullcontext():
        await device.renew()
    assert (device.identity == before) is (problem is not None)
    assert shown != [before.certificate_file]
    assert world.connections == []  # the program has its own


async def test_a_refusal_of_ours_in_a_proof_keeps_its_words(world: World) -> None:
    agent = world.agent()
    device = AgentDevice(agent, identity_of(agent, await certified(agent)))

    async def prove(identity: Identity) -> None:
        raise MqttRefusedError(host="broker", client_id=identity.device_id, return_code="5")

    agent.prove = _wrap_prove(agent, prove)
    with pytest.raises(MqttRefusedError):
        await device.renew()


async def test_renewals_take_turns(world: World) -> None:
    agent = world.agent()
    device = AgentDevice(agent, identity_of(agent, await certified(agent)))
    steps = []

    async def prove(_identity: Identity) -> None:
        steps.append("begin")
        await asyncio.sleep(0.01)
        steps.append("end")

    agent.prove = _wrap_prove(agent, prove)
    await asyncio.gather(device.renew(), device.renew())
    assert steps == ["begin", "end"] * 2


async def test_a_callback_that_raises_ends_neither_the_renewals_nor_the_other_callbacks(world: World) -> None:
    agent = world.agent()
    device, heard = AgentDevice(agent, identity_of(agent, await certified(agent))), list[Identity]()

    def breaks(_identity: Identity) -> None:
        raise RuntimeError("the program's own fault")

    device.on_renewed(breaks)
    device.on_renewed(heard.append)
    keeping = asyncio.create_task(device.keep())
    for _ in range(2):
        assert device._orders.give(ControlCommand.RENEW)
        async with asyncio.timeout(5):
            await anext(device.renewals())
    assert len(heard) >= 1
    assert not keeping.done()
    keeping.cancel()


async def test_a_renewal_that_was_due_while_nobody_ran_waits_its_turn_in_a_program_too(world: World) -> None:
    agent = world.agent()
    held = await certified(agent)
    world.clock.move(LIFETIME * 0.9)
    device = AgentDevice(agent, identity_of(agent, held))
    assert device._due_s() > 0
    world.clock.move(timedelta(seconds=device._due_s()))
    assert device._due_s() <= 0


async def test_an_order_to_register_again_stands_until_it_is_carried_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_agent, "_LOOK_S", 0.01)
    agent = world.agent()
    device = AgentDevice(agent, identity_of(agent, await certified(agent)))
    asked = 0

    async def register(_held: HeldIdentity) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise UnavailableError
        agent.update(hub="hub-2")

    monkeypatch.setattr(type(agent), "register", lambda _agent, held: register(held))
    keeping = asyncio.create_task(device.keep())
    assert device._orders.give(ControlCommand.REPROVISION)
    async with asyncio.timeout(5):
        while device.identity.hub != "hub-2":
            world.clock.move(timedelta(seconds=0.01))
            await asyncio.sleep(0.01)
    keeping.cancel()
    assert asked == 2


async def test_an_order_to_renew_renews_what_is_kept_beside_the_identity_too(world: World) -> None:
    agent = world.agent(CONFIG + "[edge_ca]\nauto_generated_edge_ca_expiry_days = 5\n")
    await agent.apply()
    held, before = agent.held(), agent.identities.slot(EDGE_CA).current()
    assert held is not None
    device, heard = AgentDevice(agent, identity_of(agent, held)), asyncio.Queue[Identity]()
    device.on_renewed(heard.put_nowait)
    keeping = asyncio.create_task(device.keep())
    assert device._orders.give(ControlCommand.RENEW)
    fresh = await asyncio.wait_for(heard.get(), 5)
    await supervised_tasks.cancel_and_wait(keeping)
    after = agent.identities.slot(EDGE_CA).current()
    assert before is not None
    assert after is not None
    assert (fresh.thumbprint != held.mark, after.mark != before.mark) == (True, True)


async def test_what_falls_due_beside_the_identity_is_made_by_what_keeps_it(world: World) -> None:
    agent = world.agent(CONFIG + "[edge_ca]\nauto_generated_edge_ca_expiry_days = 5\n")
    device = AgentDevice(agent, identity_of(agent, await certified(agent)))
    assert agent.identities.slot(EDGE_CA).current() is None
    keeping = asyncio.create_task(device.keep())
    async with asyncio.timeout(5):
        while agent.identities.slot(EDGE_CA).current() is None:
            await asyncio.sleep(0.01)
    await supervised_tasks.cancel_and_wait(keeping)


async def test_a_fault_of_ours_ends_no_upkeep(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_agent, "_LOOK_S", 0.01)
    agent = world.agent()
    device = AgentDevice(agent, identity_of(agent, await certified(agent)))
    looked, kept = asyncio.Queue[None](), AgentDevice._kept

    async def breaks_once(device: AgentDevice, upkeep: Any) -> None:
        monkeypatch.setattr(AgentDevice, "_kept", kept)
        looked.put_nowait(None)
        raise RuntimeError("a bug")

    monkeypatch.setattr(AgentDevice, "_kept", breaks_once)
    before = device.identity
    keeping = asyncio.create_task(device.keep())
    await asyncio.wait_for(looked.get(), 5)
    assert device._orders.give(ControlCommand.RENEW)
    async with asyncio.timeout(5):
        await anext(device.renewals())
    await supervised_tasks.cancel_and_wait(keeping)
    assert device.identity != before


async def test_an_identity_that_the_configuration_gives_is_kept_and_never_renewed(tmp_path: Path) -> None:
    world = World(tmp_path)
    text = CONFIG.replace(
        'identity_cert = { method = "est", auto_renew = { rotate_key = true, threshold = "80%", retry = "4%" } }',
        'identity_cert = "file://BORN.pem"\nidentity_pk = "file://BORN.key"',
    )
    agent = world.agent(text)
    await agent.prepare()
    held = agent.held()
    assert held is not None
    device = AgentDevice(agent, identity_of(agent, held))
    assert device.identity.certificate_file == tmp_path / "born.pem"
    assert device._due_s() == NEVER_S
    world.clock.move(timedelta(days=4000))
    assert device._due_s() == NEVER_S


async def test_a_program_ends_its_agent_also_where_that_answers_with_an_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answers(_device: AgentDevice, _upkeep: object) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise TimeoutError from None

    monkeypatch.setattr(AgentDevice, "_kept", answers)
    monkeypatch.setattr(supervised_tasks, "AGAIN_S", 0.01)
    monkeypatch.setattr(embedded_agent, "open_agent", lambda *_, **__: world.agent())
    config = world.directory / "config.toml"
    config.touch(mode=0o600)
    config.write_text(CONFIG.replace("TRUST", str(world.directory / "trust.pem")))
    root = world.agent().places.root
    async with asyncio.timeout(2) as limit:
        async with connect(config, root=root):
            await asyncio.sleep(0)
    assert not limit.expired()


def test_the_class_of_devices_has_its_earlier_name_too() -> None:
    from birthmark.agent import AgentDevice, Device

    assert Device is AgentDevice
