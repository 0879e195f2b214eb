"""The unmodified Azure SDKs as subprocesses, and what devices need to run them."""

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import birthmark
import warm
from birthmark.testing.cloud import AzureDevice, Cloud
from support.pki.pki_builders import Holder, a_device
from support.server.servers import RunningServer

APP = Path(birthmark.__file__).parent / "demo" / "apps" / "azure_device.py"
NOW = datetime.now(UTC)


@dataclass
class Device:
    """A device with its key in a file, as the SDK wants it."""

    name: str
    holder: Holder
    certificate_file: Path
    key_file: Path

    def environment(self, server: RunningServer, **more: str) -> dict[str, str]:
        return {
            **server.environment,
            "DPS_X509_REGISTRATION_ID": self.name,
            "X509_CERT_FILE": str(self.certificate_file),
            "X509_KEY_FILE": str(self.key_file),
            **more,
        }


def a_file_device(
    directory: Path,
    name: str,
    *,
    ca: Holder | None = None,
    sent: tuple[Holder, ...] = (),
    common_name: str | None = None,
    now: datetime = NOW,
    lifetime: timedelta = timedelta(days=1),
) -> Device:
    """Make a device; `sent` are the CA certificates that go after the leaf in its certificate file."""
    holder = a_device(ca, common_name or name, now=now, lifetime=lifetime)
    certificate_file, key_file = directory / f"{name}.pem", directory / f"{name}.key"
    chain = "".join(h.certificate.pem() for h in (holder, *sent))
    certificate_file.write_text(chain)
    key_file.write_text(holder.key_pem)
    key_file.chmod(0o600)
    return Device(name, holder, certificate_file, key_file)


def needs_443(cloud: Cloud | RunningServer) -> None:
    """Skip what the SDKs do at that port alone, where this user may not bind it."""
    if cloud.endpoints["iothub"]["https_port"] != 443:
        pytest.skip("port 443 cannot be bound here")


def run_app(server: RunningServer, device: Device, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the example application: register, connect, ten messages."""
    return run_python(APP, device.environment(server, **more))


def sends_ten(device: AzureDevice, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the same as a device of the test kit."""
    return run_python(APP, device.environment(**more))


def run_python(
    script: Path | str, environment: dict[str, str], timeout_s: int = 60
) -> subprocess.CompletedProcess[str]:
    """Run a script file, or a script given as text, with the tests' interpreter."""
    arguments = ["-c", script] if isinstance(script, str) else [str(script)]
    return subprocess.run(
        [warm.python(), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=environment,
        check=False,
    )
