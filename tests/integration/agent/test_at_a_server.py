"""An agent by its own links at a server of ours: what it looks at, how it stays connected, how a program has it."""

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from birthmark.agent import connect
from birthmark.agent.agent_factory import open_agent
from birthmark.agent.config import read_config
from birthmark.agent.connection_loop import Loop
from birthmark.agent.control_socket import ControlCommand, ControlServer
from birthmark.agent.diagnostic_checks import Check, CheckResult, Checks
from birthmark.agent.embedded_agent import Identity
from birthmark.agent.identity_lifecycle import Agent
from birthmark.agent.state_directory import AgentPaths
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.device_transports.errors import ServerUntrustedError
from birthmark.device_transports.transport_selection import open_links
from birthmark.errors import UnavailableError
from support.agent.device import AgentOnDevice
from support.pki.pki_builders import a_ca
from support.server.servers import RunningServer, a_new_server

NAMES = iter(f"edge-{number}" for number in range(100))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("agent")) as running:
        running.run("dps", "ca", "create", "est-root", str(running.data / "trust.pem"), "--verified")
        running.run("device", "enroll-group", "est", "--ca-name", "est-root")
        yield running


@pytest.fixture
def device(server: RunningServer, tmp_path: Path) -> AgentOnDevice:
    return AgentOnDevice(server, tmp_path / "root", next(NAMES)).configure()


@contextmanager
def an_agent(device: AgentOnDevice) -> Iterator[Agent]:
    """The agent of a device, as its commands open it."""
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


async def checked(agent: Agent) -> dict[str, Check]:
    return {check.id: check for check in await Checks(agent).run()}


async def test_a_new_device_is_told_what_is_left_to_do_and_after_that_all_is_well(device: AgentOnDevice) -> None:
    with an_agent(device) as agent:
        before = await checked(agent)
        assert before["configs-up-to-date"].result is CheckResult.WARNING
        assert before["identity-certificate-expiry"].result is CheckResult.SKIPPED
        assert before["host-connect-iothub-mqtt"].details == "no hub is assigned yet"
        assert before["host-local-time"].result is before["host-connect-est-endpoint"].result is CheckResult.OK
        await agent.ensure()
        assert "(enrolled, and not registered yet)" in (await checked(agent))["host-connect-dps-endpoint"].details
        await agent.apply()
        after = await checked(agent)
    assert {name for name, check in after.items() if check.result is CheckResult.ERROR} == set()
    assert after["configs-up-to-date"].result is after["certs-match-private-keys"].result is CheckResult.OK
    assert after["host-connect-iothub-mqtt"].details == f"{device.server.address}:8883"
    assert "CN=" in after["host-connect-est-endpoint"].details


async def test_servers_that_are_away_or_strangers_are_rows_of_their_own(device: AgentOnDevice, tmp_path: Path) -> None:
    with an_agent(device) as agent:
        await agent.apply()
    text, dps = device.config.read_text(), device.server.endpoints["dps"]
    wanted = f'global_endpoint = "https://{device.server.address}'
    assert text.count(wanted) == 1
    nowhere = text.replace(":8085", ":9").replace(wanted, f"{wanted}:9" if dps["https_port"] == 443 else wanted)
    device.config.write_text(nowhere.replace(f":{dps['https_port']}", ":9"))
    with an_agent(device) as agent:
        away = await checked(agent)
    assert away["host-connect-dps-endpoint"].result is away["host-connect-est-endpoint"].result is CheckResult.ERROR
    assert away["host-local-time"].details == "no server sent its time"
    assert away["host-connect-iothub-mqtt"].result is CheckResult.OK, "the hub is where it was"
    unauthenticated = tmp_path / "stranger.pem"
    unauthenticated.write_text(a_ca("Stranger").certificate.pem())
    device.trusted = unauthenticated
    device.config.write_text(text.replace(device.server.endpoints["trust_bundle"], str(unauthenticated)))
    with an_agent(device) as agent:
        strange = await checked(agent)
    for one in ("host-connect-iothub-mqtt", "host-connect-dps-endpoint", "host-connect-est-endpoint"):
        assert isinstance(strange[one].error, ServerUntrustedError)


async def test_a_loop_sends_its_signs_of_life_and_renews_when_that_is_ordered(device: AgentOnDevice) -> None:
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
    assert told == ["connected", "renewing", "renewed", "stopped"]
    assert device.server.rows("hub", "messages", device.name)


async def test_a_program_has_the_identity_and_each_new_one_that_it_proves_itself(
    device: AgentOnDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", device.environment["SSL_CERT_FILE"])
    proven: list[str] = []

    async def prove(identity: Identity) -> None:
        port, host = 8883, device.server.address
        _, writer = await asyncio.open_connection(host, port, ssl=identity.ssl_context(), server_hostname=host)
        writer.close()
        proven.append(identity.thumbprint)

    async with asyncio.timeout(30), connect(device.config, root=device.root, prove=prove) as kept:
        first = kept.identity
        assert (first.device_id, first.hub) == (device.name, device.server.address)
        renewals = kept.renewals()
        second = await kept.renew()
        assert (await anext(renewals)).thumbprint == second.thumbprint != first.thumbprint
        assert proven == [second.thumbprint]
        assert second.certificate_file.read_bytes().startswith(b"-----BEGIN CERTIFICATE")


async def test_a_proof_that_fails_leaves_the_program_what_it_had(
    device: AgentOnDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", device.environment["SSL_CERT_FILE"])

    async def refuse(_identity: Identity) -> None:
        raise ConnectionResetError("the broker hung up")

    async with asyncio.timeout(30), connect(device.config, root=device.root, prove=refuse) as kept:
        before = kept.identity
        with pytest.raises(UnavailableError):
            await kept.renew()
        assert kept.identity == before
