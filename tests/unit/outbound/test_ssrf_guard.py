"""Which addresses may be called: none inside, whatever form they are written in."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.outbound.http_client import UrlInvalidError, check_target, check_url
from birthmark.outbound.ssrf_guard import AddressRefusedError, check_addresses, may_call, networks_of

INSIDE = [
    *("127.0.0.1", "127.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("0.0.0.0", "255.255.255.255", "224.0.0.1", "240.0.0.1", "192.0.2.1", "198.18.0.1"),
    *("::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:1::1", "fe80::1%eth0"),
    *("fec0::1", "168.63.129.16", "::ffff:168.63.129.16", "192.88.99.1", "64:ff9b:1::a00:1"),
]


@pytest.mark.parametrize("address", INSIDE)
def test_what_is_inside_is_not_called(address: str) -> None:
    assert not may_call(ip_address(address), ())
    with pytest.raises(AddressRefusedError):
        check_addresses("hooks.example", [address], ())


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_the_internet_is_called(address: str) -> None:
    assert may_call(ip_address(address), ())


def test_what_is_allowed_by_name_is_called_and_nothing_beside_it() -> None:
    allowed = networks_of(["10.1.0.0/16", "::1"])
    assert may_call(ip_address("10.1.2.3"), allowed)
    assert may_call(ip_address("::1"), allowed)
    assert not may_call(ip_address("10.2.0.1"), allowed)
    assert may_call(ip_address("::ffff:10.1.2.3"), allowed)


def test_of_several_addresses_those_that_may_be_called_are_left() -> None:
    assert check_addresses("hooks.example", ["127.0.0.1", "8.8.8.8"], ()) == ["8.8.8.8"]


def test_the_fix_allows_that_address_alone() -> None:
    with pytest.raises(AddressRefusedError) as refused:
        check_addresses("hooks.example", ["192.168.1.7"], ())
    assert refused.value.network == "192.168.1.7/32"
    assert may_call(ip_address("192.168.1.7"), networks_of([refused.value.network]))


@given(st.ip_addresses())
def test_no_address_breaks_it(address: object) -> None:
    may_call(address, ())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        *("", "hooks.example", "ftp://hooks.example/", "https://", "https:///x", "https://user:pw@hooks.example/"),
        *(
            "https://hooks.example/#x",
            "https://hooks.example:99999/",
            "https://hooks.example/\n",
            "https://hö.example/",
            "https://a..example/",
            "https://a.example\\x",
            "https://.example/",
            f"https://{'a' * 64}.example/",
            f"https://{'a.' * 127}example/",
        ),
        *("http://hooks.example/", "https://[::1", "https://hooks.example/" + "x" * 3000, "file:///etc/passwd"),
    ],
)
def test_what_is_no_receiver_is_refused(url: str) -> None:
    with pytest.raises(UrlInvalidError):
        check_url(url, allows_plain=False)


def test_plain_http_is_refused_with_the_setting_that_allows_it() -> None:
    with pytest.raises(UrlInvalidError) as refused:
        check_url("http://hooks.example/", allows_plain=False)
    assert "http:// requires outbound.allow" in refused.value.explain_cause()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("\u201chttps://hooks.example/\u201d", "U+201C"),
        ("\ufeffhttps://hooks.example/", "U+FEFF"),
        ("https://hooks.example/\u00a0", "U+00A0"),
    ],
)
def test_a_character_that_looks_like_none_of_a_url_is_told(url: str, told: str) -> None:
    with pytest.raises(UrlInvalidError) as refused:
        check_url(url, allows_plain=False)
    assert told in refused.value.explain_cause()


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "https://[::1]/", "https://169.254.169.254/latest"])
def test_an_address_inside_is_refused_before_it_is_kept(url: str) -> None:
    with pytest.raises(AddressRefusedError):
        check_target(url, ())
