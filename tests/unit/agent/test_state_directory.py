"""Where the agent keeps things: whose they are, and what is told where they cannot be kept."""

import os
from pathlib import Path

import pytest

from birthmark.agent.certificate_slot import HeldIdentity
from birthmark.agent.preloaded_and_issued_identities import CertificateMissingError
from birthmark.agent.state import recall
from birthmark.agent.state_directory import AgentPaths, StateNotWritableError, remove_file, write_file
from support.agent.world import CONFIG, World

SERVICE = 4711


def test_a_root_that_is_no_directory_is_told_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "root").touch()
    with pytest.raises(StateNotWritableError) as refused:
        AgentPaths(tmp_path / "root").prepare()
    assert str(tmp_path / "root") in refused.value.explain_cause()


def test_a_directory_of_the_agents_is_its_owners_alone(tmp_path: Path) -> None:
    places = AgentPaths(tmp_path)
    places.prepare()
    assert {path.stat().st_mode & 0o777 for path in (places.certs, places.keys, places.state.parent)} == {0o700}


@pytest.mark.parametrize("act", ["write", "remove"])
def test_what_cannot_be_written_is_named_with_another_place_to_keep_it(tmp_path: Path, act: str) -> None:
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "inside").touch()
    with pytest.raises(StateNotWritableError) as refused:
        write_file(tmp_path / "file", b"") if act == "write" else remove_file(tmp_path / "file")
    assert str(tmp_path / "file") in refused.value.explain_cause()
    assert "--root" in refused.value.explain_fix()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes for others")
def test_what_root_writes_for_a_service_is_the_services(tmp_path: Path) -> None:
    directory = tmp_path / "of-the-service"
    directory.mkdir()
    os.chown(directory, SERVICE, SERVICE)
    write_file(directory / "key", b"secret")
    written = (directory / "key").stat()
    assert (written.st_uid, written.st_gid, written.st_mode & 0o777) == (SERVICE, SERVICE, 0o600)


def test_a_certificate_that_the_configuration_names_and_that_is_gone_is_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    text = CONFIG.replace(
        'identity_cert = { method = "est", auto_renew = { rotate_key = true, threshold = "80%", retry = "4%" } }',
        'identity_cert = "file:///nowhere/device.pem"\nidentity_pk = "file://BORN.key"',
    )
    with pytest.raises(CertificateMissingError) as refused:
        world.agent(text).held()
    assert "/nowhere/device.pem cannot be read: no such file" in refused.value.explain_cause()


async def test_a_last_good_configuration_that_is_none_any_more_is_not_fallen_back_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent()
    await agent.apply()
    file = tmp_path / "config.toml"
    assert recall(agent.places, file) is not None
    kept = agent.places.last_good.read_text()
    agent.places.last_good.write_text(kept.replace("0ne00ABCDEF", '0ne00\\"ABC'))
    assert recall(agent.places, file) is None
    agent.places.last_good.write_text("no JSON")
    assert recall(agent.places, file) is None


async def test_a_damaged_certificate_of_ours_counts_as_none_and_is_issued_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent()
    await agent.apply()
    agent.places.certificate("device-id").write_text("-----BEGIN CERTIFICATE-----\nnonsense")
    assert agent.held() is None
    await agent.apply()
    assert isinstance(agent.held(), HeldIdentity)
