"""libest's estclient, where it is on PATH: trust, attributes, a certificate by password, and its renewal."""

import base64
import shutil
import subprocess
from pathlib import Path

import pytest

from birthmark.pki.certificates import Certificate
from birthmark.pki.cms import parse_certs_only
from servers import RunningServer, a_new_server, clean_environment

ESTCLIENT = shutil.which("estclient")
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(ESTCLIENT is None, reason="libest's estclient is not on PATH"),
]


def estclient(server: RunningServer, out: Path, *arguments: str) -> None:
    out.mkdir(exist_ok=True)
    environment = clean_environment(EST_OPENSSL_CACERT=server.endpoints["trust_bundle"])
    reach = ["-s", server.address, "-p", "8085", "-o", str(out)]
    line = [str(ESTCLIENT), *arguments, *reach]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_estclient_gets_the_trust_anchor_the_attributes_and_a_certificate_and_renews_it(tmp_path: Path) -> None:
    with a_new_server(tmp_path) as server:
        user = server.est_credential("libest-1")
        estclient(server, tmp_path / "trust", "-g")
        estclient(server, tmp_path / "attributes", "-a")
        estclient(server, tmp_path / "first", "-e", "-u", user.name, "-h", user.password, "--common-name", "libest-1")
        first = issued_in(tmp_path / "first")
        key = next((tmp_path / "first").glob("*key*"))
        (tmp_path / "first.pem").write_text(first.pem())
        mine = ["-c", str(tmp_path / "first.pem"), "-k", str(key)]
        estclient(server, tmp_path / "second", "-r", *mine)
        second = issued_in(tmp_path / "second")
        assert second.subject_cn == first.subject_cn == "libest-1"
        assert second.serial != first.serial


def test_estclient_binds_its_request_to_the_connection(tmp_path: Path) -> None:
    with a_new_server(tmp_path) as server:
        user = server.est_credential("libest-2")
        who = ["-u", user.name, "-h", user.password, "--common-name", "libest-2"]
        estclient(server, tmp_path / "bound", "-e", "-z", *who)
        assert issued_in(tmp_path / "bound").subject_cn == "libest-2"


def issued_in(directory: Path) -> Certificate:
    """Return the one certificate that estclient wrote."""
    (file,) = directory.glob("cert-*.pkcs7")
    (leaf, *_) = parse_certs_only(base64.b64decode(file.read_bytes()))
    return leaf
