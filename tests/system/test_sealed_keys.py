"""Shared keys at rest: who has the database and nothing else of the directory has no key of it."""

import base64
import re
import subprocess
from pathlib import Path

import pytest

from support.server.servers import BIRTHMARK, RunningServer, a_server, clean_environment

pytestmark = pytest.mark.system


def keys_that_were_shown(server: RunningServer) -> set[str]:
    """Return the keys of the services and of AWS that the server's commands show."""
    texts = [str(server.endpoints["dps"]), str(server.endpoints["iothub"])]
    keys = {key for text in texts for key in re.findall(r"SharedAccessKey=([A-Za-z0-9+/=]+)", text)}
    return keys | {server.endpoints["aws"]["secret_access_key"]}


def test_the_database_alone_has_no_key_and_the_seed_of_another_directory_opens_none(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        keys = keys_that_were_shown(server)
        (made,) = server.rows("hub", "device", "create", "pump-1")
        keys.add(made["primary_key"])
        assert len(keys) == 5
        server.run("webhook", "create", "works", "https://hooks.example.com/services/5ecret-of-ours")
    kept = b"".join(one.read_bytes() for one in server.data.glob("birthmark.db*"))
    assert b"5ecret-of-ours" not in kept
    for key in keys:
        assert key.encode() not in kept
        assert base64.b64decode(key) not in kept
    (server.data / "est.seed").write_text("another\n")
    done = subprocess.run(
        [BIRTHMARK, "serve", "--data", str(server.data), "--listen", server.address],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=clean_environment(),
    )
    assert done.returncode not in {0, 1}
    assert "est.seed" in done.stderr
    assert "Traceback" not in done.stderr
