"""What stands in for what we have not: chips and a TPM of software, and our own server as Azure and AWS."""

import contextlib
import random
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tools.acceptance.playing import variables_of

_PROFILE = """[acceptance.azure]
connection_string_file = "{home}/dps"
hub_connection_string_file = "{home}/hub"
ca_file = "{ca}"

[acceptance.aws]
region = "us-east-1"
endpoint_url = "{aws}"
ca_file = "{ca}"
"""
PROFILE = "acceptance"
_CHIPS = {"se050": "--chip se050", "azure-chip": "--chip se050", "atecc608": "--chip atecc608 --variant TNGTLS"}


def free_address() -> str:
    """Return an address of this machine's own at which the ports of a server are free."""
    while True:
        address = f"127.{random.randrange(64, 100)}.{random.randrange(1, 255)}.{random.randrange(1, 255)}"
        with contextlib.suppress(OSError), socket.socket() as tried:
            tried.bind((address, 8883))
            return address


@contextlib.contextmanager
def a_cloud(directory: Path, environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Run our own server; yield the environment of who takes it for Azure and for AWS."""
    data, home = directory / "cloud", directory / "home"
    home.mkdir(parents=True)
    with (directory / "cloud.log").open("w") as log:
        serving = subprocess.Popen(
            ["birthmark", "serve", "--data", str(data), "--listen", free_address()], stdout=log, stderr=log
        )
    try:
        told = variables_of(f'eval "$(birthmark env --data "{data}" --wait 30)"', {**environment, "HOME": str(home)})
        for name, value in {
            "dps": told["PROVISIONING_CONNECTION_STRING"],
            "hub": told["IOTHUB_CONNECTION_STRING"],
        }.items():
            (home / name).touch(0o600)
            (home / name).write_text(value)
        profiles = home / ".config" / "birthmark" / "profiles.toml"
        profiles.parent.mkdir(parents=True)
        profiles.write_text(_PROFILE.format(home=home, ca=told["SSL_CERT_FILE"], aws=told["AWS_ENDPOINT_URL_IOT"]))
        told.pop("BIRTHMARK_DATA", None)
        yield told
    finally:
        serving.terminate()
        serving.wait(20)


@contextlib.contextmanager
def a_tpm(directory: Path) -> Iterator[str]:
    """Run a TPM of software; yield how it is reached."""
    directory.mkdir(parents=True)
    port = random.randrange(17_000, 18_000, 2)
    ways = [f"type=tcp,bindaddr=127.0.0.1,port={each}" for each in (port, port + 1)]
    command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={directory}", "--server", ways[0], "--ctrl", ways[1]]
    process = subprocess.Popen([*command, "--flags", "not-need-init,startup-clear"])
    try:
        deadline = time.monotonic() + 20
        while not _answers(port + 1):
            if process.poll() is not None or time.monotonic() > deadline:
                message = "swtpm did not begin"
                raise RuntimeError(message)
            time.sleep(0.05)
        yield f"swtpm:host=127.0.0.1,port={port}"
    finally:
        process.terminate()
        process.wait(20)


def a_chip(scenario: str, directory: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of who has the chip of a journey, one of software; the same one where it has none."""
    if scenario not in _CHIPS:
        return dict(environment)
    return variables_of(f'eval "$(birthmark chip simulate "{directory}" {_CHIPS[scenario]})"', environment)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
