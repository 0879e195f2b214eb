"""The super-config: what is taken, what is taken with a warning, what is refused and where."""

import contextlib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.agent.config import (
    AgentConfig,
    ConfigInvalidError,
    ConfigMissingError,
    ConfigUnsupportedError,
    DpsSource,
    EstIssuance,
    IssuedIdentity,
    LocalIssuance,
    ManualSource,
    PreloadedIdentity,
    parse_config,
    read_config,
)
from birthmark.agent.config.model import TokenLocation
from birthmark.agent.renewal_policy import RenewalSpan
from birthmark.errors import BirthmarkError
from birthmark.secure_elements.chip_profiles import Algorithm

FILE = Path("/etc/aziot/config.toml")
# The tutorial's file, as `birthmark env --format aziot` prints it.
TUTORIAL = """\
hostname = "my-device"

[provisioning]
source = "dps"
global_endpoint = "https://127.0.0.7:8443"
id_scope = "0ne00ABCDEF"

[provisioning.attestation]
method = "x509"
registration_id = "my-device"

[provisioning.attestation.identity_cert]
method = "est"
common_name = "my-device"

[provisioning.attestation.identity_cert.auto_renew]
rotate_key = true
threshold = "80%"
retry = "4%"

[cert_issuance.est]
trusted_certs = ["file:///data/trust.pem"]

[cert_issuance.est.auth]
username = "estuser"
password = "estpwd"

[cert_issuance.est.urls]
default = "https://127.0.0.7:8085/.well-known/est"
"""
MANUAL = """\
[provisioning]
source = "manual"
iothub_hostname = "hub.test"
device_id = "my-device"
[provisioning.authentication]
method = "x509"
identity_cert = "file:///device.pem"
identity_pk = "file:///device%20key.pem"
"""


def parsed(text: str = TUTORIAL) -> AgentConfig:
    return parse_config(FILE, text)


def refused(text: str, kind: type[BirthmarkError] = ConfigInvalidError) -> BirthmarkError:
    with pytest.raises(kind) as refusal:
        parse_config(FILE, text)
    return refusal.value


def test_the_tutorials_file_is_understood() -> None:
    config = parsed()
    assert config.warnings == ()
    source = config.source
    assert isinstance(source, DpsSource)
    assert (source.host, source.port, source.id_scope) == ("127.0.0.7", 8443, "0ne00ABCDEF")
    identity = source.identity
    assert isinstance(identity, IssuedIdentity)
    assert identity.common_name == "my-device"
    assert identity.renewal is not None
    assert (identity.renewal.rotate_key, identity.renewal.threshold) == (True, RenewalSpan(percent=80))
    assert isinstance(identity.by, EstIssuance)
    assert identity.by.url == "https://127.0.0.7:8085/.well-known/est"
    assert identity.by.trusted == (Path("/data/trust.pem"),)
    assert (identity.by.auth.username, identity.by.auth.password) == ("estuser", "estpwd")
    assert "estpwd" not in repr(config)


def test_manual_with_a_preloaded_identity_is_understood() -> None:
    source = parsed(MANUAL).source
    assert source == ManualSource(
        "hub.test", "my-device", PreloadedIdentity(Path("/device.pem"), Path("/device key.pem"))
    )


def test_a_certificates_own_url_and_credentials_come_before_the_global_ones() -> None:
    own = TUTORIAL.replace(
        'common_name = "my-device"',
        'common_name = "my-device"\nurl = "https://own/.well-known/est"\n'
        'bootstrap_identity_cert = "file:///b.pem"\nbootstrap_identity_pk = "file:///b.key"',
    )
    identity = parsed(own).source.identity
    assert isinstance(identity, IssuedIdentity)
    assert isinstance(identity.by, EstIssuance)
    assert identity.by.url == "https://own/.well-known/est"
    assert identity.by.auth.username is None
    assert identity.by.auth.pair is not None
    assert identity.by.auth.pair.is_bootstrap


def test_an_url_for_this_certificate_comes_before_the_default() -> None:
    both = TUTORIAL + '"device-id" = "https://special/.well-known/est"\n'
    identity = parsed(both).source.identity
    assert isinstance(identity, IssuedIdentity)
    assert isinstance(identity.by, EstIssuance)
    assert identity.by.url == "https://special/.well-known/est"


def test_the_registration_id_alone_is_the_common_name_and_the_other_way_round() -> None:
    only_id = TUTORIAL.replace('common_name = "my-device"\n', "")
    identity = parsed(only_id).source.identity
    assert isinstance(identity, IssuedIdentity)
    assert identity.common_name == "my-device"
    only_name = TUTORIAL.replace('registration_id = "my-device"\n', "")
    source = parsed(only_name).source
    assert isinstance(source, DpsSource)
    assert source.registration_id is None
    neither = only_name.replace('common_name = "my-device"\n', "")
    assert refused(neither).facts["key"].endswith("identity_cert.common_name")


def test_a_subject_gives_the_other_attributes_in_capitals() -> None:
    text = TUTORIAL.replace('common_name = "my-device"', 'subject = { cn = "x", l = "Bern", o = "Org" }')
    config = parsed(text)
    assert isinstance(config.source.identity, IssuedIdentity)
    assert config.source.identity.subject == {"L": "Bern", "O": "Org"}
    assert [warning.key for warning in config.warnings] == ["provisioning.attestation.identity_cert.common_name"]


def test_keys_in_tokens_are_found_and_their_pins_hidden() -> None:
    text = MANUAL.replace(
        '"file:///device%20key.pem"', '"pkcs11:slot-id=0;token=T;object=device%20id?pin-value=12%2034"'
    )
    config = parsed('[aziot_keys]\npkcs11_lib_path = "/lib/p11.so"\npkcs11_base_slot = "pkcs11:token=T"\n' + text)
    identity = config.source.identity
    assert isinstance(identity, PreloadedIdentity)
    assert isinstance(identity.key, TokenLocation)
    assert (identity.key.uri.slot_id, identity.key.uri.object) == (0, "device id")
    assert identity.key.pin is not None
    assert identity.key.pin.reveal() == "12 34"
    assert "12 34" not in repr(config)
    assert "token is ignored" in config.warnings[0].detail
    assert config.keys is not None
    assert config.keys.module == Path("/lib/p11.so")
    no_library = refused(text)
    assert "names no library" in no_library.explain_cause()
    assert "34" not in no_library.explain_cause()


def test_self_signed_and_local_ca_are_issued_on_the_device() -> None:
    self_signed = TUTORIAL.replace('method = "est"', 'method = "self_signed"\nexpiry_days = 3')
    identity = parsed(self_signed).source.identity
    assert isinstance(identity, IssuedIdentity)
    assert identity.by == LocalIssuance(timedelta(days=3), is_self_signed=True)
    local = TUTORIAL.replace('method = "est"', 'method = "local_ca"')
    assert refused(local).facts["detail"] == "is local_ca, but no local CA is configured"
    local += '[cert_issuance.local_ca]\ncert = "file:///ca.pem"\npk = "file:///ca.key"\n'
    identity = parsed(local).source.identity
    assert isinstance(identity, IssuedIdentity)
    assert identity.by == LocalIssuance(timedelta(days=30), (Path("/ca.pem"), Path("/ca.key")))


def test_what_has_no_effect_is_taken_with_a_warning_that_names_it() -> None:
    text = TUTORIAL.replace("[provisioning]", 'typo = 1\n[agent]\nname = "edgeAgent"\n[provisioning]', 1)
    config = parsed(text.replace('retry = "4%"', 'retry = "4%"\njitter = "1%"'))
    found = {(warning.line, warning.key, warning.detail) for warning in config.warnings}
    assert found == {
        (3, "typo", "is not known and is ignored"),
        (4, "agent", "is accepted and has no effect here"),
        (23, "provisioning.attestation.identity_cert.auto_renew.jitter", "is not known and is ignored"),
    }


def test_edge_settings_are_read() -> None:
    parsed(TUTORIAL + "[edge_ca]\nauto_generated_edge_ca_expiry_days = 5\n")
    parsed(TUTORIAL + '[edge_ca]\nmethod = "est"\n')
    parsed(TUTORIAL + '[edge_ca]\ncert = "file:///c"\npk = "file:///k"\n')
    certs = parsed(
        TUTORIAL + '[preloaded_certs]\na = "file:///a"\nb = "file:///b"\nall = ["a", "missing", "b", "all"]\n'
    )
    assert certs.preloaded_certs["all"] == (Path("/a"), Path("/b"))


@pytest.mark.parametrize(
    ("old", "new", "line", "key"),
    [
        ('source = "dps"', 'source = "cloud"', 4, "provisioning.source"),
        ('source = "dps"\n', "", 3, "provisioning.source"),
        ('hostname = "my-device"', 'parent_hostname = "up"', 1, "parent_hostname"),
        ('hostname = "my-device"', "hostname = 1", 1, "hostname"),
        ('id_scope = "0ne00ABCDEF"\n', "", 3, "provisioning.id_scope"),
        ('"https://127.0.0.7:8443"', '"global.azure.net"', 5, "provisioning.global_endpoint"),
        ('default = "https', 'default = "http', 29, "cert_issuance.est.urls.default"),
        ("default = ", "other = ", 12, "provisioning.attestation.identity_cert.url"),
        ('password = "estpwd"\n', "", 24, "cert_issuance.est.auth.password"),
        ('"file:///data/trust.pem"', '"/data/trust.pem"', 22, "cert_issuance.est.trusted_certs"),
        ('threshold = "80%"', 'threshold = "80 %"', 18, "provisioning.attestation.identity_cert.auto_renew.threshold"),
        ('threshold = "80%"', 'threshold = "100%"', 18, "provisioning.attestation.identity_cert.auto_renew.threshold"),
        ('threshold = "80%"\n', "", 16, "provisioning.attestation.identity_cert.auto_renew.threshold"),
        ('retry = "4%"', 'retry = "21%"', 19, "provisioning.attestation.identity_cert.auto_renew.retry"),
        ('retry = "4%"', 'retry = "1year"', 19, "provisioning.attestation.identity_cert.auto_renew.retry"),
        ("rotate_key = true", 'rotate_key = "yes"', 17, "provisioning.attestation.identity_cert.auto_renew.rotate_key"),
        ('method = "est"', 'method = "acme"', 13, "provisioning.attestation.identity_cert.method"),
        ('method = "est"', 'method = "self_signed"\nexpiry_days = 0', 14, "identity_cert.expiry_days"),
        ('common_name = "my-device"', 'common_name = "a"\nsubject = {CN = "b"}', 15, "identity_cert.subject"),
        ('id = "my-device"', f'id = "{"x" * 65}"', 10, "provisioning.attestation.registration_id"),
        ('hostname = "my-device"', 'local_gateway_hostname = "up"', 1, "local_gateway_hostname"),
        ('id = "my-device"', 'id = "my device"', 10, "provisioning.attestation.registration_id"),
        ('username = "estuser"', 'username = "a:b"', 25, "cert_issuance.est.auth.username"),
        (
            'username = "estuser"',
            'identity_cert = "file:///a"\nusername = "e"',
            24,
            "cert_issuance.est.auth.identity_pk",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line_and_key(old: str, new: str, line: int, key: str) -> None:
    assert old in TUTORIAL
    error = refused(TUTORIAL.replace(old, new))
    assert error.facts["key"].endswith(key)
    assert error.facts["line"] == str(line)
    assert error.explain_cause().startswith(f"/etc/aziot/config.toml:{line}: ")
    assert error.explain_fix()


@pytest.mark.parametrize("name", ["parent_hostname", "local_gateway_hostname"])
def test_a_hub_that_is_known_may_be_reached_through_a_parent_device(name: str) -> None:
    config = parsed(f"""
{name} = "parent.test"
[provisioning]
source = "manual"
iothub_hostname = "hub.test"
device_id = "my-device"
[provisioning.authentication]
method = "x509"
identity_cert = "file:///device.pem"
identity_pk = "file:///device.key"
""")
    assert isinstance(config.source, ManualSource)
    assert (config.source.hub, config.source.gateway) == ("hub.test", "parent.test")


def test_both_pairs_are_one_too_many() -> None:
    both = 'identity_cert = "file:///a"\nidentity_pk = "file:///b"\n'
    both += both.replace("identity", "bootstrap_identity")
    error = refused(TUTORIAL.replace('username = "estuser"\n', both + 'username = "estuser"\n'))
    assert "only one of them can be set" in error.explain_cause()


def test_other_attestations_are_told_apart_from_mistakes() -> None:
    text = TUTORIAL.replace('source = "dps"', 'source = "none"')
    assert "not supported by this agent" in refused(text, ConfigUnsupportedError).explain_cause()


def test_a_syntax_error_is_told_with_its_line() -> None:
    assert refused("a = 1\nb = = 2\n").facts["line"] == "2"
    assert refused("a = " + "[" * 5000).facts["key"] == "(syntax)"


def test_a_password_is_never_shown() -> None:
    error = refused(TUTORIAL.replace('password = "estpwd"', 'password = ["estpwd"]'))
    assert "estpwd" not in f"{error}{error.explain_cause()}{error.explain_fix()}"


def test_a_file_is_read_or_it_is_said_why_not(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    with pytest.raises(ConfigMissingError):
        read_config(path)
    path.write_text(TUTORIAL)
    assert read_config(path).digest == parsed().digest
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigInvalidError):
        read_config(path)
    path.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(ConfigMissingError):
        read_config(path)


VALUES = st.sampled_from(['"x"', "1", "true", "[]", "{}", '"pkcs11:a=b?c"', '"file:///x"', '{method = "est"}', '"é"'])


@given(st.integers(0, TUTORIAL.count("\n") - 1), VALUES)
def test_any_change_of_one_line_is_read_or_refused(number: int, value: str) -> None:
    lines = TUTORIAL.splitlines()
    if "=" in lines[number]:
        lines[number] = lines[number].partition("=")[0] + "= " + value
    with contextlib.suppress(ConfigInvalidError, ConfigUnsupportedError):
        parse_config(FILE, "\n".join(lines))


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigInvalidError, ConfigUnsupportedError):
        parse_config(FILE, text)


def test_minutes_as_a_how_to_prints_them_are_accepted_with_a_warning() -> None:
    config = parsed(TUTORIAL.replace('"80%"', '"60m"').replace('"4%"', '"10min"'))
    assert isinstance(config.source, DpsSource)
    assert isinstance(config.source.identity, IssuedIdentity)
    assert config.source.identity.renewal is not None
    assert str(config.source.identity.renewal.threshold) == "60min"
    assert [warning.line for warning in config.warnings] == [18]
    assert "60min" in config.warnings[0].detail


@pytest.mark.parametrize("written", ['["/data/trust.pem"]', '"/data/trust.pem"', '"file:///data/trust.pem"'])
def test_the_advice_about_a_bare_path_can_be_pasted(written: str) -> None:
    error = refused(TUTORIAL.replace('["file:///data/trust.pem"]', written))
    pasted = TUTORIAL.replace('trusted_certs = ["file:///data/trust.pem"]', error.explain_fix().strip("`"))
    assert parsed(pasted) == parsed()


@pytest.mark.parametrize(("mode", "warned"), [(0o644, [26]), (0o600, [])])
def test_a_password_that_others_can_read_is_remarked_upon(tmp_path: Path, mode: int, warned: list[int]) -> None:
    file = tmp_path / "config.toml"
    file.write_text(TUTORIAL)
    file.chmod(mode)
    assert [warning.line for warning in read_config(file).warnings] == warned


def test_a_number_without_end_is_wrong_in_the_file_and_no_trouble_of_ours() -> None:
    with pytest.raises(ConfigInvalidError):
        parse_config(FILE, "a = " + "9" * 5000)


@pytest.mark.parametrize(
    ("old", "new", "fix"),
    [
        ('"https://127.0.0.7:8443"', '"127.77.1.2"', '`global_endpoint = "https://127.77.1.2"`'),
        ('"https://127.0.0.7:8443"', '"http://dps.example:8443"', '`global_endpoint = "https://dps.example:8443"`'),
        (
            '"https://127.0.0.7:8443"',
            '"https://me:secret@x"',
            '`global_endpoint = "https://global.azure-devices-provisioning.net"`, or your own server',
        ),
        (
            '"https://127.0.0.7:8085/.well-known/est"',
            '"http://est.example:8085/.well-known/est"',
            '`default = "https://est.example:8085/.well-known/est"`',
        ),
        (
            '"https://127.0.0.7:8085/.well-known/est"',
            '"est.example:8085"',
            '`default = "https://est.example:8085/.well-known/est"`',
        ),
        ("id_scope", "idscope", "Write id_scope for idscope in line 6"),
    ],
)
def test_a_fix_keeps_what_was_meant(old: str, new: str, fix: str) -> None:
    assert old in TUTORIAL
    with pytest.raises(ConfigInvalidError) as refused:
        parse_config(FILE, TUTORIAL.replace(old, new))
    assert refused.value.explain_fix() == fix


def test_all_mistakes_of_a_file_are_told_at_once_in_the_order_of_its_lines() -> None:
    text = TUTORIAL
    for old, new in (
        ('hostname = "my-device"', "hostname = 1"),
        ('id_scope = "0ne00ABCDEF"\n', ""),
        ("rotate_key = true", 'rotate_key = "yes"'),
        ('threshold = "80%"', 'threshold = "80 %"'),
        ('"file:///data/trust.pem"', '"/data/trust.pem"'),
        ('password = "estpwd"\n', ""),
        ('default = "https', 'default = "http'),
    ):
        assert old in text
        text = text.replace(old, new)
    error = refused(text)
    assert error.facts["key"] == "hostname"
    assert error.explain_cause() == f"{FILE}:1: hostname: must be a text that is not empty."
    assert error.explain_fix() == '`hostname = "text"`'
    others = error.facts["others"].splitlines()
    assert [line.split(": ")[0] for line in others] == [f"{FILE}:{line}" for line in (3, 16, 17, 21, 23, 27)]
    assert others[0].endswith(': provisioning.id_scope: is missing. Add it: `id_scope = "0ne00ABCDEF"`')


def test_one_mistake_alone_says_nothing_of_others() -> None:
    assert "others" not in refused(TUTORIAL.replace('source = "dps"', 'source = "cloud"')).facts


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('default = "https', 'default = "http'),
        ('username = "estuser"\n', ""),
        ("[cert_issuance.est.auth]", '[cert_issuance.est.auth]\nidentity_cert = "file:///a"'),
        ('registration_id = "my-device"', "registration_id = 1"),
        ('registration_id = "my-device"', 'registration_id = "my device"'),
        ('method = "x509"', 'method = "sas"'),
        ('source = "dps"', 'source = "none"'),
    ],
)
def test_a_mistake_is_told_once_and_not_by_what_follows_from_it(old: str, new: str) -> None:
    text = TUTORIAL.replace('common_name = "my-device"\n', "")
    assert old in text
    with pytest.raises((ConfigInvalidError, ConfigUnsupportedError)) as refusal:
        parse_config(FILE, text.replace(old, new))
    assert "others" not in refusal.value.facts


def test_what_is_not_supported_is_told_beside_what_is_wrong() -> None:
    text = TUTORIAL.replace('source = "dps"', 'source = "none"').replace('hostname = "my-device"', "hostname = 7")
    assert "is not supported by this agent" in refused(text).facts["others"]


def test_none_of_several_mistakes_shows_a_password() -> None:
    text = TUTORIAL.replace('password = "estpwd"', 'password = ["estpwd"]').replace('retry = "4%"', "retry = 4")
    error = refused(text)
    assert len(error.facts["others"].splitlines()) == 1
    assert "estpwd" not in f"{error}{error.explain_cause()}{error.explain_fix()}{error.facts}"


def test_a_local_ca_with_a_mistake_is_not_said_to_be_missing_too() -> None:
    text = TUTORIAL.replace('method = "est"', 'method = "local_ca"') + '[cert_issuance.local_ca]\ncert = "ca.pem"\n'
    error = refused(text)
    assert error.facts["key"] == "cert_issuance.local_ca.pk"
    assert [line.split(": ")[1] for line in error.facts["others"].splitlines()] == ["cert_issuance.local_ca.cert"]


@pytest.mark.parametrize(
    ("old", "new", "key", "detail"),
    [
        ('common_name = "my-device"', f'common_name = "{"x" * 65}"', "identity_cert.common_name", "1 to 64"),
        ('common_name = "my-device"', 'subject = { CN = "a", XX = "b" }', "identity_cert.subject", "attribute XX"),
        ('method = "est"', 'method = "magic"', "identity_cert.method", "is not known"),
        ('username = "estuser"', 'username = "est:user"', "auth.username", "has a colon"),
        ('threshold = "80%"', 'threshold = "99%"', "auto_renew.retry", "longer than the time left"),
        ('"https://127.0.0.7:8085/.well-known/est"', '"https://"', "urls.default", "is not a URL"),
        ('["file:///data/trust.pem"]', '["file:trust.pem"]', "est.trusted_certs", "absolute path"),
        ('"file:///data/trust.pem"', '"file://nas/trust.pem"', "est.trusted_certs", "refers to another machine, nas"),
        ('"file:///data/trust.pem"', '"file:////nas/trust.pem"', "est.trusted_certs", "refers to another machine, nas"),
        ('registration_id = "my-device"', 'registration_id = "my\u200bdevice"', "registration_id", "U+200B"),
        ('["file:///data/trust.pem"]', "[]", "est.trusted_certs", "must be a list of file URIs"),
        ('"https://127.0.0.7:8443"', '"ftp://dps.test"', "provisioning.global_endpoint", "must be an https URL"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_stands(old: str, new: str, key: str, detail: str) -> None:
    text = TUTORIAL.replace('registration_id = "my-device"\n', "") if "common_name" in old else TUTORIAL
    assert old in text
    error = refused(text.replace(old, new, 1))
    assert error.facts["key"].endswith(key)
    assert detail in error.explain_cause()


@pytest.mark.parametrize(
    ("key", "detail"),
    [
        ("ftp:device.key", "is of an unrecognized scheme"),
        ("pkcs11:object=a?pin-value=1&pin-value=2", "it contains the PIN twice"),
        ("pkcs11:nonsense=1=2;;", "is not a PKCS#11 URI"),
    ],
)
def test_a_key_that_can_be_nowhere_is_refused_without_its_pin(key: str, detail: str) -> None:
    library = '[aziot_keys]\npkcs11_lib_path = "/lib/p11.so"\n'
    error = refused(library + MANUAL.replace("file:///device%20key.pem", key))
    assert error.facts["key"] == "provisioning.authentication.identity_pk"
    assert detail in error.explain_cause()
    assert "pin-value=1" not in error.explain_cause()


@pytest.mark.parametrize(
    ("old", "new", "example"),
    [
        ('threshold = "80%"', "threshold = 0.8", 'threshold = "80%"'),
        ('retry = "4%"', "retry = 4", 'retry = "4%"'),
        ("[provisioning]", "[aziot_keys]\nkey_algorithm = 256\n[provisioning]", 'key_algorithm = "'),
        ("[provisioning]", "[aziot_keys]\npkcs11_base_slot = 1\n[provisioning]", 'pkcs11_base_slot = "pkcs11:'),
    ],
)
def test_a_text_with_a_grammar_that_is_a_number_is_told_with_an_example_that_fits(
    old: str, new: str, example: str
) -> None:
    assert old in TUTORIAL
    fix = refused(TUTORIAL.replace(old, new, 1)).explain_fix()
    assert (example in fix, '"text"' in fix) == (True, False)


def test_a_connection_string_of_a_certificate_s_device_is_told_with_the_keys_that_say_the_same() -> None:
    text = 'connection_string = "HostName=hub.test;DeviceId=device-1;x509=true"\n'
    fix = refused(f'[provisioning]\nsource = "manual"\n{text}').explain_fix()
    assert all(name in fix for name in ("iothub_hostname", "device_id", 'method = "x509"'))


def test_a_slot_for_new_keys_is_a_token_and_needs_its_library() -> None:
    slot = '[aziot_keys]\npkcs11_base_slot = "{}"\n'
    assert "must be a pkcs11: URI" in refused(slot.format("file:///key") + MANUAL).explain_cause()
    assert refused(slot.format("pkcs11:token=T") + MANUAL).facts["key"] == "aziot_keys.pkcs11_lib_path"


def test_new_keys_are_of_the_algorithm_that_is_asked_for_where_it_is_known() -> None:
    assert parsed('[aziot_keys]\nkey_algorithm = "ec-p384"\n' + MANUAL).key_algorithm is Algorithm.P384
    assert refused('[aziot_keys]\nkey_algorithm = "p999"\n' + MANUAL).facts["key"] == "aziot_keys.key_algorithm"


def test_a_payload_without_its_file_is_refused() -> None:
    text = TUTORIAL.replace("[provisioning.attestation]", "payload = {}\n[provisioning.attestation]", 1)
    assert refused(text).facts["key"] == "provisioning.payload.uri"


def test_what_stands_beside_a_connection_string_is_ignored_with_a_warning() -> None:
    text = '[provisioning]\nsource = "manual"\nconnection_string = "HostName=h;DeviceId=d;SharedAccessKey=a2V5"\n'
    config = parsed(text + 'device_id = "another"\n')
    assert isinstance(config.source, ManualSource)
    assert config.source.device_id == "d"
    assert [warning.key for warning in config.warnings] == ["provisioning.device_id"]


@pytest.mark.parametrize("place", ["identity_cert", "local CA"])
def test_a_key_beside_a_certificate_that_is_issued_is_ignored_with_a_warning(place: str) -> None:
    if place == "identity_cert":
        text = TUTORIAL.replace('registration_id = "my-device"', 'registration_id = "my-device"\nidentity_pk = "x"')
    else:
        text = TUTORIAL + '[cert_issuance.local_ca]\npk = "x"\n[cert_issuance.local_ca.cert]\nmethod = "est"\n'
    (warning,) = parsed(text).warnings
    assert "is ignored: the certificate is issued, and the agent generates its key" in warning.detail


def test_a_local_ca_without_a_certificate_is_refused() -> None:
    text = TUTORIAL + '[cert_issuance.local_ca]\npk = "file:///ca.key"\n'
    assert refused(text).facts["key"] == "cert_issuance.local_ca.cert"


def test_days_beside_est_are_ignored_with_a_warning() -> None:
    (warning,) = parsed(TUTORIAL.replace('method = "est"', 'method = "est"\nexpiry_days = 3')).warnings
    assert "the EST server decides" in warning.detail


def test_an_edge_ca_that_signs_itself_always_gets_a_new_key() -> None:
    renewal = '[edge_ca.auto_renew]\nrotate_key = false\nthreshold = "80%"\nretry = "4%"\n'
    assert refused(f"{TUTORIAL}[edge_ca]\n{renewal}").facts["key"] == "edge_ca.auto_renew"
    kept = parsed(f"{TUTORIAL}[edge_ca]\n{renewal.replace('false', 'true')}").edge_ca
    assert isinstance(kept, IssuedIdentity)
    assert kept.renewal is not None
    assert kept.renewal.threshold == RenewalSpan(percent=80)


def test_files_by_id_may_be_lists_of_others() -> None:
    listed = '[preloaded_certs]\none = "file:///1.pem"\ntwo = "file:///2.pem"\nboth = ["one", "two", "gone", 3]\n'
    certs = parsed(TUTORIAL + listed).preloaded_certs
    assert certs["both"] == (Path("/1.pem"), Path("/2.pem"))
    assert certs["one"] == (Path("/1.pem"),)


def test_a_local_id_is_understood_and_without_a_domain_refused() -> None:
    config = parsed(TUTORIAL + '[localid]\ndomain = "example.com"\n')
    assert config.localid is not None
    assert (config.localid.domain, "has no effect" in config.warnings[0].detail) == ("example.com", True)
    assert refused(TUTORIAL + "[localid]\n").facts["key"] == "localid.domain"
