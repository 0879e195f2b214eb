"""Devices that prove themselves by a key they share with the cloud."""

import base64
from datetime import timedelta
from pathlib import Path

import pytest

from birthmark.agent.config import ConfigInvalidError, DpsSource, ManualSource, SymmetricKeySource, parse_config
from birthmark.auth.sas import check_sas, parse_sas
from birthmark.errors import UnavailableError
from support.agent.world import CONFIG, World
from support.fakes import NOON

KEY = b"a key of thirty-two bytes, shared"
TEXT = base64.b64encode(KEY).decode()
HEAD = CONFIG.split("[provisioning.attestation]", maxsplit=1)[0]
DPS = HEAD + '[provisioning.attestation]\nmethod = "symmetric_key"\nregistration_id = "device-1"\n'
MANUAL = '[provisioning]\nsource = "manual"\n'
FILE = Path("/etc/aziot/config.toml")


def identity_in(text: str) -> SymmetricKeySource:
    identity = parse_config(FILE, text).source.identity
    assert isinstance(identity, SymmetricKeySource)
    return identity


@pytest.mark.parametrize("written", [TEXT, TEXT.rstrip("="), f"{TEXT[:5]}\\n {TEXT[5:]}", f"'{TEXT}'"])
def test_a_key_may_have_white_space_and_quotes_and_no_padding_and_is_never_shown(written: str) -> None:
    found = identity_in(DPS + f'symmetric_key = {{ value = "{written}" }}\n')
    assert found.value == KEY
    assert TEXT not in repr(parse_config(FILE, DPS + f'symmetric_key = {{ value = "{written}" }}\n'))


def test_a_connection_string_is_hub_device_and_key() -> None:
    text = MANUAL + f'connection_string = "HostName=hub.test;DeviceId=device-1;SharedAccessKey={TEXT}"\n'
    source = parse_config(FILE, text).source
    assert source == ManualSource("hub.test", "device-1", SymmetricKeySource(KEY))


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ("symmetric_key = 'x'", "symmetric_key"),
        ("symmetric_key = { value = 'not base64!' }", "symmetric_key.value"),
        ("symmetric_key = { value = 'AAAA', uri = 'file:///x' }", "symmetric_key"),
        ("symmetric_key = {}", "symmetric_key"),
        ("", "symmetric_key"),
    ],
)
def test_a_mistake_is_told_and_shows_no_secret(wrong: str, key: str) -> None:
    with pytest.raises(ConfigInvalidError) as refused:
        parse_config(FILE, DPS + wrong)
    assert refused.value.facts["key"] == f"provisioning.attestation.{key}"
    assert "not base64!" not in refused.value.explain_cause() + refused.value.explain_fix()


@pytest.mark.parametrize(
    ("host", "device", "told"),
    [
        ("hub.test", "device\u200b-1", "has U+200B, which is invisible, in its DeviceId"),
        ("hub.test", "device 1", "has U+0020, which is invisible, in its DeviceId"),
        ("https://hub.test/", "device-1", "has '/' in its HostName"),
        ("hub.test", "device&#59", "has '&' in its DeviceId"),
    ],
)
def test_a_character_that_is_in_no_name_is_told(host: str, device: str, told: str) -> None:
    text = MANUAL + f'connection_string = "HostName={host};DeviceId={device};SharedAccessKey={TEXT}"\n'
    with pytest.raises(ConfigInvalidError) as refused:
        parse_config(FILE, text)
    assert told in refused.value.explain_cause()
    assert TEXT not in refused.value.explain_cause()


def test_a_connection_string_without_a_part_is_told_without_showing_it() -> None:
    with pytest.raises(ConfigInvalidError) as refused:
        parse_config(FILE, MANUAL + f'connection_string = "HostName=h;SharedAccessKey={TEXT}"\n')
    assert "has no DeviceId" in refused.value.explain_cause()
    assert TEXT not in refused.value.explain_cause()


async def test_the_device_registers_and_connects_by_signed_tokens(tmp_path: Path) -> None:
    world = World(tmp_path)
    agent = world.agent(DPS + f'symmetric_key = {{ value = "{TEXT}" }}\n')
    await agent.apply()
    await agent.connect(await agent.ensure())
    shown = [world.registered[0]["authorization"], *world.passwords]
    resources = ["0ne00ABCDEF/registrations/device-1", "hub.test/devices/device-1"]
    for text, resource in zip(shown, resources, strict=True):
        token = parse_sas(text)
        check_sas(token, [KEY], NOON)
        assert token.resource == resource.lower()
        assert timedelta(0) < timedelta(seconds=token.expiry_s - NOON.timestamp()) <= timedelta(hours=1)
    assert parse_sas(shown[0]).policy == "registration"
    assert agent.held() is None
    assert agent.renewal_due_in(await agent.ensure()) is None


async def test_the_key_may_be_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    path.touch(mode=0o600)
    path.write_text(TEXT + "\n")
    world = World(tmp_path)
    await world.agent(DPS + f'symmetric_key = {{ uri = "file://{path}" }}\n').apply()
    check_sas(parse_sas(world.registered[0]["authorization"]), [KEY], NOON)


async def test_a_payload_is_sent_along(tmp_path: Path) -> None:
    path = tmp_path / "payload.json"
    path.write_text('{"modelId": "dtmi:x;1"}')
    world = World(tmp_path)
    text = DPS.replace("[provisioning.att", f'payload = {{ uri = "file://{path}" }}\n[provisioning.att')
    agent = world.agent(text + f'symmetric_key = {{ value = "{TEXT}" }}\n')
    assert isinstance(agent.config.source, DpsSource)
    await agent.apply()
    assert world.registered[0]["payload"] == {"modelId": "dtmi:x;1"}


async def test_apply_asks_the_hub_where_nobody_else_says_that_it_knows_the_device(tmp_path: Path) -> None:
    world = World(tmp_path)
    text = MANUAL + f'connection_string = "HostName=hub.test;DeviceId=device-1;SharedAccessKey={TEXT}"\n'
    await world.agent(text).apply()
    assert len(world.connections) == 1
    world.failing = {"hub"}
    with pytest.raises(UnavailableError):
        await world.agent(text).apply()
