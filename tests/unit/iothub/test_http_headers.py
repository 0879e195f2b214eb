"""Messages of devices and to them as HTTP headers and bodies."""

import base64
import json

import pytest

from birthmark.broker.rules.device_queue import QueuedMessage
from birthmark.iothub.http.message_headers import BATCH, c2d_message_of, headers_of, telemetry_of
from birthmark.iothub.model import C2dMessage, DeviceId, TelemetryMessage
from birthmark.iothub.rules.publish_refusals import BatchInvalidError
from birthmark.iothub.wire import PropertyBagError

D = DeviceId("d")
LETTER = QueuedMessage(7, "m-1", b"", 0, 3_600_000_000, deliveries=1, lock="l-1", feedback="full")


def a_batch(*items: object) -> bytes:
    return json.dumps(items).encode()


def test_a_message_has_its_systems_properties_and_the_applications() -> None:
    given = {"iothub-messageid": "m", "iothub-contenttype": "text/plain", "iothub-app-site": "a+b", "accept": "*/*"}
    (message,) = telemetry_of(D, given, b"x", 1)
    assert message == TelemetryMessage("d", 1, b"x", {"message-id": "m", "content-type": "text/plain"}, {"site": "a+b"})


def test_a_batch_is_a_message_for_each_entry_in_base64_unless_it_says_text() -> None:
    body = a_batch(
        {"body": base64.b64encode(b"\x00\x01").decode(), "properties": {"iothub-app-n": "1", "iothub-messageid": "m"}},
        {"body": "text", "base64Encoded": False},
    )
    first, second = telemetry_of(D, {"content-type": BATCH}, body, 1)
    assert first == TelemetryMessage("d", 1, b"\x00\x01", {"message-id": "m"}, {"n": "1"})
    assert second == TelemetryMessage("d", 1, b"text", {}, {})


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b'["x"]', b'[{"body": 1}]', b'[{"body": "not base64"}]', a_batch(*[{"body": ""}] * 501)],
)
def test_a_batch_that_cannot_be_read_is_refused_whole(body: bytes) -> None:
    with pytest.raises(BatchInvalidError):
        telemetry_of(D, {"content-type": BATCH}, body, 1)


def test_properties_are_counted() -> None:
    with pytest.raises(PropertyBagError):
        telemetry_of(D, {f"iothub-app-{n}": "" for n in range(65)}, b"", 1)


def test_mail_comes_with_its_lock_and_what_it_was_sent_with() -> None:
    sent = {"iothub-correlationid": "c", "iothub-app-site": "a & b", "iothub-ack": "full"}
    found = headers_of("d", LETTER, c2d_message_of(sent, b"x"))
    assert found == {
        "ETag": '"l-1"',
        "iothub-messageid": "m-1",
        "iothub-to": "/devices/d/messages/deviceBound",
        "iothub-sequencenumber": "7",
        "iothub-enqueuedtime": "1970-01-01T00:00:00.0000000Z",
        "iothub-expiry": "1970-01-01T01:00:00.0000000Z",
        "iothub-deliverycount": "0",
        "iothub-ack": "full",
        "iothub-correlationid": "c",
        "iothub-app-site": "a & b",
    }


def test_no_property_makes_a_header_of_its_own() -> None:
    mail = C2dMessage(b"", {"$.ct": "a\r\nset-cookie: b"}, {"x\r\ny: z": "\u00e9\n", "a b:": "1"})
    found = headers_of("d", LETTER, mail)
    assert found["iothub-contenttype"] == "a%0D%0Aset-cookie: b"
    assert found["iothub-app-x%0D%0Ay%3A%20z"] == "%C3%A9%0A"
    assert found["iothub-app-a%20b%3A"] == "1"
