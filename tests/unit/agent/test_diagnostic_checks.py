"""What `check` says of each certificate and of the clock, offline and with servers."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import NoEncryption, pkcs12

from birthmark.agent.config.model import PreloadedIdentity
from birthmark.agent.diagnostic_checks import Check, CheckResult, Checks
from birthmark.agent.identity_lifecycle import Agent
from birthmark.agent.preloaded_and_issued_identities import CertificateMissingError
from birthmark.agent.running_instance import locked
from birthmark.device_transports.identity_and_trust import ServerTrust
from birthmark.device_transports.openssl.server_time import StatedTime
from birthmark.errors import UnavailableError
from birthmark.pki.certificates import CertificateInvalidError, CertificateIsPkcs12Error
from support.agent.world import BOOTSTRAP, CONFIG, LIFETIME, World
from support.pki.pki_builders import a_ca, a_key, key_pem

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
    assert found["host-local-time"].result is CheckResult.SKIPPED
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
    assert results == [CheckResult.OK, CheckResult.OK, CheckResult.ERROR]
    world.clock.move(-0.15 * LIFETIME)
    assert (await checked(world.agent()))[expiry].result is CheckResult.WARNING


async def test_the_est_identity_and_the_bootstrap_certificate_are_both_judged(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent(BOOTSTRAP)
    await agent.apply()
    one = "est-identity-and-bootstrap-certificate-expiry"
    assert (await checked(agent))[one].result is CheckResult.OK
    world.clock.move(2 * LIFETIME)
    found = (await checked(agent))[one]
    assert (found.result, found.details.count("CN=device-1")) == (CheckResult.ERROR, 2)


async def test_the_edge_ca_is_judged_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent(CONFIG + "[edge_ca]\nauto_generated_edge_ca_expiry_days = 5\n")
    assert (await checked(agent))["edge-ca-certificate-expiry"].result is CheckResult.WARNING
    await agent.apply()
    assert (await checked(agent))["edge-ca-certificate-expiry"].result is CheckResult.OK


async def test_the_machines_own_clock_is_compared_with_a_servers(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent()
    await agent.apply()
    world.server_offset = timedelta(seconds=30)
    found = {one.id: one for one in [Check("x", *await Checks(agent)._local_time())]}
    assert found["x"].result is CheckResult.ERROR
    assert "30 s" in found["x"].details


class WithoutEst(World):
    """Where the EST server, which is asked for the time first, is away."""

    async def tell_time(self, url: str, trust: ServerTrust) -> StatedTime | None:
        if "est.test" in url:
            raise UnavailableError
        return await super().tell_time(url, trust)


@pytest.mark.parametrize(("offset_s", "result"), [(0, CheckResult.OK), (30, CheckResult.ERROR)])
async def test_the_clock_is_compared_with_a_server_that_answers_where_another_is_away(
    tmp_path: Path, offset_s: int, result: CheckResult
) -> None:
    world = WithoutEst(tmp_path)
    world.server_offset = timedelta(seconds=offset_s)
    assert (await Checks(world.agent())._local_time()).result is result


async def test_where_every_server_is_away_nobody_told_the_time(tmp_path: Path) -> None:
    text = CONFIG.replace("https://dps.test:8443", "https://est.test")
    found = await Checks(WithoutEst(tmp_path).agent(text))._local_time()
    assert (found.result, found.details) == (CheckResult.SKIPPED, "no server sent its time")


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
        assert found[one].result is CheckResult.ERROR
        assert "/nowhere/bundle.pem" in found[one].details
    assert found["hostname"].result is CheckResult.OK


PRELOADED = CONFIG.replace(
    'identity_cert = { method = "est", auto_renew = { rotate_key = true, threshold = "80%", retry = "4%" } }',
    'identity_cert = "file://BORN.pem"\nidentity_pk = "file://BORN.key"',
)
LOCAL_CA = """\
[cert_issuance.local_ca]
cert = "file://DIRECTORY/ca.pem"
pk = "file://DIRECTORY/ca.key"
"""
BY_KEY = """\
[provisioning]
source = "manual"
connection_string = "HostName=hub.test;DeviceId=device-1;SharedAccessKey=a2V5"
"""


async def found(directory: Path, check: str, text: str = CONFIG) -> Check:
    """Return one check of an agent that has done nothing yet."""
    return (await checked(World(directory).agent(text)))[check]


async def test_a_key_that_nobody_knows_is_warned_of_with_its_file_and_line(tmp_path: Path) -> None:
    check = await found(tmp_path, "identityd-config-well-formed", "hostnane = 'gateway'\n" + CONFIG)
    assert check.result is CheckResult.WARNING
    assert f"{tmp_path / 'config.toml'}:1: hostnane is not known" in check.details


async def test_a_configuration_that_was_changed_since_it_was_applied_is_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.agent().apply()
    assert (await checked(world.agent()))["configs-up-to-date"].result is CheckResult.OK
    changed = (await checked(world.agent(CONFIG + "[edge_ca]\n")))["configs-up-to-date"]
    assert changed.result is CheckResult.WARNING
    assert changed.details.startswith("the configuration was changed after it was applied: birthmark agent apply")


@pytest.mark.parametrize("name", ["a" * 64, f"gateway.{'a' * 70}.example"])
async def test_a_host_name_with_a_part_that_dns_does_not_take_is_an_error(tmp_path: Path, name: str) -> None:
    check = await found(tmp_path, "hostname", f'hostname = "{name}"\n' + CONFIG)
    assert check.result is CheckResult.ERROR
    assert "a part of more than 63 characters" in check.details


@pytest.mark.parametrize("name", ["under_score", "-dash", "a" * 300])
async def test_a_name_that_no_host_can_have_is_an_error(tmp_path: Path, name: str) -> None:
    check = await found(tmp_path, "hostname", f'hostname = "{name}"\n' + CONFIG)
    assert (check.result, check.details) == (CheckResult.ERROR, f"'{name[:64]}' is not a valid host name")


async def test_an_agent_that_runs_is_seen_by_its_lock(tmp_path: Path) -> None:
    agent = World(tmp_path).agent()
    assert (await checked(agent))["identityd-running"].result is CheckResult.WARNING
    with locked(agent.places.lock):
        assert (await checked(agent))["identityd-running"].result is CheckResult.OK


async def test_a_preloaded_certificate_that_is_gone_or_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    def preloaded(path: Path) -> str:
        return f'{CONFIG}[preloaded_certs]\nroots = "file://{path}"\n'

    gone = await found(tmp_path, "certs-preloaded", preloaded(tmp_path / "gone.pem"))
    assert (gone.result, gone.details) == (CheckResult.ERROR, f"roots: {tmp_path}/gone.pem does not exist")
    (tmp_path / "empty.pem").touch()
    assert (await found(tmp_path, "certs-preloaded", preloaded(tmp_path / "empty.pem"))).result is CheckResult.ERROR
    directory = await found(tmp_path, "certs-preloaded", preloaded(tmp_path))
    assert (directory.result, directory.details) == (CheckResult.ERROR, f"{tmp_path}: is a directory")


@pytest.mark.parametrize("name", ["born.pem", "born.key", "trust.pem", "more.pem"])
async def test_every_error_of_a_file_names_it(tmp_path: Path, name: str) -> None:
    agent = World(tmp_path).agent(f'{BOOTSTRAP}[preloaded_certs]\nroots = "file://{tmp_path}/more.pem"\n')
    (tmp_path / "more.pem").write_text(a_ca().certificate.pem())
    (tmp_path / name).write_text("none")
    wrong = [one.details for one in (await checked(agent)).values() if one.result is CheckResult.ERROR]
    assert wrong
    assert all(str(tmp_path / name) in details for details in wrong)


async def test_a_preloaded_pkcs12_is_told_by_its_name_with_commands_for_it(tmp_path: Path) -> None:
    pfx = pkcs12.serialize_key_and_certificates(None, None, None, [a_ca().certificate.parsed], NoEncryption())
    (path := tmp_path / "device.pfx").write_bytes(pfx)
    store = World(tmp_path).agent().identities
    with pytest.raises(CertificateIsPkcs12Error) as refused:
        store.preloaded(PreloadedIdentity(path, tmp_path / "none"))
    assert str(path) in str(refused.value)
    assert f"openssl pkcs12 -in {path}" in refused.value.explain_fix()


@pytest.mark.parametrize("read", [ServerTrust.of, ServerTrust("").plus])
def test_a_trusted_file_that_is_a_key_is_named(tmp_path: Path, read: Callable[[list[Path]], ServerTrust]) -> None:
    (path := tmp_path / "root.pem").write_text(key_pem(a_key()))
    with pytest.raises(CertificateInvalidError, match="root"):
        read([path])


async def test_a_device_by_a_shared_key_is_not_told_that_it_lacks_a_certificate(tmp_path: Path) -> None:
    checks = await checked(World(tmp_path).agent(BY_KEY))
    for one in ("identity-certificate-expiry", "key-pairs-read", "certs-match-private-keys"):
        assert checks[one].details == "the device proves itself without a certificate"
    assert {check.result for check in checks.values()} <= {CheckResult.OK, CheckResult.SKIPPED, CheckResult.WARNING}


async def test_a_clock_that_is_behind_a_certificate_does_not_make_that_invalid(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.clock.move(timedelta(days=-400))
    agent = world.agent(PRELOADED)
    assert (await checked(agent))["identity-certificate-expiry"].result is CheckResult.OK
    assert agent.clock.is_off, "it cannot be earlier than the certificate"


async def test_nobody_is_told_to_have_renewed_what_the_configuration_gives(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.clock.move(timedelta(days=4000))
    check = (await checked(world.agent(PRELOADED)))["identity-certificate-expiry"]
    assert (check.result, check.command) == (CheckResult.ERROR, "")


async def test_what_the_configuration_gives_is_read_and_compared_with_its_key(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent(PRELOADED)
    checks = await checked(agent)
    for one in ("identity-certificate-expiry", "certs-read", "key-pairs-read", "certs-match-private-keys"):
        assert checks[one].result is CheckResult.OK
    (tmp_path / "born.key").write_text(key_pem(a_key()))
    mismatched = (await checked(world.agent(PRELOADED)))["certs-match-private-keys"]
    assert mismatched.result is CheckResult.ERROR


async def test_a_bootstrap_certificate_is_compared_with_its_key_before_it_is_used(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent(BOOTSTRAP)
    assert (await checked(agent))["certs-match-private-keys"].result is CheckResult.SKIPPED
    (tmp_path / "born.key").write_text(key_pem(a_key()))
    assert (await checked(agent))["certs-match-private-keys"].result is CheckResult.ERROR


async def test_a_local_ca_of_the_configuration_is_judged_by_its_dates(tmp_path: Path) -> None:
    world = World(tmp_path)
    ca = a_ca("Local", lifetime=timedelta(days=2))
    (tmp_path / "ca.pem").write_text(ca.certificate.pem())
    (tmp_path / "ca.key").touch(mode=0o600)
    (tmp_path / "ca.key").write_text(ca.key_pem)
    text = CONFIG.replace('method = "est"', 'method = "local_ca"') + LOCAL_CA.replace("DIRECTORY", str(tmp_path))
    assert (await checked(world.agent(text)))["local-ca-certificate-expiry"].result is CheckResult.OK
    world.clock.move(timedelta(days=3))
    assert (await checked(world.agent(text)))["local-ca-certificate-expiry"].result is CheckResult.ERROR


async def test_a_local_ca_that_is_issued_is_missing_until_it_is(tmp_path: Path) -> None:
    text = CONFIG.replace('method = "est",', 'method = "local_ca",')
    agent = World(tmp_path).agent(text + '[cert_issuance.local_ca]\ncert = { method = "est", common_name = "local" }\n')
    before = (await checked(agent))["local-ca-certificate-expiry"]
    assert (before.result, "no certificate was issued yet" in before.details) == (CheckResult.WARNING, True)
    await agent.apply()
    assert (await checked(agent))["local-ca-certificate-expiry"].result is CheckResult.OK


async def test_an_edge_ca_of_the_configuration_is_judged_by_its_dates_and_its_key(tmp_path: Path) -> None:
    world = World(tmp_path)
    text = CONFIG + '[edge_ca]\ncert = "file://DIRECTORY/edge.pem"\npk = "file://DIRECTORY/edge.key"\n'
    text = text.replace("DIRECTORY", str(tmp_path))
    edge = a_ca("Edge", lifetime=timedelta(days=2))
    (tmp_path / "edge.pem").write_text(edge.certificate.pem())
    (tmp_path / "edge.key").touch(mode=0o600)
    (tmp_path / "edge.key").write_text(edge.key_pem)
    agent = world.agent(text)
    await agent.apply()
    checks = await checked(agent)
    assert checks["edge-ca-certificate-expiry"].result is checks["certs-match-private-keys"].result is CheckResult.OK
    (tmp_path / "edge.key").write_text(key_pem(a_key()))
    assert (await checked(agent))["certs-match-private-keys"].result is CheckResult.ERROR


async def test_certificates_that_the_device_was_given_are_all_compared_with_their_keys(tmp_path: Path) -> None:
    agent = World(tmp_path).agent(BOOTSTRAP + "[edge_ca]\nauto_generated_edge_ca_expiry_days = 5\n")
    await agent.apply()
    checks = await checked(agent)
    assert {checks[one].result for one in ("certs-read", "key-pairs-read", "certs-match-private-keys")} == {
        CheckResult.OK
    }
