"""What may be on record of a hub's routes, and what of a message leaves, and where to."""

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from birthmark.documents import DocumentSection, merged
from birthmark.errors import BirthmarkError
from birthmark.iothub.model import TelemetryMessage, Twin
from birthmark.iothub.rules.routes import configuration_changes, endpoint_message_format, event_messages, route_matcher
from birthmark.iothub.wire.stored_routing_configuration import (
    TEMPLATE,
    Endpoint,
    Enrichment,
    Fallback,
    FileEndpoint,
    HubRoute,
    RouteSource,
    Routing,
    ServerEndpoint,
    StoredRouting,
    StreamEndpoint,
)

NOW = datetime(2026, 11, 26, 9, 5, 7, tzinfo=UTC)
FILES, LIVE = FileEndpoint("files", "archive"), StreamEndpoint("live")
WANTED: dict[str, str | None] = {"content-type": "application/json", "content-encoding": "utf-8"}


def routing(*routes: HubRoute, endpoints: Sequence[Endpoint] = (FILES, LIVE), **more: Any) -> Routing:
    return Routing(tuple(endpoints), routes, **more)


def a_message(
    body: bytes = b"{}", system: dict[str, str | None] | None = None, **properties: str | None
) -> TelemetryMessage:
    micros = int(NOW.timestamp()) * 1_000_000
    return TelemetryMessage("pump-7", micros, body, WANTED if system is None else system, dict(properties))


def destinations(made: Routing, message: TelemetryMessage) -> dict[str, str]:
    ready = route_matcher.prepare_routing(StoredRouting("main", "1", 1, made, {}, NOW))
    return dict(route_matcher.destinations(ready, route_matcher.source_of(message), route_matcher.read(message), None))


@pytest.mark.parametrize(
    "template",
    [
        "../{iothub}/{partition}/{YYYY}/{MM}/{DD}/{HH}/{mm}",
        "{iothub}/../{partition}/{YYYY}/{MM}/{DD}/{HH}/{mm}",
        "/{iothub}/{partition}/{YYYY}/{MM}/{DD}/{HH}/{mm}",
        "{iothub}//{partition}/{YYYY}/{MM}/{DD}/{HH}/{mm}",
        "{iothub}/{partition}/{YYYY}/{MM}/{DD}/{HH}",
        "{iothub}/{partition}/{YYYY}/{MM}/{DD}/{HH}/{mm}/{ss}",
        "{iothub}/{partition}/{YYYY}/{MM}/{DD}/{HH}/{mm}\n",
        "{iothub}/.{partition}/{YYYY}/{MM}/{DD}/{HH}/{mm}",
        "{iothub}/{{partition}}/{YYYY}/{MM}/{DD}/{HH}/{mm}",
    ],
)
def test_a_name_of_files_that_leads_out_or_lacks_a_part_is_refused(template: str) -> None:
    with pytest.raises(configuration_changes.EndpointInvalidError):
        configuration_changes.with_endpoint(Routing(), FileEndpoint("files", "archive", template), "main")


@pytest.mark.parametrize("folder", ["..", "a/b", "A", "", "a--b", ".hidden", "ab"])
def test_a_folder_is_one_below_the_hubs_own(folder: str) -> None:
    with pytest.raises(configuration_changes.EndpointInvalidError):
        configuration_changes.with_endpoint(Routing(), FileEndpoint("files", folder), "main")


@pytest.mark.parametrize("topic", ["a/#", "+/a", "a b", "{secret}", "a\n", ""])
def test_a_topic_at_a_server_is_one_that_can_be_published_to(topic: str) -> None:
    with pytest.raises(configuration_changes.EndpointInvalidError):
        configuration_changes.with_endpoint(Routing(), ServerEndpoint("bus", "plant", topic), "main")


@pytest.mark.parametrize("name", ["events", "Events", "a b", "-rm", "a/b", "a:b", "", "x" * 65])
def test_an_endpoint_is_not_called_as_the_service_calls_its_own(name: str) -> None:
    with pytest.raises(configuration_changes.EndpointInvalidError):
        configuration_changes.with_endpoint(Routing(), StreamEndpoint(name), "main")


@pytest.mark.parametrize(
    ("made", "refusal"),
    [
        (routing(HubRoute("a", ("live",)), HubRoute("A", ("live",))), configuration_changes.RouteNameTakenError),
        (routing(endpoints=(LIVE, StreamEndpoint("LIVE"))), configuration_changes.RouteNameTakenError),
        (routing(HubRoute("a", ("nowhere",))), configuration_changes.UnknownEndpointError),
        (routing(HubRoute("a", ())), configuration_changes.RouteInvalidError),
        (routing(HubRoute("a", ("live", "live"))), configuration_changes.RouteInvalidError),
        (routing(HubRoute("a b", ("live",))), configuration_changes.RouteInvalidError),
        (routing(HubRoute("$fallback", ("live",))), configuration_changes.RouteInvalidError),
        (routing(HubRoute("a", ("live",), condition="a =")), configuration_changes.RouteConditionError),
        (routing(fallback=Fallback(("nowhere",))), configuration_changes.UnknownEndpointError),
        (routing(*(HubRoute(f"r{n}", ("live",)) for n in range(101))), configuration_changes.TooManyRoutesError),
        (routing(endpoints=[StreamEndpoint(f"e{n}") for n in range(11)]), configuration_changes.TooManyRoutesError),
        (routing(enrichments=(Enrichment("k", "$other", ("live",)),)), configuration_changes.RouteInvalidError),
        (routing(enrichments=(Enrichment("k", "v", ("none",)),)), configuration_changes.UnknownEndpointError),
    ],
)
def test_what_cannot_be_is_refused(made: Routing, refusal: type[BirthmarkError]) -> None:
    with pytest.raises(refusal):
        configuration_changes.validate_routing(made, "main")


def test_a_change_reads_no_condition_that_was_kept_before() -> None:
    routes = [HubRoute(f"route-{n}", ("live",), RouteSource.MESSAGES, f"level = {n}") for n in range(99)]
    route_matcher.prepare_routing(
        StoredRouting("main", "1", 1, configuration_changes.validate_routing(routing(*routes), "main"), {}, NOW)
    )
    before = configuration_changes.read_once.cache_info().misses
    routes.append(HubRoute("new", ("live",), RouteSource.MESSAGES, "level = 'new'"))
    route_matcher.prepare_routing(
        StoredRouting("main", "1", 2, configuration_changes.validate_routing(routing(*routes), "main"), {}, NOW)
    )
    assert configuration_changes.read_once.cache_info().misses == before + 1


def test_an_endpoint_that_is_led_to_stays() -> None:
    with pytest.raises(configuration_changes.EndpointInUseError):
        configuration_changes.without_endpoint(routing(HubRoute("a", ("live",))), "live", "main")


@pytest.mark.parametrize("name", ["DigitalTwinChangeEvents", "devicejoblifecycleevents", "other"])
def test_a_source_that_is_not_served_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(configuration_changes.RouteSourceError):
        configuration_changes.parse_source(name, "main")


def test_a_message_goes_to_an_endpoint_once_by_the_first_route_that_takes_it() -> None:
    made = routing(HubRoute("one", ("live",)), HubRoute("two", ("live", "files")))
    assert destinations(made, a_message()) == {"live": "one", "files": "two"}


def test_the_fallback_takes_what_no_route_takes_and_events_of_nobody() -> None:
    made = routing(HubRoute("hot", ("live",), condition="level = 'hot'"), fallback=Fallback(("files",)))
    assert destinations(made, a_message(level="hot")) == {"live": "hot"}
    assert destinations(made, a_message()) == {"files": "$fallback"}
    changed = event_messages.twin_changed(Twin("main", "pump-7"), Twin("main", "pump-7", {"a": 1}), NOW, replaces=False)
    assert destinations(made, changed) == {}


def test_a_device_cannot_pass_telemetry_off_as_what_the_hub_says() -> None:
    made = routing(HubRoute("twins", ("live",), RouteSource.TWINS))
    said: dict[str, str | None] = {"iothub-message-source": "twinChangeEvents", "opType": "updateTwin"}
    forged = TelemetryMessage("pump-7", 0, b"{}", WANTED, said)
    assert destinations(made, forged) == {}


@pytest.mark.parametrize(
    ("body", "system", "shown"),
    [
        (b'{"t": 1}', WANTED, {"t": 1}),
        (b'{"t":\n1}', WANTED, {"t": 1}),
        (b'\xef\xbb\xbf{"t": 1}', WANTED, {"t": 1}),
        (b'{"t": 1}', {}, base64.b64encode(b'{"t": 1}').decode()),
        (b'{"t": NaN}', WANTED, base64.b64encode(b'{"t": NaN}').decode()),
        (b"\xff", WANTED, base64.b64encode(b"\xff").decode()),
        (b'"\xed\xa0\x80"', WANTED, base64.b64encode(b'"\xed\xa0\x80"').decode()),
    ],
)
def test_a_body_that_is_json_stands_as_it_is_on_one_line(body: bytes, system: Any, shown: Any) -> None:
    message = a_message(body, system)
    told = endpoint_message_format.envelope(message, endpoint_message_format.shown_body(message), (), "main", None)
    assert b"\n" not in told
    assert json.loads(told)["Body"] == shown


def test_files_are_named_by_when_a_message_came() -> None:
    assert endpoint_message_format.file_of(TEMPLATE, "main", a_message()).startswith("main/")
    assert endpoint_message_format.file_of(TEMPLATE, "main", a_message()).endswith("/2026/11/26/09/05")


@pytest.mark.parametrize("name", ["a.b", "a*", "#", "+", "a$b"])
def test_a_devices_name_adds_no_level_and_no_wildcard_to_a_topic(name: str) -> None:
    made = endpoint_message_format.topic_of("hubs.{iothub}.{device}", "my.hub", name)
    assert made.count(".") == 2
    assert not set("*#+$") & set(made)


def test_a_change_says_what_was_set_again_to_what_it_was() -> None:
    before = Twin(
        "main", "pump-7", {}, DocumentSection(), merged(DocumentSection(), {"a": 1, "b": {"c": 2, "d": 3}}, 1)
    )
    after = Twin("main", "pump-7", {}, DocumentSection(), merged(before.reported, {"b": {"c": 2, "d": None}}, 2), 2)
    told = json.loads(event_messages.twin_changed(before, after, NOW, replaces=False).body)
    own = {name: value for name, value in told["properties"]["reported"].items() if name[0] != "$"}
    assert own == {"b": {"c": 2, "d": None}}
