"""A page says when its server is gone or the session is over, and comes back by itself."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from support.console.consoles import Place
from support.server.servers import a_server

pytestmark = pytest.mark.system
GONE = ("Failed to load resource", "ERR_CONNECTION", "net::", "Failed to fetch", "htmx:error")


@pytest.fixture
def place(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_server(tmp_path_factory.mktemp("away")) as server:
        yield Place(server, chromium)


def test_a_page_says_that_the_server_is_gone_and_comes_back_by_itself(place: Place) -> None:
    with place.operator() as visitor:
        visitor.expected |= set(GONE)
        page = visitor.page("/")
        standing = page.locator("#standing")
        expect(standing).to_be_hidden()
        place.server.stop()
        expect(standing).to_contain_text("The server is not reachable", timeout=15_000)
        place.server.start()
        expect(standing).to_be_hidden(timeout=30_000)
        place.asked("POST", "/hubs/birthmark/devices", {"device_id": "after-1"})
        expect(page.get_by_text("after-1")).to_be_visible(timeout=15_000)


def test_a_page_says_that_its_session_is_over_and_leads_to_sign_in(place: Place) -> None:
    with place.person("anna") as visitor:
        visitor.expected |= set(GONE)
        page = visitor.page("/")
        place.asked("POST", "/people/users/anna/signout")
        standing = page.locator("#standing")
        expect(standing).to_contain_text("Your session has ended", timeout=15_000)
        standing.get_by_role("link").click()
        page.wait_for_url("**/signin?next=%2F")


def test_nothing_of_a_page_is_kept_after_sign_out(place: Place) -> None:
    with place.person("bert") as visitor:
        visitor.expected |= set(GONE)
        page = visitor.page("/devices")
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/signin*")
        page.go_back(wait_until="commit")
        expect(page.get_by_role("button", name="Sign in")).to_be_visible(timeout=15_000)
