"""est-ca's client, in Rust, enrolls and renews over EST.

It reads responses of one line only, and each of its requests has the name as subjectAltName, too. A renewal cannot add
a subjectAltName, so the profile keeps that of the first request.
"""

import base64
import uuid
from pathlib import Path

import pytest

from birthmark.pki.certificates import Certificate, parse_bundle, parse_der
from birthmark.testing.cloud import Cloud, EstDevice
from support.languages.programs import Program, Settings, another_ca, certificate_of

pytestmark = pytest.mark.system
CLIENT = Program("rust", "est")


@pytest.fixture(scope="module")
def birthmark_config() -> str:
    return """
        [est]
        base64_lines = false
        profile = "named"

        [ca.profiles.named]
        based_on = "device"
        san = "keep"
        san_dns = ["example.org"]
    """


@pytest.fixture
def device(birthmark_cloud: Cloud) -> EstDevice:
    return birthmark_cloud.est_identity(f"pump-{uuid.uuid4().hex[:8]}.example.org")


def reach(cloud: Cloud) -> Settings:
    return {"HOST": f"{cloud.host}:8085", "CA_FILE": cloud.ca_file}


def user(device: EstDevice) -> Settings:
    known = device.identity
    return reach(device.cloud) | {"NAME": device.name, "USERNAME": known.username, "PASSWORD": known.password}


def shown(device: EstDevice) -> Settings:
    return reach(device.cloud) | {"NAME": device.name} | certificate_of(device)


def issued(told: dict[str, str]) -> Certificate:
    return parse_der(base64.b64decode(told["certificate"]))


def test_it_gets_a_ca_certificate(birthmark_cloud: Cloud) -> None:
    assert issued(CLIENT.run("cacerts", reach(birthmark_cloud))) in parse_bundle(birthmark_cloud.ca_pem.encode())


def test_it_enrolls_with_a_password(device: EstDevice) -> None:
    assert issued(CLIENT.run("enroll", user(device))).subject_cn == device.name


def test_it_renews_its_certificate(device: EstDevice, tmp_path: Path) -> None:
    files = {"CERT_FILE": tmp_path / "first.pem", "KEY_FILE": tmp_path / "first.key"}
    told = CLIENT.run("enroll", user(device))
    files["CERT_FILE"].write_text(issued(told).pem())
    files["KEY_FILE"].write_text(told["key"])
    first = reach(device.cloud) | {"NAME": device.name} | {name: str(file) for name, file in files.items()}
    renewed = issued(CLIENT.run("reenroll", first))
    assert renewed.subject_cn == device.name
    assert renewed.serial != issued(told).serial


def test_it_does_not_enroll_with_a_wrong_password(birthmark_cloud: Cloud, device: EstDevice) -> None:
    assert "401" in CLIENT.fail("enroll", user(device) | {"PASSWORD": "wrong"})
    assert birthmark_cloud.why(code="est.password_wrong")


def test_it_does_not_renew_a_revoked_certificate(birthmark_cloud: Cloud, device: EstDevice) -> None:
    birthmark_cloud.refuse("est.client_certificate_revoked", device)
    assert CLIENT.fail("reenroll", shown(device))
    assert birthmark_cloud.why(code="est.client_certificate_revoked")


def test_it_does_not_trust_another_ca(birthmark_cloud: Cloud, tmp_path: Path) -> None:
    assert "certificate" in CLIENT.fail("cacerts", reach(birthmark_cloud) | another_ca(tmp_path))
