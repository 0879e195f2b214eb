"""A server whose database is away: doctor says so, and nothing any more when it is back."""

from pathlib import Path

import pytest
from doctor.fault import diagnosed
from fixes.scene import a_scene

from support.server.readiness import ALL_THERE, DATABASE_AWAY, until_ready
from support.server.servers import a_server
from support.services.postgres import a_postgres_server

pytestmark = pytest.mark.system


def test_a_database_that_does_not_answer_is_a_fault_of_the_server_that_runs(tmp_path: Path) -> None:
    config = 'database = "{}"\n'
    with (
        a_postgres_server() as postgres,
        a_server(tmp_path, config.format(postgres.url), is_warm=False) as server,
    ):
        (tmp_path / "home").mkdir()
        scene = a_scene(tmp_path / "home", server)
        with scene.closing:
            assert diagnosed(scene, "")[1] == []
            postgres.stop("fast")
            until_ready(server, (503, DATABASE_AWAY))
            done, found = diagnosed(scene, "")
            assert [(row["code"], row["severity"]) for row in found] == [("doctor.database_away", "fault")]
            assert done.returncode == 6
            assert "database" in found[0]["cause"]
            assert found[0]["for_a_person"]
            assert diagnosed(scene, "--offline")[1] == []
            postgres.start()
            until_ready(server, (200, ALL_THERE))
            assert diagnosed(scene, "")[1] == []
