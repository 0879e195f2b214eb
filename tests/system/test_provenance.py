"""A device's way from the production line to its latest certificate, as `birthmark device provenance` tells it."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.server.servers import RunningServer, a_server, warm_environment

pytestmark = pytest.mark.system
LIST = "--manifest station/intake-0001.jsonl --station station/station.pem --trust-root chip/maker-ca.pem"
ASK = """\
import os, ssl, sys, urllib.request
context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
context.load_cert_chain("device.pem", "device.key")
body = open("new.b64", "rb").read()
request = urllib.request.Request(sys.argv[1] + "/simpleenroll", body, {"Content-Type": "application/pkcs10"})
urllib.request.urlopen(request, context=context).read()
"""


@dataclass
class Plant:
    """A directory with a chip that was taken in, and the server it is on record at."""

    directory: Path
    server: RunningServer
    environment: dict[str, str]

    def type(self, *lines: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", "-c", "\n".join(["set -e", 'eval "$(birthmark chip simulate chip 2> /dev/null)"', *lines])],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def must(self, *lines: str) -> str:
        done = self.type(*lines)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def links(self, command: str, code: int = 0) -> list[tuple[str, str]]:
        done = self.type(f"birthmark device provenance {command} --json")
        assert done.returncode == code, done.stderr
        rows: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
        return [(row["link"], row["state"]) for row in rows]


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    directory = tmp_path_factory.mktemp("plant")
    with a_server(directory) as server:
        environment = warm_environment(HOME=str(directory), BIRTHMARK_DATA=str(server.data))
        made = Plant(directory, server, environment)
        made.must(
            "birthmark chip intake BOARD-0001 --operator ann --trust-root chip/maker-ca.pem",
            "birthmark chip intake --seal",
            "birthmark device enroll-list station/intake-0001.jsonl --station station/station.pem",
            "birthmark device enroll-list station/intake-0001.jsonl --station station/station.pem --to aws",
            'eval "$(birthmark env)"; birthmark device register --chip',
        )
        yield made


FACTORY = [("manifest", "holds"), ("proof", "holds"), ("certificate", "holds")]
ON_RECORD = [("enrollment", "holds"), ("enrollment", "holds"), ("registration", "holds")]


def test_every_link_holds_from_the_line_to_the_hub(plant: Plant) -> None:
    assert plant.links(f"BOARD-0001 {LIST}") == [*FACTORY, *ON_RECORD]


def test_a_certificate_by_the_chip_s_own_is_tied_to_it_and_one_by_a_password_is_not(plant: Plant) -> None:
    url = plant.server.endpoints["est"]["url"]
    (plant.directory / "ask.py").write_text(ASK)
    name = plant.must(
        "birthmark chip cert --out device.pem; birthmark chip refkey --out device.key",
        "openssl x509 -in device.pem -noout -subject -nameopt multiline | sed -n 's/ *commonName *= //p'",
    )
    plant.must(
        'eval "$(birthmark env)"; birthmark pki manufacturer create chip/maker-ca.pem',
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout new.key -subj "
        f"/CN={name} -outform DER | base64 > new.b64",
        f"birthmark chip exec -- python ask.py {url}",
    )
    assert plant.links(f"BOARD-0001 {LIST}") == [*FACTORY, *ON_RECORD, ("renewal", "holds")]
    user = json.loads(plant.must("birthmark pki user create loose --any-name --json"))
    plant.must(
        'eval "$(birthmark env)"; ' + f"birthmark pki release {name}",
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout newer.key -subj "
        f"/CN={name} -outform DER | base64 > newer.b64",
        f'curl -sSf --cacert "$SSL_CERT_FILE" -u loose:{user["password"]} -H "Content-Type: application/pkcs10" '
        f"--data-binary @newer.b64 {url}/simpleenroll > /dev/null",
    )
    told = plant.links(f"BOARD-0001 {LIST}", 7)
    assert sorted(told[len(FACTORY + ON_RECORD) :]) == [("renewal", "broken"), ("renewal", "holds")]


def test_without_a_list_the_server_s_links_are_told(plant: Plant) -> None:
    name = plant.must('birthmark device ls --json | sed -n \'s/.*"name": "\\([^"]*\\)".*/\\1/p\'')
    assert plant.links(name)[:3] == ON_RECORD


def test_without_a_root_the_chain_counts_as_not_checked(plant: Plant) -> None:
    found = plant.links("BOARD-0001 --manifest station/intake-0001.jsonl --station station/station.pem --data nowhere")
    assert found == [*FACTORY[:2], ("certificate", "not checked"), ("registration", "not checked")]


def test_a_line_that_was_changed_is_a_broken_link(plant: Plant) -> None:
    plant.must("sed s/ann/bob/ station/intake-0001.jsonl > changed.jsonl")
    command = "BOARD-0001 --manifest changed.jsonl --station station/station.pem --data nowhere"
    assert plant.links(command, 7) == [("manifest", "broken"), ("registration", "not checked")]


def test_a_device_that_is_in_no_list_has_a_missing_link(plant: Plant) -> None:
    name = plant.must('birthmark device ls --json | sed -n \'s/.*"name": "\\([^"]*\\)".*/\\1/p\'')
    plant.must(
        "birthmark chip intake OTHER-1 --key 0xF0000110 --station other",
        "birthmark chip intake --seal --station other",
    )
    command = f"{name} --manifest other/intake-0001.jsonl --station other/station.pem"
    assert plant.links(command, 7)[0] == ("manifest", "missing")


def test_what_nobody_knows_is_told_so(plant: Plant) -> None:
    done = plant.type("birthmark device provenance nobody")
    assert done.returncode == 3
    assert "Code: provenance.nothing_known" in done.stderr


def test_a_list_that_is_not_believed_is_not_passed_over(plant: Plant) -> None:
    done = plant.type("birthmark device provenance nobody --manifest station/intake-0001.jsonl")
    assert done.returncode == 3
    assert "of the list not all is believed" in done.stderr
    assert "not an accepted station" in done.stderr
