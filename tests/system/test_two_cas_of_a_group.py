"""A group of two CAs, as it is while one takes over from the other: devices of both register."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.azure.clients import a_file_device
from support.pki.pki_builders import a_ca
from support.server.servers import RunningServer, a_new_server

pytestmark = pytest.mark.system
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("two")) as running:
        yield running


@pytest.mark.parametrize("kind", ["files", "names"])
def test_devices_of_both_cas_of_a_group_register(server: RunningServer, tmp_path: Path, kind: str) -> None:
    cas = [a_ca(f"{name} of {kind}", now=NOW) for name in ("Old", "New")]
    for number, ca in enumerate(cas):
        (tmp_path / f"{number}.pem").write_text(ca.certificate.pem())
    if kind == "files":
        wanted = ["--cert", str(tmp_path / "0.pem"), "--secondary", str(tmp_path / "1.pem")]
    else:
        for number in range(2):
            server.run("dps", "ca", "create", f"ca-{number}", str(tmp_path / f"{number}.pem"), "--verified")
        wanted = ["--ca-name", "ca-0", "--secondary", "ca-1"]
    server.run("device", "enroll-group", f"group-{kind}", *wanted)
    if kind == "files":  # what a group carries itself needs proof of possession, or the operator's word
        server.run("dps", "ca", "create", "carried", "--of-group", "group-files", "--verified")
    for number, ca in enumerate(cas):
        device = a_file_device(tmp_path, f"{kind}-{number}", ca=ca)
        server.run("device", "register", **device.environment(server))


def test_a_second_file_that_is_no_ca_is_refused(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(a_ca("Alone", now=NOW).certificate.pem())
    leaf = a_file_device(tmp_path, "no-ca").certificate_file
    refused = server.attempt(
        "device", "enroll-group", "g", "--cert", str(tmp_path / "ca.pem"), "--secondary", str(leaf)
    )
    assert (refused.returncode, str(leaf) in refused.stderr.replace("\n", "")) == (1, True)
