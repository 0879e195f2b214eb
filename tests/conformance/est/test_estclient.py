"""libest's estclient, where it is on PATH: trust, attributes, a certificate by password, and its renewal."""

import base64
import shutil
import subprocess
from pathlib import Path

import pytest

from birthmark.pki.certificates import Certificate
from birthmark.pki.certs_only_cms import parse_certs_only
from birthmark.testing.cloud import Cloud, EstDevice

ESTCLIENT = shutil.which("estclient")
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(ESTCLIENT is None, reason="libest's estclient is not on PATH"),
]


def estclient(cloud: Cloud, out: Path, *arguments: str) -> None:
    out.mkdir(exist_ok=True)
    environment = cloud.environment(EST_OPENSSL_CACERT=cloud.ca_file)
    reach = ["-s", cloud.host, "-p", "8085", "-o", str(out)]
    line = [str(ESTCLIENT), *arguments, *reach]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def user_of(device: EstDevice) -> list[str]:
    return ["-u", device.identity.username, "-h", device.identity.password, "--common-name", device.name]


def test_estclient_gets_the_trust_anchor_the_attributes_and_a_certificate_and_renews_it(
    birthmark_cloud: Cloud, est_identity: EstDevice, tmp_path: Path
) -> None:
    estclient(birthmark_cloud, tmp_path / "trust", "-g")
    estclient(birthmark_cloud, tmp_path / "attributes", "-a")
    estclient(birthmark_cloud, tmp_path / "first", "-e", *user_of(est_identity))
    first = issued_in(tmp_path / "first")
    key = next((tmp_path / "first").glob("*key*"))
    (tmp_path / "first.pem").write_text(first.pem())
    mine = ["-c", str(tmp_path / "first.pem"), "-k", str(key)]
    estclient(birthmark_cloud, tmp_path / "second", "-r", *mine)
    second = issued_in(tmp_path / "second")
    assert second.subject_cn == first.subject_cn == est_identity.name
    assert second.serial != first.serial


def test_estclient_binds_its_request_to_the_connection(
    birthmark_cloud: Cloud, est_identity: EstDevice, tmp_path: Path
) -> None:
    estclient(birthmark_cloud, tmp_path / "bound", "-e", "-z", *user_of(est_identity))
    assert issued_in(tmp_path / "bound").subject_cn == est_identity.name


def issued_in(directory: Path) -> Certificate:
    """Return the one certificate that estclient wrote."""
    (file,) = directory.glob("cert-*.pkcs7")
    (leaf, *_) = parse_certs_only(base64.b64decode(file.read_bytes()))
    return leaf
