"""`method = "tpm"` and `[tpm]`: what is taken, what is refused, what is shown."""

from pathlib import Path

import pytest

from birthmark.agent.config import ConfigInvalidError, parse_config, read_config
from birthmark.keys.tpm_attestation import Tpm, TpmSettings
from support.agent.world import CONFIG

FILE = Path("/etc/aziot/config.toml")
HEAD = CONFIG.split("[provisioning.attestation]", maxsplit=1)[0]
DPS = HEAD + '[provisioning.attestation]\nmethod = "tpm"\nregistration_id = "device-1"\n'


def settings(more: str = "") -> TpmSettings:
    config = parse_config(FILE, DPS + more)
    assert config.source.identity == config.tpm
    assert not config.warnings
    return config.tpm


def test_without_a_table_the_settings_are_aziots() -> None:
    assert settings() == TpmSettings("device", 0x100, "", "")
    assert Tpm(settings()).handle == 0x81000100


def test_every_setting_is_taken_and_no_password_is_shown() -> None:
    found = settings(
        '[tpm]\ntcti = "swtpm:port=2321"\nauth_key_index = 0x10_10_10\n'
        '[tpm.hierarchy_authorization]\nendorsement = "hello"\nowner = "world"\n'
    )
    assert found == TpmSettings("swtpm:port=2321", 0x101010, "hello", "world")
    assert "hello" not in repr(found)
    assert "world" not in repr(found)


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("[tpm]\nauth_key_index = 0x80_00_00\n", "tpm.auth_key_index"),
        ("[tpm]\nauth_key_index = -1\n", "tpm.auth_key_index"),
        ("[tpm]\nauth_key_index = 0x1\n", "tpm.auth_key_index"),
        ("[tpm]\nauth_key_index = 0x01_00_01\n", "tpm.auth_key_index"),
        ("[tpm]\ntcti = 5\n", "tpm.tcti"),
        ("[tpm.hierarchy_authorization]\nowner = 5\n", "tpm.hierarchy_authorization.owner"),
        (f'[tpm.hierarchy_authorization]\nowner = "{"x" * 65}"\n', "tpm.hierarchy_authorization.owner"),
    ],
)
def test_a_mistake_is_told_by_its_key(more: str, key: str) -> None:
    with pytest.raises(ConfigInvalidError) as refused:
        parse_config(FILE, DPS + more)
    assert refused.value.facts["key"] == key
    assert "xxx" not in refused.value.explain_cause() + refused.value.explain_fix()


def test_a_tpm_has_no_name_of_its_own() -> None:
    with pytest.raises(ConfigInvalidError) as refused:
        parse_config(FILE, DPS.replace('registration_id = "device-1"\n', ""))
    assert refused.value.facts["key"] == "provisioning.attestation.registration_id"


def test_a_table_without_the_method_is_remarked_upon() -> None:
    shared = DPS.replace('"tpm"', '"symmetric_key"') + 'symmetric_key = { value = "AAAA" }\n'
    (warning,) = parse_config(FILE, shared + '[tpm]\ntcti = "device"\n').warnings
    assert warning.key == "tpm"


def test_a_hub_that_is_given_takes_no_tpm() -> None:
    text = '[provisioning]\nsource = "manual"\niothub_hostname = "h"\ndevice_id = "d"\n'
    text += '[provisioning.authentication]\nidentity_cert = "file:///c"\nidentity_pk = "file:///k"\n'
    with pytest.raises(ConfigInvalidError) as refused:
        parse_config(FILE, text + 'method = "tpm"\n')
    assert refused.value.facts["key"] == "provisioning.authentication.method"


def test_a_password_of_a_hierarchy_that_others_can_read_is_remarked_upon(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(DPS + '[tpm.hierarchy_authorization]\nowner = "world"\n')
    file.chmod(0o644)
    assert [warning.key for warning in read_config(file).warnings] == ["owner"]
