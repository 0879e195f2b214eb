"""Telemetry as AMQP messages."""

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from birthmark.amqp.message import AmqpMessage, DataBody, MessageProperties, read_message, write_message
from birthmark.amqp.values import Symbol, Timestamp
from birthmark.iothub.model import TelemetryMessage
from birthmark.iothub.wire.amqp_events import render_event
from birthmark.iothub.wire.d2c_property_bags import MODULE


def test_an_event_has_its_offset_number_time_and_device() -> None:
    found = read_message(render_event(4096, 7, TelemetryMessage("d1", 1_500_000, b"{}", {}, {})))
    annotations = found.message_annotations
    assert annotations[Symbol("x-opt-sequence-number")] == 7
    assert annotations[Symbol("x-opt-offset")] == "4096"
    assert annotations[Symbol("x-opt-enqueued-time")] == Timestamp(1500)
    assert annotations[Symbol("iothub-connection-device-id")] == "d1"
    assert found.body == DataBody((b"{}",))


def test_system_properties_are_properties_or_annotations_and_the_devices_own_are_application_properties() -> None:
    system: dict[str, str | None] = {"message-id": "m", "content-type": "application/json", "dt-subject": "fan"}
    found = read_message(render_event(1, 0, TelemetryMessage("d1", 0, b"", system, {"site": "north", "bare": None})))
    assert (found.properties.message_id, found.properties.content_type) == ("m", "application/json")
    assert found.message_annotations[Symbol("dt-subject")] == "fan"
    assert found.application_properties == {"site": "north", "bare": ""}


ASCII = st.text(st.characters(max_codepoint=0x7E, min_codepoint=0x20))


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            (
                *("message-id", "user-id", "correlation-id", "content-type", "content-encoding"),
                *("iothub-message-source", "iothub-creation-time-utc"),
            ),
            ASCII,
        ),
    ),
    st.dictionaries(st.text(), st.none() | st.text()),
    st.binary(max_size=300),
)
def test_an_event_is_encoded_as_any_other_message(
    system: dict[str, str | None], own: dict[str, str | None], body: bytes
) -> None:
    found = render_event(300, 7, TelemetryMessage("d1", 1_500_000, body, system, own))
    message = read_message(found)
    assert message.body == DataBody((body,))
    assert message.application_properties == {name: value or "" for name, value in own.items()}
    properties: dict[str, Any] = {"to": "/devices/d1/messages/events", "user_id": system.get("user-id")}
    for name in ("message-id", "correlation-id", "content-type", "content-encoding"):
        properties[name.replace("-", "_")] = system.get(name)
    user = properties.pop("user_id")
    assert message.properties == MessageProperties(user_id=None if user is None else user.encode(), **properties)
    again = AmqpMessage(message.body, message.properties, message.application_properties, message.message_annotations)
    assert write_message(again) == found


def test_a_device_cannot_stop_its_readers_with_characters_that_a_symbol_does_not_have() -> None:
    system: dict[str, str | None] = {"content-type": "t\u00e9xt", "r\u00e4nge": "1"}
    found = read_message(render_event(1, 0, TelemetryMessage("d1", 0, b"", system, {})))
    assert found.properties.content_type == "t?xt"
    assert found.message_annotations[Symbol("r?nge")] == "1"


def test_delivery_annotations_come_first() -> None:
    found = render_event(1, 0, TelemetryMessage("d1", 0, b"", {}, {}), {Symbol("last_enqueued_offset"): "9"})
    assert read_message(found).delivery_annotations == {Symbol("last_enqueued_offset"): "9"}


def test_an_event_states_how_its_sender_authenticated() -> None:
    sent = {"method": ("sas", "x509", "hub"), "scope": ("device", "device", "hub"), "type": ("sas", "x509", "sas")}
    for method, scope, kind in zip(*sent.values(), strict=True):
        found = read_message(render_event(1, 0, TelemetryMessage("d1", 0, b"", {}, {}, method, 63))).message_annotations
        told = {"scope": scope, "type": kind, "issuer": "iothub", "acceptingIpFilterRule": None}
        assert json.loads(found[Symbol("iothub-connection-auth-method")]) == told
        assert found[Symbol("iothub-connection-auth-generation-id")] == "63"


def test_an_event_of_a_module_states_the_scope_of_the_module() -> None:
    message = TelemetryMessage("d1", 0, b"", {MODULE: "camera"}, {}, "sas", 63)
    found = read_message(render_event(1, 0, message)).message_annotations
    assert json.loads(found[Symbol("iothub-connection-auth-method")])["scope"] == "module"
    assert found[Symbol(MODULE)] == "camera"


def test_a_stored_message_with_the_digits_of_a_generation_id_is_read() -> None:
    message = TelemetryMessage("d1", 0, b"", {}, {}, "sas", "63")
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=TelemetryMessage)
    found = read_message(render_event(1, 0, stored)).message_annotations
    assert found[Symbol("iothub-connection-auth-generation-id")] == "63"
