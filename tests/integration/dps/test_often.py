"""A device that registers over and over: each time is a row of the audit chain."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from birthmark.dps import store
from birthmark.dps.errors import connack_reason, http_error
from birthmark.dps.service.registrations import BURST, EVERY_S, RegistrationThrottledError
from birthmark.errors import UnauthenticatedError
from birthmark.mqtt.reasons import ReasonCode
from birthmark.store import Changes, statement
from birthmark.store.readonly import UnreadableDatabaseError
from dps_world import a_dps
from pki_builders import a_ca, a_device

pytestmark = pytest.mark.integration


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
