"""Addresses of AMQP links, as each client writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.iothub.wire.amqp_addresses import (
    AmqpNode,
    DeviceFeature,
    DeviceNode,
    EventPartition,
    HubEvents,
    ServiceNode,
    parse_address,
    parse_c2d_target,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$cbs", AmqpNode.CBS),
        ("$management", AmqpNode.MANAGEMENT),
        ("amqps://cloud.example:5671/$management", AmqpNode.MANAGEMENT),
        ("main/ConsumerGroups/$Default/Partitions/3", EventPartition("main", "$Default", 3)),
        ("amqps://cloud.example/main/ConsumerGroups/$Default/Partitions/0", EventPartition("main", "$Default", 0)),
        ("/main/consumergroups/%24default/partitions/1", EventPartition("main", "$default", 1)),
        ("amqps://cloud.example/messages/events/$management", HubEvents("/$management")),
        ("messages/events", HubEvents("")),
        ("/devices/d1/messages/events", DeviceNode("d1", None, DeviceFeature.EVENTS)),
        ("amqps://h:5671/devices/D1/messages/deviceBound", DeviceNode("D1", None, DeviceFeature.DEVICEBOUND)),
        ("/devices/d1/modules/m%2B1/twin", DeviceNode("d1", "m+1", DeviceFeature.TWIN)),
        ("/devices/d1/methods/devicebound/", DeviceNode("d1", None, DeviceFeature.METHODS)),
    ],
)
def test_an_address_is_found_in_each_clients_spelling(text: str, found: object) -> None:
    assert parse_address(text) == found


@pytest.mark.parametrize("text", [None, "", "main", "main/ConsumerGroups/g/Partitions/x", "devices/d/messages"])
def test_other_addresses_are_unknown(text: str | None) -> None:
    assert parse_address(text) is None


@given(st.text(max_size=300))
def test_any_text_is_an_address_or_none(text: str) -> None:
    parse_address(text)


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("/messages/devicebound", ServiceNode.C2D),
        ("amqps://hub.example/messages/devicebound", ServiceNode.C2D),
        ("/messages/serviceBound/feedback", ServiceNode.FEEDBACK),
        ("messages/servicebound/filenotifications", ServiceNode.FILE_NOTIFICATIONS),
    ],
)
def test_the_nodes_of_services_are_recognized(text: str, node: ServiceNode) -> None:
    assert parse_address(text) is node


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("/devices/d1/messages/devicebound", ("d1", None)),
        ("devices/d1/messages/deviceBound", ("d1", None)),
        ("/devices/d%201/modules/m/messages/devicebound", ("d 1", "m")),
        ("amqps://hub.example/devices/d1/messages/devicebound", ("d1", None)),
        ("/devices//messages/devicebound", None),
        ("/devices/d1/messages/events", None),
        (None, None),
    ],
)
def test_the_target_of_a_message_is_a_device_or_a_module(
    text: str | None, target: tuple[str, str | None] | None
) -> None:
    assert parse_c2d_target(text) == target


@given(st.text(max_size=200))
def test_any_text_has_a_target_or_none(text: str) -> None:
    parse_c2d_target(text)
    parse_address(text)
