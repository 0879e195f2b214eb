"""A device that registers over and over is told to wait, and fills no audit trail."""

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from birthmark.dps import store
from birthmark.dps.error_mapping import connack_reason, http_error
from birthmark.dps.service.attester import BURST, EVERY_S, RegistrationThrottledError
from birthmark.errors import UnauthenticatedError
from birthmark.mqtt.reason_codes import ReasonCode
from birthmark.store import Changes, statement
from birthmark.store.core_tables import audit
from birthmark.store.schema_revision import UnreadableDatabaseError
from support.azure.dps_world import a_dps
from support.pki.pki_builders import Holder, a_ca, a_device

pytestmark = pytest.mark.integration
_REGISTERED = statement(select(audit).where(audit.c.action == "dps.register").limit(100))


async def test_a_device_that_registers_without_a_pause_is_told_to_wait_and_others_are_not(database_url: str) -> None:
    async with a_dps(database_url) as world:
        ca = a_ca("Ours")
        device = a_device(ca)
        await world.group("fleet", ca)
        for _ in range(BURST):
            await world.register(device)
        with pytest.raises(RegistrationThrottledError) as refused:
            await world.register(device)
        assert http_error(refused.value) == (429, 429001)
        assert connack_reason(refused.value) == ReasonCode.SERVER_UNAVAILABLE
        await world.register(a_device(ca, "device-2"))
        world.clock.move(timedelta(seconds=EVERY_S))
        await world.register(device)


async def test_a_registration_that_says_nothing_new_is_no_row_of_the_audit_trail_for_an_hour(database_url: str) -> None:
    async with a_dps(database_url) as world:
        ca = a_ca("Ours")
        device, renewed = (a_device(ca) for _ in range(2))
        await world.group("fleet", ca)

        async def rows(again: Holder) -> int:
            await world.register(again)
            return len(await world.database.all(_REGISTERED))

        assert [await rows(device) for _ in range(3)] == [1, 1, 1]
        assert [await rows(renewed) for _ in range(2)] == [2, 2]
        found = await world.registry.device(world.hub, "device-1")
        await world.registry.remove(world.hub, found.device_id, None, actor="test")
        assert [await rows(renewed) for _ in range(2)] == [3, 3]
        world.clock.move(timedelta(hours=1))
        assert [await rows(renewed) for _ in range(2)] == [4, 4]


async def test_a_device_that_shows_two_certificates_by_turns_fills_no_audit_trail(database_url: str) -> None:
    async with a_dps(database_url) as world:
        ca = a_ca("Ours")
        one, other = (a_device(ca) for _ in range(2))
        await world.group("fleet", ca)
        for _ in range(6):
            await world.register(one)
            await world.register(other)
            world.clock.move(timedelta(seconds=2 * EVERY_S))
        assert len(await world.database.all(_REGISTERED)) <= 3


async def test_who_proves_nothing_uses_up_nobody_s_share(database_url: str) -> None:
    async with a_dps(database_url) as world:
        ca, other = a_ca("Ours"), a_ca("Others")
        await world.group("fleet", ca)
        for _ in range(2 * BURST):
            with pytest.raises(UnauthenticatedError):
                await world.register(a_device(other))
        await world.register(a_device(ca))


async def test_a_record_that_cannot_be_read_is_the_servers_trouble_and_not_the_clients_mistake(
    database_url: str,
) -> None:
    async with a_dps(database_url) as world:
        device = a_device(a_ca())
        await world.individual("device-1", device)
        damage = statement(update(store.enrollments).values(document="{"))
        await world.database.commit(Changes().run(damage))
        with pytest.raises(UnreadableDatabaseError):
            await world.register(device)
