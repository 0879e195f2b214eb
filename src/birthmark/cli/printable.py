"""Values as people read them.

What comes from elsewhere is made safe before it is printed (`birthmark.text.printable`): a name or payload could move
the cursor, recolor or forge a row of a table. JSON needs none of this: it escapes by itself.
"""

from collections.abc import Mapping
from typing import Any


def text_of(value: Any) -> str:
    """Return a value as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {text_of(inner)}" for name, inner in value.items()) or "-"
    return "-" if value is None else str(value)


_IRREGULAR: Mapping[str, str] = {"entry": "entries", "registry": "registries"}


def counted(number: int, noun: str) -> str:
    """Return `1 record` or `2 records`."""
    return f"{number} {noun}" if number == 1 else f"{number} {_IRREGULAR.get(noun, noun + 's')}"
