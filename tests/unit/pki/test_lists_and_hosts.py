"""Revocation lists of others, and the hosts a certificate is for."""

import ipaddress
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from birthmark.pki.certificates import parse_der
from birthmark.pki.crl_encoder import Revocation, build_crl
from birthmark.pki.hostname_verification import check_host
from birthmark.pki.path_validation import build_chain
from birthmark.pki.single_certificate_checks import ChainError
from support.fakes import NOON
from support.pki.crl_reader import check_crls, parse_crl
from support.pki.odd_certificates import a_certificate, a_root, usage
from support.pki.pki_builders import Holder, a_ca, a_device


def a_list(ca: Holder, *serials: int, now_offset: timedelta = timedelta(0)) -> x509.CertificateRevocationList:
    moment = NOON + now_offset
    gone = [Revocation(serial, moment) for serial in serials]
    return parse_crl(build_crl(ca.as_issuer, gone, number=1, now=moment, lifetime=timedelta(days=1)))


def chain_of(ca: Holder, device: Holder) -> tuple[object, ...]:
    return build_chain(device.certificate, [], [ca.certificate], NOON)


def test_a_certificate_on_its_issuer_s_list_is_refused() -> None:
    ca = a_ca()
    device = a_device(ca)
    chain = chain_of(ca, device)
    check_crls(chain, [a_list(ca, 5)], NOON)  # type: ignore[arg-type]  # the builder's type is wider
    with pytest.raises(ChainError, match="on its issuer's"):
        check_crls(chain, [a_list(ca, device.certificate.serial)], NOON)  # type: ignore[arg-type]  # the builder's type is wider


def test_the_list_of_another_ca_says_nothing() -> None:
    ca, other = a_ca(), a_ca("Other")
    device = a_device(ca)
    check_crls(chain_of(ca, device), [a_list(other, device.certificate.serial)], NOON)  # type: ignore[arg-type]  # the builder's type is wider


@pytest.mark.parametrize("offset", [timedelta(days=-2), timedelta(hours=1)])
def test_a_list_of_another_time_is_not_relied_on(offset: timedelta) -> None:
    ca = a_ca()
    with pytest.raises(ChainError, match="list"):
        check_crls(chain_of(ca, a_device(ca)), [a_list(ca, now_offset=offset)], NOON)  # type: ignore[arg-type]  # the builder's type is wider


def test_a_list_by_a_ca_that_may_not_sign_lists_is_refused() -> None:
    ca = a_root((usage("key_cert_sign"), True))
    with pytest.raises(ChainError, match="list"):
        check_crls(chain_of(ca, a_certificate(signer=ca)), [a_list(ca)], NOON)  # type: ignore[arg-type]  # the builder's type is wider


def test_a_list_by_another_key_or_without_a_number_is_refused() -> None:
    ca, same_name = a_ca(), a_ca()
    forged = a_list(same_name)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.certificate.subject)
        .last_update(NOON)
        .next_update(NOON + timedelta(days=1))
    )
    unnumbered = builder.sign(ca.private_key, hashes.SHA256())
    for one in (forged, unnumbered):
        with pytest.raises(ChainError, match="list"):
            check_crls(chain_of(ca, a_device(ca)), [one], NOON)  # type: ignore[arg-type]  # the builder's type is wider


@pytest.mark.parametrize("data", [b"", b"-----BEGIN X509 CRL-----\n", b"\x30\x00", b"x" * 17_000_000])
def test_what_is_no_list_is_said_as_such(data: bytes) -> None:
    with pytest.raises(ChainError, match="list"):
        parse_crl(data)


HOST = a_certificate(
    (
        x509.SubjectAlternativeName(
            [
                x509.DNSName("hub.example"),
                x509.DNSName("*.dev.example"),
                x509.IPAddress(ipaddress.ip_address("127.0.0.2")),
            ]
        ),
        False,
    )
).certificate


@pytest.mark.parametrize("host", ["hub.example", "HUB.example", "a.dev.example", "127.0.0.2"])
def test_a_certificate_is_for_the_hosts_it_names(host: str) -> None:
    check_host(HOST, host)


@pytest.mark.parametrize(
    "host", ["other.example", "dev.example", "a.b.dev.example", "127.0.0.3", "a_b.dev.example", ""]
)
def test_and_for_no_other(host: str) -> None:
    with pytest.raises(ChainError, match="another host") as refusal:
        check_host(HOST, host)
    assert "127.0.0.2" in str(refusal.value)


def test_an_address_in_a_dns_name_is_no_address() -> None:
    certificate = a_certificate((x509.SubjectAlternativeName([x509.DNSName("127.0.0.1")]), False)).certificate
    with pytest.raises(ChainError, match="another host"):
        check_host(parse_der(certificate.der), "127.0.0.1")


def test_a_list_of_an_unknown_version_is_said_to_be_unreadable() -> None:
    der = build_crl(a_ca().as_issuer, (), number=1, now=NOON, lifetime=timedelta(days=1))
    with pytest.raises(ChainError, match="cannot be read"):
        parse_crl(der.replace(b"\x02\x01\x01\x30\x0a", b"\x02\x01\x7b\x30\x0a", 1))


def test_a_list_with_a_signature_of_an_unknown_algorithm_is_refused() -> None:
    ca = a_ca()
    der = build_crl(ca.as_issuer, (), number=1, now=NOON, lifetime=timedelta(days=1))
    ecdsa, unknown = bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06082a8648ce3d04037f")
    with pytest.raises(ChainError, match="list"):
        check_crls(chain_of(ca, a_device(ca)), [parse_crl(der.replace(ecdsa, unknown))], NOON)  # type: ignore[arg-type]  # the builder's type is wider
