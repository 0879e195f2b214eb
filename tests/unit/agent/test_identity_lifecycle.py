"""The agent's steps: nothing that works is given up before its successor has worked."""

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from birthmark.agent.certificate_slot import HeldIdentity, Slot
from birthmark.agent.certificate_sources import CertificateNameError, SubjectInvalidError
from birthmark.agent.identity_lifecycle import Agent, NotIssuedHereError
from birthmark.agent.state_directory import DEVICE_ID, EDGE_CA, file_name, next_of
from birthmark.device_transports.errors import MqttRefusedError, ServerUntrustedError
from birthmark.dps.client import DpsRefusedError
from birthmark.errors import UnauthenticatedError, UnavailableError
from birthmark.est import wire as est_wire
from birthmark.iothub.client import HubClient
from birthmark.pki import certificate_profiles
from birthmark.pki.issuance import issue, new_serial
from birthmark.pki.names_and_registration_ids import name_of
from support.agent.world import CONFIG, LIFETIME, World, certified
from support.pki.pki_builders import a_key, key_pem


@contextlib.asynccontextmanager
async def a_world(directory: Path, text: str = CONFIG) -> AsyncIterator[tuple[World, Agent]]:
    world = World(directory)
    yield world, world.agent(text)


def test_files_are_named_as_aziot_names_them() -> None:
    digest = "bd732105ef89cf8edd2606a5309c8a26b7b5599a4e124a0fe6199b6b2f60e655"
    assert file_name("device-id", ".cer") == f"deviceid-{digest}.cer"


async def test_apply_gets_a_certificate_once_and_registers(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (world, agent):
        await agent.apply()
        assert world.asked == ["est with password", "dps"]
        first = await certified(agent)
        assert [one.subject_text for one in first.chain] == ["CN=device-1", "CN=Test Issuing"]
        assert agent.places.certificate(DEVICE_ID).stat().st_mode & 0o777 == 0o600
        again = world.agent()
        await again.apply()
        assert (await certified(again)).leaf == first.leaf
        hub = await again.connect(first)
        assert isinstance(hub, HubClient)
        assert (hub.host, hub.device_id) == ("hub.test", "device-1")


@pytest.mark.parametrize("rotates", ["true", "false"])
async def test_applied_again_a_certificate_that_was_taken_back_gives_way_to_another_of_another_key(
    tmp_path: Path, rotates: str
) -> None:
    world = World(tmp_path)
    text = CONFIG.replace("rotate_key = true", f"rotate_key = {rotates}") + '[edge_ca]\nmethod = "est"\n'
    agent = world.agent(text)
    await agent.apply()
    before = [agent.identities.slot(name).current() for name in (DEVICE_ID, EDGE_CA)]
    world.taken_back = {one.mark for one in before if one is not None}
    again = world.agent(text)
    assigned = await again.apply()
    after = [again.identities.slot(name).current() for name in (DEVICE_ID, EDGE_CA)]
    assert assigned is not None
    assert again.state.error is None
    for old, new in zip(before, after, strict=True):
        assert old is not None
        assert new is not None
        assert new.leaf.spki_der != old.leaf.spki_der


async def an_unproven_one(world: World, agent: Agent) -> tuple[HeldIdentity, HeldIdentity]:
    """Return what is in use, and what was issued and could not be proven."""
    await agent.apply()
    old = await certified(agent)
    world.failing = {"hub"}
    with pytest.raises(UnavailableError):
        await agent.renew(old)
    world.failing = set()
    pending = agent.identities.slot(DEVICE_ID).pending()
    assert pending is not None
    return old, pending


async def test_applied_again_what_was_taken_back_unproven_gives_way_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    old, pending = await an_unproven_one(world, world.agent())
    world.taken_back = {old.mark, pending.mark}
    again = world.agent()
    await again.apply()
    new = await certified(again)
    assert new.leaf.spki_der not in {old.leaf.spki_der, pending.leaf.spki_der}


async def test_applied_again_what_was_issued_before_is_used_where_dps_takes_it(tmp_path: Path) -> None:
    """A password for once was spent for its key."""
    world = World(tmp_path)
    old, pending = await an_unproven_one(world, world.agent())
    world.taken_back, world.refuses_passwords = {old.mark}, True
    again = world.agent()
    await again.apply()
    assert (await certified(again)).leaf == pending.leaf


@pytest.mark.parametrize(("is_revoked", "is_away"), [(True, False), (False, False), (True, True)])
async def test_at_the_end_of_the_old_one_an_unproven_one_is_put_to_use_unless_dps_refuses_it(
    tmp_path: Path, *, is_revoked: bool, is_away: bool
) -> None:
    world = World(tmp_path)
    agent = world.agent()
    await agent.apply()
    world.clock.move(0.7 * LIFETIME)
    _, pending = await an_unproven_one(world, agent)
    world.clock.move(0.4 * LIFETIME)
    world.taken_back = {pending.mark} if is_revoked else set()
    world.failing = {"dps"} if is_away else set()
    used = await certified(world.agent())
    assert (used.leaf == pending.leaf) == (is_away or not is_revoked)


@pytest.mark.parametrize("has_unproven", [True, False])
async def test_applied_again_while_dps_is_not_trusted_nothing_is_replaced(
    tmp_path: Path, *, has_unproven: bool
) -> None:
    world = World(tmp_path)
    agent = world.agent()
    await agent.apply()
    before = await certified(agent)
    pending = (await an_unproven_one(world, agent))[1] if has_unproven else None
    world.requests.clear()
    world.untrusted = {"dps.test"}
    for _ in range(2):
        with pytest.raises(ServerUntrustedError):
            await world.agent().apply()
    slot = agent.identities.slot(DEVICE_ID)
    assert [one and one.mark for one in (slot.current(), slot.pending())] == [before.mark, pending and pending.mark]
    assert not world.requests


async def test_a_first_certificate_that_was_not_proven_is_put_to_use_while_dps_is_not_trusted(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent()
    fresh = await agent.keeper.fresh(agent.managed[DEVICE_ID], None)  # and no further: it was killed
    world.untrusted = {"dps.test"}
    with pytest.raises(ServerUntrustedError):
        await world.agent().apply()
    assert (await certified(world.agent())).leaf == fresh.leaf


async def test_who_is_refused_for_another_reason_keeps_its_certificate(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent()
    await agent.apply()
    before = await certified(agent)
    world.taken_back, world.refuses_passwords, world.believes_certificates = {before.mark}, True, False
    with pytest.raises(DpsRefusedError):
        await world.agent().apply()
    assert (await certified(agent)).chain == before.chain


async def test_a_renewal_is_registered_and_connected_before_it_replaces_the_old(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (world, agent):
        await agent.apply()
        old = await certified(agent)
        world.clock.move(0.85 * LIFETIME)
        new, _hub = await agent.renew(old)
        assert world.asked[-2:] == ["est with certificate", "dps"]
        assert new.leaf.thumbprint != old.leaf.thumbprint
        assert new.leaf.spki_der != old.leaf.spki_der
        assert world.at_hub == new.leaf.thumbprint.hex()
        assert (await certified(agent)).leaf == new.leaf
        assert agent.identities.slot(DEVICE_ID).pending() is None
        assert agent.state.renewals == 1


async def test_without_rotation_the_key_stays(tmp_path: Path) -> None:
    async with a_world(tmp_path, CONFIG.replace("rotate_key = true", "rotate_key = false")) as (_world, agent):
        await agent.apply()
        old = await certified(agent)
        new, _hub = await agent.renew(old)
        assert new.leaf.spki_der == old.leaf.spki_der
        assert (await certified(agent)).leaf == new.leaf != old.leaf


@pytest.mark.parametrize("broken", ["est", "dps", "hub"])
async def test_whatever_fails_the_old_identity_still_works(tmp_path: Path, broken: str) -> None:
    async with a_world(tmp_path) as (world, agent):
        await agent.apply()
        old = await certified(agent)
        world.failing = {broken}
        with pytest.raises(UnavailableError):
            await agent.renew(old)
        world.failing = set()
        after_restart = world.agent()
        kept = await certified(after_restart)
        assert kept.leaf == old.leaf
        await after_restart.connect(kept)
        asked = len(world.asked)
        new, _hub = await after_restart.renew(kept)
        assert (await certified(after_restart)).leaf == new.leaf != old.leaf
        has_pending = broken != "est"  # what was issued and not proven is not issued again
        assert world.asked[asked:] == (["dps"] if has_pending else ["est with certificate", "dps"])


async def test_a_renewal_that_is_given_up_is_taken_back_where_dps_has_it(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (world, agent):
        await agent.apply()
        old = await certified(agent)
        proving = asyncio.Event()

        async def prove(_held: HeldIdentity) -> None:
            proving.set()
            await asyncio.Event().wait()

        agent.prove = prove
        renewing = asyncio.create_task(agent.renew(old))
        await proving.wait()
        assert world.at_hub != old.leaf.thumbprint.hex()
        renewing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await renewing
        assert world.at_hub == old.leaf.thumbprint.hex()
        assert (await certified(agent)).leaf == old.leaf


async def test_a_renewal_that_ends_at_the_last_step_leaves_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(tmp_path) as (world, agent):
        await agent.apply()
        old = await certified(agent)

        def broken(_slot: Slot) -> None:
            raise OSError(errno.EIO, "flash")

        monkeypatch.setattr(Slot, "commit", broken)
        with pytest.raises(OSError, match="flash"):
            await agent.renew(old)
        assert world.connections[-1].over.done()
        assert world.at_hub == old.leaf.thumbprint.hex()


async def test_a_program_starts_while_dps_is_away_where_it_was_registered_before(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (world, agent):
        await agent.prepare()
        world.failing = {"dps"}
        again = world.agent()
        await again.prepare()
        assert again.state.hub == "hub.test"
        assert again.held() is not None


async def test_a_program_that_never_registered_does_not_start_while_dps_is_away(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (world, agent):
        world.failing = {"dps"}
        with pytest.raises(UnavailableError):
            await agent.prepare()


async def test_an_interruption_between_key_and_certificate_is_finished_at_the_next_start(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (world, agent):
        await agent.apply()
        old = await certified(agent)
        world.failing = {"dps"}
        with pytest.raises(UnavailableError):
            await agent.renew(old)
        pending = agent.identities.slot(DEVICE_ID).pending()
        assert pending is not None
        agent.identities.keys.move(next_of(DEVICE_ID), DEVICE_ID)  # and here the power goes
        world.failing = set()
        after_restart = world.agent()
        found = await certified(after_restart)
        assert found.leaf == pending.leaf
        await after_restart.connect(found)


async def test_an_expired_device_comes_back_by_its_password(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (world, agent):
        await agent.apply()
        old = await certified(agent)
        world.clock.move(2 * LIFETIME)
        new = await certified(agent)
        assert world.asked[-1] == "est with password"
        assert new.leaf.not_after > old.leaf.not_after
        await agent.connect(new)


async def test_a_server_that_does_not_believe_the_certificate_gets_the_password(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (world, agent):
        await agent.apply()
        world.believes_certificates = False
        await agent.renew(await certified(agent))
        both = "est with certificate and password"
        assert world.asked[-4:] == ["est with certificate", both, "est with password", "dps"]


async def test_a_renewal_shows_the_certificate_alone_for_the_password_may_have_ended(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (world, agent):
        await agent.apply()
        world.refuses_passwords = True
        await agent.renew(await certified(agent))
        assert world.asked[-2:] == ["est with certificate", "dps"]


async def test_a_server_that_wants_both_gets_the_certificate_with_the_password(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (world, agent):
        await agent.apply()
        world.wants_both = True
        await agent.renew(await certified(agent))
        assert world.asked[-3:] == ["est with certificate", "est with certificate and password", "dps"]


async def test_another_name_in_the_configuration_is_another_certificate(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (world, agent):
        await agent.apply()
        renamed = world.agent(CONFIG.replace('"device-1"', '"device-2"'))
        assert (await certified(renamed)).leaf.subject_cn == "device-2"


async def test_a_damaged_certificate_is_issued_again(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (world, agent):
        await agent.apply()
        agent.places.certificate(DEVICE_ID).write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        await agent.apply()
        assert world.asked == ["est with password", "dps"] * 2


async def test_a_hub_that_has_forgotten_the_device_is_told_by_dps_again(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (world, agent):
        await agent.apply()
        held = await certified(agent)
        world.at_hub = "somebody else's"
        with pytest.raises(MqttRefusedError) as refusal:
            await agent.connect(held)
        assert isinstance(refusal.value, UnauthenticatedError)
        agent.update(hub=None)  # what the loop does then
        await agent.connect(held)


async def test_a_clock_that_is_days_behind_still_renews_in_time(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (world, agent):
        world.server_offset = timedelta(days=3)
        await agent.apply()
        held = await certified(agent)
        due = agent.renewal_due_in(held)
        assert due is not None
        assert timedelta(hours=19) < due < timedelta(hours=20)
        assert not agent.keeper.is_expired(held)
        world.clock.move(LIFETIME + timedelta(hours=1))
        assert agent.keeper.is_expired(held)


async def test_self_signed_identities_need_no_server(tmp_path: Path) -> None:
    text = CONFIG.replace('method = "est"', 'method = "self_signed", expiry_days = 2')

    async with a_world(tmp_path, text) as (world, agent):
        await agent.apply()
        held = await certified(agent)
        assert held.leaf.is_self_signed
        assert world.asked == ["dps"]


async def test_what_was_not_issued_here_is_not_renewed_here(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (world, agent):
        await agent.apply()
        places, held = agent.places, await certified(agent)
        pair = (
            f'identity_cert = "file://{places.certificate(DEVICE_ID)}"\nidentity_pk = "file://{places.key(DEVICE_ID)}"'
        )
        lines = [pair if line.startswith("identity_cert") else line for line in CONFIG.splitlines()]
        given = world.agent("\n".join(lines))
        assert (await certified(given)).leaf == held.leaf
        assert given.renewal_due_in(held) is None
        with pytest.raises(NotIssuedHereError):
            await given.renew(held)


async def test_a_subject_with_more_attributes_is_asked_for(tmp_path: Path) -> None:
    text = CONFIG.replace('method = "est",', 'method = "est", subject = { O = "Org", C = "CH" },')

    async with a_world(tmp_path, text) as (_world, agent):
        await agent.apply()
        assert (await certified(agent)).leaf.subject_text == "CN=device-1,C=CH,O=Org"


async def test_a_key_that_the_configuration_gives_is_certified_again_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "own.key"
    path.touch(mode=0o600)
    path.write_text(key_pem(a_key()))
    before = path.read_bytes()

    async with a_world(tmp_path, CONFIG + f'[preloaded_keys]\n"device-id" = "file://{path}"\n') as (world, agent):
        await agent.apply()
        old = await certified(agent)
        world.clock.move(0.85 * LIFETIME)
        new, _hub = await agent.renew(old)
        assert new.leaf.spki_der == old.leaf.spki_der
        assert (await certified(agent)).leaf == new.leaf != old.leaf
        assert path.read_bytes() == before
        assert list(agent.places.keys.iterdir()) == []


@pytest.mark.parametrize(("written", "bits"), [("ec-p256", 256), ("ec-p384", 384), ("rsa-2048", 2048)])
async def test_new_keys_are_of_the_kind_that_is_configured(tmp_path: Path, written: str, bits: int) -> None:
    async with a_world(tmp_path, CONFIG + f'[aziot_keys]\nkey_algorithm = "{written}"\n') as (_world, agent):
        await agent.apply()
        assert (await certified(agent)).key.handle.public_key.key_size == bits


async def test_through_a_parent_device_the_words_stay_the_hubs(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent("""
parent_hostname = "parent.test"
[provisioning]
source = "manual"
iothub_hostname = "hub.test"
device_id = "device-1"
[provisioning.authentication]
method = "x509"
identity_cert = "file://BORN.pem"
identity_pk = "file://BORN.key"
""")
    world.at_hub = world.born.certificate.thumbprint.hex()
    await agent.connect(await agent.ensure())
    ((host, username),) = world.hosts
    assert host == "parent.test"
    assert str(username).startswith("hub.test/device-1/")


class Renaming(World):
    """Whose EST server issues under its own name for the user, whatever is asked for."""

    def issued(self, body: bytes) -> bytes:
        request = est_wire.parse_csr(body)
        made = issue(
            certificate_profiles.DEVICE,
            name_of("of-the-user"),
            request.public_key,
            issuer=self.issuer.as_issuer,
            serial=new_serial(self.entropy),
            now=self.clock.now(),
            lifetime=LIFETIME,
        )
        return est_wire.render_certs_only([made])


async def test_a_certificate_for_another_name_is_no_identity_and_the_fix_says_which_name_it_is(tmp_path: Path) -> None:
    world = Renaming(tmp_path)
    agent = world.agent()
    with pytest.raises(CertificateNameError) as refused:
        await agent.apply()
    assert '`registration_id = "of-the-user"`' in refused.value.explain_fix()
    assert agent.held() is None
    assert world.registered == []


async def test_a_subject_that_is_no_name_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    text = CONFIG.replace('method = "est",', 'method = "est", subject = { CN = "device-1", C = "Japan" },')
    world = World(tmp_path)
    with pytest.raises(SubjectInvalidError) as refused:
        await world.agent(text).apply()
    assert "subject" in refused.value.explain_cause()
    assert world.requests == []


MANUAL = """\
[provisioning]
source = "manual"
iothub_hostname = "hub.test"
device_id = "pump"
[provisioning.authentication]
method = "x509"
identity_cert = "file://BORN.pem"
identity_pk = "file://BORN.key"
"""


async def test_a_device_whose_hub_is_known_registers_nowhere_and_is_called_as_it_is_configured(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.at_hub = world.born.certificate.thumbprint.hex()
    agent = world.agent(MANUAL)
    assert await agent.apply() is None
    assert (agent.name, agent.state.hub, agent.state.device_id) == ("pump", "hub.test", "pump")
    assert world.registered == []
    assert len(world.connections) == 1


async def test_a_hub_behind_a_parent_device_is_reached_through_that(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.at_hub = world.born.certificate.thumbprint.hex()
    agent = world.agent('parent_hostname = "gateway.test"\n' + MANUAL)
    await agent.apply()
    ((host, user),) = world.hosts
    assert host == "gateway.test"
    assert user is not None
    assert user.startswith("hub.test/pump/")


async def test_what_the_configuration_gives_is_not_renewed_here(tmp_path: Path) -> None:
    agent = World(tmp_path).agent(MANUAL)
    held = agent.held()
    assert held is not None
    with pytest.raises(NotIssuedHereError) as refused:
        await agent.renew(held)
    assert f"{tmp_path}/born.pem" in refused.value.explain_cause()
