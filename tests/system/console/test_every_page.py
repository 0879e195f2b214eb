"""Every page, empty and full, light, dark, narrow and Japanese: judged by axe-core, nothing cut off, and looked at.

With `BIRTHMARK_PICTURES=docs/images/console` in its environment it also writes the pictures of the documentation; each
is a page as it is in all four looks, side by side.
"""

import io
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from support.breadth import variants
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
OPEN = """document.querySelectorAll("details").forEach((one) => { one.open = true })"""
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 900}},
    "dark": {"viewport": {"width": 1920, "height": 1080}, "color_scheme": "dark"},
    "japanese": {"viewport": {"width": 768, "height": 900}, "locale": "ja-JP", "timezone_id": "Asia/Tokyo"},
    "narrow": {"viewport": {"width": 360, "height": 740}},
}
IS_PICTURED = "BIRTHMARK_PICTURES" in os.environ
OF_EMPTY = [*LOOKS] if IS_PICTURED else variants(LOOKS, ["narrow"])
"""Empty pages have nothing that full ones do not have but their words and their width."""
OF_FULL = [*LOOKS] if IS_PICTURED else variants(LOOKS, ["light", "japanese"])
LONGEST_PX, GAP_PX, SCALE, QUALITY = 2400, 24, 0.5, 70
LEAST_COLOURS, MOST_BYTES = 24, 600_000
NUMBERED = re.compile(r"[0-9a-f]{6,}(-\d+)?")
LONG_NAMES = {"/devices?begin=nothing-is-called-so": "devices-none"}
REFUSAL = re.compile(r"/refusals/[0-9a-f-]{36}")
Pictures = dict[str, list[Image.Image]]
"""By the file's name: a page in one look after the other."""


@pytest.fixture(scope="module")
def full(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_server(tmp_path_factory.mktemp("full")) as server:
        yield a_full_place(Place(server, chromium), tmp_path_factory.mktemp("devices"))


@pytest.fixture(scope="module")
def pictures() -> Iterator[Pictures]:
    """What is taken; written where that is asked for."""
    taken: Pictures = defaultdict(list)
    yield taken
    if out := os.environ.get("BIRTHMARK_PICTURES"):
        for name, looks in taken.items():
            beside(looks).save(file := Path(out, f"{name}.webp"), quality=QUALITY, method=6)
            assert file.stat().st_size < MOST_BYTES, name


def name_of(path: str) -> str:
    """Return how the picture of a page is called, whatever the devices of this run are."""
    if path in LONG_NAMES:
        return LONG_NAMES[path]
    if REFUSAL.fullmatch(path):
        return "refusals-one"
    plain = re.sub(r"[^a-z0-9]+", "-", NUMBERED.sub("x", path.lower())).strip("-")
    return plain or "today"


def shot(page: Page) -> Image.Image:
    size = page.evaluate("document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": page.viewport_size["width"], "height": min(size, LONGEST_PX)}  # type: ignore[index]
    picture = page.screenshot(full_page=True, clip=clip, animations="disabled")  # type: ignore[arg-type]
    return Image.open(io.BytesIO(picture)).convert("RGB")


def beside(looks: Sequence[Image.Image]) -> Image.Image:
    """Return pictures side by side, half as large."""
    small = [one.resize((int(one.width * SCALE), int(one.height * SCALE)), Image.Resampling.LANCZOS) for one in looks]
    width = sum(one.width for one in small) + GAP_PX * (len(small) - 1)
    sheet = Image.new("RGB", (width, max(one.height for one in small)), "#d6d9d4")
    left = 0
    for one in small:
        sheet.paste(one, (left, 0))
        left += one.width + GAP_PX
    return sheet


def judged(page: Page) -> list[str]:
    """Return what is wrong with a page."""
    page.evaluate(OPEN)
    page.add_script_tag(path=AXE)
    found = [*page.evaluate(JUDGE), *(f"cut off: {one}" for one in page.evaluate(CUT_OFF))]
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    return [*found, f"wider than the window: {width}"] if width[0] > width[1] else found


def all_judged(visitor: Visitor, paths: list[str], pictures: Pictures, kind: str) -> dict[str, list[str]]:
    """Look at every page, and return what is wrong with each."""
    page = visitor.page()
    wrong = {}
    for path in paths:
        visitor.go(page, path)
        page.wait_for_timeout(150)
        picture = shot(page)
        pictures[f"{name_of(path)}-{kind}"].append(picture)
        colours = picture.getcolors(1 << 20)
        nothing = ["there is next to nothing on it"] if colours is not None and len(colours) <= LEAST_COLOURS else []
        if found := [*nothing, *judged(page)]:
            wrong[path] = found
    return wrong


@pytest.mark.parametrize("look", OF_EMPTY)
def test_every_page_of_an_empty_server_can_be_read_by_everybody(place: Place, pictures: Pictures, look: str) -> None:
    with place.operator(bypass_csp=True, **LOOKS[look]) as visitor:
        visitor.expected.add("Failed to load resource")
        assert all_judged(visitor, PAGES, pictures, "empty") == {}


@pytest.mark.parametrize("look", OF_FULL)
def test_every_page_of_a_full_server_can_be_read_by_everybody(full: Place, pictures: Pictures, look: str) -> None:
    with full.operator(bypass_csp=True, **LOOKS[look]) as visitor:
        visitor.expected.add("Failed to load resource")
        assert all_judged(visitor, [*PAGES, *full.more], pictures, "full") == {}
