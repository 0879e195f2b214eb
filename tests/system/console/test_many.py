"""Many consoles are open at once, from one address and by TLS, and nobody who is not signed in crowds them out."""

import contextlib
import socket
import ssl
from collections.abc import Iterator

import pytest

from support.console.browsers import Browser
from support.console.people import PASSWORD, ServerServices
from support.server.servers import a_server

pytestmark = pytest.mark.system
USERS, EACH = 10, 20


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerServices]:
    with a_server(tmp_path_factory.mktemp("many")) as server:
        yield ServerServices(server)


def a_line(rooms: ServerServices) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(rooms.server.data / "trust.pem"))
    raw = socket.create_connection((rooms.server.address, 9443), timeout=20)
    return context.wrap_socket(raw, server_hostname=rooms.server.address)


def following(rooms: ServerServices, browser: Browser) -> ssl.SSLSocket:
    """Return a line by which a browser follows what happens."""
    cookies = "; ".join(f"{one.name}={one.value}" for one in browser.http.cookies)
    line = a_line(rooms)
    line.sendall(f"GET /live HTTP/1.1\r\nHost: {rooms.server.address}:9443\r\nCookie: {cookies}\r\n\r\n".encode())
    read_until(line, b":\n\n")
    return line


def read_until(line: ssl.SSLSocket, wanted: bytes) -> None:
    found = b""
    while wanted not in found:
        part = line.recv(4096)
        assert part, found
        found += part
    assert found.startswith(b"HTTP/1.1 200") or b"news" in found, found


def test_two_hundred_consoles_are_open_at_once_and_all_are_told(rooms: ServerServices) -> None:
    browsers = [at_tls(rooms, f"user-{at}") for at in range(USERS)]
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(following(rooms, one)) for one in browsers for _ in range(EACH)]
        for _ in range(700):  # who is nobody is turned away before they are
            with contextlib.suppress(OSError):
                unauthenticated = stack.enter_context(
                    socket.create_connection((rooms.server.address, 9443), timeout=20)
                )
                unauthenticated.sendall(b"\x16")
        rooms.asked("POST", "/hubs/birthmark/devices", {"device_id": "seen-by-all"})
        for line in lines:
            read_until(line, b'"news"')


def at_tls(rooms: ServerServices, name: str) -> Browser:
    """Sign somebody in as from another machine."""
    rooms.person(name)
    browser = Browser(f"https://{rooms.server.address}:9443", rooms.server.data / "trust.pem")
    assert browser.sign_in(name, PASSWORD).status_code == 303
    assert browser.get("/me").status_code == 200
    return browser
