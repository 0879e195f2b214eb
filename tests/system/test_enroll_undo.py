"""A run is taken back at a real server by the command that it was: what it made, and nothing that was there before."""

import csv
import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.server.servers import BIRTHMARK, RunningServer, a_new_server, clean_environment

pytestmark = pytest.mark.system
COUNT = 40


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("undo")) as running:
        yield running


@pytest.fixture(params=["azure", "aws"])
def line(request: pytest.FixtureRequest, server: RunningServer, tmp_path: Path) -> list[str]:
    """Enroll a shipment of its own, with a journal."""
    server.run("manifest", "create", "--out", str(tmp_path / "shipment"), "--count", str(COUNT))
    at = tmp_path / "shipment"
    trust = ["--signer", str(at / "signer.pem"), "--trust-root", str(at / "root.pem")]
    journal = ["--journal", str(tmp_path / "run.journal")]
    return ["device", "enroll-list", str(at / "manifest.json"), *trust, "--to", str(request.param), *journal]


def on_record(server: RunningServer, line: list[str]) -> set[str]:
    """Everything that such a run makes: records, and at AWS certificates."""
    to = line[line.index("--to") + 1]
    names = {row["name"] for row in server.rows("device", "ls", "--to", to)}
    return names if to == "azure" else names | {row["certificate"] for row in server.rows("aws", "certificate", "ls")}


def test_a_run_is_taken_back_and_nothing_else(server: RunningServer, line: list[str], tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    server.run("manifest", "extract", *line[2:7], "--out", str(tmp_path / "few"))
    for certificate in sorted((tmp_path / "few").iterdir())[:3]:
        server.run("device", "enroll", "--cert", str(certificate), *line[7:9])
    before = on_record(server, line)
    assert "37 created, 3 unchanged" in server.run(*line).stderr
    assert "37 would be undone" in server.run(*line, "--undo", "--dry-run").stderr
    assert len(on_record(server, line)) > len(before)
    assert "37 undone" in server.run(*line, "--undo").stderr
    assert on_record(server, line) == before
    assert "nothing to do" in server.run(*line, "--undo").stderr


def test_a_run_that_was_killed_is_taken_back_like_any_other(server: RunningServer, line: list[str]) -> None:
    before, journal = on_record(server, line), Path(line[-1])
    environment = clean_environment(BIRTHMARK_DATA=str(server.data), HOME=str(server.data.parent))
    with subprocess.Popen([BIRTHMARK, *line], env=environment, stderr=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 60
        while not (journal.exists() and journal.read_text().count("begun") > COUNT // 4):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        running.kill()
    server.run(*line, "--undo")
    assert on_record(server, line) == before


def test_the_journal_of_another_target_takes_nothing_back(server: RunningServer, line: list[str]) -> None:
    server.run(*line)
    there = ["aws", "azure"][line[8] == "aws"]
    refused = server.attempt(*line[:8], there, *line[9:], "--undo")
    assert (refused.returncode, "enroll.journal_of_another_target" in refused.stderr) == (1, True)
    (command,) = re.findall("Undo it at its target: `birthmark ([^`]+)`", " ".join(refused.stderr.split()))
    server.run(*shlex.split(command))


def test_reports_of_a_run_say_what_the_target_said(server: RunningServer, line: list[str], tmp_path: Path) -> None:
    forms = [tmp_path / f"run.{suffix}" for suffix in ("csv", "json", "html")]
    told = server.rows(*line, *(word for form in forms for word in ("--report", str(form))))
    with forms[0].open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [(row["device"], row["outcome"]) for row in rows] == [(row["device"], "created") for row in told]
    assert json.loads(forms[1].read_text().splitlines()[-1])["counts"] == {"created": COUNT}
    assert f"{COUNT} devices" in forms[2].read_text()
    server.run(*line, "--undo", "--report", str(forms[0]))
    assert forms[0].read_text().count("taken back") == COUNT


def test_a_report_takes_the_place_of_no_other_file_of_the_run(
    server: RunningServer, line: list[str], tmp_path: Path
) -> None:
    before = on_record(server, line)
    journal = [*line[:-1], str(tmp_path / "run.json")]
    (tmp_path / "a.html").mkdir()
    for wrong in ("run.json", "shipment/manifest.json", "shipment/../run.json", "a.html"):
        refused = server.attempt(*journal, "--report", str(tmp_path / wrong))
        words = " ".join(refused.stderr.replace("│", " ").split())
        assert (refused.returncode, "another file of this run" in words) == (2, True)
    twice = ["--report", str(tmp_path / "b.csv")] * 2
    assert server.attempt(*journal, *twice).returncode == 2
    assert on_record(server, line) == before
    assert not (tmp_path / "run.json").exists()
