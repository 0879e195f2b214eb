"""Clock, proxies and who is asked without them, names and places."""

from dataclasses import replace

import pytest

from birthmark.doctor.facts import ClockFacts, EndpointFacts, ProxyFacts, ServerFacts
from birthmark.doctor.findings import FindingSeverity
from birthmark.doctor.rules import network
from birthmark.doctor.rules.network import is_bypassed
from birthmark.doctor.setting_sources import SettingSource, SourcedSetting


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


def test_what_is_no_address_is_no_part_of_a_network() -> None:
    assert not is_bypassed("hub.example", "127.0.0.0/8,nonsense/x")


@pytest.mark.parametrize(
    ("seen", "severity", "told"),
    [
        (ClockFacts("noon"), FindingSeverity.OK, "noon"),
        (ClockFacts("noon", offset_s=9.0, by="est.test"), FindingSeverity.OK, "noon, same as est.test"),
        (ClockFacts("noon", offset_s=-11.0, by="est.test"), FindingSeverity.FAULT, "est.test differs by +11 s"),
        (ClockFacts("1970", is_before_build=True), FindingSeverity.FAULT, "the clock shows 1970"),
    ],
)
def test_a_clock_is_wrong_that_cannot_be_or_that_a_server_contradicts(
    seen: ClockFacts, severity: FindingSeverity, told: str
) -> None:
    (found,) = network.clock(seen)
    assert (found.severity, told in found.seen) == (severity, True)
    assert bool(found.for_a_person) is (severity is FindingSeverity.FAULT)


PROXIES = (
    SourcedSetting(SettingSource.VARIABLE, "HTTPS_PROXY", "http://p:3128"),
    SourcedSetting(SettingSource.VARIABLE, "https_proxy", "x"),
)
PROXY = ProxyFacts(PROXIES, "p:3128")


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (replace(PROXY, is_malformed=True), "doctor.proxy_malformed"),
        (replace(PROXY, trouble="refused"), "doctor.proxy_unreachable"),
    ],
)
def test_a_proxy_that_is_none_is_named_no_more(seen: ProxyFacts, code: str) -> None:
    (found,) = network.proxy(seen)
    assert (found.code, found.command) == (code, "unset HTTPS_PROXY https_proxy")


def test_a_server_of_this_machine_is_asked_without_the_proxy_and_what_was_excepted_stays() -> None:
    (found,) = network.proxy(replace(PROXY, local=("127.0.0.7", "gateway")))
    assert found.severity is FindingSeverity.WARNING
    assert 'no_proxy="127.0.0.7,gateway${no_proxy:+,$no_proxy}"' in found.command


def test_a_proxy_that_answers_is_well() -> None:
    assert [one.severity for one in network.proxy(PROXY)] == [FindingSeverity.OK]


def a_place(name: str, host: str, code: str = "") -> EndpointFacts:
    return EndpointFacts(
        SourcedSetting(SettingSource.VARIABLE, name, host),
        host,
        8883,
        code,
        f"{code} at {host}" if code else "",
        "Look",
    )


def test_a_hub_is_no_provisioning_service() -> None:
    (found,) = network.named(a_place("PROVISIONING_HOST", "Plant.azure-devices.cn"))
    assert found.command == "export PROVISIONING_HOST=global.azure-devices-provisioning.cn"
    assert list(network.named(a_place("IOTHUB_HOST", "plant.azure-devices.net"))) == []
    assert list(network.named(a_place("PROVISIONING_HOST", "dps.test"))) == []


@pytest.mark.parametrize("is_served", [True, False])
def test_what_is_the_same_for_several_servers_is_told_once(*, is_served: bool) -> None:
    away, well = [a_place(name, name.lower(), "links.unreachable") for name in ("A", "B")], a_place("C", "c")
    fault, fine = network.places([away[0], well, away[1]], ServerFacts("/data", is_served=is_served))
    assert fault.seen == "A=a: links.unreachable at a; B=b: links.unreachable at b"
    assert fault.command == ('eval "$(birthmark env --data /data)"' if is_served else "")
    assert fault.advice == ("Use this machine's server" if is_served else "Look")
    assert (fine.severity, fine.seen) == (FindingSeverity.OK, "C=c: c:8883 responds and is trusted")
