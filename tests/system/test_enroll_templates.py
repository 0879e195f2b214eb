"""A shipment gets names, tags, twins, types and attributes by a template, at both clouds by one command."""

import csv
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.server.servers import BIRTHMARK, RunningServer, a_new_server, clean_environment

pytestmark = pytest.mark.system
COUNT = 5
TEMPLATE = """
device_id = "gateway-{unique_id}"
[azure]
edge = true
[azure.tags]
site = "Osaka"
part = "{part_number}"
[azure.desired]
interval = 30
[aws]
policy = "device"
thing_type = "gateway"
groups = ["line-3"]
[aws.attributes]
number = "{number:03}"
"""
POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("templates")) as running:
        aws(running, "create-policy", "--policy-name", "device", "--policy-document", POLICY)
        aws(running, "create-thing-type", "--thing-type-name", "gateway")
        aws(running, "create-thing-group", "--thing-group-name", "line-3")
        yield running


def aws(server: RunningServer, *words: str) -> dict[str, Any]:
    """What the AWS command line says."""
    environment = clean_environment(BIRTHMARK_DATA=str(server.data))
    told = subprocess.run(
        ["bash", "-c", f'eval "$({BIRTHMARK} env)"; aws iot "$@"', "aws", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(told.stdout or "{}"))


@pytest.fixture
def line(server: RunningServer, tmp_path: Path) -> list[str]:
    """Enroll a shipment of its own at both clouds."""
    server.run("manifest", "create", "--out", str(tmp_path / "shipment"), "--count", str(COUNT))
    at = tmp_path / "shipment"
    (tmp_path / "template.toml").write_text(TEMPLATE)
    trust = ["--signer", str(at / "signer.pem"), "--trust-root", str(at / "root.pem")]
    both = ["--to", "azure", "--to", "aws", "--template", str(tmp_path / "template.toml")]
    return ["device", "enroll-list", str(at / "manifest.json"), *trust, *both]


def test_one_command_enrolls_at_both_clouds_and_takes_back_at_both(
    server: RunningServer, line: list[str], tmp_path: Path
) -> None:
    kept = ["--journal", str(tmp_path / "run.journal"), "--report", str(tmp_path / "run.csv")]
    told = server.run(*line, *kept).stderr
    assert told.count(f"{COUNT} created") == 2
    assert server.run(*line).stderr.count(f"{COUNT} unchanged") == 2
    for cloud in ("azure", "aws"):
        with (tmp_path / f"run.{cloud}.csv").open(newline="") as table:
            assert [row["outcome"] for row in csv.DictReader(table)] == ["created"] * COUNT
    assert server.run(*line, "--journal", kept[1], "--undo").stderr.count(f"{COUNT} undone") == 2
    assert server.run(*line, "--dry-run").stderr.count(f"{COUNT} would be created") == 2


def test_places_are_named_with_their_profiles_and_one_is_asked_once(
    server: RunningServer, line: list[str], tmp_path: Path
) -> None:
    without_places = [word for word in line if word not in {"--to", "azure", "aws"}]
    places = ["--to", "local", "--to", "azure:local", "--to", "aws:local", "--report", str(tmp_path / "run.csv")]
    assert server.run(*without_places, *places).stderr.count(f"{COUNT} created") == 2
    assert {path.name for path in tmp_path.glob("run.*")} == {"run.local.csv", "run.aws-local.csv"}
    assert server.run(*line).stderr.count(f"{COUNT} unchanged") == 2


def test_each_cloud_has_what_the_template_says_of_it(server: RunningServer, line: list[str]) -> None:
    rows = server.rows(*line)
    assert {row["to"] for row in rows} == {"azure", "aws"}
    things = [aws(server, "describe-thing", "--thing-name", row["device"]) for row in rows if row["to"] == "aws"]
    assert {thing["thingTypeName"] for thing in things} == {"gateway"}
    numbers = sorted(thing["attributes"]["number"] for thing in things)
    in_group = set(aws(server, "list-things-in-thing-group", "--thing-group-name", "line-3")["things"])
    assert {thing["thingName"] for thing in things} <= in_group
    assert numbers == [f"{number:03}" for number in range(1, COUNT + 1)]
    name = things[0]["thingName"]
    names = {row["name"].lower(): row for row in server.rows("device", "ls")}
    record = names[f"sn{name[8:]}"]
    assert record["state"] == "unassigned"


def test_a_rehearsal_says_what_differs_and_only_update_changes_it(
    server: RunningServer, line: list[str], tmp_path: Path
) -> None:
    journal = ["--journal", str(tmp_path / "run.journal")]
    server.run(*line)
    (tmp_path / "template.toml").write_text(TEMPLATE.replace("Osaka", "Kyoto").replace("{number:03}", "{number:04}"))
    refused = server.attempt(*line, "--dry-run")
    assert refused.returncode == 7
    assert "Osaka" in refused.stderr
    told = server.run(*line, "--dry-run", "--update").stderr
    assert f"initial twin of {COUNT} devices:" in told
    assert f"attribute number of {COUNT} devices:" in told
    assert re.search(r": 00(\d) -> 000\1\n", told), "of any: several are asked at a time"
    assert server.run(*line, *journal, "--update").stderr.count(f"{COUNT} updated") == 2
    assert server.run(*line).stderr.count(f"{COUNT} unchanged") == 2
    undone = server.attempt(*line, *journal, "--undo").stderr
    assert f"{COUNT} undone" in undone
    (tmp_path / "template.toml").write_text(TEMPLATE)
    assert f"{COUNT} unchanged" in server.run(*line).stderr


def test_a_name_for_all_of_them_is_refused_for_the_second(
    server: RunningServer, line: list[str], tmp_path: Path
) -> None:
    (tmp_path / "template.toml").write_text('device_id = "gateway"')
    refused = server.attempt(*line, "--dry-run")
    assert (refused.returncode, "enroll.name_taken_twice" in refused.stderr) == (7, True)
    assert f"{COUNT - 1} refused" in refused.stderr
