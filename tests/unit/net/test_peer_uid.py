"""Which user a connection over loopback comes from."""

import os
import socket
from collections.abc import Iterator

import pytest

from birthmark.net.loopback_peer_uid import user_of


@pytest.fixture(params=["127.0.0.1", "::1"])
def listening(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.create_server(
        (request.param, 0), family=socket.AF_INET6 if ":" in request.param else socket.AF_INET
    ) as one:
        yield one


def test_a_connection_over_loopback_is_its_users(listening: socket.socket) -> None:
    here = listening.getsockname()[:2]
    with socket.create_connection(here) as line:
        assert user_of(line.getsockname()[:2], here) == os.getuid()


def test_of_one_that_was_closed_nothing_is_said(listening: socket.socket) -> None:
    here = listening.getsockname()[:2]
    with socket.create_connection(here) as line:
        peer = line.getsockname()[:2]
    assert user_of(peer, here) is None


def test_of_who_comes_from_elsewhere_or_is_no_address_nothing_is_said() -> None:
    for peer in (("192.0.2.1", 4711), ("testclient", 50000), ("127.0.0.1", 99999), ("::1", 1)):
        assert user_of(peer, ("127.0.0.1", 8080)) is None
