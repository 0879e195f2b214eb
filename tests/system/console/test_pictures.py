"""Pictures of every page, empty and full, light, dark, narrow and Japanese: what people see who never ran it.

With `BIRTHMARK_PICTURES=docs/images/console` in its environment it also writes those of the documentation; each is a
page as it is in all four looks, side by side.
"""

import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from support.console.consoles import Place, Visitor
from support.console.world import PAGES, a_full_place
from support.server.servers import a_server

pytestmark = pytest.mark.system
LOOKS: Sequence[dict[str, Any]] = (
    {"viewport": {"width": 1280, "height": 900}},
    {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    {"viewport": {"width": 1280, "height": 900}, "locale": "ja-JP", "timezone_id": "Asia/Tokyo"},
    {"viewport": {"width": 360, "height": 900}},
)
LONGEST_PX, GAP_PX, SCALE, QUALITY = 2400, 24, 0.5, 70
LEAST_COLOURS, MOST_BYTES = 24, 600_000
NUMBERED = re.compile(r"[0-9a-f]{6,}(-\d+)?")
LONG_NAMES = {"/devices?begin=nothing-is-called-so": "devices-none"}
REFUSAL = re.compile(r"/refusals/[0-9a-f-]{36}")


def name_of(path: str) -> str:
    """Return how the picture of a page is called, whatever the devices of this run are."""
    if path in LONG_NAMES:
        return LONG_NAMES[path]
    if REFUSAL.fullmatch(path):
        return "refusals-one"
    plain = re.sub(r"[^a-z0-9]+", "-", NUMBERED.sub("x", path.lower())).strip("-")
    return plain or "today"


def shot(page: Page) -> Image.Image:
    page.wait_for_timeout(250)
    size = page.evaluate("document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": page.viewport_size["width"], "height": min(size, LONGEST_PX)}  # type: ignore[index]
    picture = page.screenshot(full_page=True, clip=clip, animations="disabled")  # type: ignore[arg-type]
    return Image.open(io.BytesIO(picture)).convert("RGB")


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return pictures side by side, half as large."""
    small = [
        one.resize((int(one.width * SCALE), int(one.height * SCALE)), Image.Resampling.LANCZOS) for one in pictures
    ]
    width = sum(one.width for one in small) + GAP_PX * (len(small) - 1)
    sheet = Image.new("RGB", (width, max(one.height for one in small)), "#d6d9d4")
    left = 0
    for one in small:
        sheet.paste(one, (left, 0))
        left += one.width + GAP_PX
    return sheet


def taken(place: Place, paths: Sequence[str], kind: str) -> None:
    """Take every page in every look, and say that there is something on each; write them where that is asked for."""
    found: dict[str, list[Image.Image]] = {path: [] for path in paths}
    for look in LOOKS:
        with place.operator(**look) as visitor:
            visitor.expected.add("Failed to load resource")
            _walk(visitor, found)
    for path, pictures in found.items():
        colours = [one.getcolors(1 << 20) for one in pictures]
        assert all(several is None or len(several) > LEAST_COLOURS for several in colours), path
        if out := os.environ.get("BIRTHMARK_PICTURES"):
            file = Path(out, f"{name_of(path)}-{kind}.webp")
            beside(pictures).save(file, quality=QUALITY, method=6)
            assert file.stat().st_size < MOST_BYTES, path


def _walk(visitor: Visitor, found: dict[str, list[Image.Image]]) -> None:
    page = visitor.page()
    for path, pictures in found.items():
        visitor.go(page, path)
        pictures.append(shot(page))


@pytest.fixture(scope="module")
def full(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_server(tmp_path_factory.mktemp("full")) as server:
        yield a_full_place(Place(server, chromium), tmp_path_factory.mktemp("devices"))


def test_pictures_of_an_empty_server(place: Place) -> None:
    taken(place, PAGES, "empty")


def test_pictures_of_a_full_server(full: Place) -> None:
    taken(full, [*PAGES, *full.more], "full")
