"""Table output: full values for programs; on a terminal, thumbprints are shortened, but never IDs."""

import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from birthmark.untrusted_json_and_text import printable

_STATUSES: Mapping[str, str] = {
    "not on record": "not registered",
    "on record": "registered",
    "on record otherwise": "registered differently",
    "put on record": "registered",
    "taken back": "revoked",
    "was taken back": "already revoked",
    "would be taken back": "would be revoked",
    "both trusted, the old signs": "both roots trusted, the old root signs",
    "both trusted, the new signs": "both roots trusted, the new root signs",
    "the new alone": "only the new root trusted",
}
"""Displayed states and statuses, by the JSON values, which are those of earlier releases."""


def text_of(value: Any) -> str:
    """Return a value as text for a table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {text_of(inner)}" for name, inner in value.items()) or "-"
    return "-" if value is None else _STATUSES.get(str(value), str(value))


_IRREGULAR: Mapping[str, str] = {"entry": "entries", "registry": "registries"}


def format_count(number: int, noun: str) -> str:
    """Return `1 record` or `2 records`."""
    return f"{number} {noun}" if number == 1 else f"{number} {_IRREGULAR.get(noun, noun + 's')}"


_TIME = re.compile(r"\b(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?(?:\+00:00|Z)")
_EMPTY = {"", "-"}
_LEAST = 20
"""Minimum width of a value in columns, even in a narrow terminal."""
_LITERAL = re.compile(r"`[^`]*`")
_OWN_LINE = re.compile(r"(?<=:) `([^`]+)`[.,;]?(?= |$)")
_THUMBPRINT = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", re.IGNORECASE)


def table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, is_terminal: bool, width: int | None = None
) -> str:
    """Format rows as a table, one line per row of any length.

    On a terminal, thumbprints and times are short and empty columns are omitted. Rows wider than `width` are shown as
    vertical records.
    """

    def cell(value: Any) -> str:
        text = printable(text_of(value))
        return _TIME.sub(r"\1 \2", _THUMBPRINT.sub(r"\1…", text)) if is_terminal else text

    cells = [[cell(row.get(column)) for column in columns] for row in rows]
    names = [column.replace("_", " ") for column in columns]
    if is_terminal:
        filled = [place for place in range(len(names)) if any(row[place] not in _EMPTY for row in cells)] or [0]
        names, cells = [names[place] for place in filled], [[row[place] for place in filled] for row in cells]
    lines = [names, *cells]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names))]
    if is_terminal and width is not None and sum(widths) + 2 * (len(widths) - 1) > width:
        return _records(names, cells, width)
    padded = ("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def _records(names: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> str:
    """Format rows as vertical records, one line per value; a long value continues below its start."""
    margin = max(map(len, names)) + 2
    wrapper = textwrap.TextWrapper(
        max(width, margin + _LEAST), subsequent_indent=" " * margin, break_long_words=False, break_on_hyphens=False
    )
    records = (
        "\n".join(
            "\n".join(wrapper.wrap(f"{name:<{margin}}{text}"))
            for name, text in zip(names, row, strict=True)
            if text not in _EMPTY
        )
        for row in cells
    )
    return "\n\n".join(records)


def wrap_to_terminal(line: str, *, errors: bool = False) -> str:
    """Wrap a line of text to the terminal's width, for stdout or stderr; return it unchanged without a terminal."""
    stream = sys.stderr if errors else sys.stdout
    return wrap_line(line, shutil.get_terminal_size().columns) if stream.isatty() else line


def wrap_line(line: str, width: int) -> str:
    """Wrap a line of text to `width` columns between words, but never inside a command.

    Text in backticks after a colon gets its own line without the backticks. A user can then select that line as a
    command, because a narrow terminal folds it without a line break.
    """
    first = line[: len(line) - len(line.lstrip())]
    indent, width = first + "  ", max(40, width)
    lines: list[str] = []
    for place, part in enumerate(_OWN_LINE.split(line)):
        if place % 2:
            lines.append(f"{indent}  {part}")
        elif part:
            kept = _LITERAL.sub(lambda found: found[0].replace(" ", "\0"), part.strip())
            margin = indent if lines else first
            lines += textwrap.wrap(
                kept,
                width,
                initial_indent=margin,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines).replace("\0", " ")
