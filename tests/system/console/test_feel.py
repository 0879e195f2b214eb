"""How the console feels: what moves by itself moves nobody's hand, and a press is answered at once, and once."""

import contextlib
import subprocess
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from support.console.consoles import Place
from support.server.servers import BIRTHMARK, clean_environment

pytestmark = pytest.mark.system


@contextlib.contextmanager
def devices(place: Place, count: int) -> Iterator[None]:
    """Let simulated devices come, and stay."""
    command = [
        BIRTHMARK,
        "swarm",
        "run",
        "--devices",
        str(count),
        "--to",
        "local",
        "--duration",
        "5m",
        "--interval",
        "5s",
    ]
    environment = clean_environment(BIRTHMARK_DATA=str(place.server.data), HOME=str(place.server.data.parent))
    at = place.server.data.parent
    with subprocess.Popen(
        command, cwd=at, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.terminate()


def happen(place: Place, name: str) -> None:
    """Let something happen that pages tell of: a device at the hub."""
    place.asked("POST", "/hubs/birthmark/devices", {"device_id": name})


def height_of(one: Locator) -> float:
    """Return where on the screen something is."""
    box = one.bounding_box()
    assert box is not None
    return box["y"]


def figure(page: Page, title: str) -> str:
    return page.locator(f".figure-card:has(h2:text-is('{title}')) .figure").inner_text()


def test_figures_move_while_devices_come(place: Place) -> None:
    with place.operator() as visitor:
        page = visitor.page("/")
        assert figure(page, "Connected devices") == "0"
        with devices(place, 5):
            expect(page.locator(".figure-card:has(h2:text-is('Connected devices')) .figure")).to_have_text(
                "5", timeout=30_000
            )
            expect(page.get_by_text("registered \N{MULTIPLICATION SIGN} 5")).to_be_visible(timeout=10_000)


def test_an_update_leaves_focus_scroll_text_and_an_open_part_as_they_are(place: Place) -> None:
    happen(place, "still-1")
    with place.operator(viewport={"width": 900, "height": 400}) as visitor:
        page = visitor.page("/devices/still-1")
        page.get_by_text("Change desired values").click()
        typed = page.get_by_label("JSON merge patch: null removes a key, objects are merged")
        typed.fill('{"interval": 5}')
        page.evaluate("scrollBy(0, 120)")
        before = height_of(typed)
        place.asked("PATCH", "/hubs/birthmark/devices/still-1", {"enabled": False})
        expect(page.locator("header .state")).to_have_text("disabled", timeout=10_000)
        assert typed.input_value() == '{"interval": 5}'
        assert abs(height_of(typed) - before) < 1  # though what stands above has grown
        assert page.evaluate("document.activeElement.name") == "desired"


def test_a_list_offers_what_is_new_and_moves_when_it_is_asked(place: Place) -> None:
    happen(place, "list-1")
    with place.operator() as visitor:
        page = visitor.page("/devices?begin=list")
        expect(page.get_by_role("link", name="list-1")).to_be_visible()
        happen(place, "list-2")
        offer = page.locator("#list .news")
        expect(offer).to_be_visible(timeout=10_000)
        assert page.get_by_role("link", name="list-2").count() == 0
        offer.click()
        expect(page.get_by_role("link", name="list-2")).to_be_visible()
        expect(offer).to_be_hidden()


def test_all_tabs_of_a_browser_share_one_stream(place: Place) -> None:
    """A browser holds six connections to a server: with a stream for each tab the seventh would never load."""
    with place.operator() as visitor:
        pages = [visitor.page("/") for _ in range(8)]
        happen(place, "tabs-1")
        for page in pages:
            page.bring_to_front()
            expect(page.get_by_text("saved a device in a hub").first).to_be_visible(timeout=15_000)


def test_a_search_finds_while_one_types_and_by_keys_alone(place: Place) -> None:
    happen(place, "north-pump")
    with place.operator() as visitor:
        page = visitor.page("/")
        page.keyboard.press("/")
        expect(page.locator("#search")).to_be_focused()
        page.keyboard.type("pum")
        expect(page.locator("#found a")).to_have_count(1, timeout=20_000)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.wait_for_url("**/devices/north-pump")


LATE = "const now = setTimeout; window.setTimeout = (act, ms, ...more) => now(act, ms ?? 2000, ...more);"
"""htmx begins to listen by a timer without a time, which a busy browser fires late."""


def test_what_is_typed_before_the_page_listens_is_searched_for(place: Place) -> None:
    happen(place, "early-pump")
    with place.operator() as visitor:
        visitor.context.add_init_script(LATE)
        page = visitor.page("/")
        page.keyboard.press("/")
        page.keyboard.type("early")
        expect(page.locator("#found a")).to_have_count(1)


def test_a_double_press_acts_once(place: Place) -> None:
    happen(place, "once-1")
    with place.operator() as visitor:
        page = visitor.page("/devices/once-1")
        form = page.locator("form[action='/deed/message']")
        form.get_by_label("Text").fill("hello")
        form.get_by_role("button").dblclick()
        expect(page.locator("form[action='/deed/message'] + .answer")).to_contain_text("The message is queued")
        assert len(place.asked("GET", "/hubs/birthmark/mail/once-1")["items"]) == 1


def test_pages_are_read_without_script(place: Place) -> None:
    happen(place, "plain-1")
    with place.person("reader", java_script_enabled=False) as visitor:
        for path, text in (
            ("/", "Devices in hubs and AWS IoT"),
            ("/devices", "plain-1"),
            ("/devices/plain-1", "Timeline"),
        ):
            page = visitor.page(path)
            expect(page.get_by_text(text).first).to_be_visible()
            assert page.get_by_role("button", name="copy").count() == 0


def test_times_are_those_of_the_place_with_the_exact_one_behind_them(place: Place) -> None:
    happen(place, "time-1")
    with place.operator(timezone_id="Asia/Tokyo") as visitor:
        page = visitor.page("/")
        assert "(+09:00)" in str(page.locator("#today time").first.get_attribute("title"))


def test_a_person_reads_in_japanese_when_the_browser_or_he_says_so(place: Place) -> None:
    with place.operator() as visitor:
        page = visitor.page("/")
        page.get_by_role("button", name="日本語").click()
        page.wait_for_load_state()
        assert page.locator("html").get_attribute("lang") == "ja"
    with place.operator(locale="ja-JP") as visitor:
        assert visitor.page("/").locator("html").get_attribute("lang") == "ja"
