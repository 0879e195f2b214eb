"""*Configurations* by HTTP: listed, shown and stopped for users who may; an edge device's page shows its deployment."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.console.people import ServerServices, said
from support.server.servers import a_server

pytestmark = pytest.mark.system
ONE = "/configurations/birthmark/fan"
EVERY = "/hubs/birthmark/configurations"


def configuration(name: str, content: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": name, "content": content, "targetCondition": "*", "priority": 3, **more}


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerServices]:
    with a_server(tmp_path_factory.mktemp("configurations")) as server:
        yield ServerServices(server)


@pytest.fixture(scope="module", autouse=True)
def _empty_first(rooms: ServerServices) -> None:
    """Look at the page while there is no configuration, and have some then."""
    assert "No configurations yet." in said(rooms.person("early").get("/configurations").text)
    content = {"deviceContent": {"properties.desired.fan": "<b>3</b>"}}
    rollout = {"percents": [10, 100], "interval_s": 3600, "stop_condition": "tags.bad = true"}
    body = {"configuration": configuration("fan", content), "rollout": rollout}
    rooms.asked("POST", EVERY, body)


def test_configurations_are_listed_with_their_progress(rooms: ServerServices) -> None:
    words = said(rooms.person("anna").get("/configurations").text)
    for text in ("fan", "devices", "birthmark", "10 %, phase 1 of 2"):
        assert text in words, text


def test_a_configuration_is_shown_with_its_content_as_text(rooms: ServerServices) -> None:
    page = rooms.person("berta").get(ONE).text
    assert "<b>3</b>" not in page
    words = said(page)
    for text in ("targetedCount", "select deviceId from devices", "1 of 2: 10% of the devices", "tags.bad = true"):
        assert text in words, text


def test_a_rollout_is_stopped_and_resumed_by_its_page(rooms: ServerServices) -> None:
    dora = rooms.person("dora", "admin")
    for deed, told, stopped in (
        ("stop", "The rollout is stopped", "an operator stopped it"),
        ("resume", "The rollout continues", ""),
    ):
        page = dora.submit(ONE, ONE, deed=deed)
        assert told in said(dora.get(page.headers["location"]).text)
        assert rooms.asked("GET", f"{EVERY}/fan")["rollout"]["stopped"] == stopped


def test_a_viewer_is_offered_no_change_and_may_make_none(rooms: ServerServices) -> None:
    emil = rooms.person("emil")
    page = emil.get(ONE)
    assert (page.status_code, 'value="stop"' in page.text) == (200, False)
    token = emil.fields("/", "/signout")["csrf"]
    assert emil.post(ONE, {"deed": "stop", "csrf": token}).status_code == 403


def test_an_edge_device_shows_its_runtime_and_its_deployment(rooms: ServerServices) -> None:
    rooms.asked("POST", "/hubs/birthmark/devices", {"device_id": "edge-1", "iot_edge": True})
    anna = rooms.person("greta")
    assert "417: The device's deployment configuration is not set" in said(anna.get("/devices/edge-1").text)
    modules: dict[str, Any] = {"$edgeAgent": {"properties.desired": {"modules": {"camera": {}}}}}
    rooms.asked("POST", EVERY, {"configuration": configuration("base", {"modulesContent": modules})})
    deadline = time.monotonic() + 20
    while "camera" not in said(anna.get("/devices/edge-1").text):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    words = said(anna.get("/devices/edge-1").text)
    assert "base" in words
    assert "applied" in words
    assert "417" not in words
