"""DPS's user names, topics and bodies, as captured from the SDKs, and against anything else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.dps import enrollment_document, wire
from birthmark.dps.model import Registration
from birthmark.errors import InvalidRequestError
from birthmark.pki.names_and_registration_ids import parse_registration_id
from support.fakes import NOON
from support.pki.pki_builders import a_device

PYTHON = (
    "0ne00ABCDEF/registrations/dev-001/api-version=2019-03-31&ClientVersion="
    "azure-iot-device-provisioning-py%2F2.14.0%28%3B%20Linux%29"
)


def test_the_python_sdks_user_name() -> None:
    user = wire.parse_username(PYTHON)
    assert (user.id_scope, user.registration_id) == ("0ne00ABCDEF", "dev-001")
    assert user.agent == "azure-iot-device-provisioning-py/2.14.0(; Linux)"


def test_hub_and_aws_user_names_are_not_taken_for_dps() -> None:
    assert wire.is_dps_username(PYTHON)
    assert not wire.is_dps_username("hub.example/dev-001/?api-version=2021-04-12&x=/registrations/")
    assert not wire.is_dps_username("?SDK=IoTDeviceSDK/Python&Platform=Unix")


def test_topics_of_register_and_status() -> None:
    assert wire.parse_topic("$dps/registrations/PUT/iotdps-register/?$rid=a-1") == wire.RegisterRequest("a-1")
    asked = wire.parse_topic("$dps/registrations/GET/iotdps-get-operationstatus/?$rid=b&operationId=5.ab%2Ec")
    assert asked == wire.StatusRequest("b", "5.ab.c")


def test_a_response_topic_has_one_dollar_after_the_question_mark_and_a_whole_retry_after() -> None:
    topic = wire.response_topic(202, "a$b", 3)
    assert topic == "$dps/registrations/res/202/?$rid=a%24b&retry-after=3"


@pytest.mark.parametrize(
    "body",
    [
        b'{"tpm": []}',
        b'{"csr": 1}',
        b'{"clientCertificateCsr": "x"}',
        b"[1]",
        b"\xff",
        b'{"registrationId": 5}',
        b'{"payload": {"a": [1}}',
        b'{"payload": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    ],
)
def test_bodies_that_are_not_served_are_refused(body: bytes) -> None:
    with pytest.raises(wire.BodyInvalidError):
        wire.parse_registration(body)


def test_a_body_of_one_space_or_with_a_payload_is_read() -> None:
    assert wire.parse_registration(b" ").registration_id is None
    assert wire.parse_registration(b'{"payload": null, "registrationId": "d", "other": 1}').registration_id == "d"


def test_a_payload_is_looked_at_and_nothing_is_made_of_it() -> None:
    payload = wire.parse_registration(b'{"payload": {"a": [{}, {}]}}').payload
    assert bytes(payload) == b'{"a": [{}, {}]}'


def test_keys_of_an_enrollment_are_shown_only_where_they_are_asked_for() -> None:
    given = {
        "registrationId": "d",
        "attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": "c2VjcmV0"}},
    }
    enrollment = enrollment_document.parse_document(json.dumps(given).encode())
    assert "c2VjcmV0" not in json.dumps(enrollment_document.document_view(enrollment))
    assert "c2VjcmV0" in json.dumps(enrollment_document.document_view(enrollment, with_keys=True))
    assert "c2VjcmV0" not in repr(enrollment)


@given(st.text(max_size=200))
def test_any_user_name_or_topic_is_read_or_refused(text: str) -> None:
    for parse in (wire.parse_username, wire.parse_topic):
        try:
            parse(text)
        except InvalidRequestError as error:
            assert error.explain_cause()


@given(st.binary(max_size=300))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    for parse in (wire.parse_registration, enrollment_document.parse_document):
        try:
            parse(body)
        except wire.BodyInvalidError as error:
            assert error.explain_cause()


def test_an_error_body_that_is_nested_without_end_says_nothing() -> None:
    assert wire.parse_error(b'{"a":' * 5000) == wire.ErrorAnswer()


def a_registration(group_id: str | None = None) -> Registration:
    return Registration(
        parse_registration_id("device-1"),
        group_id,
        "device-1",
        "hub.example",
        "initialAssignment",
        "4.op",
        "etag",
        NOON,
        NOON,
        None,
    )


def test_a_finished_registration_names_its_hub_and_when() -> None:
    told = wire.status_json(a_registration(), None, "2019-03-31")
    assert (told["operationId"], told["status"]) == ("4.op", "assigned")
    assert told["registrationState"] == {
        "registrationId": "device-1",
        "createdDateTimeUtc": "2026-06-01T12:00:00.0000000Z",
        "assignedHub": "hub.example",
        "deviceId": "device-1",
        "status": "assigned",
        "substatus": "initialAssignment",
        "lastUpdatedDateTimeUtc": "2026-06-01T12:00:00.0000000Z",
        "etag": "etag",
    }


@pytest.mark.parametrize("group_id", [None, "fleet"])
def test_with_the_leaf_at_hand_a_state_shows_it_and_the_group_if_there_is_one(group_id: str | None) -> None:
    leaf = a_device().certificate
    shown = wire.state_json(a_registration(group_id), leaf)["x509"]
    info = shown["certificateInfo"]
    assert (info["subjectName"], info["version"]) == (leaf.subject_text, 3)
    assert info["sha256Thumbprint"] == leaf.thumbprint.hex().upper()
    assert shown.get("enrollmentGroupId") == group_id


def test_a_registration_under_way_names_its_operation() -> None:
    told = wire.assigning_json("4.op", "device-1")
    assert told == {
        "operationId": "4.op",
        "status": "assigning",
        "registrationState": {"registrationId": "device-1", "status": "assigning"},
    }


def test_an_error_body_is_azures() -> None:
    assert wire.error_json(401002, "no", "t-1", NOON) == {
        "errorCode": 401002,
        "trackingId": "t-1",
        "message": "no",
        "timestampUtc": "2026-06-01T12:00:00.0000000Z",
    }


@pytest.mark.parametrize(
    "topic",
    [
        "$dps/registrations/PUT/iotdps-register/",
        "$dps/registrations/PUT/iotdps-register/?$rid=",
        "$dps/registrations/PUT/iotdps-register/?$rid=a$b",
        f"$dps/registrations/PUT/iotdps-register/?$rid={'x' * 5000}",
        "$dps/registrations/DELETE/iotdps-register/?$rid=a",
        f"$dps/registrations/GET/iotdps-get-operationstatus/?$rid=1&operationId=x&{'%C3=%C3&' * 8000}",
    ],
)
def test_a_topic_that_asks_for_nothing_we_have_is_refused(topic: str) -> None:
    with pytest.raises(wire.TopicError):
        wire.parse_topic(topic)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"x", b'{"status": 5}', b"{" * 100_000, b" " * (wire.MAX_ANSWER_BYTES + 1)]
)
def test_an_answer_that_is_none_of_dps_is_refused(body: bytes) -> None:
    with pytest.raises(wire.AnswerInvalidError):
        wire.parse_operation(body)


def test_a_payload_that_is_too_large_is_refused() -> None:
    with pytest.raises(wire.BodyInvalidError):
        wire.parse_registration(b" " * (wire.MAX_PAYLOAD_BYTES + 1))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("0ne00ABCDEF/registrations/dev-001", ("0ne00ABCDEF", "dev-001")),
        ("/0ne00ABCDEF/Registrations/dev-001/", ("0ne00ABCDEF", "dev-001")),
        ("amqps://dps.example:5671/0ne00ABCDEF/registrations/dev-001", ("0ne00ABCDEF", "dev-001")),
        ("0ne00ABCDEF/registrations/dev%3A1", ("0ne00ABCDEF", "dev:1")),
        ("devices/registrations/twin", None),  # the twin of a device with that name
        ("Devices/registrations/twin", None),
        ("/devices/registrations/messages/events", None),
        ("0ne00ABCDEF/registrations/", None),
        ("0ne00ABCDEF/registrations/a%2Fb", None),
        ("0ne00ABCDEF/registrations/a/b", None),
        ("/registrations/a", None),
        ("$cbs", None),
        ("", None),
    ],
)
def test_addresses_of_registrations(text: str, path: tuple[str, str] | None) -> None:
    assert wire.parse_registration_path(text) == path


@given(st.text(max_size=60))
def test_any_address_is_a_registration_or_none(text: str) -> None:
    found = wire.parse_registration_path(text)
    assert found is None or all(found)
