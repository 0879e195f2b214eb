"""Chains of gateways: IoT Edge connects the devices below it with its own credentials.

A chain names the device, then each gateway above it, to the one that presents its credentials (IoT Edge, "Establish
gateway hierarchy").
"""

from collections.abc import Sequence
from itertools import pairwise

from birthmark.errors import UnauthenticatedError
from birthmark.iothub.model import Device

MAX_LEVELS = 8
_SEPARATOR = ";"


class DeviceChainError(UnauthenticatedError):
    """The chain of gateways does not lead from the device to the gateway that presents its credentials."""

    code = "iothub.device_chain_invalid"
    message = "The chain of gateways is not valid: {detail}"
    cause = "A gateway connected device {device_id} of hub {hub} for the chain {chain}, but {detail}."
    fix = (
        "Set the gateway as the parent of the device, and connect its module $edgeHub on the same connection first. To "
        "show the device with its parent scopes: `birthmark hub device show {device_id} --hub {hub}`"
    )
    chain: str
    detail: str
    device_id: str
    hub: str


def parse_chain(text: str, name: str, hub: str) -> tuple[str, ...]:
    """Return the devices of a chain, the lowest first and without a module. Raise `DeviceChainError`."""
    names = text.split(_SEPARATOR)
    facts = {"chain": text[:200], "device_id": name, "hub": hub}
    if not 1 < len(names) <= MAX_LEVELS + 2 or names[0] != name:
        raise DeviceChainError(detail="it does not begin with the device, or has too many levels", **facts)
    if "/" in name and names[1] == name.partition("/")[0]:
        names = names[1:]
    if any("/" in one or not one for one in names[1:]):
        raise DeviceChainError(detail="it does not consist of devices", **facts)
    return tuple(one.partition("/")[0] for one in names)


def check_chain(devices: Sequence[Device], text: str) -> None:
    """Raise `DeviceChainError` unless each device is enabled and a child of the next, which is a gateway."""
    facts = {"chain": text[:200], "device_id": devices[0].device_id, "hub": devices[0].hub}
    if not devices[-1].is_iot_edge:
        raise DeviceChainError(detail=f"{devices[-1].device_id} is not a gateway", **facts)
    for child, parent in pairwise(devices):
        if not (child.is_enabled and parent.is_enabled):
            raise DeviceChainError(detail="a device of it is disabled", **facts)
        if not parent.is_iot_edge or parent.scope not in child.parent_scopes:
            raise DeviceChainError(detail=f"{parent.device_id} is not a parent of {child.device_id}", **facts)
