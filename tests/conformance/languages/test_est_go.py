"""GlobalSign's estclient, in Go, enrolls and renews over EST, as its own program."""

import json
import subprocess
from pathlib import Path

import pytest

from birthmark.pki.certificates import Certificate, parse_bundle
from birthmark.testing.cloud import Cloud, EstDevice
from birthmark.testing.device_identity_model import ChipFiles
from support.languages.programs import another_ca, in_token
from support.languages.toolchains import TOOLCHAINS
from support.pki.pki_builders import a_key, key_pem
from support.server.servers import clean_environment

pytestmark = pytest.mark.system
TRUST = "explicit_anchor"
Settings = dict[str, object]


@pytest.fixture(scope="module")
def birthmark_config() -> str:
    return '[est]\nserverkeygen = true\ncsr_attributes = { key = "P-384" }\n'


@pytest.fixture
def password(est_identity: EstDevice, tmp_path: Path) -> Settings:
    """The settings of a device that enrolls a new key with its password."""
    key = tmp_path / "new.key"
    key.write_text(key_pem(a_key()))
    user = {"username": est_identity.identity.username, "password": est_identity.identity.password}
    return {**reach(est_identity.cloud), **user, "private_key": str(key)}


@pytest.fixture
def certificate(est_identity: EstDevice) -> Settings:
    """The settings of a device that shows its certificate."""
    files = {"client_certificates": est_identity.certificate_file, "private_key": est_identity.key_file}
    return {**reach(est_identity.cloud), **files}


def reach(cloud: Cloud) -> Settings:
    return {"server": f"{cloud.host}:8085", TRUST: cloud.ca_file}


def attempt(directory: Path, settings: Settings, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    file = directory / "estclient.json"
    file.write_text(json.dumps(settings))
    return subprocess.run(
        [*TOOLCHAINS["go"].command("estclient"), *command, "-config", file],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=clean_environment(**environment),
    )


def printed(directory: Path, settings: Settings, *command: str, **environment: str) -> str:
    """Run estclient, which must succeed."""
    done = attempt(directory, settings, *command, **environment)
    assert done.returncode == 0, f"estclient {' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def error(directory: Path, settings: Settings, *command: str) -> str:
    """Run estclient, which must fail."""
    done = attempt(directory, settings, *command)
    assert done.returncode != 0, done.stdout
    return done.stderr


def issued(text: str) -> Certificate:
    (leaf,) = parse_bundle(text.encode())
    return leaf


def test_it_gets_the_ca_certificates(birthmark_cloud: Cloud, tmp_path: Path) -> None:
    got = parse_bundle(printed(tmp_path, reach(birthmark_cloud), "cacerts").encode())
    assert set(parse_bundle(birthmark_cloud.ca_pem.encode())) <= set(got)


def test_it_reads_the_attributes_of_a_request(birthmark_cloud: Cloud, tmp_path: Path) -> None:
    assert "1.3.132.0.34" in printed(tmp_path, reach(birthmark_cloud), "csrattrs")


def test_it_enrolls_with_a_password(est_identity: EstDevice, password: Settings, tmp_path: Path) -> None:
    assert issued(printed(tmp_path, password, "enroll", "-cn", est_identity.name)).subject_cn == est_identity.name


def test_it_enrolls_with_a_certificate(est_identity: EstDevice, certificate: Settings, tmp_path: Path) -> None:
    assert issued(printed(tmp_path, certificate, "enroll", "-cn", est_identity.name)).subject_cn == est_identity.name


def test_it_enrolls_a_key_in_a_token(
    est_identity: EstDevice, password: Settings, chip: ChipFiles, tmp_path: Path
) -> None:
    token = in_token(chip)
    hsm = {
        "pkcs11_library_path": token["PKCS11_MODULE"],
        "token_label": token["PKCS11_TOKEN"],
        "token_pin": token["PKCS11_PIN"],
        "key_id": 0xF0000110,
    }
    settings = password | {"private_key": {"hsm": hsm}}
    got = printed(tmp_path, settings, "enroll", "-cn", est_identity.name, SOFTHSM2_CONF=token["SOFTHSM2_CONF"])
    assert issued(got).subject_cn == est_identity.name


def test_it_renews_a_certificate(est_identity: EstDevice, certificate: Settings, tmp_path: Path) -> None:
    renewed = issued(printed(tmp_path, certificate, "reenroll"))
    assert renewed.subject_cn == est_identity.name
    assert renewed.serial != issued(Path(est_identity.certificate_file).read_text()).serial


def test_it_gets_a_key_of_the_server(est_identity: EstDevice, password: Settings, tmp_path: Path) -> None:
    key = tmp_path / "server.key"
    got = printed(tmp_path, password, "serverkeygen", "-cn", est_identity.name, "-keyout", str(key))
    assert issued(got).subject_cn == est_identity.name
    assert "PRIVATE KEY" in key.read_text()


def test_it_does_not_enroll_with_a_wrong_password(
    birthmark_cloud: Cloud, est_identity: EstDevice, password: Settings, tmp_path: Path
) -> None:
    told = error(tmp_path, password | {"password": "wrong"}, "enroll", "-cn", est_identity.name)
    assert "User name or password is wrong." in told
    assert birthmark_cloud.why(code="est.password_wrong")


def test_it_does_not_enroll_another_name(password: Settings, tmp_path: Path) -> None:
    told = error(tmp_path, password, "enroll", "-cn", "another-device")
    assert "This identity cannot request certificates of that name." in told


def test_it_does_not_renew_a_revoked_certificate(
    birthmark_cloud: Cloud, est_identity: EstDevice, certificate: Settings, tmp_path: Path
) -> None:
    birthmark_cloud.refuse("est.client_certificate_revoked", est_identity)
    assert error(tmp_path, certificate, "reenroll")
    assert birthmark_cloud.why(code="est.client_certificate_revoked")


def test_it_does_not_trust_another_ca(birthmark_cloud: Cloud, tmp_path: Path) -> None:
    settings = reach(birthmark_cloud) | {TRUST: another_ca(tmp_path)["CA_FILE"]}
    assert "certificate" in error(tmp_path, settings, "cacerts")
