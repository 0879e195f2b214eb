"""Bouncy Castle's EST client, unmodified from Debian, by the calls that its documentation shows."""

import subprocess
from pathlib import Path

import pytest

from birthmark.testing.cloud import Cloud, EstDevice
from support.pki.pki_builders import a_csr

pytestmark = pytest.mark.system
JARS = ":".join(f"/usr/share/java/{name}.jar" for name in ("bcpkix", "bcprov", "bcutil"))
ENROLL = Path(__file__).parents[2] / "java" / "EstEnroll.java"


def test_bouncy_castle_enrolls_with_a_password(birthmark_cloud: Cloud, est_identity: EstDevice, tmp_path: Path) -> None:
    password, request = tmp_path / "password", tmp_path / "device.csr"
    password.write_text(est_identity.identity.password)
    request.write_bytes(a_csr(est_identity.name))
    words = [f"{birthmark_cloud.host}:8085", str(birthmark_cloud.ca_file), est_identity.identity.username]
    line = ["java", "-cp", JARS, str(ENROLL), *words, str(password), str(request)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, f"CN={est_identity.name}"), done.stderr
