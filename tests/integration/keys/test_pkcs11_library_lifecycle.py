"""The token library of a process in which others use it too, on threads of their own: awscrt's handshakes."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from birthmark.clock_and_entropy import SystemClock
from birthmark.keys.pkcs11_library_lifecycle import find_softhsm, load_library, stop_library
from birthmark.secure_elements.chip_profiles import PROFILES
from birthmark.secure_elements.softhsm_element import SoftwareElement, create_software_element
from support.chips import token_race
from support.fakes import SeededEntropy

pytestmark = pytest.mark.integration
_ROUNDS = 20
# What awscrt started is awscrt's: it is used, and goes on when we stop using it.
THEIRS = """
import sys
from pathlib import Path
from awscrt import io
theirs = io.Pkcs11Lib(file=sys.argv[1])
from birthmark.keys.pkcs11_library_lifecycle import stop_library
from birthmark.keys.pkcs11_token import list_tokens
for _ in range(2):
    print([token.label for token in list_tokens(Path(sys.argv[1]))])
    stop_library()
"""


# SoftHSM looks for what this machine has not, and leaves OpenSSL's errors of it to the thread.
MET = """
import ssl, sys
from pathlib import Path
from birthmark.keys.pkcs11_token import list_tokens
ways = [ssl.SSLContext(one) for one in (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER)]
for one in ways:
    one.check_hostname, one.verify_mode, one.maximum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_2
    one.set_ciphers("AECDH-AES256-SHA@SECLEVEL=0")
there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
ends = [ways[0].wrap_bio(back, there), ways[1].wrap_bio(there, back, server_side=True)]
for one in ends * 3:
    try:
        one.do_handshake()
    except ssl.SSLWantReadError:
        pass
print([token.label for token in list_tokens(Path(sys.argv[1]))])
try:
    ends[0].read()
except ssl.SSLWantReadError:
    print("nothing to read yet")
"""


@pytest.fixture
def chip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftwareElement:
    monkeypatch.delenv("SOFTHSM2_CONF", raising=False)
    born = SystemClock().now() - timedelta(hours=1)
    made = create_software_element(tmp_path / "chip", PROFILES["se050"], now=born, entropy=SeededEntropy())
    stop_library()
    return made


def run(chip: SoftwareElement, *words: str) -> "subprocess.CompletedProcess[str]":
    tests = str(Path(token_race.__file__).parents[2])
    environment = os.environ | chip.environment | {"PYTHONPATH": tests, "PYTHONFAULTHANDLER": "1"}
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=240, check=False
    )


def test_handshakes_on_the_sdks_threads_and_our_own_signatures_do_not_meet(chip: SoftwareElement) -> None:
    for _ in range(3):  # how often the library without locks failed: 12 of 12 times
        ran = run(chip, token_race.__file__, str(chip.directory), str(_ROUNDS))
        assert (ran.returncode, ran.stderr) == (0, "")
        assert ran.stdout == f"{_ROUNDS * 8} handshakes beside many signatures\n"


def test_a_process_that_ends_with_an_open_connection_ends_well(chip: SoftwareElement) -> None:
    ran = run(chip, token_race.__file__, str(chip.directory), "1", "open")
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_connection_outlives_the_library_that_is_stopped_below_it(chip: SoftwareElement) -> None:
    ran = run(chip, token_race.__file__, str(chip.directory), "3", "stopped")
    assert ran.returncode == 0, ran.stderr
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "3 connections outlived their library\n", "")


def test_what_is_freed_after_its_library_was_stopped_closes_no_session_of_the_next(chip: SoftwareElement) -> None:
    ran = run(chip, token_race.__file__, str(chip.directory), "5", "late")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "5 handshakes, with what was before freed late\n", "")


def test_a_library_that_somebody_else_has_started_is_used_and_not_stopped(chip: SoftwareElement) -> None:
    ran = run(chip, "-c", THEIRS, str(chip.module))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{[chip.token_label]}\n" * 2, "")


def test_a_connection_of_the_thread_is_read_on_after_the_library_was_used(chip: SoftwareElement) -> None:
    ran = run(chip, "-c", MET, str(chip.module))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{[chip.token_label]}\nnothing to read yet\n", "")


def test_a_library_that_was_stopped_starts_again(chip: SoftwareElement) -> None:
    module = find_softhsm()
    first = load_library(module)
    assert load_library(module) is first
    stop_library()
    assert not first.initialized
    assert load_library(module).initialized
    stop_library()
