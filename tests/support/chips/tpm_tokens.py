"""A TPM of software as a PKCS#11 token: swtpm, tpm2-abrmd on a bus of its own, tpm2-pkcs11."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from support.chips.tpms import a_tpm

PIN = "1234"
LABEL = "dev1"


@dataclass(frozen=True)
class TpmToken:
    """Where it is, and what a process needs to use it."""

    directory: Path
    environment: Mapping[str, str]

    @property
    def module(self) -> Path:
        return Path(self.environment["BIRTHMARK_PKCS11_MODULE"])


def library() -> Path:
    (found,) = Path("/usr/lib").glob("*/libtpm2_pkcs11.so.1")
    return found


@contextlib.contextmanager
def a_tpm_token(directory: Path) -> Iterator[TpmToken]:
    """Make a token with an EC key `device` and an RSA key `rsa`, made by the TPM's own tool."""
    store, pin = directory / "store", directory / "pin"
    store.mkdir()
    pin.touch(mode=0o600)
    pin.write_text(PIN)
    with a_tpm() as tpm, _bus() as address, _manager(address, tpm.tcti):
        variables = {
            "DBUS_SESSION_BUS_ADDRESS": address,
            "TPM2TOOLS_TCTI": "tabrmd:bus_type=session",
            "TPM2_PKCS11_TCTI": "tabrmd:bus_type=session",
            "TPM2_PKCS11_STORE": str(store),
            "TSS2_LOG": "all+NONE",
        }
        secrets = (f"--label={LABEL}", f"--userpin={PIN}")
        for arguments in (
            ("init",),
            ("addtoken", "--pid=1", *secrets, "--sopin=5678"),
            ("addkey", *secrets, "--algorithm=ecc256", "--key-label=device", "--id=01"),
            ("addkey", *secrets, "--algorithm=rsa2048", "--key-label=rsa", "--id=02"),
        ):
            subprocess.run(["tpm2_ptool", *arguments], env={**os.environ, **variables}, check=True, capture_output=True)
        chip = {
            "BIRTHMARK_PKCS11_MODULE": str(library()),
            "BIRTHMARK_TOKEN": LABEL,
            "BIRTHMARK_PIN_FILE": str(pin),
        }
        yield TpmToken(directory, {**variables, **chip})


@contextlib.contextmanager
def _bus() -> Iterator[str]:
    command = ["dbus-daemon", "--session", "--nofork", "--print-address=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextlib.contextmanager
def _manager(address: str, tcti: str) -> Iterator[None]:
    """Run the TPM's resource manager until it answers on the bus."""
    environment = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": address, "TSS2_LOG": "all+NONE"}
    command = ["tpm2-abrmd", "--session", f"--tcti={tcti}", *(["--allow-root"] if os.getuid() == 0 else [])]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            asking = ["tpm2_getrandom", "--tcti=tabrmd:bus_type=session", "--hex", "4"]
            deadline = time.monotonic() + 20
            while subprocess.run(asking, env=environment, capture_output=True, check=False).returncode:
                assert process.poll() is None, "tpm2-abrmd ended"
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
