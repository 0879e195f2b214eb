"""*Exchange of the root*: its steps with their gates, by two; of two who saw the same the later one is told."""

import re
from collections.abc import Iterator

import pytest
import requests

from support.console.browsers import Browser
from support.console.people import ServerServices, said
from support.server.servers import a_server

pytestmark = pytest.mark.system
AT = "/certificates/rollover"


@pytest.fixture
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerServices]:
    with a_server(tmp_path_factory.mktemp("rollover")) as server:
        yield ServerServices(server)


def state_of(rooms: ServerServices) -> str:
    return str(rooms.asked("GET", "/ca/rollover")["state"])


def csrf_of(browser: Browser) -> str:
    return browser.fields("/", "/signout")["csrf"]


def fields(browser: Browser, **typed: str) -> dict[str, str]:
    """Return what the form of the next step sends."""
    page = browser.get(AT).text
    csrf = csrf_of(browser)
    state = re.search(r'name="state" value="([^"]*)"', page)
    once = re.search(r'name="once" value="([^"]*)"', page)
    assert once is not None
    return {"csrf": csrf, "once": once[1], "state": "" if state is None else state[1], **typed}


def by_two(rooms: ServerServices, one: Browser, two: Browser, **typed: str) -> requests.Response:
    """Ask, let another approve it, and do the same again."""
    sent = fields(one, **typed)
    asked = one.post(AT, sent)
    assert (asked.status_code, "people.second_person_wanted" in asked.text) == (422, True), said(asked.text)
    waits = next(row for row in rooms.asked("GET", "/people/approvals")["items"])
    assert two.operator("POST", f"/people/approvals/{waits['id']}/approve").ok
    return one.post(AT, sent)


def test_an_exchange_goes_step_by_step_by_two_and_back(rooms: ServerServices) -> None:
    one, two, viewer = rooms.person("one", "admin"), rooms.person("two", "admin"), rooms.person("vera")
    empty = said(viewer.get(AT).text)
    assert "No rollover in progress" in empty
    assert "birthmark pki rollover plan" in empty
    assert "Only security officers and admins can run the steps" in empty
    assert viewer.post(AT, fields(one, deed="start") | {"csrf": csrf_of(viewer)}).status_code == 403
    assert by_two(rooms, one, two, deed="start").status_code == 303
    assert state_of(rooms) == "both trusted, the old signs"
    rooms.issued("d-old")  # which was handed both on the way, or waits for it
    page = said(one.get(AT).text)
    assert "Every device has received both roots" in page
    assert "root rollover" in said(one.get("/").text)  # Today tells of it
    early = by_two(rooms, one, two, deed="next")
    if early.status_code != 303:
        assert "ca.rollover_anchors_missing" in early.text
        assert by_two(rooms, one, two, deed="next", share="0").status_code == 303
    assert state_of(rooms) == "both trusted, the new signs"
    too_early = by_two(rooms, one, two, deed="next")
    assert "ca.rollover_old_used" in too_early.text
    later = fields(two, deed="back")
    assert one.post(AT, fields(one, deed="back")).status_code == 303
    assert state_of(rooms) == "both trusted, the old signs"
    told = two.post(AT, later)  # who saw another state than there is
    assert told.status_code == 409
    assert state_of(rooms) == "both trusted, the old signs"
    assert one.post(AT, fields(one, deed="back")).status_code == 303
    assert state_of(rooms) == "one root"


def test_what_is_no_step_is_refused(rooms: ServerServices) -> None:
    one = rooms.person("one", "admin")
    assert one.post(AT, fields(one, deed="x")).status_code == 400
    assert one.post(AT, fields(one, deed="next", share="x")).status_code == 400
    assert one.post(AT, fields(one, deed="groups")).status_code == 404
