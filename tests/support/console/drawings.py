"""Reads an SVG as a visitor would: whether it is one, what it says and where, and what lies upon what."""

from itertools import combinations
from xml.etree import ElementTree as ET

from birthmark.webconsole.svg import Anchor, Box, Size, SvgLabel, Tone

NAMESPACE = "{http://www.w3.org/2000/svg}"
HOSTILE = '</title><script>alert(1)</script>" onload="x&\x00\x1b\u202e\u200f \ud800 שלום ' + "W" * 4000
TONES = list(Tone)
SIZES = [Size("narrow", 288, 190), Size("middle", 380, 200), Size("wide", 660, 220), Size("full", 1040, 220)]
_STYLING = {"style", "fill", "stroke", "font-size", "font-family", "color"}


def read(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # our own text, which is what is in question


def elements(svg: str, tag: str, *looks: str) -> list[ET.Element]:
    found = read(svg).iter(NAMESPACE + tag)
    return [element for element in found if set(looks) <= set(element.get("class", "").split())]


def texts(svg: str, *looks: str) -> list[str]:
    return [element.text or "" for element in elements(svg, "text", *looks)]


def titles(svg: str) -> list[str]:
    return [element.text or "" for element in elements(svg, "title")]


def _box(text: ET.Element) -> Box:
    anchor = Anchor(text.get("text-anchor", "start"))
    return SvgLabel(
        text.text or "", float(text.get("x", 0)), float(text.get("y", 0)), anchor, text.get("class", "")
    ).box


def _corners(element: ET.Element) -> list[tuple[float, float]]:
    def number(name: str) -> float:
        return float(element.get(name, 0))

    match element.tag.removeprefix(NAMESPACE):
        case "rect":
            x, y = number("x"), number("y")
            return [(x, y), (x + number("width"), y + number("height"))]
        case "line":
            return [(number("x1"), number("y1")), (number("x2"), number("y2"))]
        case "circle":
            x, y, r = number("cx"), number("cy"), number("r")
            return [(x - r, y - r), (x + r, y + r)]
        case "text":
            box = _box(element)
            return [(box.left, box.top), (box.right, box.bottom)]
        case _:
            return []


def check(svg: str) -> None:
    """Assert what is true of every drawing, whatever it shows."""
    root = read(svg)
    _, _, width, height = map(float, root.get("viewBox", "").split())
    assert root.get("role") == ("group" if elements(svg, "a") else "img")
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert root.get("aria-labelledby") in ids
    assert len(ids) == len(set(ids))
    for element in root.iter():
        assert element.tag.removeprefix(NAMESPACE) != "script"
        assert not {name for name in element.attrib if name in _STYLING or name.startswith("on")}
        for x, y in _corners(element):
            assert -0.2 <= x <= width + 0.2
            assert -0.2 <= y <= height + 0.2
    for one, other in combinations(elements(svg, "text"), 2):
        assert not _box(one).meets(_box(other), gap=-0.2), (one.text, other.text)
