"""Profiles of one's own in the configuration file: what they become, and what is said of mistakes."""

from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography.x509.oid import ObjectIdentifier

from birthmark.pki.certificate_profiles import DEVICE, EDGE_CA, AllowedNames, Purpose
from birthmark.pki.revocation_urls import DistributionPoints
from birthmark.server.settings import ConfigInvalidError, Settings, read_settings


def reading(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "server.toml"
    file.write_text(text)
    return read_settings(file, {})


def told(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigInvalidError) as refused:
        reading(tmp_path, text)
    return refused.value.explain_cause()


def test_a_profile_changes_what_it_says_and_nothing_else(tmp_path: Path) -> None:
    profiles = reading(
        tmp_path,
        """
        [ca.profiles.gateway]
        based_on = "device"
        lifetime = "30d"
        key_usage = ["digitalSignature", "keyEncipherment"]
        extended_key_usage = ["clientAuth", "serverAuth", "1.3.6.1.4.1.99999.1"]
        san = "keep"
        san_dns = ["example.org"]
        san_ip = ["10.0.0.0/8"]
        san_uri = ["urn:example:"]
        keys = ["P-256", "RSA-3072"]
        subject = { O = "Example" }
        """,
    ).profiles
    made = profiles["gateway"]
    assert made.lifetime == timedelta(days=30)
    assert made.key_usage == {"digital_signature", "key_encipherment"}
    assert [one.dotted_string for one in made.extended_key_usage][2] == "1.3.6.1.4.1.99999.1"
    assert made.names == AllowedNames(("example.org",), (ip_network("10.0.0.0/8"),), ("urn:example:",))
    assert made.key_kinds == {"P-256", "RSA-3072"}
    assert made.subject == {"O": "Example"}
    assert (made.is_ca, made.path_length, made.purpose) == (DEVICE.is_ca, DEVICE.path_length, Purpose.DEVICES)
    assert profiles["device"] == DEVICE


def test_a_device_lives_as_long_as_est_says_and_so_does_what_is_based_on_it(tmp_path: Path) -> None:
    text = '[est]\ndevice_lifetime_s = 20\n[ca.profiles.short]\nbased_on = "device"\n'
    profiles = reading(tmp_path, text).profiles
    assert profiles["device"].lifetime == profiles["short"].lifetime == timedelta(seconds=20)


def test_an_edge_ca_of_ones_own_stays_a_ca_with_its_path_length(tmp_path: Path) -> None:
    made = reading(tmp_path, '[ca.profiles.floor]\nbased_on = "edge_ca"\nlifetime = "12h"\n').profiles["floor"]
    assert (made.is_ca, made.path_length, made.lifetime) == (True, EDGE_CA.path_length, timedelta(hours=12))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lifetime = 7", "ca.profiles.x.lifetime must be a string, not a whole number"),
        ('lifetime = "1 year"', "line 3: ca.profiles.x.lifetime must be like 12h, 30d or 365d, and is '1 year'"),
        ('keys = ["P-521"]', "ca.profiles.x.keys must be P-256, P-384, RSA, RSA-2048, RSA-3072 or RSA-4096, not"),
        ('key_usage = ["keyCertSign"]', "ca.profiles.x.key_usage must be digitalSignature, contentCommitment,"),
        ("is_ca = true", "line 3: ca.profiles.x.is_ca is not known"),
        ("path_length = 3", "line 3: ca.profiles.x.path_length is not known"),
        ('lifetme = "3d"', "line 3: ca.profiles.x.lifetme is not known; lifetime is"),
        ('extended_key_usage = ["any"]', "must be clientAuth, serverAuth or an OID like 1.3.6.1, and is 'any'"),
        ("extended_key_usage = []", "extended_key_usage must name a purpose"),
        ("key_usage = []", "key_usage must name a usage"),
        ('san = "all"', "line 3: ca.profiles.x.san must be none or keep, not 'all'"),
        ('san = "keep"', "requires san_dns, san_ip or san_uri"),
        ('san_dns = ["example.org"]', 'san_dns counts only with san = "keep"'),
        ('san = "keep"\nsan_ip = ["10.0.0.1/8"]', "line 4: ca.profiles.x.san_ip must be networks like 10.0.0.0/8"),
        ('san = "keep"\nsan_dns = ["*"]', "line 4: ca.profiles.x.san_dns must be domains like example.org, and is '*'"),
        ('san = "keep"\nsan_uri = ["example"]', "line 4: ca.profiles.x.san_uri must be prefixes like urn:example:"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_is_accepted(tmp_path: Path, line: str, words: str) -> None:
    assert words in told(tmp_path, f'[ca.profiles.x]\nbased_on = "device"\n{line}\n')


@pytest.mark.parametrize(
    "key", ['key_usage = ["digitalSignature"]', 'extended_key_usage = ["clientAuth"]', 'san="none"']
)
def test_what_a_ca_is_no_file_changes(tmp_path: Path, key: str) -> None:
    text = f'[ca.profiles.x]\nbased_on = "edge_ca"\n{key}\n'
    assert "cannot be set for a profile that is based on edge_ca" in told(tmp_path, text)


@pytest.mark.parametrize("base", ["root", "issuing_ca", "ocsp", "nothing"])
def test_nothing_is_based_on_a_ca_of_ours(tmp_path: Path, base: str) -> None:
    words = told(tmp_path, f'[ca.profiles.x]\nbased_on = "{base}"\n')
    accepted = "device, server, edge_ca, est_identity, idevid or ldevid"
    assert f"line 2: ca.profiles.x.based_on must be {accepted}, not '{base}'" in words


def test_a_profile_says_what_it_is_based_on_and_has_a_name_of_its_own(tmp_path: Path) -> None:
    assert "ca.profiles.x must set based_on to one of device, server" in told(tmp_path, "[ca.profiles.x]\n")
    assert "device is built in" in told(tmp_path, '[ca.profiles.device]\nbased_on = "server"\n')
    assert "must consist of letters" in told(tmp_path, '[ca.profiles."a b"]\nbased_on = "server"\n')


def test_an_oid_is_what_it_says(tmp_path: Path) -> None:
    text = '[ca.profiles.x]\nbased_on = "device"\nextended_key_usage = ["1.3.6.1.5.5.7.3.28"]\n'
    made = reading(tmp_path, text).profiles["x"]
    assert made.extended_key_usage == (ObjectIdentifier("1.3.6.1.5.5.7.3.28"),)


@pytest.mark.parametrize("url", ["pki.example.org", "ldap://x", "http://a b", "http://x?y"])
def test_an_address_that_is_none_is_told(tmp_path: Path, url: str) -> None:
    words = told(tmp_path, f'[ca]\npublic_url = "{url}"\n')
    assert "line 2: ca.public_url must be an address like http://pki.example.org" in words


def test_who_says_where_to_ask_is_a_question_of_lifetime_and_profile(tmp_path: Path) -> None:
    text = '[ca]\npublic_url = "http://pki.example.org/"\nrevocation_beyond = "12h"\n'
    ca = reading(tmp_path, text + '[ca.profiles.x]\nbased_on = "device"\nrevocation = false\n')
    assert ca.ca.places == DistributionPoints("http://pki.example.org")
    assert ca.ca.told_beyond == timedelta(hours=12)
    assert ca.profiles["x"].revocation is False
    assert "revocation_beyond must be like 12h" in told(tmp_path, '[ca]\nrevocation_beyond = "soon"\n')
