import ipaddress
from pathlib import Path

from cryptography import x509

from birthmark.ca.server_certificates import issue_server
from support.fakes import NOON
from support.pki.pki_builders import a_ca, a_key


def test_a_server_certificate_names_hosts_and_addresses(tmp_path: Path) -> None:
    made = issue_server(
        a_ca().as_issuer, ["hub.example", "127.0.0.1", "::1", "hub.example"], a_key().public_key(), serial=5, now=NOON
    )
    names = made.parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["hub.example"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    assert made.subject_cn == "hub.example"
