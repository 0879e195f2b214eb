"""The agent inside a program: each example keeps its vendor's client connected over two renewals."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import birthmark
from birthmark.agent.state_directory import DEVICE_ID, AgentPaths, next_of
from support.agent.device import AgentOnDevice
from support.server.servers import RunningServer, a_server, clean_environment

pytestmark = pytest.mark.system
EXAMPLES = Path(birthmark.__file__).parent / "demo" / "apps"
LIFETIME_S = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    config = f"[est]\ndevice_lifetime_s = {LIFETIME_S}\n"
    with a_server(tmp_path_factory.mktemp("agent-examples"), config) as running:
        running.run("dps", "ca", "create", "est-root", str(running.data / "ca/root.pem"), "--verified")
        running.run("device", "enroll-group", "est-group", "--ca-name", "est-root")
        yield running


def thumbprints_of(device: AgentOnDevice, example: str, count: int) -> list[str]:
    """Run an example until it has connected with so many identities; return their thumbprints."""
    command = [sys.executable, str(EXAMPLES / example), str(device.config), str(device.root)]
    environment = clean_environment(HOME=str(device.root), **device.environment, PYTHONWARNINGS="ignore")
    with (device.root / "stderr").open("w") as stderr:
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)
    found: list[str] = []
    stopping = threading.Timer(90, running.kill)
    stopping.start()
    assert running.stdout is not None
    try:
        for line in running.stdout:
            told = json.loads(line)
            found += [told["connected"]] if "connected" in told else []
            if len(found) == count:
                time.sleep(2)  # it says something with the last one too
                break
    finally:
        stopping.cancel()
        running.kill()
        running.wait()
        running.stdout.close()
    assert len(found) == count, (device.root / "stderr").read_text()[-2000:]
    return found


@pytest.mark.parametrize("example", ["agent_azure.py", "agent_paho.py"])
def test_a_program_goes_on_with_each_renewed_identity(server: RunningServer, tmp_path: Path, example: str) -> None:
    device = AgentOnDevice(server, tmp_path, example.removesuffix(".py").replace("_", "-")).configure()
    thumbprints = thumbprints_of(device, example, 3)
    assert len(set(thumbprints)) == 3
    said = {json.loads(row["body"])["thumbprint"] for row in server.rows("hub", "messages", device.name)}
    assert set(thumbprints) <= said


@contextlib.contextmanager
def a_registrar(device: AgentOnDevice) -> Iterator[None]:
    """Whoever registers at AWS what the EST server issued to this device, the next certificate before it is proven."""
    places, is_over = AgentPaths(device.root), threading.Event()

    def register() -> None:
        known: set[bytes] = set()
        while not is_over.wait(0.2):
            for name in (DEVICE_ID, next_of(DEVICE_ID)):
                with contextlib.suppress(OSError):
                    pem = places.certificate(name).read_bytes()
                    if pem and pem not in known:
                        copy = device.root / "to-register.pem"
                        copy.write_bytes(pem)
                        known.add(pem)
                        device.server.attempt(
                            "device", "enroll", "--cert", str(copy), "--to", "aws", "--update", "--policy", "all"
                        )

    thread = threading.Thread(target=register)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_a_program_at_aws_proves_each_identity_by_connecting(server: RunningServer, tmp_path: Path) -> None:
    everything = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}}
    policy = ["--policy-name", "all", "--policy-document", json.dumps(everything)]
    aws = [str(Path(sys.executable).with_name("aws")), "iot", "create-policy", *policy]
    subprocess.run(aws, env=clean_environment(**dict(server.environment)), check=True, capture_output=True, timeout=60)
    device = AgentOnDevice(server, tmp_path, "agent-aws").configure(lambda text: at_aws(server, text))
    with a_registrar(device):
        thumbprints = thumbprints_of(device, "agent_aws.py", 3)
    assert len(set(thumbprints)) == 3


def at_aws(server: RunningServer, text: str) -> str:
    """The device belongs to an AWS endpoint, and to no provisioning service."""
    begin, end = text.index("[provisioning]"), text.index("[provisioning.attestation.identity_cert]")
    endpoint = server.endpoints["aws"]["data_endpoint"]
    head = f'[provisioning]\nsource = "manual"\niothub_hostname = "{endpoint}"\ndevice_id = "agent-aws"\n'
    text = text[:begin] + head + '[provisioning.authentication]\nmethod = "x509"\n' + text[end:]
    return text.replace("provisioning.attestation", "provisioning.authentication")


def test_the_library_is_loaded_when_a_program_asks_for_it() -> None:
    code = "import sys, birthmark.cli.agent; print('birthmark.agent.embedded_agent' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "False"
