"""Changes of keys cost a peer nothing, and the server as much as a message: few are made, and many end a connection."""

from collections.abc import Iterator

import pytest

from support.floods.key_updates import Updater
from support.server.servers import RunningServer, a_new_server

pytestmark = pytest.mark.system
A_REQUEST = b"GET /.well-known/est/cacerts HTTP/1.1\r\nHost: x\r\n\r\n"
AN_UPDATE = 27  # bytes of its record


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with a_new_server(tmp_path_factory.mktemp("updates")) as running:
        yield running
        assert "Traceback" not in running.log()


def test_keys_are_changed_between_requests(server: RunningServer) -> None:
    with Updater(server.address, 8443) as client:
        for _ in range(40):
            client.raw.sendall(client.updates(1) + client.sealed(A_REQUEST))
            assert client.read().startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("asks_first", [False, True], ids=["a stranger", "who has asked for something"])
def test_whoever_changes_keys_and_says_nothing_is_let_go_of_after_some(server: RunningServer, asks_first: bool) -> None:
    with Updater(server.address, 8443) as client:
        if asks_first:
            client.raw.sendall(client.sealed(A_REQUEST))
            assert client.read().startswith(b"HTTP/1.1 200")
        client.raw.sendall(client.updates(500))
        assert client.answers() < 100 * AN_UPDATE
