"""Servers of several workers, for the whole suite of real clients: `scripts/test --scaled` says how many.

Each server has a database of its own at one PostgreSQL server, and a NATS server of its own.
"""

import atexit
import contextlib
import os
import subprocess
import uuid
from functools import cache
from pathlib import Path

import pytest

from support.services.postgres import a_postgres

ALONE = "looks into the file of SQLite, or counts what each worker counts by itself"
WORKERS = int(os.environ.get("BIRTHMARK_TEST_WORKERS", "1"))

for_one = pytest.mark.skipif(WORKERS > 1, reason=ALONE)
"""A test that is about one process."""


_OWN = "runs processes, machines or databases of its own, several where it is about them"
_FILE = "is about the file of SQLite, or a database that the test itself names"
_PROCESS = "looks into the one process of a server: its pid, its queues, its streams, its words"
_EACH = "counts what each worker counts by itself"
_CUT = "cuts a line by the test kit, which cuts those of its own servers"
_TURNS = "measures the turns of one loop by what it refuses meanwhile: a witness at another loop has none there"
ABOUT_ONE = {
    **dict.fromkeys(("system/test_machines.py", "system/test_workers.py", "system/test_soak.py"), _OWN),
    **dict.fromkeys(("system/test_database_lost.py", "system/test_away.py", "system/test_demos.py"), _OWN),
    **dict.fromkeys(("system/test_tutorials.py", "system/fixes/", "system/test_trial.py"), _OWN),
    **dict.fromkeys(("system/test_audit.py", "system/test_backup.py", "system/test_full_disk.py"), _FILE),
    "system/doctor/test_database.py": _FILE,
    **dict.fromkeys(
        (
            "system/test_serve.py::test_a_second_server_on_the_same_database",
            "system/test_serve.py::test_the_first_start_makes_what_is_secret",
            "system/test_serve.py::test_why_works_after_the_server_has_stopped",
            "system/test_serve.py::test_why_reads_the_data_directory_without",
            "system/test_sealed_keys.py::test_the_database_alone_has_no_key",
            "system/test_owners.py::test_root_is_told_how_the_owner_proves_the_audit_trail",
        ),
        _FILE,
    ),
    **dict.fromkeys(
        (
            "system/test_durable_before_answer.py",
            "system/test_floods.py::test_beside_a_flood_the_kernels_queue",
        ),
        _PROCESS,
    ),
    "system/test_floods.py::test_others_have_their_turn_beside_a_flood_of[shadows that are too large": _TURNS,
    **dict.fromkeys(
        (
            "system/test_upstream.py::test_one_above_that_is_silent",
            "system/test_upstream.py::test_what_the_top_says_comes_back",
            "conformance/test_metrics.py::test_every_metric_moves",
            "conformance/azure/test_tiers.py::test_a_device_that_polls_dps_too_often",
            "conformance/azure/test_event_hubs.py::test_a_sixth_reader_of_a_partition",
        ),
        _EACH,
    ),
    "conformance/azure/test_event_hubs.py::test_a_reader_continues_after_a_cut_line": _CUT,
    "conformance/azure/test_monitor.py::test_whoever_looks_on_is_told_when_the_server_ends": _PROCESS,
}
"""System tests that say nothing of a server of several workers, each with the reason: by the beginning of their id."""


def why_not(place: str) -> str | None:
    """Return why a test is left out where each server has several workers."""
    if WORKERS == 1:
        return None
    return next((why for begin, why in ABOUT_ONE.items() if place.startswith(begin)), None)


@cache
def _postgres() -> str:
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(a_postgres())


@cache
def database_of(_data: Path) -> str:
    """Return the URL of the database that goes with a data directory, empty at first."""
    name, server = f"s{uuid.uuid4().hex}", _postgres()
    subprocess.run(["psql", "--no-psqlrc", "--quiet", "--command", f"CREATE DATABASE {name}", server], check=True)
    return server.rsplit("/", 1)[0] + f"/{name}"
