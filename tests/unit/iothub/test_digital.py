"""A digital twin: the device's twin as IoT Plug and Play has it, and what a JSON Patch of one desires."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.documents import DocumentSection, merged
from birthmark.iothub import store, twin_index_store
from birthmark.iothub.model import Twin
from birthmark.iothub.rules.digital_twins import DigitalTwinPatchError, desired_by, digital_twin, merge_patch
from birthmark.iothub.rules.twins import desire

AT = 1_594_966_264_930_915


def a_twin(desired: dict[str, Any], reported: dict[str, Any]) -> Twin:
    wished, told = (merged(DocumentSection(), values, AT) for values in (desired, reported))
    return Twin("hub", "sample-device", {}, wished, told, model_id="dtmi:com:example:Controller;1")


LIVED = a_twin(
    {"thermostat1": {"__t": "c", "target": 21.8}, "fan": 2},
    {
        "serial": "a-1",
        "fan": {"value": 3, "ac": 200, "av": 1, "ad": "done"},
        "thermostat1": {"__t": "c", "max": 25.3, "target": {"value": 20.1, "ac": 203, "av": 2}},
    },
)
TIME = "2020-07-17T06:11:04.9309150Z"


def test_desired_and_reported_are_one_view_with_what_the_device_acknowledged() -> None:
    shown = digital_twin(LIVED)
    assert list(shown) == ["$dtId", "serial", "fan", "thermostat1", "$metadata"]
    assert (shown["$dtId"], shown["serial"], shown["fan"]) == ("sample-device", "a-1", 3)
    assert shown["$metadata"] == {
        "$model": "dtmi:com:example:Controller;1",
        "serial": {"lastUpdateTime": TIME},
        "fan": {
            "desiredValue": 2,
            "desiredVersion": 2,
            "ackCode": 200,
            "ackVersion": 1,
            "ackDescription": "done",
            "lastUpdateTime": TIME,
        },
    }
    assert shown["thermostat1"] == {
        "max": 25.3,
        "target": 20.1,
        "$metadata": {
            "max": {"lastUpdateTime": TIME},
            "target": {
                "desiredValue": 21.8,
                "desiredVersion": 2,
                "ackCode": 203,
                "ackVersion": 2,
                "lastUpdateTime": TIME,
            },
        },
    }


def test_what_is_only_desired_has_no_value_yet() -> None:
    shown = digital_twin(a_twin({"fan": 1}, {}))
    assert "fan" not in shown
    assert shown["$metadata"]["fan"] == {"desiredValue": 1, "desiredVersion": 2}


def test_a_twin_that_an_earlier_version_kept_has_no_model() -> None:
    body = msgspec.msgpack.encode(({"site": 1}, merged(DocumentSection(), {"a": 1}, AT), DocumentSection()))
    row = {"hub": "hub", "device_id": "d", "version": 3, "body": body}
    twin = store.twin_of(row)
    assert (twin.tags, twin.model_id, twin_index_store.values_of(body).model_id) == ({"site": 1}, "", "")
    assert store.twin_of({**row, "body": store.twin_body(twin)}) == twin


def test_an_empty_twin_has_its_name_and_no_model() -> None:
    assert digital_twin(Twin("hub", "d")) == {"$dtId": "d", "$metadata": {}}


@pytest.mark.parametrize(
    ("operation", "meant"),
    [
        ({"op": "add", "path": "/fan", "value": 5}, {"fan": 5}),
        ({"op": "replace", "path": "/limits", "value": {"low": 1}}, {"limits": {"low": 1}}),
        ({"op": "remove", "path": "/fan"}, {"fan": None}),
        ({"op": "remove", "path": "/serial"}, {}),
        ({"op": "replace", "path": "/thermostat1/target", "value": 9}, {"thermostat1": {"target": 9}}),
        ({"op": "add", "path": "/thermostat2/target", "value": 9}, {"thermostat2": {"__t": "c", "target": 9}}),
        ({"op": "remove", "path": "/thermostat1/target"}, {"thermostat1": None}),
        ({"op": "remove", "path": "/thermostat1"}, {"thermostat1": None}),
        ({"op": "remove", "path": "/thermostat1/none"}, {}),
        (
            {"op": "replace", "path": "/thermostat1", "value": {"other": 1, "$metadata": {}}},
            {"thermostat1": {"target": None, "other": 1}},
        ),
    ],
)
def test_an_operation_means_a_patch_of_what_is_desired(operation: dict[str, Any], meant: dict[str, Any]) -> None:
    assert desired_by(LIVED, [operation]) == meant


def test_operations_follow_one_another() -> None:
    patch = [
        {"op": "add", "path": "/room/high", "value": 1},
        {"op": "add", "path": "/room/low", "value": 0},
        {"op": "remove", "path": "/room/high"},
    ]
    assert desired_by(LIVED, patch) == {"room": {"__t": "c", "low": 0}}


def below(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("patch", "told"),
    [
        ({}, "not a list"),
        ([], "not a list"),
        ([{"op": "remove", "path": "/a"}] * 101, "not a list"),
        ([5], "is not an object"),
        ([{"op": "test", "path": "/a", "value": 1}], "op"),
        ([{"op": ["add"], "path": "/a", "value": 1}], "op"),
        ([{"op": "add", "path": ["/a"], "value": 1}], "path"),
        ([{"op": "add", "path": "/a"}], "no value"),
        ([{"op": "remove", "path": "/a", "value": 1}], "has a value"),
        ([{"op": "add", "path": "/a", "value": 1, "from": "/b"}], "from"),
        ([{"op": "add", "path": "a", "value": 1}], "path"),
        ([{"op": "add", "path": "/a/b/c", "value": 1}], "path"),
        ([{"op": "add", "path": "/9a", "value": 1}], "path"),
        ([{"op": "add", "path": "/$metadata", "value": 1}], "path"),
        ([{"op": "add", "path": "/a_", "value": 1}], "path"),
        ([{"op": "add", "path": "/fan/speed", "value": 1}], "is not a component"),
        ([{"op": "add", "path": "/serial/x", "value": 1}], "is not a component"),
        ([{"op": "add", "path": "/thermostat1", "value": 1}], "empty $metadata"),
        ([{"op": "add", "path": "/a", "value": {"$metadata": {"b": 1}}}], "empty object"),
        ([{"op": "add", "path": "/a", "value": [1]}], "array"),
        ([{"op": "add", "path": "/a", "value": {"b": [1]}}], "array"),
        ([{"op": "add", "path": "/a", "value": None}], "null"),
        ([{"op": "add", "path": "/a", "value": {"x.y": 1}}], "x.y"),
        ([{"op": "add", "path": "/a", "value": below(7)}], "levels"),
    ],
)
def test_what_is_no_patch_of_a_digital_twin_is_refused(patch: Any, told: str) -> None:
    with pytest.raises(DigitalTwinPatchError) as caught:
        desired_by(LIVED, patch)
    assert told in str(caught.value)


NAMES = st.sampled_from(["a", "b", "c1", "__t", "value", "ac"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(NAMES, VALUES.filter(lambda value: value is not None), max_size=4)


@given(OBJECTS, OBJECTS)
def test_any_twin_has_a_digital_one(desired: dict[str, Any], reported: dict[str, Any]) -> None:
    assert digital_twin(a_twin(desired, reported))["$dtId"] == "sample-device"


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "op": st.sampled_from(["add", "replace", "remove"]),
                "path": st.sampled_from(["/a", "/b", "/a/b", "/b/c1"]),
            },
            optional={"value": VALUES},
        ),
        max_size=4,
    )
    | VALUES
)
def test_any_patch_is_refused_or_applies(patch: Any) -> None:
    try:
        meant = desired_by(LIVED, patch)
    except DigitalTwinPatchError:
        return
    after = desire(LIVED, {"properties": {"desired": meant}}, AT)
    assert merge_patch(LIVED.desired.values, after.desired.values) == meant
