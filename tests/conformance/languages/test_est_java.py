"""Bouncy Castle's EST client enrolls and renews, with keys in files and in a token."""

import base64
from pathlib import Path

import pytest

from birthmark.pki.certificates import Certificate, parse_bundle, parse_der
from birthmark.testing.cloud import Cloud, EstDevice
from birthmark.testing.device_identity_model import ChipFiles
from support.languages.programs import Program, Settings, another_ca, certificate_of, in_token

pytestmark = pytest.mark.system
CLIENT = Program("java", "Est")


@pytest.fixture(scope="module")
def birthmark_config() -> str:
    return '[est]\ncsr_attributes = { key = "P-384" }\n'


def reach(cloud: Cloud) -> Settings:
    return {"HOST": f"{cloud.host}:8085", "CA_FILE": cloud.ca_file}


def user(device: EstDevice) -> Settings:
    known = device.identity
    return reach(device.cloud) | {"NAME": device.name, "USERNAME": known.username, "PASSWORD": known.password}


def shown(device: EstDevice) -> Settings:
    return reach(device.cloud) | {"NAME": device.name} | certificate_of(device)


def certificates(told: dict[str, list[str]]) -> list[Certificate]:
    return [parse_der(base64.b64decode(text)) for text in told["certificates"]]


def test_it_gets_the_ca_certificates(birthmark_cloud: Cloud) -> None:
    got = certificates(CLIENT.run("cacerts", reach(birthmark_cloud)))
    assert set(parse_bundle(birthmark_cloud.ca_pem.encode())) <= set(got)


def test_it_reads_the_attributes_of_a_request(birthmark_cloud: Cloud) -> None:
    ecdsa_with_sha384 = "1.2.840.10045.4.3.3"
    assert ecdsa_with_sha384 in CLIENT.run("csrattrs", reach(birthmark_cloud))["attributes"]


def test_it_enrolls_with_a_password(est_identity: EstDevice) -> None:
    (issued,) = certificates(CLIENT.run("enroll", user(est_identity)))
    assert issued.subject_cn == est_identity.name


def test_it_renews_a_certificate(est_identity: EstDevice) -> None:
    (renewed,) = certificates(CLIENT.run("reenroll", shown(est_identity)))
    (first,) = parse_bundle(Path(est_identity.certificate_file).read_bytes())
    assert renewed.subject_cn == est_identity.name
    assert renewed.serial != first.serial


def test_it_enrolls_a_key_in_a_token_and_renews_with_it(
    birthmark_cloud: Cloud, est_identity: EstDevice, chip: ChipFiles
) -> None:
    token = in_token(chip)
    (first,) = certificates(CLIENT.run("enroll-token", user(est_identity) | token))
    shows = reach(birthmark_cloud) | {"NAME": est_identity.name} | token
    (renewed,) = certificates(CLIENT.run("reenroll", shows))
    assert renewed.subject_cn == first.subject_cn == est_identity.name
    assert renewed.serial != first.serial


def test_it_does_not_enroll_with_a_wrong_password(birthmark_cloud: Cloud, est_identity: EstDevice) -> None:
    assert CLIENT.fail("enroll", user(est_identity) | {"PASSWORD": "wrong"})
    assert birthmark_cloud.why(code="est.password_wrong")


def test_it_does_not_renew_a_revoked_certificate(birthmark_cloud: Cloud, est_identity: EstDevice) -> None:
    birthmark_cloud.refuse("est.client_certificate_revoked", est_identity)
    assert CLIENT.fail("reenroll", shown(est_identity))
    assert birthmark_cloud.why(code="est.client_certificate_revoked")


def test_it_does_not_trust_another_ca(birthmark_cloud: Cloud, tmp_path: Path) -> None:
    assert "certif" in CLIENT.fail("cacerts", reach(birthmark_cloud) | another_ca(tmp_path)).lower()
