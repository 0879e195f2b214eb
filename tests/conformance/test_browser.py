"""A browser, unmodified: it connects with the hybrid key exchange, and the metrics say so."""

import re
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import RunningServer, a_new_server

pytestmark = pytest.mark.system
_QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--ignore-certificate-errors",
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with a_new_server(tmp_path) as running:
        yield running


def handshakes(server: RunningServer) -> dict[str, int]:
    """Return the finished handshakes by their group."""
    url = server.endpoints["health_url"].replace("/healthz", "/metrics")
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    labels = r'(?:worker="\w+",)?group="(\w+)",version="TLSv1\.3"'
    found = re.findall(r"birthmark_tls_handshakes_total\{" + labels + r"\} (\d+)", text)
    counts = Counter[str]()
    for group, count in found:
        counts[group] += int(count)
    return counts


@pytest.mark.parametrize("port", [8443, 8085])
def test_chromium_takes_the_hybrid_key_exchange(server: RunningServer, tmp_path: Path, port: int) -> None:
    page = f"https://{server.address}:{port}/nothing"
    subprocess.run(
        ["chromium", *_QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert handshakes(server)["X25519MLKEM768"] >= 1
