"""strongSwan's pki, unmodified from Debian. It reads base64 of one line alone: `est.base64_lines = false`."""

import subprocess
from pathlib import Path

import pytest

from birthmark.pki.certificates import parse_pem
from birthmark.testing.cloud import Cloud, EstDevice
from support.pki.pki_builders import a_csr, a_key, key_pem

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def birthmark_config() -> str:
    return "[est]\nbase64_lines = false\n"


def pki(cloud: Cloud, *words: str) -> str:
    to = ["--url", f"https://{cloud.host}:8085", "--cacert", str(cloud.ca_file), "--outform", "pem"]
    done = subprocess.run(["pki", *words, *to], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_strongswan_gets_the_ca_certificates(birthmark_cloud: Cloud, tmp_path: Path) -> None:
    pki(birthmark_cloud, "--estca", "--caout", str(tmp_path / "ca.pem"))
    assert list(tmp_path.glob("ca*.pem"))


def test_strongswan_enrolls_with_a_password_and_renews_with_its_certificate(
    birthmark_cloud: Cloud, est_identity: EstDevice, tmp_path: Path
) -> None:
    key, request, first = a_key(), tmp_path / "device.csr", tmp_path / "first.pem"
    request.write_bytes(a_csr(est_identity.name, key=key))
    user = f"{est_identity.identity.username}:{est_identity.identity.password}"
    first.write_text(pki(birthmark_cloud, "--est", "--in", str(request), "--userpass", user))
    (tmp_path / "device.key").write_text(key_pem(key))
    shown = ["--cert", str(first), "--key", str(tmp_path / "device.key")]
    second = parse_pem(pki(birthmark_cloud, "--est", "--in", str(request), *shown))
    assert parse_pem(first.read_text()).subject_cn == second.subject_cn == est_identity.name
