"""Firmware with RSA suites alone, which both clouds serve: told why, and served with an RSA certificate."""

import os
import subprocess
from pathlib import Path

import pytest

from support.server.servers import RunningServer, a_server, free_address

pytestmark = pytest.mark.system


def connect(server: RunningServer, port: int) -> subprocess.CompletedProcess[str]:
    suite = ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"]
    trust = ["-CAfile", server.endpoints["trust_bundle"], "-verify_return_error"]
    command = ["openssl", "s_client", "-brief", "-connect", f"{server.address}:{port}", *suite, *trust]
    return subprocess.run(command, input="", capture_output=True, text=True, timeout=30, check=False)


def make_rsa_certificate(directory: Path, address: str) -> str:
    """Follow docs/reference/server-config.md, and return the configuration for it."""
    page = (Path(__file__).parents[3] / "docs/reference/server-config.md").read_text()
    recipe = page.partition("### An RSA certificate")[2].partition("```sh\n")[2].partition("```")[0]
    names = {"HOST": address, "NAMES": f"IP:{address}"}
    subprocess.run(["sh", "-ec", recipe], cwd=directory, env=os.environ | names, check=True, capture_output=True)
    return f'host = "{address}"\n[server]\ncertificate = "{directory}/server.pem"\nkey = "{directory}/server.key"\n'


@pytest.mark.parametrize("port", [8883, 8443])
def test_a_client_without_ecdsa_is_told_of_the_servers_certificate(server: RunningServer, port: int) -> None:
    assert connect(server, port).returncode != 0
    told = server.cloud.why(code="tls.no_shared_cipher")
    assert "ECDSA" in told["cause"]
    assert "[server] certificate" in told["fix"]


def test_a_client_without_ecdsa_is_served_with_an_rsa_certificate(tmp_path: Path) -> None:
    address = free_address()
    with a_server(tmp_path, make_rsa_certificate(tmp_path, address), address=address) as running:
        assert connect(running, 8883).returncode == 0
