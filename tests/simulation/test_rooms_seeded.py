"""The checker of histories, tried on the real rooms: it finds nothing in them, and each fault that is built in."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from birthmark.awsiot.mqtt import AwsConnections
from birthmark.awsiot.rules import shadows as shadow_rules
from birthmark.awsiot.store import shadows as shadow_store
from birthmark.broker.database_stream import SqlStream
from birthmark.broker.message_fan_out import MessagePublisher
from birthmark.broker.namespace_sessions import Namespace
from birthmark.broker.retained_messages import RetainedMessages
from birthmark.broker.rules.device_queue import QueueOutcome
from birthmark.bus.nats import NatsBus
from birthmark.bus.wire import EventFrame
from birthmark.ca import service as ca_service
from birthmark.dps.rules import attestation
from birthmark.est.service import operations
from birthmark.est.service.authentication import Callers
from birthmark.iothub import store as hub_store
from birthmark.iothub.connections import HubConnections
from birthmark.iothub.connections.c2d_delivery import C2dDelivery
from birthmark.iothub.domain_events import DeviceChanged
from birthmark.iothub.rules import twins as twin_rules
from birthmark.server.dps_hub_adapter import HubsForDps
from birthmark.store import Changes
from birthmark.store.event_base_and_codec import kind_of
from birthmark.store.table_statements import change
from simulation.aws import DELTA, TOPIC, Account, an_account
from simulation.hub import Hub, a_hub
from simulation.provisioning import Provisioning, a_provisioning_service
from simulation.rooms import a_house
from simulation.virtual import Fate
from simulation.wills_and_states import EVERY_WILL, Speaker
from simulation.wills_and_states import findings as of_wills_and_states
from support.kills.history import Finding

pytestmark = pytest.mark.integration


async def story_of_a_hub(hub: Hub) -> None:
    """Devices that move, lose power and are disabled, while their twins change at both workers."""
    house = hub.house
    pump, valve, meter = [await hub.device(name) for name in ("pump", "valve", "meter")]
    for device, place in ((pump, 0), (valve, 1), (meter, 1)):
        await hub.connected(device, place)
    pump.send(1)
    await house.until(lambda: not pump.unacknowledged)
    pump.send(1)
    await house.until_asked("commit", house.worker(0))
    pump.send(1)
    await house.next_is("bytes", Fate.DONE)  # what waits behind the first
    await house.next_is("commit", Fate.LOST, house.worker(0))
    await house.until(lambda: pump.line.is_over)
    await hub.connected(pump, 0)
    await house.until(lambda: not pump.unacknowledged)
    pump.line.is_over = True  # it has no power any more, and its worker does not know
    await hub.until_answered(hub.send(1, pump))
    await house.live_on(1.0)
    await hub.connected(pump, 1)
    await hub.until_answered(hub.send(0, pump))
    await house.live_on(1.0)
    await hub.until_answered(hub.desire(0, pump))
    asked = [hub.desire(place, pump) for place in (0, 1)]
    await house.together("commit")
    await house.until(lambda: all(one.is_over for one in asked))
    read = pump.read()
    await house.until(lambda: read.is_over)
    await hub.until_answered(hub.call(0, pump))
    await hub.until_answered(hub.disable(0, meter))
    meter.send(1)
    await house.live_on(1.0)
    house.stop(1)
    await hub.until_answered(hub.disable(0, valve))
    valve.send(2)
    house.go_on()
    await house.next_is("bytes", Fate.DONE)  # before it hears of anything
    await house.next_is("commit", Fate.DONE, valve.line.worker)
    await house.live_on(1.0)


async def story_of_an_account(account: Account) -> None:
    """Things that publish, listen, and lose their rights, while a shadow changes at both workers."""
    house = account.house
    hears, lamp = await account.thing("hears", TOPIC, EVERY_WILL), await account.thing("lamp", DELTA)
    pump, valve = await account.thing("pump"), await account.thing("valve")
    for thing, place in ((hears, 0), (lamp, 1), (pump, 1), (valve, 1)):
        await account.connected(thing, place)
    pump.publish(2)
    await house.until(lambda: not pump.unacknowledged)
    await account.connected(hears, 1)
    await account.until_answered(account.update(0, "lamp"))
    asked = [account.update(place, "lamp") for place in (0, 1)]
    await house.together("commit")
    await house.until(lambda: all(one.is_over for one in asked))
    await account.until_answered(account.read(0, "lamp"))
    valve.publish(1)
    await account.until_answered(account.detach(0, pump, "publish"))
    pump.publish(1)
    await house.until(lambda: not pump.unacknowledged)
    await account.until_answered(account.set_status(0, valve, "INACTIVE"))
    valve.publish(1)
    await house.live_on(1.0)


async def story_of_wills(account: Account) -> None:
    """A thing tells its state; then its line is cut, and later its worker killed."""
    house = account.house
    gate = await account.thing("gate", kind=Speaker)
    assert isinstance(gate, Speaker)
    await account.connected(gate, 0)
    for _ in range(2):
        gate.tell_state()
        await house.until(lambda: not gate.unacknowledged)
    gate.line.cut()
    await house.live_on(1.0)
    await account.connected(gate, 1)
    await house.kill(1)
    await house.live_on(3.0)


async def story_of_provisioning(service: Provisioning) -> None:
    """A device registers and is issued certificates by two workers at a time, until it may not any more."""
    house = service.house
    for name in ("door", "lock"):
        await service.device(name)
    asked = [service.register(place, "door") for place in (0, 1)]
    await house.until(lambda: all(one.is_over for one in asked))
    asked = [service.issue(place, "door") for place in (0, 1, 0, 1)]
    await house.until(lambda: all(one.is_over for one in asked))
    first = service.issue(1, "lock")
    await house.until(lambda: first.is_over)
    for take, act in ((service.enroll(0, "lock", status="disabled"), service.register), (None, service.issue)):
        taken = take or service.remove_user(0, "lock")
        await house.until(lambda taken=taken: taken.is_over)  # type: ignore[misc] # bound now
        after = act(1, "lock")
        await house.until(lambda after=after: after.is_over)  # type: ignore[misc] # bound now


async def enabled_again(hub: Hub) -> None:
    for name in ("valve", "meter"):
        await hub.until_answered(hub.enable(0, hub.devices[name]))


async def findings_of(tmp_path: Path) -> list[Finding]:
    async with a_house(tmp_path, 2) as house:
        hub, account, service = await a_hub(house), await an_account(house), await a_provisioning_service(house)
        with contextlib.suppress(AssertionError):  # faulty rooms may not come to an end of it
            await story_of_a_hub(hub)
            await story_of_an_account(account)
            await story_of_provisioning(service)
            await story_of_wills(account)
        await house.recovered()
        with contextlib.suppress(AssertionError):
            await enabled_again(hub)
            await hub.collected()
            await account.collected()
        house.world.mistakes.clear()
        said = await of_wills_and_states(account)
        return [*await hub.findings(), *account.findings(), *await service.findings(), *said]


async def test_nothing_is_found_in_what_the_rooms_do(tmp_path: Path) -> None:
    async with a_house(tmp_path, 2) as house:
        hub, account, service = await a_hub(house), await an_account(house), await a_provisioning_service(house)
        await story_of_a_hub(hub)
        await story_of_an_account(account)
        await story_of_provisioning(service)
        await story_of_wills(account)
        await house.recovered()
        await enabled_again(hub)
        await hub.collected()
        await account.collected()
        said = await of_wills_and_states(account)
        assert [*await hub.findings(), *account.findings(), *await service.findings(), *said] == []


Patch = pytest.MonkeyPatch


def a_twin_is_written_whatever_its_version(patch: Patch) -> None:
    unconditional = change(hub_store.twins, ("version", "updated_at", "body"), "hub", "device_id")
    patch.setattr(hub_store, "CHANGE_TWIN", unconditional)


def a_shadow_is_written_whatever_its_revision(patch: Patch) -> None:
    columns = ("version", "at", "revision", "deleted_at", "body")
    patch.setattr(shadow_store, "CHANGE", change(shadow_store.shadows, columns, "thing", "name"))


def a_message_is_completed_before_it_is_acknowledged(patch: Patch) -> None:
    right = C2dDelivery._send

    async def send(self: C2dDelivery, letter: Any) -> None:
        await right(self, letter)
        await self._c2d.inboxes.settle(self._space, self._device_id, letter.lock, QueueOutcome.COMPLETED)

    patch.setattr(C2dDelivery, "_send", send)


def telemetry_is_acknowledged_before_it_is_written(patch: Patch) -> None:
    right = SqlStream.append

    def append(self: SqlStream[Any], key: int, items: Any, size: int, done: Any) -> None:
        done(None)
        right(self, key, items, size, lambda _problem: None)

    patch.setattr(SqlStream, "append", append)


def what_waits_behind_lost_telemetry_is_written(patch: Patch) -> None:
    patch.setattr(SqlStream, "_behind", lambda *_: [])


def nobody_waits_until_others_have_heard_of_a_commit(patch: Patch) -> None:
    right = NatsBus._confirmed

    async def confirmed(self: NatsBus, events: Any, **more: Any) -> bool:
        if any(kind == kind_of(DeviceChanged) for kind, _ in events):
            self._put(self._all, EventFrame(tuple(events)))
            return True
        return await right(self, events, **more)

    patch.setattr(NatsBus, "_confirmed", confirmed)


def nobody_ends_the_connection_of_a_device_that_changed(patch: Patch) -> None:
    patch.setattr(HubConnections, "recheck", lambda *_: None)


def a_connection_keeps_the_rights_it_came_with(patch: Patch) -> None:
    patch.setattr(AwsConnections, "access_changed", lambda *_: None)
    patch.setattr(AwsConnections, "certificate_changed", lambda *_: None)


def a_delta_is_told_to_nobody(patch: Patch) -> None:
    patch.setattr(MessagePublisher, "may_have_subscribers", lambda *_: False)


def a_shadow_skips_a_version(patch: Patch) -> None:
    patch.setattr(shadow_rules, "apply_update", _two_at_once(shadow_rules.apply_update))


def a_twin_goes_back_to_its_first_version(patch: Patch) -> None:
    right = twin_rules.desire

    def desire(twin: Any, *more: Any) -> Any:
        made = right(twin, *more)
        return _with(made, desired=_with(made.desired, version=2))

    patch.setattr(twin_rules, "desire", desire)


def a_will_is_sent_to_nobody(patch: Patch) -> None:
    patch.setattr(Namespace, "_send_will", lambda *_, **__: None)


def a_will_is_not_sent_when_its_worker_is_gone(patch: Patch) -> None:
    right = Namespace.free

    async def free(self: Namespace, client: str, record: Any) -> None:
        await right(self, client, _with(record, will=None))

    patch.setattr(Namespace, "free", free)


def a_state_is_acknowledged_and_not_kept(patch: Patch) -> None:
    async def keep(self: RetainedMessages, message: Any, pending: Any) -> None: ...

    patch.setattr(RetainedMessages, "keep", keep)


def a_state_is_kept_once(patch: Patch) -> None:
    right = RetainedMessages.keep

    async def keep(self: RetainedMessages, message: Any, pending: Any) -> None:
        if await self.of(message.topic) is None:
            await right(self, message, pending)

    patch.setattr(RetainedMessages, "keep", keep)


def a_disabled_enrollment_registers(patch: Patch) -> None:
    patch.setattr(attestation, "check_individual", lambda *_: None)


def a_device_is_assigned_and_not_made(patch: Patch) -> None:
    async def provision(*_: object) -> Changes:
        return Changes()

    patch.setattr(HubsForDps, "provision", provision)


def a_certificate_is_issued_and_not_on_record(patch: Patch) -> None:
    patch.setattr(ca_service, "_changes", lambda *_: Changes())


def certificates_are_issued_whatever_their_number(patch: Patch) -> None:
    patch.setattr(ca_service, "check_alive", lambda *_: None)


def a_password_is_good_after_its_user_was_removed(patch: Patch) -> None:
    known: dict[str, Any] = {}
    right = Callers._user

    async def user(self: Callers, name: str) -> Any:
        return known.get(name) or known.setdefault(name, await right(self, name))

    patch.setattr(Callers, "_user", user)
    patch.setattr(operations, "require_unchanged_proof", lambda *_: Changes())


FAULTS: list[Callable[[Patch], None]] = [
    a_twin_is_written_whatever_its_version,
    a_shadow_is_written_whatever_its_revision,
    a_message_is_completed_before_it_is_acknowledged,
    telemetry_is_acknowledged_before_it_is_written,
    what_waits_behind_lost_telemetry_is_written,
    nobody_waits_until_others_have_heard_of_a_commit,
    nobody_ends_the_connection_of_a_device_that_changed,
    a_connection_keeps_the_rights_it_came_with,
    a_delta_is_told_to_nobody,
    a_shadow_skips_a_version,
    a_twin_goes_back_to_its_first_version,
    a_will_is_sent_to_nobody,
    a_will_is_not_sent_when_its_worker_is_gone,
    a_state_is_acknowledged_and_not_kept,
    a_state_is_kept_once,
    a_disabled_enrollment_registers,
    a_device_is_assigned_and_not_made,
    a_certificate_is_issued_and_not_on_record,
    certificates_are_issued_whatever_their_number,
    a_password_is_good_after_its_user_was_removed,
]


def _two_at_once(updated: Callable[..., Any]) -> Callable[..., Any]:
    def twice(shadow: Any, *more: Any) -> Any:
        made = updated(shadow, *more)
        return _with(made, version=made.version + 1)

    return twice


def _with(value: Any, **changed: Any) -> Any:
    return msgspec.structs.replace(value, **changed)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_a_fault_that_is_built_in_is_found(tmp_path: Path, fault: Callable[[Patch], None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fault(patch)
        assert await findings_of(tmp_path) != []
