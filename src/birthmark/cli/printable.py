"""Text from elsewhere, made safe before it is printed: the one place where that is done.

Names, payloads and reasons come from whoever connects. Printed as they are, they could move the cursor, recolor or
forge a row of a table, or turn the direction of what follows. JSON needs none of this: it escapes by itself.
"""

from collections.abc import Mapping
from typing import Any

from birthmark.text import printable


def printable_lines(text: str) -> list[str]:
    """Return the lines of a text that may have several (PEM), each printable."""
    return [printable(line) for line in text.split("\n")]


def text_of(value: Any) -> str:
    """Return a value as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)


_IRREGULAR: Mapping[str, str] = {"entry": "entries", "registry": "registries"}


def counted(number: int, noun: str) -> str:
    """Return `1 record` or `2 records`."""
    return f"{number} {noun}" if number == 1 else f"{number} {_IRREGULAR.get(noun, noun + 's')}"
