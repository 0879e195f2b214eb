"""A key of a policy that is replaced: this machine's own commands go on by the new one."""

import time
from collections.abc import Iterator

import pytest

from support.server.servers import RunningServer, a_server

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_server(tmp_path_factory.mktemp("rotated")) as running:
        yield running


@pytest.mark.parametrize(
    ("rotate", "service", "then"),
    [
        (("dps", "policy", "rotate", "provisioningserviceowner", "primary"), "dps", ("device", "ls")),
        (("hub", "policy", "rotate", "iothubowner", "primary"), "iothub", ("hub", "device", "ls")),
    ],
)
def test_what_env_prints_follows_a_key_that_was_replaced(
    server: RunningServer, rotate: tuple[str, ...], service: str, then: tuple[str, ...]
) -> None:
    name = "PROVISIONING_CONNECTION_STRING" if service == "dps" else "IOTHUB_CONNECTION_STRING"
    before = server.run("env").stdout
    server.run(*rotate)
    deadline = time.monotonic() + 20
    while (now := server.run("env").stdout) == before:
        assert time.monotonic() < deadline, "env prints the old key"
        time.sleep(0.1)
    assert name in now
    server.run(*then)
