"""The jobs of examples/ci: well formed, and what they run does what the page says. Only what installs is left out."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.server.servers import clean_environment

pytestmark = pytest.mark.system
PLACE = Path(__file__).parents[2] / "examples" / "ci"
TEST = """
def test_a_device_registers(birthmark_cloud, azure_device):
    assert azure_device.register().status == "assigned"


def test_a_thing_is_on_record(birthmark_cloud, aws_thing):
    assert len(birthmark_cloud.boto3().list_things()["things"]) == 1
"""


def read(name: str) -> dict[str, Any]:
    found = yaml.load((PLACE / name).read_text(), Loader=yaml.BaseLoader)  # `on` is a word, and no truth
    assert isinstance(found, dict)
    return found


def run(lines: list[str], directory: Path) -> None:
    """Run what a job runs, in a checkout with tests of two clouds."""
    (directory / "test_device.py").write_text(TEST)
    work = [line for line in lines if "pip install" not in line and "sysctl" not in line]
    assert work
    script = "\n".join(work).replace("pytest -q", "pytest -q -W ignore::DeprecationWarning").replace("-n auto", "-n 2")
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=directory,
        env=clean_environment(HOME=str(directory)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (directory / "report.xml").exists()


def test_the_job_of_github_passes(tmp_path: Path) -> None:
    workflow = read("github.yml")
    assert workflow["on"] == ["push", "pull_request"]
    steps = workflow["jobs"]["test"]["steps"]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    run([line for step in steps if "run" in step for line in step["run"].splitlines()], tmp_path)


def test_the_job_of_gitlab_passes(tmp_path: Path) -> None:
    job = read("gitlab.yml")["test"]
    run([*job["before_script"], *job["script"]], tmp_path)


def test_both_install_what_the_page_says() -> None:
    wanted = "pip install 'birthmark[pytest]'"
    page = (PLACE.parents[1] / "docs" / "howto" / "ci.md").read_text()
    assert all(wanted in text for text in (page, *(file.read_text() for file in PLACE.glob("*.yml"))))
