"""pkilint's RFC 5280 rules find nothing to say about what we issue."""

from datetime import timedelta

import pytest
from cryptography import x509
from pkilint import loader, pkix, validation
from pkilint.pkix import certificate, crl, extension, name

from birthmark.pki import profiles
from birthmark.pki.crl import Revocation, RevocationReason, build_crl
from fakes import NOON
from pki_builders import a_ca, a_device

ROOT = a_ca()
INTERMEDIATE = a_ca("Test Intermediate", parent=ROOT, profile=profiles.ISSUING_CA)
EDGE = a_ca("Edge Issuing", parent=ROOT, profile=profiles.EDGE_ISSUING_CA)
MADE = {
    "root": ROOT,
    "issuing_ca": INTERMEDIATE,
    "edge_issuing_ca": EDGE,
    "edge_ca": a_ca("Edge", parent=EDGE, profile=profiles.EDGE_CA),
    "device": a_device(INTERMEDIATE),
    "server": a_device(ROOT, "hub.example", profile=profiles.SERVER, san=(x509.DNSName("hub.example"),)),
    "ocsp": a_device(INTERMEDIATE, "ocsp", profile=profiles.OCSP),
    "verification": a_device(ROOT, "CODE", profile=profiles.VERIFICATION),
}


def findings(results: list[validation.ValidationResult]) -> list[str]:
    return [
        f"{described.finding.severity.name} {described.finding.code} {described.message}"
        for result in results
        for described in result.finding_descriptions
        if described.finding.severity.name in {"WARNING", "ERROR", "FATAL"}
    ]


@pytest.mark.parametrize("profile", list(profiles.PROFILES))
def test_rfc5280_4_certificates_of_every_profile_are_clean(profile: str) -> None:
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
    document = loader.load_certificate(MADE[profile].certificate.der, profile)
    assert findings(validator.validate(document.root)) == []


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
