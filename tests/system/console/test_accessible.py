"""Every page and state is judged by axe-core, and nothing of it is cut off or wider than the window."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from support.console.consoles import Place, Visitor
from support.console.world import PAGES, a_full_place
from support.server.servers import a_server

pytestmark = pytest.mark.system
AXE = Path(__file__).parents[2] / "node" / "node_modules" / "axe-core" / "axe.min.js"
JUDGE = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations
    .map((one) => `${one.id}: ${one.nodes.map((node) => node.html.slice(0, 160)).slice(0, 3).join(" | ")}`)"""
CUT_OFF = """() => [...document.querySelectorAll("main *, nav *")].filter((one) => {
    const style = getComputedStyle(one);
    if (one.closest("svg, .unseen, .wide, .tall, pre, ul, [hidden], details:not([open])")) return false;
    if (style.overflowX !== "visible") return false;
    return one.clientWidth && one.scrollWidth > one.clientWidth + 1;
}).map((one) => one.outerHTML.slice(0, 160))"""
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 900}},
    "dark": {"viewport": {"width": 1920, "height": 1080}, "color_scheme": "dark"},
    "narrow": {"viewport": {"width": 360, "height": 740}},
    "japanese": {"viewport": {"width": 768, "height": 900}, "locale": "ja-JP"},
}


@pytest.fixture(scope="module")
def full(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_server(tmp_path_factory.mktemp("full")) as server:
        yield a_full_place(Place(server, chromium), tmp_path_factory.mktemp("devices"))


def judged(page: Page) -> list[str]:
    """Return what is wrong with a page."""
    page.add_script_tag(path=AXE)
    found = [*page.evaluate(JUDGE), *(f"cut off: {one}" for one in page.evaluate(CUT_OFF))]
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    return [*found, f"wider than the window: {width}"] if width[0] > width[1] else found


def all_judged(visitor: Visitor, paths: list[str]) -> dict[str, list[str]]:
    page = visitor.page()
    wrong = {}
    for path in paths:
        visitor.go(page, path)
        page.wait_for_timeout(150)
        for part in page.locator("details").all():
            part.evaluate("(one) => { one.open = true }")
        if found := judged(page):
            wrong[path] = found
    return wrong


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_of_an_empty_server_can_be_read_by_everybody(place: Place, look: str) -> None:
    with place.operator(bypass_csp=True, **LOOKS[look]) as visitor:
        visitor.expected.add("Failed to load resource")
        assert all_judged(visitor, PAGES) == {}


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_of_a_full_server_can_be_read_by_everybody(full: Place, look: str) -> None:
    with full.operator(bypass_csp=True, **LOOKS[look]) as visitor:
        visitor.expected.add("Failed to load resource")
        assert all_judged(visitor, [*PAGES, *full.more]) == {}
