"""The conditions of `tests/vectors/route_conditions.toml`, each holding or not as it says."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from birthmark.message_routing.routable_message import RoutableMessage
from birthmark.message_routing.rules.conditions import RoutedSubject, SqlMistake, holds, parse_condition

FILE = Path(__file__).parents[2] / "vectors" / "route_conditions.toml"
GROUPS = tomllib.loads(FILE.read_text(encoding="utf-8"))["group"]
VECTORS = [one for group in GROUPS for one in group["of"]]
BODY = {
    "Weather": {
        "Temperature": 50,
        "IsEnabled": True,
        "Location": {"State": "WA"},
        "HistoricalData": [{"Month": "Feb", "Temperature": 40}, {"Month": "Jan", "Temperature": 30}],
    }
}
TWIN = {
    "tags": {"deploymentLocation": {"building": "43", "floor": 1}},
    "properties": {
        "desired": {"telemetryConfig": {"sendFrequency": "5m"}, "$version": 1},
        "reported": {"batteryLevel": 55},
    },
}


def message_of(vector: dict[str, Any]) -> RoutableMessage:
    encoding = vector.get("content_encoding", "UTF-8")
    system = [
        ("contentType", vector.get("content_type", "application/json")),
        ("connectionDeviceId", "pump-1"),
        ("dt-subject", "thermostat"),
    ]
    return RoutableMessage(
        "devices/pump-1/messages/events/",
        vector.get("body", json.dumps(BODY)).encode(vector.get("codec", "utf-8")),
        user_properties=(
            ("processingPath", "hot"),
            ("severity", "4"),
            ("$custom", "mine"),
            ("site-name", "north"),
            ("site.name", "east"),
            ("site name", "west"),
        ),
        system_properties=(*system, ("contentEncoding", encoding)) if encoding else tuple(system),
    )


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_a_condition_holds_as_the_pages_say(vector: dict[str, Any]) -> None:
    if "refused" in vector:
        with pytest.raises(SqlMistake) as refused:
            parse_condition(vector["condition"])
        assert vector["refused"] in str(refused.value)
        return
    condition = parse_condition(vector["condition"])
    assert holds(condition, RoutedSubject(message_of(vector), TWIN)) is vector["holds"]


def test_a_condition_says_that_it_needs_the_twin() -> None:
    assert parse_condition("$twin.tags.floor = 1").needs_twin
    assert not parse_condition("$body.floor = 1").needs_twin


def test_without_a_twin_nothing_of_it_is_there() -> None:
    assert not holds(parse_condition("is_defined($twin.tags.deploymentLocation.floor)"), RoutedSubject(message_of({})))


def test_there_are_enough_of_them_and_each_names_its_page() -> None:
    assert len(VECTORS) >= 60
    assert all("iot-hub-devguide-" in group["source"] for group in GROUPS)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000 + "true" + ")" * 5000,
        "[" * 40 + "]" * 40,
        "a = 1" + " OR a = 1" * 600,
        "NOT " * 600 + "true",
        "a" + ".a" * 600 + " = 1",
        "a = '" + "x" * 20_000 + "'",
        "a = 1" + "0" * 400,
        "a = 1e400",
        "a = '\\ud800'",
        "a = '\ud800'",
        "$body.a[9999999] = 1",
        "$body.[0] = 1",
    ],
    ids=lambda text: text[:24].encode("ascii", "replace").decode(),
)
def test_what_is_too_long_too_deep_or_no_text_is_a_mistake(text: str) -> None:
    with pytest.raises(SqlMistake) as refused:
        parse_condition(text)
    assert len(str(refused.value)) < 600


def test_a_number_of_a_body_that_no_double_holds_makes_nothing_true() -> None:
    huge = RoutedSubject(message_of({"body": '{"a":1' + "0" * 400 + "}"}))
    assert not holds(parse_condition("$body.a + 1 > 0"), huge)
    assert not holds(parse_condition("power($body.a, 2) > 0 OR sqrt($body.a) > 0 OR square($body.a) > 0"), huge)
