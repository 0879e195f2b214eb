"""Profiles: where enrollments go, and why a profile cannot be used."""

import base64
import codecs
import json
from pathlib import Path

import pytest

from birthmark.fleet.errors import ProfileError
from birthmark.fleet.target_profiles import AwsProfile, AzureProfile, aws_profile, azure_profile, named_for
from birthmark.pki.certificates import parse_bundle
from support.pki.pki_builders import a_ca

CA = a_ca().certificate
STRING = "HostName=dps.test;SharedAccessKeyName=owner;SharedAccessKey=a2V5"
ENDPOINTS = {
    "trust_bundle": "/data/trust.pem",
    "est": {},
    "dps": {"service_connection_string": STRING, "id_scope": "0ne00ABCDEF"},
    "iothub": {},
    "aws": {
        "endpoint_url": "https://127.0.0.7:8443",
        "region": "us-east-1",
        "account_id": "123456789012",
        "access_key_id": "AKIA",
        "secret_access_key": "hidden",
    },
    "health_url": "http://127.0.0.7:8080/healthz",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a file of profiles, whose password file only its owner can read."""
    monkeypatch.setenv("HOME", str(tmp_path))
    secret = tmp_path / "dps"
    secret.write_text(f"{STRING}\n")
    secret.chmod(0o600)
    (tmp_path / "ca.pem").write_text(CA.pem())
    profiles = tmp_path / ".config" / "birthmark" / "profiles.toml"
    profiles.parent.mkdir(parents=True)
    profiles.write_text(f"""\
[factory.azure]
connection_string_file = "{secret}"
ca_file = "~/ca.pem"
[factory.aws]
endpoint_url = "https://aws.test"
region = "eu-central-1"
profile = "factory"
[plain.aws]
endpoint_url = "https://aws.test"
region = "eu-central-1"
ca_file = "~/ca.pem"
[bare.azure]
[bare.aws]
""")
    return tmp_path


def why_not(name: str, cloud: str = "azure") -> str:
    with pytest.raises(ProfileError) as refused:
        (azure_profile if cloud == "azure" else aws_profile)(name, Path("/nowhere"))
    return refused.value.explain_cause()


def test_local_is_the_server_of_the_data_directory(tmp_path: Path) -> None:
    (tmp_path / "endpoints.json").write_text(json.dumps(ENDPOINTS))
    azure, aws = azure_profile("local", tmp_path), aws_profile("local", tmp_path)
    assert azure == AzureProfile(STRING, Path("/data/trust.pem"), "0ne00ABCDEF")
    assert (aws.is_local, aws.endpoint_url, aws.region) == (True, "https://127.0.0.7:8443", "us-east-1")
    assert (aws.access_key_id, aws.secret_access_key) == ("AKIA", "hidden")
    assert aws.account == "123456789012 of server 0ne00ABCDEF"
    assert "hidden" not in repr(aws)
    assert "a2V5" not in repr(azure)


def test_cloud_is_the_vendors_own_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVISIONING_CONNECTION_STRING", STRING)
    assert azure_profile("cloud", Path("/nowhere")) == AzureProfile(STRING)
    assert aws_profile("cloud", Path("/nowhere")) == AwsProfile()


@pytest.mark.parametrize("value", [None, ""])
def test_cloud_at_azure_needs_the_connection_string(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("PROVISIONING_CONNECTION_STRING", raising=False)
    if value is not None:
        monkeypatch.setenv("PROVISIONING_CONNECTION_STRING", value)
    assert "PROVISIONING_CONNECTION_STRING is not set" in why_not("cloud")


def test_a_named_profile_is_a_table_of_the_file(home: Path) -> None:
    assert azure_profile("factory", Path("/nowhere")) == AzureProfile(STRING, home / "ca.pem")
    wanted = AwsProfile(endpoint_url="https://aws.test", region="eu-central-1", sdk_profile="factory", name="factory")
    assert aws_profile("factory", Path("/nowhere")) == wanted
    assert aws_profile("bare", Path("/nowhere")) == AwsProfile(name="bare")


@pytest.mark.parametrize("host", ["birthmark.test", "BIRTHMARK.TEST"])
def test_the_strings_that_lead_to_the_server_of_this_shell_are_not_the_vendors(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("PROVISIONING_HOST", "Birthmark.test:8443")
    monkeypatch.setenv("PROVISIONING_CONNECTION_STRING", STRING.replace("dps.test", host))
    monkeypatch.setenv("AWS_ENDPOINT_URL_IOT", f"https://{host}:8443")
    assert "and not Azure's" in why_not("cloud")
    assert "and not Amazon's" in why_not("cloud", "aws")


def test_a_vendors_own_strings_are_used_in_the_shell_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVISIONING_HOST", "Birthmark.test:8443")
    monkeypatch.setenv("PROVISIONING_CONNECTION_STRING", STRING)
    monkeypatch.setenv("AWS_ENDPOINT_URL_IOT", "https://iot.eu-central-1.amazonaws.com")
    assert azure_profile("cloud", Path("/nowhere")) == AzureProfile(STRING)
    assert aws_profile("cloud", Path("/nowhere")) == AwsProfile()


def test_the_hub_of_a_named_profile_is_told_by_a_file_of_its_own(home: Path) -> None:
    hub = STRING.replace("dps.test", "hub.test")
    (home / "hub").write_text(hub)
    (home / "hub").chmod(0o600)
    profiles = home / ".config" / "birthmark" / "profiles.toml"
    line = f'hub_connection_string_file = "{home}/hub"'
    profiles.write_text(profiles.read_text().replace("[factory.aws]", f"{line}\n[factory.aws]"))
    assert azure_profile("factory", Path("/nowhere")).hub_connection_string == hub
    (home / "hub").chmod(0o604)
    assert "is readable by other users" in why_not("factory")


@pytest.mark.usefixtures("home")
def test_the_profiles_that_there_are_for_a_cloud_are_named() -> None:
    assert named_for("azure") == "; defined for azure: bare, factory"


def test_that_there_is_no_profile_is_said_and_of_what_cannot_be_read_nothing(home: Path) -> None:
    profiles = home / ".config" / "birthmark" / "profiles.toml"
    profiles.write_text("[factory.aws]\n")
    assert named_for("azure") == "; no profile is defined for azure"
    profiles.write_text("= no TOML")
    assert named_for("azure") == ""
    profiles.unlink()
    assert named_for("aws") == "; no profile is defined for aws"


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("cloud", ["azure", "aws"])
def test_a_profile_that_is_not_there_is_named(cloud: str) -> None:
    assert f"has no table [other.{cloud}]" in why_not("other", cloud)


@pytest.mark.usefixtures("home")
def test_azure_without_a_connection_string_file_is_refused() -> None:
    assert "[bare.azure] has no connection_string_file" in why_not("bare")


@pytest.mark.parametrize(("cloud", "key"), [("azure", "cafile"), ("aws", "endpoint")])
def test_a_key_that_is_not_known_is_refused_and_not_left_out(home: Path, cloud: str, key: str) -> None:
    (home / ".config" / "birthmark" / "profiles.toml").write_text(f'[factory.{cloud}]\n{key} = "x"\n')
    assert f"names {key} under [factory.{cloud}]" in why_not("factory", cloud)


def test_a_connection_string_that_others_can_read_is_refused(home: Path) -> None:
    (home / "dps").chmod(0o640)
    with pytest.raises(ProfileError) as refused:
        azure_profile("factory", Path("/nowhere"))
    assert "is readable by other users" in refused.value.explain_cause()
    assert f"`chmod 0600 {home / 'dps'}`" in refused.value.explain_fix()


def test_a_connection_string_that_is_not_there_is_refused(home: Path) -> None:
    (home / "dps").unlink()
    assert "no such file" in why_not("factory")


def test_a_connection_string_that_is_no_text_is_refused(home: Path) -> None:
    (home / "dps").write_bytes("HostName=Gerät".encode("cp1252"))
    with pytest.raises(ProfileError) as refused:
        azure_profile("factory", Path("/nowhere"))
    assert "is not UTF-8" in refused.value.explain_cause()
    assert f"iconv -f CP1252 -t UTF-8 {home / 'dps'} >" in refused.value.explain_fix()


def test_without_a_file_of_profiles_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "no such file" in why_not("factory")


@pytest.mark.parametrize("text", ["= 1", "factory = 1", "[factory]\nazure = 1", "[" * 5000])
def test_a_file_that_holds_no_profiles_is_refused(home: Path, text: str) -> None:
    (home / ".config" / "birthmark" / "profiles.toml").write_text(text)
    assert "profiles.toml" in why_not("factory")


@pytest.mark.parametrize(
    "content",
    [CA.der, base64.b64encode(CA.der), CA.pem().encode("utf-16"), codecs.BOM_UTF8 + CA.pem().encode()],
    ids=["DER", "base64", "UTF-16", "BOM"],
)
def test_the_sdks_are_given_pem_whatever_form_a_ca_file_has(home: Path, content: bytes) -> None:
    (home / "ca.pem").write_bytes(content)
    for profile in (azure_profile("factory", Path("/nowhere")), aws_profile("plain", Path("/nowhere"))):
        assert profile.ca_file is not None
        assert parse_bundle(profile.ca_file.read_bytes()) == (CA,)
        assert profile.ca_file.read_bytes().startswith(b"-----BEGIN CERTIFICATE-----\n")


@pytest.mark.parametrize("content", [b"", b"certificate", CA.pem().encode("cp1252")[30:]])
def test_a_ca_file_without_certificates_is_named(home: Path, content: bytes) -> None:
    (home / "ca.pem").write_bytes(content)
    assert f"its ca_file {home}/ca.pem: Not a certificate" in why_not("factory")


def test_a_ca_file_that_is_not_there_is_named(home: Path) -> None:
    (home / "ca.pem").unlink()
    assert f"its ca_file {home}/ca.pem: no such file" in why_not("factory")
