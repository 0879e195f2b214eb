"""What was acknowledged survives `kill -9`, and the server that comes back serves the same devices."""

import sqlite3
from pathlib import Path

import pytest

from support.azure.clients import sends_ten
from support.pki.est_curl import enroll_by_curl
from support.server.scaled import for_one
from support.server.servers import a_server

pytestmark = pytest.mark.system


def test_enrollment_registration_and_messages_survive_kill_9(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        first = server.cloud.azure_device("killed-1")
        server.kill()
        server.start()
        assert sends_ten(first).returncode == 0
        server.kill()
        server.start()
        assert [row["state"] for row in server.rows("device", "ls")] == ["assigned"]
        assert [row["device"] for row in server.rows("hub", "device", "ls")] == ["killed-1"]
        assert len(first.messages()) == 10
        again = sends_ten(first)
        assert again.returncode == 0, again.stderr
        assert len(first.messages()) == 20


@for_one
def test_a_certificate_that_est_gave_out_is_in_the_inventory_after_kill_9(tmp_path: Path) -> None:
    with a_server(tmp_path, is_warm=False) as server:
        issued = enroll_by_curl(server, tmp_path, "killed-est-1")
        server.kill()
        database = sqlite3.connect(server.data / "birthmark.db")
        rows = database.execute("SELECT thumbprint FROM ca_certificates").fetchall()
        database.close()
        assert issued.thumbprint in {row[0] for row in rows}
