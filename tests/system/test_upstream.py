"""A server in front of another EST server: it identifies the device, the other signs; one for each network layer."""

import json
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from birthmark.pki.certificates import is_signed_by, parse_bundle
from support.pki.est_curl import EstByCurl
from support.server.servers import RunningServer, a_server

pytestmark = pytest.mark.system


def an_authority(top: RunningServer, directory: Path, name: str) -> tuple[Path, Path]:
    """A registration authority's certificate and key, by openssl, on the list of `top`."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    made += ["-keyout", str(key), "-out", str(certificate), "-subj", f"/CN={name}"]
    for extension in (
        "extendedKeyUsage=clientAuth,1.3.6.1.5.5.7.3.28",
        "basicConstraints=critical,CA:FALSE",
        "keyUsage=critical,digitalSignature",
    ):
        made += ["-addext", extension]
    subprocess.run(made, check=True, capture_output=True)
    top.run("pki", "ra", "create", str(certificate))
    return certificate, key


def below(top: RunningServer, directory: Path, name: str) -> str:
    """The configuration of a server that lets `top` sign."""
    certificate, key = an_authority(top, directory, name)
    return (
        f'only = ["est"]\n[est.upstream]\nurl = "{top.endpoints["est"]["url"]}"\n'
        f'trusted_certs = ["{top.endpoints["trust_bundle"]}"]\ncertificate = "{certificate}"\nkey = "{key}"\n'
    )


@pytest.fixture
def top(tmp_path: Path) -> Iterator[RunningServer]:
    (tmp_path / "top").mkdir()
    with a_server(tmp_path / "top") as running:
        yield running


def test_the_layers_between_identify_the_device_and_the_top_signs(top: RunningServer, tmp_path: Path) -> None:
    for name in ("middle", "bottom"):
        (tmp_path / name).mkdir()
    with (
        a_server(tmp_path / "middle", below(top, tmp_path, "ra-1")) as middle,
        a_server(tmp_path / "bottom", below(middle, tmp_path, "ra-2")) as bottom,
    ):
        device = EstByCurl(bottom, tmp_path)
        leaf = device.enrolled("sensor-1")
        (root,) = parse_bundle(Path(top.endpoints["trust_bundle"]).read_text())
        bag = device.cacerts()
        assert root in bag
        assert any(is_signed_by(leaf, one) for one in bag)
        for server in (bottom, middle, top):
            (row,) = server.rows("pki", "ls", "sensor-1")
            assert row["thumbprint"] == leaf.thumbprint.hex()
        assert device.renewed("sensor-1").thumbprint != leaf.thumbprint


def test_each_layer_checks_for_itself(top: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "middle").mkdir()
    with a_server(tmp_path / "middle", below(top, tmp_path, "ra-1")) as middle:
        device = EstByCurl(middle, tmp_path)
        assert device.status("sensor-1", "sensor-1:wrong") == 401
        leaf = device.enrolled("sensor-1")
        middle.run("pki", "revoke", leaf.thumbprint.hex())
        assert device.renewal_status("sensor-1") == 403


def test_what_the_top_says_comes_back_to_the_device(tmp_path: Path) -> None:
    for name in ("top", "middle"):
        (tmp_path / name).mkdir()
    with a_server(tmp_path / "top", "est.renewals_per_s = 0.1\n") as top:
        config = below(top, tmp_path, "ra-1")
        with a_server(tmp_path / "middle", config) as middle:
            device = EstByCurl(middle, tmp_path)
            device.enrolled("sensor-1")
            assert device.status("sensor-2") == 503
            top.run("pki", "ra", "rm", top.rows("pki", "ra", "ls")[0]["thumbprint"], "--yes")
            assert device.status("sensor-3") in {403, 503}


def test_the_cas_of_the_top_are_handed_out_while_it_is_away(top: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "middle").mkdir()
    with a_server(tmp_path / "middle", below(top, tmp_path, "ra-1")) as middle:
        device = EstByCurl(middle, tmp_path)
        before = device.cacerts()
        top.stop()
        middle.stop()
        middle.start()
        assert set(device.cacerts()) == set(before)
        assert device.status("sensor-1") == 503


def test_one_above_that_is_silent_keeps_nobody_else_waiting(top: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "middle").mkdir()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent, ThreadPoolExecutor(12) as devices:
        config = below(top, tmp_path, "ra-1").replace(
            top.endpoints["est"]["url"], f"https://127.0.0.1:{silent.getsockname()[1]}/.well-known/est"
        )
        with a_server(tmp_path / "middle", config) as middle:
            device = EstByCurl(middle, tmp_path)
            made = json.loads(middle.run("pki", "user", "create", "line", "--any-name", "--json").stdout)
            password = f"line:{made['password']}"
            waiting = [devices.submit(device.status, f"sensor-{number}", password) for number in range(12)]
            for _ in waiting:
                silent.accept()[0].detach()  # it has been asked, and never answers
            assert device.status("sensor-1", password) == 503, "the same device asks only once at a time"
            assert device.status("other", "other:wrong") == 401
            assert not any(one.done() for one in waiting)
