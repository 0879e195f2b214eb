"""Drawings as text: SVG elements, sanitized text, and text widths.

- In: values and text, untrusted.
- Out: well-formed SVG 1.1 without styles: `files/charts.css` styles it by class.

Widths are estimates for the widest font of the console's stack (DejaVu Sans), so layouts have spare space. Not here:
the drawings themselves (charts, life).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from unicodedata import bidirectional, category, combining, east_asian_width
from xml.sax.saxutils import escape, quoteattr

from birthmark.untrusted_json_and_text import printable

TEXT_PX = 12
LINE_PX = 16
_MAX_TITLE_CHARS = 240
_STRONG = 1.12  # relative width of bold text
_ELLIPSIS = "…"

_WIDTHS = {
    0.3: "'ijlIJ",
    0.35: " ,./:;\\|f·\xa0\u202f",
    0.41: "-()[]rt!",
    0.53: '"*_`szc?',
    0.6: "LFkvxyPTY",
    0.65: "aoeSEbdghnpqu$0123456789{}\u2013",
    0.7: "KAVBRXZC",
    0.8: "UHNDGOQ&",
    0.86: "#+<=>^~wM\xd7",
    1.0: "%mW@…—",
}
_WIDTH_OF = {char: width for width, chars in _WIDTHS.items() for char in chars}


class Tone(StrEnum):
    """Meaning of a mark's color; each also has a distinct shape or position."""

    USUAL = "usual"
    GOOD = "good"
    INFO = "info"
    WARN = "warn"
    BAD = "bad"


class Anchor(StrEnum):
    """Which end of a text is at its position."""

    START = "start"
    MIDDLE = "middle"
    END = "end"


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height of a drawing in px, and the container width from which it is shown."""

    name: str
    width: int
    height: int
    from_px: int = 0


# Layout sizes: a phone of 360 px, a card of five of twelve columns, of seven, and of all.
NARROW = Size("narrow", 288, 190)
MIDDLE = Size("middle", 380, 200, 360)
WIDE = Size("wide", 560, 220, 530)
FULL = Size("full", 940, 220, 900)


def for_each(draw: Callable[[Size], str], sizes: Sequence[Size]) -> str:
    """Return the drawing in each of `sizes`; the style sheet shows the one that fits its container."""
    by_width = sorted(sizes, key=lambda size: size.from_px)
    until = [f" until-{wider.from_px}" for wider in by_width[1:]] + [""]
    since = [""] + [f" from-{wider.from_px}" for wider in by_width[1:]]
    inside = "".join(
        f'<div class="for-{size.name}{start}{end}">{draw(size)}</div>'
        for size, start, end in zip(by_width, since, until, strict=True)
    )
    return f'<div class="drawings">{inside}</div>'


def safe(text: str) -> str:
    """Return `text` on one line with invisible characters escaped; spaces of every width remain."""
    return "".join(char if char.isprintable() or category(char) == "Zs" else printable(char) for char in text)


def isolated(text: str) -> str:
    """Return `text` with isolated direction, so that right-to-left text does not reorder its context."""
    if any(bidirectional(char) in {"R", "AL", "AN"} for char in text):
        return f"\u2068{text}\u2069"
    return text


def _width_of_char(char: str) -> float:
    if (known := _WIDTH_OF.get(char)) is not None:
        return known
    if combining(char) or char in "\u2068\u2069":
        return 0.0
    if east_asian_width(char) in "WF":
        return 1.3 if category(char) == "So" else 1.0
    return 0.85 if ord(char) < 0x2000 else 1.1  # noqa: PLR2004 - alphabets; above, symbols


def width_of(text: str, *, is_strong: bool = False) -> float:
    """Return the approximate width of `text` in px, rather too large."""
    return sum(map(_width_of_char, text)) * TEXT_PX * (_STRONG if is_strong else 1)


def cut(text: str, room_px: float, *, is_strong: bool = False) -> str:
    """Return `text`, sanitized, in at most `room_px`: all of it, or its beginning and an ellipsis."""
    kept = safe(text[:_MAX_TITLE_CHARS])
    if len(text) <= _MAX_TITLE_CHARS and width_of(kept, is_strong=is_strong) <= room_px:
        return kept
    room = room_px - width_of(_ELLIPSIS, is_strong=is_strong)
    end = 0
    while end < len(kept) and width_of(kept[end], is_strong=is_strong) <= room:
        room -= width_of(kept[end], is_strong=is_strong)
        end += 1
    return kept[:end].rstrip() + _ELLIPSIS if room_px >= width_of(_ELLIPSIS, is_strong=is_strong) else ""


def shortened(text: str, chars: int = _MAX_TITLE_CHARS) -> str:
    """Return `text`, sanitized, of at most about `chars` characters, for a place without a width."""
    kept = safe(text[:chars])
    return isolated(kept if len(text) <= chars and len(kept) <= chars else kept[: chars - 1] + _ELLIPSIS)


def local(link: str) -> str:
    """Return `link` if it is local to this server. Raise `ValueError`."""
    if not link.startswith(("/", "?", "#")) or link.startswith(("//", "/\\")) or not link.isprintable():
        raise ValueError("A link of a drawing must start with /, ? or # and stay on this server")
    return link


def element(tag: str, inside: str = "", /, **attributes: float | str | None) -> str:
    """Return an element with `inside`, which is SVG already; attribute names are written as `class_`, `text_anchor`."""
    shown = "".join(
        f" {name.rstrip('_').replace('_', '-')}={quoteattr(_written(value))}"
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{shown}>{inside}</{tag}>" if inside else f"<{tag}{shown}/>"


def _written(value: float | str) -> str:
    return value if isinstance(value, str) else f"{round(value, 1):g}" if abs(value) < 1e5 else f"{value:.0f}"  # noqa: PLR2004


def title(text: str) -> str:
    """Return the tooltip element, which screen readers also read; the caller may pass several lines."""
    return f"<title>{escape(text)}</title>"


def linked(inside: str, link: str | None, words: str) -> str:
    """Return `inside` with its exact text, as a link if there is one."""
    told = title(words) if words else ""
    if link is None:
        return element("g", told + inside) if told else inside
    return element("a", told + inside, href=local(link), aria_label=words or None)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of a drawing."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box", gap: float = 0.0) -> bool:
        return (
            self.left < other.right + gap
            and other.left < self.right + gap
            and self.top < other.bottom
            and other.top < self.bottom
        )


@dataclass(frozen=True, slots=True)
class SvgLabel:
    """A positioned text, already cut, with its baseline at `y`."""

    text: str
    x: float
    y: float
    anchor: Anchor = Anchor.START
    look: str = ""

    @property
    def box(self) -> Box:
        width = width_of(self.text, is_strong="strong" in self.look)
        left = self.x - {Anchor.START: 0.0, Anchor.MIDDLE: width / 2, Anchor.END: width}[self.anchor]
        return Box(left, self.y - TEXT_PX + 1, left + width, self.y + 4)

    def drawn(self) -> str:
        anchor = None if self.anchor is Anchor.START else self.anchor.value
        words = escape(isolated(self.text))
        return element("text", words, x=self.x, y=self.y, text_anchor=anchor, class_=self.look or None) if words else ""


def centered(text: str, x: float, y: float, within: tuple[float, float], look: str = "") -> SvgLabel:
    """Return a label centered at `x`, moved and cut to fit `within`."""
    left, right = within
    words = cut(text, right - left, is_strong="strong" in look)
    half = width_of(words, is_strong="strong" in look) / 2
    return SvgLabel(words, min(max(x, left + half), right - half), y, Anchor.MIDDLE, look)


def drawing(inside: str, size: Size, *, name: str, height: float, title: str, desc: str, kind: str) -> str:
    """Return the complete drawing: an image for screen readers, or a group if it contains links."""
    own = f"{name}-{size.name}"
    head = element("title", escape(shortened(title)), id=f"{own}-title")
    head += element("desc", escape(shortened(desc, 1000)), id=f"{own}-desc") if desc else ""
    return element(
        "svg",
        head + inside,
        xmlns="http://www.w3.org/2000/svg",
        class_=f"drawing {kind}",
        viewBox=f"0 0 {size.width} {height:.0f}",
        width=size.width,
        height=round(height),
        role="group" if "<a " in inside else "img",
        aria_labelledby=f"{own}-title",
        aria_describedby=f"{own}-desc" if desc else None,
    )
