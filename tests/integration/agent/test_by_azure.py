"""An agent whose certificate Azure issues: with the registration first, by the hub from then on."""

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from birthmark.agent import connect
from birthmark.agent.agent_factory import open_agent
from birthmark.agent.config import read_config
from birthmark.agent.connection_loop import Loop
from birthmark.agent.control_socket import ControlCommand, ControlServer
from birthmark.agent.embedded_agent import Identity
from birthmark.agent.identity_lifecycle import Agent
from birthmark.agent.state_directory import AgentPaths
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.device_transports.errors import MqttRefusedError
from birthmark.device_transports.transport_selection import open_links
from birthmark.errors import UnavailableError
from birthmark.iothub.client import HubClient
from support.agent.device import AgentOnDevice
from support.pki.pki_builders import a_device
from support.server.servers import RunningServer, a_new_server

NAMES = iter(f"azure-{number}" for number in range(100))
RENEW = 'auto_renew = { rotate_key = true, threshold = "80%", retry = "4%" }'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("azure")) as running:
        yield running


@pytest.fixture
def device(server: RunningServer, tmp_path: Path) -> AgentOnDevice:
    """A device that was born with a certificate, and is enrolled by it with a policy."""
    name = next(NAMES)
    born = a_device(common_name=name, now=datetime.now(UTC), lifetime=timedelta(days=30))
    certificate, key = tmp_path / "born.pem", tmp_path / "born.key"
    certificate.write_text(born.certificate.pem())
    key.touch(mode=0o600)
    key.write_text(born.key_pem)
    server.run("device", "enroll", "--cert", str(certificate), "--issue", "device")
    device = AgentOnDevice(server, tmp_path / "root", name)
    dps = server.endpoints["dps"]
    device.config.parent.mkdir(parents=True)
    device.config.write_text(
        f"""
[provisioning]
source = "dps"
global_endpoint = "https://{dps["host"]}:{dps["https_port"]}"
id_scope = "{dps["id_scope"]}"
[provisioning.attestation]
method = "x509"
registration_id = "{name}"
[provisioning.attestation.identity_cert]
method = "azure"
bootstrap_identity_cert = "file://{certificate}"
bootstrap_identity_pk = "file://{key}"
{RENEW}
"""
    )
    return device


@contextmanager
def an_agent(device: AgentOnDevice) -> Iterator[Agent]:
    places = AgentPaths(device.root)
    places.prepare()
    agent = open_agent(
        read_config(places.config),
        places,
        make_links=lambda identity, trust: open_links(identity, trust, SystemClock()),
        environment=device.environment,
        clock=SystemClock(),
        entropy=SystemEntropy(),
    )
    with closing(agent.identities.keys):
        yield agent


def issued(device: AgentOnDevice) -> list[dict[str, Any]]:
    """What the CA issued to a device and did not take back."""
    rows = device.server.rows("pki", "ls", device.name)
    return [row for row in rows if row["serial"] and row["reason"] is None]


async def test_a_device_is_issued_a_certificate_and_goes_on_by_it(device: AgentOnDevice) -> None:
    with an_agent(device) as agent:
        await agent.apply()
        held = await agent.ensure()
        hub = await agent.connect(held)
        await hub.send(b"hello")
        await hub.close()
    assert [row["thumbprint"] for row in issued(device)] == [held.mark]
    assert device.thumbprint_at_hub() == held.mark


async def test_a_running_agent_renews_on_the_connection_that_it_has(device: AgentOnDevice) -> None:
    orders, told = ControlServer(), list[str]()

    def tell(event: str, _facts: dict[str, object]) -> None:
        told.append(event)
        if event == "connected":
            asyncio.get_running_loop().call_later(0.2, orders.give, ControlCommand.RENEW)
        elif event == "renewed":
            orders.give(ControlCommand.STOP)

    with an_agent(device) as agent:
        async with asyncio.timeout(30):
            await Loop(agent, orders, tell, telemetry_s=0.01).run()
        assert agent.state.renewals == 1
        held = await agent.ensure()
    assert told == ["connected", "renewing", "renewed", "stopped"]
    assert device.thumbprint_at_hub() == held.mark
    assert len(issued(device)) == 2


async def test_an_answer_that_is_lost_is_asked_for_again_and_nothing_else_is_made(
    device: AgentOnDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue = HubClient.issue

    async def lost(hub: HubClient, csr: bytes, rid: str) -> Any:
        await issue(hub, csr, rid)
        raise UnavailableError

    with an_agent(device) as agent:
        await agent.apply()
        held = await agent.ensure()
        monkeypatch.setattr(HubClient, "issue", lost)
        with pytest.raises(UnavailableError):
            await agent.renew(held)
        monkeypatch.setattr(HubClient, "issue", issue)
    with an_agent(device) as again:  # killed meanwhile
        fresh, hub = await again.renew(await again.ensure())
        assert hub is not None
        await hub.close()
    assert fresh.mark != held.mark
    assert {row["thumbprint"] for row in issued(device)} == {held.mark, fresh.mark}


async def test_a_device_whose_certificate_the_hub_takes_no_more_gets_another_by_its_birth_certificate(
    device: AgentOnDevice,
) -> None:
    with an_agent(device) as agent:
        await agent.apply()
        held = await agent.ensure()
        device.server.run("pki", "revoke", held.mark, "--reason", "keyCompromise")
        with pytest.raises(MqttRefusedError):
            await agent.connect(held)
        fresh, hub = await agent.connect_or_reissue(held)
        await hub.close()
    assert fresh.mark != held.mark
    assert device.thumbprint_at_hub() == fresh.mark


async def test_a_program_that_proves_its_certificates_itself_keeps_its_own_connection(
    device: AgentOnDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", device.environment["SSL_CERT_FILE"])

    async def prove(identity: Identity) -> None:
        del identity

    async with asyncio.timeout(30), connect(device.config, root=device.root, prove=prove) as kept:
        first = kept.identity
        with an_agent(device) as looking:
            hub = await looking.connect(await looking.ensure())
            second = await kept.renew()
            lost = asyncio.ensure_future(hub.wait_until_lost())
            await asyncio.sleep(0.3)
            assert not lost.done()
            lost.cancel()
            await hub.close()
    assert second.thumbprint != first.thumbprint
