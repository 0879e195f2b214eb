"""pkilint's RFC 5280 rules find nothing to say about what we issue."""

from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from pkilint import loader, pkix, validation
from pkilint.pkix import certificate, crl, extension, name, ocsp

from birthmark.ca.ocsp_responder import OcspResponder
from birthmark.ca.rules.certificate_name_policy import HARDWARE_MODULE_NAME
from birthmark.pki import certificate_profiles
from birthmark.pki.crl_encoder import Revocation, RevocationReason, build_crl
from birthmark.pki.csr import parse_csr
from birthmark.pki.ocsp import OcspResponse
from birthmark.pki.revocation_urls import DistributionPoints
from birthmark.server.settings import read_settings
from support.fakes import NOON
from support.pki.ca_world import OPERATOR, an_authority
from support.pki.ocsp_requests import a_request, together
from support.pki.pki_builders import a_ca, a_csr, a_device

ROOT = a_ca()
INTERMEDIATE = a_ca("Test Intermediate", parent=ROOT, profile=certificate_profiles.ISSUING_CA)
EDGE = a_ca("Edge Issuing", parent=ROOT, profile=certificate_profiles.EDGE_ISSUING_CA)
CHIP = x509.OtherName(HARDWARE_MODULE_NAME, bytes.fromhex("300906032a030404020102"))
MADE = {
    "root": ROOT,
    "issuing_ca": INTERMEDIATE,
    "edge_issuing_ca": EDGE,
    "edge_ca": a_ca("Edge", parent=EDGE, profile=certificate_profiles.EDGE_CA),
    "device": a_device(INTERMEDIATE),
    "est_identity": a_device(INTERMEDIATE, profile=certificate_profiles.EST_IDENTITY),
    "idevid": a_device(INTERMEDIATE, profile=certificate_profiles.IDEVID, san=(CHIP,)),
    "ldevid": a_device(INTERMEDIATE, profile=certificate_profiles.LDEVID),
    "server": a_device(ROOT, "hub.example", profile=certificate_profiles.SERVER, san=(x509.DNSName("hub.example"),)),
    "ocsp": a_device(INTERMEDIATE, "ocsp", profile=certificate_profiles.OCSP),
    "verification": a_device(ROOT, "CODE", profile=certificate_profiles.VERIFICATION),
}


def findings(results: list[validation.ValidationResult]) -> list[str]:
    return [
        f"{described.finding.severity.name} {described.finding.code} {described.message}"
        for result in results
        for described in result.finding_descriptions
        if described.finding.severity.name in {"WARNING", "ERROR", "FATAL"}
    ]


def findings_in(der: bytes) -> list[str]:
    """Return what the rules of RFC 5280 have to say about a certificate."""
    validator = certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )
    return findings(validator.validate(loader.load_certificate(der, "certificate").root))


@pytest.mark.parametrize("profile", list(certificate_profiles.PROFILES))
def test_rfc5280_4_certificates_of_every_profile_are_clean(profile: str) -> None:
    assert findings_in(MADE[profile].certificate.der) == []


OWN = """
[ca.profiles.gateway]
based_on = "device"
key_usage = ["digitalSignature", "keyAgreement"]
extended_key_usage = ["clientAuth", "serverAuth", "1.3.6.1.4.1.99999.1"]
san = "keep"
san_dns = ["example.org"]
san_ip = ["10.0.0.0/8"]
san_uri = ["https://example.org"]
serial_number = true
subject = { C = "CH", O = "Example", OU = "Line 1" }

[ca.profiles.floor]
based_on = "edge_ca"
"""
NAMES = x509.SubjectAlternativeName(
    [
        x509.DNSName("gw.example.org"),
        x509.IPAddress(ip_address("10.0.0.1")),
        x509.UniformResourceIdentifier("https://example.org/gw"),
    ]
)


def findings_in_answer(der: bytes) -> list[str]:
    """Return what the rules of RFC 6960 have to say about a response."""
    validator = ocsp.create_pkix_ocsp_response_validator_container(
        [
            ocsp.create_response_decoder(),
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [],
    )
    return findings(validator.validate(loader.load_ocsp_response(der, "answer").root))


async def test_rfc6960_4_2_answers_are_clean(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        answers = OcspResponder(ca, lambda _: True)
        leaf, issuer, _ = await ca.issue(parse_csr(a_csr()), OPERATOR)
        requests = [a_request(leaf, issuer), a_request(5, issuer, nonce=b"n" * 32)]
        for request in (*requests, together(requests)):
            answer = await answers.answer(request, "192.0.2.1")
            assert isinstance(answer, OcspResponse)
            assert findings_in_answer(answer.der) == []
        await ca.revocations.certificate(leaf.thumbprint, OPERATOR, RevocationReason.KEY_COMPROMISE)
        answer = await answers.answer(requests[0], "192.0.2.1")
        assert isinstance(answer, OcspResponse)
        assert findings_in_answer(answer.der) == []


async def test_rfc5280_4_what_the_ca_issues_by_every_profile_there_is_is_clean(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text(OWN)
    own = read_settings(tmp_path / "server.toml", {}).profiles
    async with an_authority(tmp_path, profiles=own) as ca:
        for name, profile in own.items():
            ca.places, ca.told_beyond = DistributionPoints("http://pki.example.org"), timedelta(hours=1)
            request = parse_csr(a_csr(name, extensions=((NAMES, False),) if name == "gateway" else ()))
            hosts = (x509.DNSName("a.example.org"),) if name == "server" else ()
            made = await ca.issue(request, OPERATOR, profile, san=hosts)
            assert {one.subject_text: findings_in(one.der) for one in made} == {one.subject_text: [] for one in made}


@pytest.mark.parametrize("revocations", [[], [Revocation(5, NOON, RevocationReason.SUPERSEDED), Revocation(6, NOON)]])
def test_rfc5280_5_revocation_lists_are_clean(revocations: list[Revocation]) -> None:
    validator = crl.create_pkix_crl_validator_container(
        [
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [
            crl.create_issuer_validator_container([]),
            crl.create_validity_validator_container([]),
            crl.create_extensions_validator_container([]),
        ],
    )
    der = build_crl(INTERMEDIATE.as_issuer, revocations, number=1, now=NOON, lifetime=timedelta(days=7))
    assert findings(validator.validate(loader.load_crl(der, "crl").root)) == []
