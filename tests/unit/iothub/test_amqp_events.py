"""Telemetry as AMQP messages."""

from birthmark.amqp.message import DataBody, read_message
from birthmark.amqp.values import Symbol, Timestamp
from birthmark.iothub.model import TelemetryMessage
from birthmark.iothub.wire.amqp_events import render_event


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
