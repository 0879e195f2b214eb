"""IoT Hub's user names, property bags and registry JSON, as captured from the SDKs, and against anything else."""

import base64
import json
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.documents import DocumentSection
from birthmark.errors import InvalidRequestError
from birthmark.iothub import wire
from birthmark.iothub.model import AuthenticationType, Device, DeviceAuthentication, Twin, parse_device_id
from support.fakes import NOON

PYTHON = "hub.example/Dev-001/?api-version=2019-10-01&DeviceClientType=azure-iot-device-iothub-py%2F2.14.0"


def test_the_python_sdks_user_name_keeps_the_devices_letter_case() -> None:
    user = wire.parse_username(PYTHON)
    assert (user.host, user.device_id, user.module_id) == ("hub.example", "Dev-001", None)


def test_a_modules_user_name_is_told_apart() -> None:
    assert wire.parse_username("hub.example/dev/mod/?api-version=1").module_id == "mod"


OLD_FORMS = [
    "api-version=2016-11-14",
    "api-version=2016-11-14&DeviceClientType=iothubclient%2f1.2.1%20(native%3b%20Linux%3b%20x86_64)",
    "api-version=2016-11-14&DeviceClientType=ArduinoIoT/1.0",
    "api-version=2016-11-14/DeviceClientType=Microsoft.Azure.Devices.Client/1.2.2",
    "api-version=2017-06-30/DeviceClientType=Microsoft.Azure.Devices.Client/1.5.1-preview-003",
    "DeviceClientType=azure-iot-device%2F1.1.2&api-version=2016-11-14",
    "DeviceClientType=iothubclient%2F1.0.1",
    "?DeviceClientType=azure-iot-device%2F1.1.21&api-version=2016-11-14",
    "?api-version=2018-06-30",
    "",
]


@pytest.mark.parametrize("parameters", OLD_FORMS)
@pytest.mark.parametrize("module_id", [None, "mod"])
def test_every_form_of_a_user_name_since_2016_names_the_same_identity(parameters: str, module_id: str | None) -> None:
    username = "/".join(filter(None, ["hub.example", "dev", module_id])) + f"/{parameters}"
    user = wire.parse_username(username)
    assert (user.device_id, user.module_id, wire.is_hub_username(username)) == ("dev", module_id, True)
    expected = unquote(parameters.partition("DeviceClientType=")[2].partition("&")[0])
    assert user.agent == expected


def test_a_module_whose_id_begins_like_a_parameter_connects_with_the_form_of_today() -> None:
    assert wire.parse_username("hub.example/dev/api-version=1/?api-version=2021-04-12").module_id == "api-version=1"


def test_a_user_name_without_the_slash_before_its_parameters_is_refused_as_a_hubs() -> None:
    username = "hub.example/dev?api-version=2021-04-12"
    assert wire.is_hub_username(username)
    with pytest.raises(wire.UserNameError):
        wire.parse_username(username)


@pytest.mark.parametrize(
    ("username", "is_hubs"),
    [
        (PYTHON, True),
        ("hub.example/dev", True),
        ("0ne/registrations/d/api-version=1", False),
        ("?SDK=IoTDeviceSDK/Python&Platform=Unix&Metadata=(a/b)", False),
        ("", False),
        ("bob?x-amz-customauthorizer-name=a/b", False),
    ],
)
def test_user_names_of_other_clouds_are_not_taken_for_a_hubs(username: str, is_hubs: bool) -> None:
    assert wire.is_hub_username(username) is is_hubs


def test_a_property_bag_as_the_sdks_send_it() -> None:
    bag = wire.parse_property_bag("%24.mid=id-0&%24.ct=application%2Fjson&%24.ce=utf-8&alert=no%20way&k&e=&plus=a+b")
    assert bag == {
        "$.mid": "id-0",
        "$.ct": "application/json",
        "$.ce": "utf-8",
        "alert": "no way",
        "k": None,
        "e": "",
        "plus": "a+b",
    }


def test_what_only_a_hub_may_set_is_dropped_from_a_message() -> None:
    message = wire.message_of("d", {"$.cdid": "another-device", "$.mid": "1", "x": "y"}, b"", 0)
    assert message.system == {"message-id": "1"}
    assert message.properties == {"x": "y"}


def test_a_device_with_thumbprints_is_read_in_either_length_and_case() -> None:
    prints = {"primaryThumbprint": "ab" * 20, "secondaryThumbprint": "CD" * 32}
    body = {"deviceId": "d", "authentication": {"type": "selfSigned", "x509Thumbprint": prints}}
    _, wanted = wire.parse_device_body(json.dumps(body).encode())
    assert wanted.type is AuthenticationType.SELF_SIGNED
    assert (wanted.primary_thumbprint, wanted.secondary_thumbprint) == (b"\xab" * 20, b"\xcd" * 32)


@pytest.mark.parametrize("text", ["Disabled", "disabled"])
def test_the_letter_case_of_a_status_does_not_matter_as_the_sdk_for_java_capitalizes_it(text: str) -> None:
    body, _ = wire.parse_device_body(json.dumps({"deviceId": "d", "status": text}).encode())
    assert body.status == "disabled"


@pytest.mark.parametrize("text", ["zz" * 20, "ab" * 19, "ab" * 33])
def test_a_thumbprint_of_another_length_or_alphabet_is_refused(text: str) -> None:
    body = {"authentication": {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": text}}}
    with pytest.raises(wire.BodyInvalidError):
        wire.parse_device_body(json.dumps(body).encode())


@given(st.dictionaries(st.text(min_size=1, max_size=10), st.none() | st.text(max_size=10), max_size=10))
def test_a_property_bag_survives_the_wire(bag: dict[str, str | None]) -> None:
    assert wire.parse_property_bag(wire.render_property_bag(bag)) == bag


@given(st.text(max_size=200))
def test_any_user_name_or_bag_is_read_or_refused(text: str) -> None:
    for parse in (wire.parse_username, wire.parse_property_bag):
        try:
            parse(text)
        except InvalidRequestError as error:
            assert error.explain_cause()


@given(st.binary(max_size=200))
def test_any_device_body_is_read_or_refused(body: bytes) -> None:
    try:
        wire.parse_device_body(body)
    except wire.BodyInvalidError as error:
        assert error.explain_cause()


@pytest.mark.parametrize(
    ("topic", "means"),
    [
        ("devices/device-1/messages/events/", wire.TelemetryTopic("")),
        ("devices/device-1/messages/events", wire.TelemetryTopic("")),
        ("devices/device-1/messages/events/a=b", wire.TelemetryTopic("a=b")),
        ("$iothub/twin/GET/?$rid=7", wire.TwinGet("7")),
        ("$iothub/twin/PATCH/properties/reported/?$rid=8&x=y", wire.TwinReport("8", None)),
        ("$iothub/twin/PATCH/properties/reported/?$rid=8&$version=12", wire.TwinReport("8", 12)),
        ("$iothub/twin/PATCH/properties/reported/?$rid=8&$version=x", None),
        ("$iothub/twin/GET/?x=y", None),
        ("$iothub/twin/DELETE/?$rid=7", None),
        ("$iothub/methods/res/200/?$rid=a", wire.MethodAnswer(200, "a")),
        ("$iothub/methods/res/-1/?$rid=a", wire.MethodAnswer(-1, "a")),
        ("$iothub/methods/res/2147483648/?$rid=a", None),
        ("$iothub/methods/res/x/?$rid=a", None),
        ("$iothub/methods/res/200/", None),
        ("devices/device-2/messages/events/", None),
        ("devices/device-1/messages/devicebound/", None),
        ("hello", None),
    ],
)
def test_what_a_device_publishes_to_is_told_apart(topic: str, means: wire.Topic | None) -> None:
    assert wire.parse_topic(topic, "device-1") == means


def test_a_twin_request_is_answered_under_its_own_id() -> None:
    assert wire.twin_response_topic(400, "7") == "$iothub/twin/res/400/?$rid=7"


@pytest.mark.parametrize("username", ["", "hub", "/dev/?x", "a/b/c/d"])
def test_a_user_name_of_another_shape_is_refused(username: str) -> None:
    with pytest.raises(wire.UserNameError):
        wire.parse_username(username)


def test_a_bag_of_too_many_properties_is_refused() -> None:
    with pytest.raises(wire.PropertyBagError):
        wire.parse_property_bag("&".join(["a=b"] * 10_000))


def test_nameless_properties_are_left_out() -> None:
    assert wire.parse_property_bag("=x&a&&b=") == {"a": None, "b": ""}


def a_registered_device(authentication: DeviceAuthentication) -> Device:
    return Device("main", parse_device_id("device-1"), "g", "e", False, "why", authentication, True, NOON, NOON)


@pytest.mark.parametrize(("with_keys", "shown"), [(True, "a2V5"), (False, None)])
def test_a_devices_keys_are_shown_only_to_whom_they_may_be(with_keys: bool, shown: str | None) -> None:
    device = a_registered_device(DeviceAuthentication(AuthenticationType.SAS, primary_key=b"key"))
    told = wire.device_json(device, is_connected=True, with_keys=with_keys)
    assert told["authentication"]["symmetricKey"] == {"primaryKey": shown, "secondaryKey": None}
    assert (told["connectionState"], told["status"], told["statusReason"]) == ("Connected", "disabled", "why")


def test_a_devices_thumbprints_are_shown_in_capitals() -> None:
    device = a_registered_device(DeviceAuthentication(AuthenticationType.SELF_SIGNED, b"\xab" * 32))
    told = wire.device_json(device, is_connected=False)
    assert told["authentication"]["x509Thumbprint"] == {"primaryThumbprint": "AB" * 32, "secondaryThumbprint": None}
    assert (told["connectionState"], told["capabilities"]) == ("Disconnected", {"iotEdge": True})


@pytest.mark.parametrize(
    "body",
    [
        {"status": "broken"},
        {"authentication": {"type": "magic"}},
        {"authentication": {"symmetricKey": {"primaryKey": "?"}}},
        {"authentication": 5},
    ],
)
def test_a_device_body_that_asks_for_what_is_not_served_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(wire.BodyInvalidError):
        wire.parse_device_body(json.dumps(body).encode())


def test_keys_that_are_left_out_are_for_the_hub_to_make() -> None:
    _body, wanted = wire.parse_device_body(
        b'{"authentication": {"type": "sas", "symmetricKey": {"primaryKey": "c2l4dGVlbiBieXRlcyBvZg=="}}}'
    )
    made = (wanted.type, wanted.primary_key, wanted.secondary_key)
    assert made == (AuthenticationType.SAS, b"sixteen bytes of", None)


@pytest.mark.parametrize("size", [1, 15, 65])
def test_a_devices_key_has_the_lengths_that_the_hub_takes(size: int) -> None:
    key = base64.b64encode(bytes(size)).decode()
    with pytest.raises(wire.BodyInvalidError, match="16 to 64 bytes"):
        wire.parse_device_body(b'{"authentication": {"symmetricKey": {"primaryKey": "%s"}}}' % key.encode())


@pytest.mark.parametrize("name", ["responseTimeoutInSeconds", "timeoutInSeconds"])
def test_a_call_says_its_wait_by_the_name_of_today_and_that_of_2016(name: str) -> None:
    call = wire.parse_method_call(b'{"methodName": "open", "%s": 7}' % name.encode())
    assert call.response_timeout_in_seconds == 7


def test_the_registry_writes_seven_digits_of_a_second() -> None:
    assert wire.registry_time(NOON) == "2026-06-01T12:00:00.0000000Z"


def a_shown_twin() -> dict[str, object]:
    """A device's twin as the service shows it, with something desired and nothing reported."""
    authentication = DeviceAuthentication(AuthenticationType.SAS)
    known = Device("hub", parse_device_id("pump"), "1", "e", True, None, authentication, False, NOON, NOON)
    micros = int(NOON.timestamp() * 1_000_000)
    stamps = {"rate": [micros, 2, {"unit": [micros, 2]}], "name": [micros, 1]}
    desired = DocumentSection(values={"rate": {"unit": "Hz"}, "name": "a"}, version=2, at=micros, stamps=stamps)
    return wire.twin_json(Twin("hub", known.device_id, {"site": "Osaka"}, desired), known, is_connected=True)


def test_a_twin_tells_when_each_part_of_it_was_set_and_of_what_never_was_nothing() -> None:
    shown = json.loads(json.dumps(a_shown_twin()))
    desired, reported = shown["properties"]["desired"], shown["properties"]["reported"]
    noon = "2026-06-01T12:00:00.0000000Z"
    assert desired["$metadata"]["rate"] == {
        "$lastUpdated": noon,
        "$lastUpdatedVersion": 2,
        "unit": {"$lastUpdated": noon, "$lastUpdatedVersion": 2},
    }
    assert desired["$metadata"]["name"] == {"$lastUpdated": noon, "$lastUpdatedVersion": 1}
    assert reported["$metadata"] == {"$lastUpdated": wire.NEVER}
    assert (shown["connectionState"], shown["tags"]) == ("Connected", {"site": "Osaka"})


def test_a_twin_that_is_sent_back_as_it_was_read_asks_for_nothing() -> None:
    shown = json.loads(json.dumps(a_shown_twin()))
    wire.check_twin_members(shown, shown)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"status": "disabled"}, "status"),
        ({"properties": {"reported": {"rate": 1}}}, "properties.reported"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_a_change_of_a_twin_that_asks_for_what_none_can_set_is_refused(change: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        wire.check_twin_members(change, json.loads(json.dumps(a_shown_twin())))
    assert f"{named} is nothing that a change of a twin can set" in refused.value.explain_cause()


@pytest.mark.parametrize("body", [b"[]", b"5", b"{", b""])
def test_a_twin_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        wire.parse_twin_body(body)


@pytest.mark.parametrize("said", ["updateIfMatchETag", "UpdateIfMatchETag", "updateifmatchetag"])
@pytest.mark.parametrize("member", ["eTag", "etag"])
def test_a_bulk_item_is_read_as_each_sdk_writes_it(said: str, member: str) -> None:
    (item,) = wire.parse_bulk(
        json.dumps([{"id": "d", "importMode": said, member: "AAAA", "connectionState": "x"}]).encode()
    )
    assert (item.import_mode, item.etag) == ("updateIfMatchETag", "AAAA")


def test_a_bulk_item_of_no_known_mode_is_refused() -> None:
    with pytest.raises(wire.BodyInvalidError):
        wire.parse_bulk(b'[{"id": "d", "importMode": "upsert"}]')


@pytest.mark.parametrize("text", ["%24.on=seen&lens=wide", "%24.on=seen&lens=wide/"])
def test_a_slash_at_the_end_of_a_topic_is_no_part_of_a_value(text: str) -> None:
    assert wire.parse_property_bag(text) == {"$.on": "seen", "lens": "wide"}


def test_a_slash_in_a_value_is_kept() -> None:
    assert wire.parse_property_bag("path=a%2F&more=%2F/") == {"path": "a/", "more": "/"}
