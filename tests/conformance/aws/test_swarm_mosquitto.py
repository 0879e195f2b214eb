"""A swarm's MQTT, both versions, at a broker that somebody else wrote, and which asks for client certificates."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from birthmark.pki import certificate_profiles
from conftest import free_port
from support.agent.swarm_world import swarm
from support.pki.pki_builders import a_ca, a_device

pytestmark = pytest.mark.system
_OPTIONS = """
certfile server.pem
keyfile server.key
cafile own.pem
require_certificate true
use_identity_as_username true
allow_anonymous false
persistence false
user root
"""


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A mosquitto that believes the swarm's CA, and whose own certificate is in server-ca.pem."""
    number, now = free_port(), datetime.now(UTC)
    ca, devices_ca = a_ca("Broker CA", now=now), a_ca("Swarm CA", now=now)
    leaf = a_device(ca, "localhost", profile=certificate_profiles.SERVER, now=now)
    files = {
        "server-ca.pem": ca.certificate.pem(),
        "server.pem": leaf.certificate.pem(),
        "server.key": leaf.key_pem,
        "own.pem": devices_ca.certificate.pem(),
        "own.key": devices_ca.key_pem,
        "mosquitto.conf": f"listener {number} localhost{_OPTIONS}",
    }
    for name, text in files.items():
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(text)
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin")
    assert program is not None
    command = [program, "-c", "mosquitto.conf", "-v"]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, cwd=tmp_path, stderr=log, stdout=log) as process,
    ):
        time.sleep(0.5)
        yield number
        process.terminate()


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_another_broker_takes_what_a_swarm_says(tmp_path: Path, port: int, version: str) -> None:
    scenario = f"""
    duration = "9s"
    [target]
    to = "aws"
    host = "localhost"
    mqtt_port = {port}
    mqtt = "{version}"
    trust = "server-ca.pem"
    [identities]
    ca_cert = "own.pem"
    ca_key = "own.key"
    [group.meters]
    devices = 30
    ramp = 100
    interval = "1s"
    [group.meters.misbehave]
    garbage = "3%"
    duplicate = "3%"
    no_ack = "3%"
    """
    run = swarm(tmp_path, "--yes", scenario=scenario)
    assert (run.code, [one for one in run.devices if not one["held"]]) == (0, []), (tmp_path / "log").read_text()[
        -2000:
    ]
    assert run.summary["acknowledged"] > 60
    log = (tmp_path / "log").read_text()
    assert f"(p{'5' if version == '5' else '2'}, c1, k240, u'meters-" in log
