"""Chains of gateways: who may connect a device with its own credentials."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from birthmark.iothub.model import AuthenticationType, Device, DeviceAuthentication, parse_device_id
from birthmark.iothub.rules.device_chains import DeviceChainError, check_chain, parse_chain

_AT = datetime(2026, 1, 1, tzinfo=UTC)
_SAS = DeviceAuthentication(AuthenticationType.SAS, None, None, b"k" * 32, b"k" * 32)


def a_device(name: str, *, is_edge: bool = False, parents: tuple[str, ...] = ()) -> Device:
    made = Device("main", parse_device_id(name), f"gen-{name}", "e", True, None, _SAS, is_edge, _AT, _AT)
    return replace(made, parent_scopes=parents)


TOP = a_device("top", is_edge=True)
EDGE = a_device("edge", is_edge=True, parents=(TOP.scope or "",))
LEAF = a_device("leaf", parents=(EDGE.scope or "",))


def test_a_chain_leads_from_a_device_or_module_to_a_gateway() -> None:
    assert parse_chain("leaf;edge;top", "leaf", "main") == ("leaf", "edge", "top")
    assert parse_chain("edge/camera;edge;top", "edge/camera", "main") == ("edge", "top")
    check_chain([LEAF, EDGE, TOP], "leaf;edge;top")
    check_chain([EDGE], "edge/camera;edge")


@pytest.mark.parametrize("text", ["leaf", "other;edge", "leaf;edge/camera", "leaf;;edge", "leaf;" + "e;" * 20 + "top"])
def test_a_chain_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(DeviceChainError):
        parse_chain(text, "leaf", "main")


@pytest.mark.parametrize(
    "devices",
    [
        [LEAF, TOP],
        [LEAF, a_device("edge", is_edge=False)],
        [LEAF, a_device("other", is_edge=True)],
        [replace(LEAF, is_enabled=False), EDGE],
        [LEAF, replace(EDGE, is_enabled=False)],
        [replace(LEAF, parent_scopes=()), EDGE],
        [LEAF],
    ],
)
def test_only_a_gateway_above_an_enabled_device_connects_it(devices: list[Device]) -> None:
    with pytest.raises(DeviceChainError):
        check_chain(devices, "leaf;edge")
