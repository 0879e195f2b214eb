"""The edge CA: made here or issued, under aziot's names, renewed, and used only when it is one."""

from pathlib import Path

import pytest

from birthmark.agent.certificate_slot import HeldIdentity
from birthmark.agent.certificate_sources import NotAuthorityError
from birthmark.agent.config import IssuedIdentity, LocalIssuance
from birthmark.agent.identity_lifecycle import Agent
from birthmark.agent.preloaded_and_issued_identities import CertificateMissingError
from birthmark.agent.state_directory import EDGE_CA, LOCAL_CA
from birthmark.est.wire import parse_certs_only, parse_csr, render_certs_only
from birthmark.pki.certificate_profiles import EDGE_ISSUING_CA
from birthmark.pki.certificates import Certificate, is_signed_by
from support.agent.world import CONFIG, LIFETIME, World
from support.pki.pki_builders import a_ca

EST = CONFIG + '[edge_ca]\nmethod = "est"\n'


def edge_ca(agent: Agent) -> HeldIdentity:
    held = agent.identities.slot(EDGE_CA).current()
    assert held is not None
    return held


async def test_it_is_requested_as_aziot_does_and_kept_under_its_name(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent(EST)
    await agent.apply()
    request = parse_csr(world.requests[-1])
    assert request.wants_ca
    held = edge_ca(agent)
    assert held.leaf.is_ca
    assert [one.subject_cn for one in held.chain] == ["aziot-edge CA", "Test Edge"]
    assert agent.places.certificate(EDGE_CA).name.startswith("aziotedgedca-")


async def test_a_certificate_that_is_no_ca_never_takes_its_place(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.issues_cas = False
    agent = world.agent(EST)
    with pytest.raises(NotAuthorityError):
        await agent.apply()
    assert agent.identities.slot(EDGE_CA).current() is None
    assert agent.state.hub is not None  # the device itself is registered all the same


async def test_it_is_renewed_at_80_percent_with_a_new_key(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent(EST)
    await agent.apply()
    before = edge_ca(agent).leaf
    world.clock.move(0.85 * LIFETIME)
    due = agent.due_in(agent.managed[EDGE_CA])
    assert due is not None
    assert due.total_seconds() < 0
    await agent.keeper.renew(agent.managed[EDGE_CA])
    assert edge_ca(agent).leaf.spki_der != before.spki_der


async def test_the_quickstart_one_signs_itself_for_its_days(tmp_path: Path) -> None:
    agent = World(tmp_path).agent(CONFIG + "[edge_ca]\nauto_generated_edge_ca_expiry_days = 5\n")
    await agent.apply()
    leaf = edge_ca(agent).leaf
    assert (leaf.is_ca, leaf.is_self_signed, (leaf.not_after - leaf.not_before).days) == (True, True, 5)


async def test_without_a_table_none_is_made(tmp_path: Path) -> None:
    agent = World(tmp_path).agent()
    await agent.apply()
    assert agent.identities.slot(EDGE_CA).current() is None


async def test_a_local_ca_that_is_issued_issues_the_device_identity(tmp_path: Path) -> None:
    text = CONFIG.replace('method = "est",', 'method = "local_ca",')
    text += '[cert_issuance.local_ca]\ncert = { method = "est", common_name = "local" }\n'
    world = World(tmp_path)
    agent = world.agent(text)
    await agent.apply()
    local, held = agent.identities.slot(LOCAL_CA).current(), agent.held()
    assert local is not None
    assert held is not None
    assert is_signed_by(held.leaf, local.leaf)


class Misleading(World):
    """Whose EST server answers for a CA with a chain that does not hold."""

    chain: tuple[Certificate, ...] = ()

    def issued(self, body: bytes) -> bytes:
        made, request = super().issued(body), parse_csr(body)
        if not request.wants_ca:
            return made
        leaf = next(one for one in parse_certs_only(made) if one.spki_der == request.spki_der)
        return render_certs_only([leaf, *self.chain])


@pytest.mark.parametrize("chain", ["another's", "none"])
async def test_a_ca_that_leads_nowhere_never_takes_its_place(tmp_path: Path, chain: str) -> None:
    world = Misleading(tmp_path)
    unauthenticated = a_ca("Test Edge", parent=a_ca("Elsewhere"), profile=EDGE_ISSUING_CA).certificate
    world.chain = (unauthenticated,) if chain == "another's" else ()
    with pytest.raises(NotAuthorityError):
        await world.agent(EST).apply()
    assert world.agent(EST).identities.slot(EDGE_CA).current() is None


async def test_a_local_ca_that_was_not_issued_yet_is_told_by_its_file(tmp_path: Path) -> None:
    text = CONFIG.replace('method = "est",', 'method = "local_ca",')
    agent = World(tmp_path).agent(text + '[cert_issuance.local_ca]\ncert = { method = "est", common_name = "local" }\n')
    identity = agent.config.source.identity
    assert isinstance(identity, IssuedIdentity)
    assert isinstance(identity.by, LocalIssuance)
    with pytest.raises(CertificateMissingError) as refused:
        agent.keeper.source.local_ca(identity.by)
    assert "no local CA has been issued yet" in refused.value.explain_cause()


@pytest.mark.parametrize("has_ca", [True, False])
async def test_an_identity_of_a_local_ca_of_the_configuration_is_its(tmp_path: Path, *, has_ca: bool) -> None:
    ca = a_ca("Line")
    (tmp_path / "line.pem").write_text(ca.certificate.pem())
    (tmp_path / "line.key").touch(mode=0o600)
    (tmp_path / "line.key").write_text(ca.key_pem)
    if not has_ca:
        (tmp_path / "line.pem").unlink()
    text = CONFIG.replace('method = "est",', 'method = "local_ca",')
    text += f'[cert_issuance.local_ca]\ncert = "file://{tmp_path}/line.pem"\npk = "file://{tmp_path}/line.key"\n'
    agent = World(tmp_path).agent(text)
    if not has_ca:
        with pytest.raises(CertificateMissingError):
            await agent.apply()
        return
    await agent.apply()
    held = agent.held()
    assert held is not None
    assert is_signed_by(held.leaf, ca.certificate)
    assert [one.subject_cn for one in held.chain] == ["device-1"], "the root is not shown"
