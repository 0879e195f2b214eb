"""Lists that somebody decides by are whole, however long they are: each here is longer than one look-up reads."""

from pathlib import Path
from typing import Any

import pytest

from birthmark.awsiot.model import CertificateMode, ThingName
from birthmark.est import store as est_store
from birthmark.est.model import WaitingRequest
from birthmark.est.service import EnrollmentApprovals
from birthmark.iothub.model import AuthenticationType, DeviceAuthentication
from birthmark.iothub.service import IotHub
from birthmark.iothub.wire import DeviceBody
from birthmark.store import Changes, open_database, pagination
from support.aws.account import ME, an_aws_account
from support.fakes import NOON, FakeClock, SeededEntropy
from support.pki.pki_builders import a_ca, a_device

pytestmark = pytest.mark.integration
SPELLINGS = {"pump", "Pump", "pUmp", "puMp", "pumP"}


@pytest.fixture(autouse=True)
def _short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagination, "EACH", 2)


async def test_every_hub_is_known_and_every_spelling_of_a_device_at_one(database_url: str) -> None:
    clock = FakeClock()
    database = await open_database(database_url, clock)
    iothub = IotHub.of(database, clock, SeededEntropy())
    wanted = DeviceAuthentication(AuthenticationType.SAS)
    for number, name in enumerate(sorted(SPELLINGS)):
        await iothub.hubs.create(f"hub-{number}", f"h{number}.example", actor="test")
        for hub in iothub.hubs.all():
            await iothub.registry.put(hub, name, DeviceBody(name), wanted, None, actor="test")
    await iothub.hubs.load()
    assert [hub.name for hub in iothub.hubs.all()] == [f"hub-{number}" for number in range(5)]
    assert await iothub.registry.spellings("PUMP") == SPELLINGS
    await database.close()


async def test_every_access_key_counts_and_every_spelling_of_a_thing_is_found(database_url: str) -> None:
    async with an_aws_account(database_url) as (aws, _clock):
        keys = {await aws.keys.add(f"key-{number}", **ME) for number in range(5)}
        await aws.keys.load()
        assert set(aws.keys.all()) == keys
        for name in SPELLINGS:
            await aws.things.create(ThingName(name), {}, None, None, **ME)
        assert await aws.things.find_spellings("PUMP") == SPELLINGS


async def test_of_many_cas_of_one_name_each_is_found_by_its_signature(database_url: str) -> None:
    async with an_aws_account(database_url) as (aws, _clock):
        cas = [a_ca("Maker") for _ in range(5)]
        flags: dict[str, Any] = {"is_active": True, "auto_registration": False}
        for ca in cas:
            pem = ca.certificate.pem()
            await aws.authorities.register(pem, None, CertificateMode.SNI_ONLY, registration=None, **flags, **ME)
        for ca in cas:
            found = await aws.certificates.cas_of(a_device(ca).certificate)
            assert [one.id for one in found] == [ca.certificate.thumbprint.hex()]


async def test_every_request_of_a_device_is_found_that_waits_for_an_operator(tmp_path: Path) -> None:
    clock = FakeClock()
    database = await open_database(f"sqlite:///{tmp_path}/x.db", clock)
    for number in range(5):
        asked = WaitingRequest(f"{number}", "pump", "user:any", "device", "192.0.2.1", b"csr", NOON)
        await database.commit(Changes().run(est_store.ADD_WAITING, **est_store.WAITING_RECORDS.row(asked)))
    assert [one.id for one in await EnrollmentApprovals(database, clock).of_name("PUMP")] == ["0", "1", "2", "3", "4"]
    await database.close()
