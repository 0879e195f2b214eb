"""PostgreSQL goes and comes back beneath a running server: probes are told, and who can wait sees nothing of it."""

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from azure_clients import a_file_device
from postgres import a_postgres_server
from servers import RunningServer, a_server

pytestmark = pytest.mark.system
ALL_THERE = {"ready": True, "database": "ready", "listeners": "ready", "bus": "ready"}


def readiness(server: RunningServer) -> tuple[int, Any]:
    url = server.endpoints["health_url"].replace("/healthz", "/readyz")
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def until_ready(server: RunningServer, wanted: tuple[int, Any]) -> None:
    deadline = time.monotonic() + 20
    while (found := readiness(server)) != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def test_a_device_registers_over_a_restart_of_the_database_and_probes_know(tmp_path: Path) -> None:
    with a_postgres_server() as postgres, a_server(tmp_path, f'database = "{postgres.url}"\n') as server:
        device = a_file_device(tmp_path, "patient")
        server.run("enroll", "device", "--cert", str(device.certificate_file))
        assert readiness(server) == (200, ALL_THERE)
        postgres.stop("fast")
        until_ready(server, (503, ALL_THERE | {"ready": False, "database": "away"}))
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
        (told,) = server.rows("audit", "verify")
        assert told["head"]["seq"] == told["rows"]
