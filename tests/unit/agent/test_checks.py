"""What `check` says of each certificate and of the clock, offline and with servers."""

from datetime import timedelta
from pathlib import Path

import pytest

from agent_world import BOOTSTRAP, CONFIG, LIFETIME, World
from birthmark.agent.checks import Check, Checks, Result
from birthmark.agent.identities import CertificateMissingError
from birthmark.agent.service import Agent

# `iotedge check-list`, the part about identity.
AZIOT = """
keyd-config-well-formed certd-config-well-formed tpmd-config-well-formed identityd-config-well-formed configs-up-to-date
hostname aziot-version host-local-time identity-certificate-expiry est-identity-and-bootstrap-certificate-expiry
local-ca-certificate-expiry certs-preloaded keyd-running certd-running tpmd-running identityd-running certs-read
key-pairs-read est-server-https certs-match-private-keys host-connect-dps-endpoint
"""


async def checked(agent: Agent, *, is_offline: bool = True) -> dict[str, Check]:
    return {one.id: one for one in await Checks(agent, is_offline).run()}


async def test_every_check_of_identity_is_there_by_aziots_id(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert set(AZIOT.split()) <= set(await checked(world.agent()))


async def test_offline_nobody_is_asked(tmp_path: Path) -> None:
    world = World(tmp_path)
    found = await checked(world.agent())
    assert found["host-local-time"].result is Result.SKIPPED
    assert world.asked == []


async def test_a_certificate_of_a_day_is_warned_of_when_two_retries_have_failed(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent()
    await agent.apply()
    expiry = "identity-certificate-expiry"
    results = []
    for part in (0.5, 0.35, 0.2):
        world.clock.move(part * LIFETIME)
        results.append((await checked(agent))[expiry].result)
    assert results == [Result.OK, Result.OK, Result.ERROR]
    world.clock.move(-0.15 * LIFETIME)
    assert (await checked(world.agent()))[expiry].result is Result.WARNING


async def test_the_est_identity_and_the_bootstrap_certificate_are_both_judged(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent(BOOTSTRAP)
    await agent.apply()
    one = "est-identity-and-bootstrap-certificate-expiry"
    assert (await checked(agent))[one].result is Result.OK
    world.clock.move(2 * LIFETIME)
    found = (await checked(agent))[one]
    assert (found.result, found.details.count("CN=device-1")) == (Result.ERROR, 2)


async def test_the_edge_ca_is_judged_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent(CONFIG + "[edge_ca]\nauto_generated_edge_ca_expiry_days = 5\n")
    assert (await checked(agent))["edge-ca-certificate-expiry"].result is Result.WARNING
    await agent.apply()
    assert (await checked(agent))["edge-ca-certificate-expiry"].result is Result.OK


async def test_the_machines_own_clock_is_compared_with_a_servers(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent()
    await agent.apply()
    world.server_offset = timedelta(seconds=30)
    found = {one.id: one for one in [Check("x", *await Checks(agent)._local_time())]}
    assert found["x"].result is Result.ERROR
    assert "30 s" in found["x"].details


async def test_what_a_check_says_to_type_is_about_this_very_agent(tmp_path: Path) -> None:
    agent = World(tmp_path).agent()
    details = (await checked(agent))["configs-up-to-date"].details
    assert details.startswith(f"not applied yet: birthmark agent apply --root {agent.places.root}")


async def test_a_trust_bundle_that_is_gone_is_one_row_among_the_others(tmp_path: Path) -> None:
    world = World(tmp_path)
    text = 'trust_bundle_cert = "file:///nowhere/bundle.pem"\n' + CONFIG
    with pytest.raises(CertificateMissingError):
        world.agent(text)
    found = await checked(world.agent(text, is_looking=True), is_offline=False)
    assert len(found) > 20
    for one in ("certs-read", "host-connect-dps-endpoint", "host-connect-est-endpoint"):
        assert found[one].result is Result.ERROR
        assert "/nowhere/bundle.pem" in found[one].details
    assert found["hostname"].result is Result.OK
