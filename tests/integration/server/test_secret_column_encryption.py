"""Shared keys in the database, on both engines: sealed, also those that an earlier version kept plainly."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import select

from birthmark.awsiot.service import AccessKeys
from birthmark.awsiot.store import certificates_and_access_keys as aws_store
from birthmark.iothub import store as hub_store
from birthmark.iothub.model import AuthenticationType, DeviceAuthentication, Hub
from birthmark.iothub.service import IotHub
from birthmark.iothub.wire import DeviceBody
from birthmark.server.secret_column_encryption import unlock
from birthmark.store import Database, open_database, statement
from birthmark.store.column_encryption import ColumnCipher, SealBrokenError, is_sealed
from support.fakes import FakeClock, SeededEntropy

pytestmark = pytest.mark.anyio

SEAL = ColumnCipher.of(b"of this directory")
KEY = b"0123456789abcdef0123456789abcdef"
SAS = DeviceAuthentication(AuthenticationType.SAS, primary_key=KEY, secondary_key=KEY)
KEPT = statement(select(hub_store.hubs.c.policies.label("kept")).union_all(select(aws_store.access_keys.c.secret)))
KEPT_BYTES = statement(select(hub_store.devices.c.primary_key.label("kept")))


@asynccontextmanager
async def opened(url: str, seal: ColumnCipher | None) -> AsyncIterator[Database]:
    database = await open_database(url, FakeClock())
    try:
        if seal is not None:
            await unlock(database, seal)
        yield database
    finally:
        await database.close()


async def kept(url: str) -> list[object]:
    """Return what a reader of the database alone sees."""
    async with opened(url, None) as database:
        return [row["kept"] for one in (KEPT, KEPT_BYTES) for row in await database.all(one)]


async def some_keys(database: Database) -> tuple[IotHub, Hub, AccessKeys]:
    iothub = IotHub.of(database, FakeClock(), SeededEntropy())
    hub = await iothub.hubs.create("main", "hub.example", actor="test")
    await iothub.registry.put(hub, "device-1", DeviceBody("device-1"), SAS, None, actor="test")
    keys = AccessKeys(database, FakeClock(), SeededEntropy())
    await keys.add("ci", actor="test")
    return iothub, hub, keys


async def test_keys_are_sealed_and_serve_as_before(database_url: str) -> None:
    async with opened(database_url, SEAL) as database:
        iothub, hub, _ = await some_keys(database)
        assert (await iothub.registry.device(hub, "device-1")).authentication.primary_key == KEY
        assert [one.authentication.primary_key for one in await iothub.registry.devices(hub)] == [KEY]
    values = await kept(database_url)
    assert len(values) == 3
    assert all(map(is_sealed, values))


async def test_keys_that_an_earlier_version_kept_plainly_are_sealed_and_can_be_exchanged(database_url: str) -> None:
    async with opened(database_url, None) as database:
        _, hub, _ = await some_keys(database)
    assert not any(map(is_sealed, await kept(database_url)))
    async with opened(database_url, SEAL) as database:
        iothub = IotHub.of(database, FakeClock(), SeededEntropy())
        await iothub.hubs.load()
        again = await iothub.hubs.rotate("main", "iothubowner", "primary", actor="test")
        assert again.policies["device"] == hub.policies["device"]
        assert (await iothub.registry.device(hub, "device-1")).authentication.primary_key == KEY
    assert all(map(is_sealed, await kept(database_url)))


async def test_more_rows_than_are_sealed_at_once_are_all_sealed(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("birthmark.server.secret_column_encryption._PAGE", 2)
    async with opened(database_url, None) as database:
        iothub, hub, _ = await some_keys(database)
        for number in range(2, 8):
            await iothub.registry.put(hub, f"device-{number}", DeviceBody(f"device-{number}"), SAS, None, actor="test")
    async with opened(database_url, SEAL):
        pass
    values = await kept(database_url)
    assert (len(values), all(map(is_sealed, values))) == (9, True)


async def test_a_database_that_another_seal_sealed_is_refused(database_url: str) -> None:
    async with opened(database_url, SEAL) as database:
        await some_keys(database)
    with pytest.raises(SealBrokenError) as refused:
        async with opened(database_url, ColumnCipher.of(b"of another directory")):
            pass
    assert "est.seed" in refused.value.explain_cause()
