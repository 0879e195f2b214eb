"""PostgreSQL goes and comes back beneath a running server: probes are told, and who can wait sees nothing of it."""

import subprocess
import threading
import time
from pathlib import Path

import pytest

from support.azure.clients import a_file_device
from support.server.readiness import ALL_THERE, DATABASE_AWAY, readiness, until_ready
from support.server.servers import a_server
from support.services.postgres import a_postgres_server

pytestmark = pytest.mark.system


def test_a_device_registers_over_a_restart_of_the_database_and_probes_know(tmp_path: Path) -> None:
    with a_postgres_server() as postgres, a_server(tmp_path, f'database = "{postgres.url}"\n') as server:
        device = a_file_device(tmp_path, "patient")
        server.run("device", "enroll", "--cert", str(device.certificate_file))
        assert readiness(server) == (200, ALL_THERE)
        postgres.stop("fast")
        until_ready(server, (503, DATABASE_AWAY))
        files = ["--cert", str(device.certificate_file), "--key", str(device.key_file)]
        done: list[subprocess.CompletedProcess[str]] = []
        registering = threading.Thread(
            target=lambda: done.append(server.attempt("device", "register", *files, **server.environment))
        )
        registering.start()
        time.sleep(2)
        postgres.start()
        registering.join()
        assert done[0].returncode == 0, done[0].stderr
        until_ready(server, (200, ALL_THERE))
        (told,) = server.rows("server", "audit", "verify")
        assert told["head"]["seq"] == told["rows"]
