"""libest's estclient, where it is on PATH: trust, then a certificate by password."""

import shutil
import subprocess
from pathlib import Path

import pytest

from servers import a_server, clean_environment

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("estclient") is None, reason="libest's estclient is not on PATH"),
]


def test_estclient_gets_the_trust_anchor_and_a_certificate(tmp_path: Path) -> None:
    with a_server(tmp_path) as server:
        est, out = server.endpoints["est"], tmp_path / "out"
        out.mkdir()
        reach = ["-s", server.address, "-p", "8085", "-o", str(out)]
        environment = clean_environment(EST_OPENSSL_CACERT=server.endpoints["trust_bundle"])
        who = ["-u", est["username"], "-h", est["password"], "--common-name", "libest-1"]
        for command in (["-g"], ["-e", *who]):
            arguments = ["estclient", *command, *reach]
            done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=60, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        assert list(out.glob("cert-*.pkcs7"))
