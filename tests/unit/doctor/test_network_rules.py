"""Proxies and who is asked without them."""

import pytest

from birthmark.doctor.rules.network import is_bypassed


@pytest.mark.parametrize(
    "no_proxy", ["hub.example", "HUB.example", ".example", "example", "*", "other, hub.example", "example,"]
)
def test_a_host_is_asked_without_the_proxy(no_proxy: str) -> None:
    assert is_bypassed("hub.example", no_proxy)


@pytest.mark.parametrize("no_proxy", ["", "b.example", "hub.example.org", "ample", "10.0.0.0/8"])
def test_a_host_is_asked_by_the_proxy(no_proxy: str) -> None:
    assert not is_bypassed("hub.example", no_proxy)


def test_a_network_counts_for_its_addresses() -> None:
    assert is_bypassed("127.3.4.5", "127.0.0.0/8")
    assert not is_bypassed("128.3.4.5", "127.0.0.0/8")
