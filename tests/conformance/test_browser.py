"""A browser, unmodified: it connects with the hybrid key exchange, and the metrics say so."""

import re
import subprocess
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from birthmark.testing.cloud import Cloud

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


def handshakes(cloud: Cloud) -> dict[str, int]:
    """Return the finished handshakes by their group."""
    url = cloud.endpoints["health_url"].replace("/healthz", "/metrics")
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    labels = r'(?:worker="\w+",)?group="(\w+)",version="TLSv1\.3"'
    found = re.findall(r"birthmark_tls_handshakes_total\{" + labels + r"\} (\d+)", text)
    counts = Counter[str]()
    for group, count in found:
        counts[group] += int(count)
    return counts


@pytest.mark.parametrize("port", [8443, 8085])
def test_chromium_takes_the_hybrid_key_exchange(birthmark_cloud: Cloud, tmp_path: Path, port: int) -> None:
    page = f"https://{birthmark_cloud.host}:{port}/nothing"
    subprocess.run(
        ["chromium", *_QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert handshakes(birthmark_cloud)["X25519MLKEM768"] >= 1
