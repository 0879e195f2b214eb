"""Each journey of `birthmark demo` plays to its end and proves what it claims."""

import json
import subprocess
from pathlib import Path

import pytest

from support.breadth import variants
from support.server.servers import BIRTHMARK, clean_environment

pytestmark = pytest.mark.system


JOURNEYS = ("azure", "group", "manifest", "aws", "jitp", "est", "twin", "renew", "edge", "factory", "jobs", "telemetry")


@pytest.mark.parametrize("scenario", variants(JOURNEYS, ("azure", "aws", "est", "edge")))
def test_the_journey_proves_its_claims(scenario: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [BIRTHMARK, "demo", scenario, "--json"],
        env=clean_environment(HOME=str(tmp_path), TMPDIR=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows
    assert {row["scenario"] for row in rows} == {scenario}
    assert list(tmp_path.glob("birthmark-*")) == []
