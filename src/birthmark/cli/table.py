"""Rows as a table: whole when somebody's program reads it, and on a terminal with thumbprints shortened, ids never."""

import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from birthmark.cli.printable import text_of
from birthmark.text import printable

_THUMBPRINT = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", re.IGNORECASE)


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, is_terminal: bool) -> str:
    """Return the lines of a table. Nothing is folded: a row is one line, however long."""

    def cell(value: Any) -> str:
        text = printable(text_of(value))
        return _THUMBPRINT.sub(r"\1…", text) if is_terminal else text

    lines = [[column.replace("_", " ") for column in columns]]
    lines += [[cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    padded = ("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def wrapped(line: str) -> str:
    """Return a line of text as it fits a terminal, broken between words only; elsewhere as it is."""
    if not sys.stdout.isatty():
        return line
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    width = max(40, shutil.get_terminal_size().columns)
    return textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
