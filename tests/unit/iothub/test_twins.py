"""Twins: what a report and a desire become, and what is refused."""

import msgspec
import pytest

from birthmark.iothub import wire
from birthmark.iothub.model import DeviceId, Twin
from birthmark.iothub.rules.twins import TwinInvalidError, TwinVersionError, desire, replace, report

FRESH = Twin("hub", DeviceId("d"))


def test_a_report_is_merged_and_counted() -> None:
    twin = report(report(FRESH, {"a": {"b": 1}, "c": 1}, 10), {"a": {"d": 2}, "c": None}, 20)
    assert twin.reported.values == {"a": {"b": 1, "d": 2}}
    assert (twin.reported.version, twin.desired.version, twin.version) == (3, 1, 3)


def test_a_report_for_another_version_is_refused() -> None:
    twin = report(FRESH, {"a": 1}, 1, version=1)
    with pytest.raises(TwinVersionError):
        report(twin, {"a": 2}, 2, version=1)


def test_what_a_twin_shows_beside_the_values_is_not_taken_as_one() -> None:
    twin = report(FRESH, {"$version": 77, "$metadata": {}, "a": 1}, 1)
    assert (twin.reported.values, twin.reported.version) == ({"a": 1}, 2)


def test_a_desire_changes_tags_and_properties_apart() -> None:
    twin = desire(FRESH, {"tags": {"site": {"room": 1}}}, 1)
    assert (twin.tags, twin.desired.version, twin.version) == ({"site": {"room": 1}}, 1, 2)
    twin = desire(twin, {"tags": {"site": {"floor": 2}}, "properties": {"desired": {"on": True}}}, 2)
    assert (twin.tags, twin.desired.values) == ({"site": {"room": 1, "floor": 2}}, {"on": True})
    assert twin.etag != FRESH.etag


def test_a_replacement_keeps_nothing_of_the_services_and_all_of_the_devices() -> None:
    twin = report(desire(FRESH, {"tags": {"a": 1}, "properties": {"desired": {"b": 1}}}, 1), {"c": 1}, 2)
    twin = replace(twin, {"properties": {"desired": {"d": 1}}}, 3)
    assert (twin.tags, twin.desired.values, twin.reported.values) == ({}, {"d": 1}, {"c": 1})


@pytest.mark.parametrize(
    "patch",
    [
        [],
        None,
        {"a b": 1},
        {"$a": 1},
        {"a": {"$version": 1}},
        {"a": [1, None]},
        {"a": "x" * 4097},
        {"a": 4503599627370496},
        {f"k{number}": "x" * 4000 for number in range(9)},
    ],
)
def test_what_is_not_allowed_is_refused_and_nothing_is_kept(patch: object) -> None:
    with pytest.raises(TwinInvalidError):
        report(FRESH, patch, 1)
    with pytest.raises(TwinInvalidError):
        desire(FRESH, {"properties": {"desired": patch or 1}}, 1)


def nested(levels: int) -> dict[str, object]:
    document: dict[str, object] = {}
    for _ in range(levels - 1):
        document = {"a": document}
    return document


def test_there_are_ten_levels_and_no_more() -> None:
    assert report(FRESH, nested(10), 1).reported.values == nested(10)
    for levels in (11, 65):
        with pytest.raises(TwinInvalidError):
            report(FRESH, nested(levels), 1)


def test_sections_are_measured_after_the_merge() -> None:
    twin = report(FRESH, {"a": ["x" * 4000] * 4}, 1)
    with pytest.raises(TwinInvalidError, match="reported is too large"):
        report(twin, {"b": ["x" * 4000] * 5}, 2)
    with pytest.raises(TwinInvalidError, match="tags is too large"):
        desire(FRESH, {"tags": {"b": ["x" * 4000] * 3}}, 2)


def test_a_device_sees_values_and_versions() -> None:
    twin = report(desire(FRESH, {"tags": {"a": 1}, "properties": {"desired": {"b": 1}}}, 1), {"c": 1}, 2)
    assert msgspec.json.decode(wire.twin_for_device(twin)) == {
        "desired": {"b": 1, "$version": 2},
        "reported": {"c": 1, "$version": 2},
    }


def test_a_device_hears_what_changed_and_of_a_replacement_what_is_gone() -> None:
    before = desire(FRESH, {"properties": {"desired": {"a": 1, "b": 1}}}, 1)
    patch = {"a": None, "c": {"d": 1}, "$version": 9}
    after = desire(before, {"properties": {"desired": patch}}, 2)
    told = wire.desired_patch(before, after, patch, replaces=False)
    assert msgspec.json.decode(told or b"") == {"a": None, "c": {"d": 1}, "$version": 3}
    after = replace(before, {"properties": {"desired": {"b": 2}}}, 2)
    told = wire.desired_patch(before, after, {"b": 2}, replaces=True)
    assert msgspec.json.decode(told or b"") == {"a": None, "b": 2, "$version": 3}
    assert wire.desired_patch(before, desire(before, {"tags": {"x": 1}}, 2), None, replaces=False) is None
