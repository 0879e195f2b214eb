"""What a request by cookie has to show, and where whoever signed in goes on."""

import os
import socket
from typing import Any
from unittest.mock import MagicMock
from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from birthmark.operator_api.cookie_request_guard import (
    HostUnknownError,
    RequestForgedError,
    SessionGuard,
    csrf_of,
    is_own_host,
    local_path,
    machine_user,
)

OURS = "https://cloud.example:9443"
GATE = SessionGuard.of(MagicMock(), ["Cloud.Example", "10.0.0.1"])


def a_request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": raw}
    return Request(scope)


@given(st.text() | st.text("/\\:?#@%.\t\r\n evil"))
def test_who_signed_in_stays_at_this_server_whatever_was_asked_for(text: str) -> None:
    to = urlsplit(urljoin(f"{OURS}/signin", local_path(text).replace("\\", "/")))
    assert (to.scheme, to.netloc) == ("https", "cloud.example:9443")


@pytest.mark.parametrize("path", ["/", "/device", "/hubs/birthmark?after=x&limit=3"])
def test_a_path_of_this_server_is_kept(path: str) -> None:
    assert local_path(path) == path


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("cloud.example", True),
        ("CLOUD.example:9443", True),
        ("cloud.example.:9443", True),
        ("localhost:9443", True),
        ("192.0.2.7:9443", True),
        ("[2001:db8::1]:9443", True),
        ("evil.example:9443", False),
        ("cloud.example.evil.example", False),
        ("[cloud.example]", True),
        ("", False),
    ],
)
def test_names_of_ours_and_addresses_are_ours(host: str, ours: bool) -> None:
    assert is_own_host(host, GATE.names) is ours
    if not ours:
        with pytest.raises(HostUnknownError):
            GATE.check_host(a_request(host=host))


SECRET = "bms_00_secret"


def is_from_here(secret: str = SECRET, token: str = csrf_of(SECRET), **headers: str) -> bool:
    try:
        GATE.check_from_here(a_request(host="cloud.example:9443", **headers), secret, token)
    except RequestForgedError:
        return False
    return True


def test_a_page_of_ours_is_known_by_what_the_browser_says_and_by_the_token() -> None:
    assert is_from_here(origin=OURS)
    assert is_from_here(sec_fetch_site="same-origin", origin="null")
    assert is_from_here(sec_fetch_site="same-origin")


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"origin": "null"},
        {"origin": "https://evil.example"},
        {"origin": "http://cloud.example:9443"},
        {"origin": "https://cloud.example:8443"},
        {"origin": OURS, "sec_fetch_site": "cross-site"},
        {"origin": OURS, "sec_fetch_site": "same-site"},
        {"origin": OURS, "sec_fetch_site": "none"},
        {"origin": "https://evil.example", "sec_fetch_site": "same-origin"},
    ],
)
def test_a_page_of_anybody_elses_is_not(said: dict[str, str]) -> None:
    assert not is_from_here(**said)


@pytest.mark.parametrize(
    ("secret", "token"),
    [
        ("", csrf_of("")),
        (SECRET, ""),
        (SECRET, csrf_of("another")),
        (SECRET, "é"),
        *((SECRET, f"{'A' * (86 - bad)}{'!' * bad}") for bad in (*range(10), 86)),
    ],
)
def test_a_page_of_another_session_is_not(secret: str, token: str) -> None:
    assert not is_from_here(secret, token, origin=OURS)


def test_the_cookie_of_tls_is_the_hosts_alone_and_that_of_loopback_carries_the_port() -> None:
    assert (GATE.cookie, GATE.presignin_cookie) == ("__Host-birthmark", "__Host-birthmark-before")
    assert SessionGuard.of(MagicMock(), [], 8080).cookie == "birthmark-8080"


def test_the_user_of_a_machine_who_asked_is_known_when_his_connection_has_ended() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        here = listening.getsockname()
        with socket.create_connection(here) as line:
            ends = {"client": line.getsockname(), "server": here, "scheme": "http", "headers": [(b"host", b"x")]}
            request = Request({"type": "http", "method": "GET", "path": "/", "query_string": b""} | ends)
            assert machine_user(request) == os.getuid()
        assert machine_user(request) == os.getuid()
