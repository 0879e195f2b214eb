"""An agent whose device proves itself by a TPM, at a server of ours: registration, connection, and what is lost."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from birthmark.agent.agent_factory import open_agent
from birthmark.agent.config import parse_config
from birthmark.agent.diagnostic_checks import Check, CheckResult, Checks
from birthmark.agent.identity_lifecycle import Agent, NotIssuedHereError
from birthmark.agent.state_directory import AgentPaths
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.device_transports.transport_selection import open_links
from birthmark.dps.client import DpsRefusedError
from birthmark.fleet.azure_target import AzureTarget
from birthmark.fleet.target_profiles import azure_profile
from birthmark.keys.tpm_attestation import TpmUnavailableError
from support.chips.tpms import SoftwareTpm, a_tpm
from support.server.servers import RunningServer, a_new_server

NAMES = iter(f"tpm-{number}" for number in range(100))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("tpm")) as running:
        yield running


@pytest.fixture
def tpm() -> Iterator[SoftwareTpm]:
    with a_tpm() as running:
        yield running


@contextmanager
def an_agent(server: RunningServer, root: Path, name: str, tcti: str) -> Iterator[Agent]:
    places, dps = AgentPaths(root), server.endpoints["dps"]
    places.prepare()
    text = f"""\
[provisioning]
source = "dps"
global_endpoint = "https://{server.address}:{dps["https_port"]}"
id_scope = "{dps["id_scope"]}"
[provisioning.attestation]
method = "tpm"
registration_id = "{name}"
[tpm]
tcti = "{tcti}"
auth_key_index = 0x101010
"""
    agent = open_agent(
        parse_config(root / "config.toml", text),
        places,
        make_links=lambda identity, trust: open_links(identity, trust, SystemClock()),
        environment={"SSL_CERT_FILE": server.endpoints["trust_bundle"]},
        clock=SystemClock(),
        entropy=SystemEntropy(),
    )
    with closing(agent.identities.keys):
        yield agent


def on_record(server: RunningServer, tpm: SoftwareTpm) -> str:
    """Put a TPM on record under a new name."""
    name = next(NAMES)
    target = AzureTarget(azure_profile("local", server.data))
    target.enroll_tpm(name, tpm.keys, is_edge=False, update=False, dry_run=False)
    return name


async def checked(agent: Agent) -> dict[str, Check]:
    return {check.id: check for check in await Checks(agent).run()}


async def test_a_device_registers_by_its_tpm_and_connects_with_the_key_that_is_kept_there(
    server: RunningServer, tmp_path: Path, tpm: SoftwareTpm
) -> None:
    name = on_record(server, tpm)
    with an_agent(server, tmp_path, name, tpm.tcti) as agent:
        assigned = await agent.apply()
        assert assigned is not None
        assert (assigned.device_id, assigned.hub) == (name, server.address)
    with an_agent(server, tmp_path, name, tpm.tcti) as agent:
        registered_at = agent.state.registered_at
        await (await agent.connect(await agent.ensure())).close()
        assert agent.state.registered_at == registered_at, "the key is in the TPM: nobody is asked for it again"


async def test_the_checks_speak_of_the_tpm_and_use_no_key_that_is_not_there_yet(
    server: RunningServer, tmp_path: Path, tpm: SoftwareTpm
) -> None:
    with an_agent(server, tmp_path, on_record(server, tpm), tpm.tcti) as agent:
        before = await checked(agent)
        assert (before["tpmd-running"].result, "no key" in before["tpmd-running"].details) == (
            CheckResult.WARNING,
            True,
        )
        await agent.apply()
        after = await checked(agent)
    assert after["tpmd-running"].result is CheckResult.OK
    assert tpm.tcti in after["tpmd-running"].details
    for one in ("identity-certificate-expiry", "certs-match-private-keys", "key-pairs-read"):
        assert after[one].details == "the device proves itself without a certificate"


async def test_a_device_whose_key_is_gone_from_the_tpm_registers_again(
    server: RunningServer, tmp_path: Path, tpm: SoftwareTpm
) -> None:
    with an_agent(server, tmp_path, on_record(server, tpm), tpm.tcti) as agent:
        await agent.apply()
        environment = {**os.environ, "TPM2TOOLS_TCTI": tpm.tcti}
        subprocess.run(["tpm2_evictcontrol", "-C", "o", "-c", "0x81101010"], env=environment, check=True)
        held, before = await agent.ensure(), agent.state.registered_at
        assert not agent.is_registered(held)
        await (await agent.connect(held)).close()
        assert agent.state.registered_at != before


async def test_another_tpm_is_not_let_in_by_the_name_of_the_first(
    server: RunningServer, tmp_path: Path, tpm: SoftwareTpm
) -> None:
    name = on_record(server, tpm)
    with a_tpm() as another, an_agent(server, tmp_path, name, another.tcti) as agent, pytest.raises(DpsRefusedError):
        await agent.apply()


async def test_a_tpm_that_is_away_is_told_and_nothing_is_registered(server: RunningServer, tmp_path: Path) -> None:
    with an_agent(server, tmp_path, next(NAMES), "swtpm:host=127.0.0.1,port=9") as agent:
        with pytest.raises(TpmUnavailableError):
            await agent.apply()
        assert (await checked(agent))["tpmd-running"].result is CheckResult.ERROR
        assert agent.state.hub is None


async def test_what_a_tpm_proves_is_not_renewed_here(server: RunningServer, tmp_path: Path, tpm: SoftwareTpm) -> None:
    with an_agent(server, tmp_path, on_record(server, tpm), tpm.tcti) as agent:
        await agent.apply()
        with pytest.raises(NotIssuedHereError):
            await agent.renew(await agent.ensure())
