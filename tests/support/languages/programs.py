"""Client programs of other languages as subprocesses: an operation each, and a JSON object for each result."""

import json
import queue
import subprocess
import threading
import time
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Self

from birthmark.testing.cloud import AwsThing, AzureDevice, KitDevice
from birthmark.testing.device_identity_model import ChipFiles
from support.azure.sas_tokens import make_sas
from support.languages.token_certificates import store_certificate
from support.languages.toolchains import TOOLCHAINS
from support.pki.pki_builders import a_ca
from support.server.servers import clean_environment

PATIENCE_S = 60.0
_NEXT_DAY = int(time.time()) + 86_400
Row = dict[str, Any]
Settings = dict[str, str]
"""Environment variables of a program."""


@dataclass(frozen=True, slots=True)
class Program:
    """A client program of a language."""

    language: str
    name: str

    def command(self, operation: str) -> list[str]:
        return [*TOOLCHAINS[self.language].command(self.name), operation]

    def run(self, operation: str, settings: Mapping[str, str]) -> Row:
        """Run an operation, and return its result."""
        done = self._run(operation, settings)
        assert done.returncode == 0, f"{self.name} {operation}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        lines = done.stdout.splitlines()
        return dict(json.loads(lines[-1])) if lines else {}

    def fail(self, operation: str, settings: Mapping[str, str]) -> str:
        """Run an operation that must fail, and return the client's error."""
        done = self._run(operation, settings)
        assert done.returncode == 1, f"{self.name} {operation}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return str(json.loads(done.stdout.splitlines()[-1])["error"])

    def start(self, operation: str, settings: Mapping[str, str]) -> "RunningProgram":
        return RunningProgram(self, operation, settings)

    def _run(self, operation: str, settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(operation),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
            env=clean_environment(**settings),
        )


Signer = tuple[Program, str]
"""A client, and a kind of secure element."""


class RunningProgram:
    """A program that goes on until it is closed, and its results as they come."""

    def __init__(self, program: Program, operation: str, settings: Mapping[str, str]) -> None:
        self._command = program.command(operation)
        self._environment = clean_environment(**settings)
        self._lines: queue.Queue[str | None] = queue.Queue()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment,
        )
        assert self._process.stdout is not None
        self._thread = threading.Thread(target=self._read, args=[self._process.stdout], daemon=True)
        self._thread.start()
        return self

    def _read(self, output: IO[str]) -> None:
        for line in output:
            self._lines.put(line)
        self._lines.put(None)

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE_S)
        finally:
            self._process.kill()
            self._thread.join()
            self._process.stdout.close()

    def until(self, name: str) -> Row:
        """Return the next result that has this member; what its client logs is left out."""
        seen: list[str] = []
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            assert line is not None, f"never: {name}; so far:\n{''.join(seen)}"
            if line.startswith("{") and name in (row := json.loads(line)):
                return dict(row)
            seen.append(line)


def of_thing(thing: AwsThing) -> Settings:
    """Return the settings of an AWS device."""
    return {"HOST": f"{thing.endpoint}:8883", "CLIENT_ID": thing.name, **_trust(thing), **certificate_of(thing)}


def of_hub_device(device: AzureDevice) -> Settings:
    """Return the settings of a device of a hub."""
    host = device.identity.hub_host
    return {
        "HOST": f"{host}:8883",
        "CLIENT_ID": device.name,
        "USERNAME": f"{host}/{device.name}/?api-version=2021-04-12",
        **_trust(device),
        **certificate_of(device),
    }


def of_hub_sdk(device: AzureDevice, protocol: str, **more: str) -> Settings:
    """Return the settings of a device of a hub whose client is the vendor's SDK."""
    key = "x509=true" if device.identity.files else f"SharedAccessKey={device.symmetric_key}"
    text = f"HostName={device.identity.hub_host};DeviceId={device.name};{key}"
    return {"PROTOCOL": protocol, "CONNECTION_STRING": text, **_trust(device), **certificate_of(device), **more}


def messages_of(topic: str, payload: str) -> Settings:
    """Return the settings to subscribe to a topic and to publish there."""
    return {"SUBSCRIBE": topic, "PUBLISH": topic, "PAYLOAD": payload}


def in_token(chip: ChipFiles) -> Settings:
    """Return the settings of a device whose key is in a PKCS#11 token.

    SunPKCS11 lists no key without a certificate of the same ID; the manufacturer's certificate in an SE050 has another.
    """
    if chip.kind == "se050":
        store_certificate(chip)
    return {
        "SOFTHSM2_CONF": chip.environment["SOFTHSM2_CONF"],
        "PKCS11_MODULE": chip.environment["BIRTHMARK_PKCS11_MODULE"],
        "PKCS11_TOKEN": chip.environment["BIRTHMARK_TOKEN"],
        "PKCS11_PIN": Path(chip.environment["BIRTHMARK_PIN_FILE"]).read_text().strip(),
        "PKCS11_KEY": chip.key_label,
    }


def with_token(device: AzureDevice) -> Settings:
    """Return the settings of a hub's device that authenticates by its symmetric key."""
    token = make_sas(f"{device.identity.hub_host}/devices/{device.name}", b64decode(device.symmetric_key), _NEXT_DAY)
    return of_hub_device(device) | {"PASSWORD": token}


def another_ca(directory: Path) -> Settings:
    """Return the settings of a client that trusts another CA than the server's."""
    file = directory / "another-ca.pem"
    file.write_text(a_ca("Another CA", now=datetime.now(UTC)).certificate.pem())
    return dict.fromkeys(("CA_FILE", "AWS_CA_BUNDLE", "SSL_CERT_FILE"), str(file))


def _trust(device: KitDevice) -> Settings:
    return {"CA_FILE": device.cloud.ca_file}


def certificate_of(device: KitDevice) -> Settings:
    """Return the settings of a device's certificate; none if it has a symmetric key."""
    if device.identity.files is None:
        return {}
    return {"CERT_FILE": device.certificate_file, "KEY_FILE": device.key_file}
