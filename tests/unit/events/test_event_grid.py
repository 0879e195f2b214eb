"""Event Grid's form: which events have one, and the handshake."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.events.event_grid import VALIDATION, grid_event_of, is_validated, validation_event
from birthmark.events.model import OperationEvent

AT = datetime(2026, 1, 31, 8, 0, 0, 5, UTC)


def happened(action: str, subject: str = "pump-1", seq: int = 1, at: datetime = AT, **detail: Any) -> OperationEvent:
    return OperationEvent("main", seq, at, "operator", action, subject, detail)


def shown(event: OperationEvent) -> Any:
    return grid_event_of(event, {"hub.example": "plant"}.__getitem__)


def test_a_created_device_is_shown_with_its_twin() -> None:
    event = shown(happened("iothub.device_put", hub="plant", status="enabled", created=True))
    assert (event["eventType"], event["subject"]) == ("Microsoft.Devices.DeviceCreated", "devices/pump-1")
    assert event["topic"].endswith("/PROVIDERS/MICROSOFT.DEVICES/IOTHUBS/PLANT")
    assert event["eventTime"] == "2026-01-31T08:00:00.0000050Z"
    assert (event["data"]["hubName"], event["data"]["deviceId"]) == ("plant", "pump-1")
    assert (event["data"]["twin"]["deviceId"], event["data"]["twin"]["status"]) == ("pump-1", "enabled")
    assert {"id", "dataVersion", "metadataVersion"} < set(event)


def test_a_registration_that_creates_a_device_names_its_hub_and_its_device() -> None:
    event = shown(happened("dps.register", "reg-1", hub="hub.example", created=True, device_id="pump-9"))
    assert (event["data"]["hubName"], event["subject"]) == ("plant", "devices/pump-9")


def test_a_deleted_device_is_shown_without_what_the_event_does_not_know() -> None:
    event = shown(happened("iothub.device_delete", hub="plant"))
    assert event["eventType"] == "Microsoft.Devices.DeviceDeleted"
    assert not {"status", "properties"} & set(event["data"]["twin"])


@pytest.mark.parametrize(
    ("action", "kind"),
    [("device.connect", "Connected"), ("device.disconnect", "Disconnected"), ("device.lose", "Disconnected")],
)
def test_connections_of_modules_name_both(action: str, kind: str) -> None:
    event = shown(happened(action, "edge-1/camera", place="hub/plant"))
    assert (event["eventType"], event["subject"]) == (f"Microsoft.Devices.Device{kind}", "devices/edge-1/camera")
    assert (event["data"]["deviceId"], event["data"]["moduleId"]) == ("edge-1", "camera")


def test_sequence_numbers_are_compared_as_text() -> None:
    moments = [(AT, 1), (AT, 2), (AT + timedelta(microseconds=1), 1), (AT + timedelta(days=9000), 0)]
    events = [shown(happened("device.connect", seq=seq, at=at, place="hub/plant")) for at, seq in moments]
    numbers = [one["data"]["deviceConnectionStateEventInfo"]["sequenceNumber"] for one in events]
    assert numbers == sorted(set(numbers))
    assert {len(one) for one in numbers} == {64}


@pytest.mark.parametrize(
    "event",
    [
        happened("iothub.device_put", hub="plant", status="disabled"),
        happened("dps.register", hub="hub.example"),
        happened("device.connect", place="aws/account"),
        happened("device.refuse", code="tls.no_certificate"),
        happened("iothub.device_take_back", hub="plant"),
        happened("alert.raised"),
        happened("iothub.module_put", "edge-1/camera", hub="plant"),
    ],
)
def test_what_event_grid_does_not_have_is_not_sent(event: OperationEvent) -> None:
    assert shown(event) is None


def test_the_handshake_asks_for_its_code() -> None:
    event = validation_event("1", "secret", "birthmark://test", AT)
    assert (event["eventType"], event["data"]) == (VALIDATION, {"validationCode": "secret"})
    assert is_validated('{"validationResponse": "secret"}', "secret")


@given(st.text(max_size=40))
def test_nothing_else_is_taken_for_the_code(text: str) -> None:
    assert not is_validated(text, "secret")
    assert not is_validated(f"[{text}]", "secret")
    assert not is_validated('{"validationResponse": "other"}', "secret")
