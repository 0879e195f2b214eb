"""Which proxy the environment names, and what it answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.device_transports.proxy import HttpProxy, ProxyFailedError, parse_refusal, proxy_of, request


@pytest.mark.parametrize(
    ("proxies", "found"),
    [
        ({}, None),
        ({"http": "http://proxy:3128"}, None),
        ({"https": "http://proxy:3128"}, HttpProxy("proxy", 3128)),
        ({"https": "proxy:3128"}, HttpProxy("proxy", 3128)),
        ({"all": "http://proxy"}, HttpProxy("proxy", 80)),
        ({"https": "http://me:p%40ss@proxy:3128/"}, HttpProxy("proxy", 3128, "me", "p@ss")),
        ({"https": "http://[::1]:3128"}, HttpProxy("::1", 3128)),
        ({"https": "http://proxy:3128", "no": "hub.example"}, None),
        ({"https": "http://proxy:3128", "no": ".example"}, None),
        ({"https": "http://proxy:3128", "no": "*"}, None),
        ({"https": "http://proxy:3128", "no": "other.example"}, HttpProxy("proxy", 3128)),
    ],
)
def test_the_environment_names_it(proxies: dict[str, str], found: HttpProxy | None) -> None:
    assert proxy_of("hub.example", 443, proxies) == found


@pytest.mark.parametrize(
    "url",
    [
        "https://me:hidden@proxy",
        "socks5://me:hidden@proxy",
        "http://me:hidden@proxy:port",
        "http://me:hidden@[::1:3128",
        "http://me:hid\u2100den@proxy",
        "http://me:12/hidden@proxy:3128",
        "http://",
    ],
)
def test_one_of_another_kind_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ProxyFailedError) as refused:
        proxy_of("hub.example", 443, {"https": url})
    assert "hidden" not in refused.value.explain_cause()


def test_a_password_is_shown_to_the_proxy_alone() -> None:
    proxy = HttpProxy("proxy", 3128, "me", "hidden")
    assert b"Proxy-Authorization: Basic bWU6aGlkZGVu\r\n" in request(proxy, "hub.example", 443)
    assert "hidden" not in f"{proxy!r} {proxy}"


def test_an_address_of_ipv6_stands_in_brackets() -> None:
    assert request(HttpProxy("proxy", 80), "::1", 443).startswith(b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 200 Connection established\r\n\r\n", ""),
        (b"HTTP/1.0 200\r\nVia: x\r\n\r\n", ""),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "it responded with 407 Proxy Authentication Required"),
        (b"HTTP/1.1 200 OK\r\n", "it does not respond with HTTP"),
        (b"", "it closed the connection"),
        (b"SSH-2.0-x\r\n\r\n", "it does not respond with HTTP"),
    ],
)
def test_an_answer_opens_the_tunnel_or_says_why_not(answer: bytes, told: str) -> None:
    assert parse_refusal(answer) == told


@given(st.binary(max_size=200))
def test_any_answer_is_judged(answer: bytes) -> None:
    assert isinstance(parse_refusal(answer + b"\r\n\r\n"), str)
