"""TPMs of software: swtpm, one process each."""

import contextlib
import random
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from birthmark.dps.model import TpmKeys
from birthmark.keys.tpm_attestation import Tpm, TpmSettings, TpmUnavailableError
from birthmark.pki.tpm_public_key import TpmPublic, parse_tpm_public
from support.server.servers import WORKER


@dataclass
class SoftwareTpm:
    """One that runs. Whoever has the state directory has the TPM."""

    port: int
    state: Path

    @property
    def tcti(self) -> str:
        return f"swtpm:host=127.0.0.1,port={self.port}"

    @property
    def device(self) -> Tpm:
        """The agent's own view of it."""
        return Tpm(TpmSettings(self.tcti))

    @property
    def keys(self) -> TpmKeys:
        """Both public keys."""
        endorsement, root = self.device.public_keys()
        return TpmKeys(public(endorsement), public(root))


def public(data: bytes) -> TpmPublic:
    return parse_tpm_public(data, "key")


@contextlib.contextmanager
def a_tpm(state: Path | None = None) -> Iterator[SoftwareTpm]:
    """Run a TPM, a new one unless its state is given."""
    with contextlib.ExitStack() as stack:
        if state is None:
            state = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = _two_free_ports()
        stack.enter_context(_running(state, port))
        tpm = SoftwareTpm(port, state)
        _until_it_works(tpm)
        yield tpm


@contextlib.contextmanager
def _running(state: Path, port: int) -> Iterator[None]:
    where = f"type=tcp,bindaddr=127.0.0.1,port={port}"
    control = f"type=tcp,bindaddr=127.0.0.1,port={port + 1}"
    flags = ["--flags", "not-need-init,startup-clear"]
    process = subprocess.Popen(
        ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--server", where, "--ctrl", control, *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while not _answers(port + 1):
            assert process.poll() is None, "swtpm ended"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


def _until_it_works(tpm: SoftwareTpm) -> None:
    """Wait until it does what it is asked: its port is open a little earlier."""
    deadline = time.monotonic() + 20
    while True:
        try:
            tpm.device.has_key()
        except TpmUnavailableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _two_free_ports() -> int:
    """Return the first of two ports: the library asks the control port after the one it is given."""
    for _ in range(100):  # of a range that is this worker's alone, and below those that clients are given
        port = random.randrange(15_000, 16_000, 2) + 1000 * WORKER
        with contextlib.suppress(OSError), socket.socket() as first, socket.socket() as beside:
            first.bind(("127.0.0.1", port))
            beside.bind(("127.0.0.1", port + 1))
            return port
    raise AssertionError("no two ports in a row")
