"""TOML files: what they say, and on which line each key stands, which parsers throw away and a mistake has to name."""

import re
import tomllib
from typing import Any

from birthmark.text_files import unseen

MAX_PARTS = 64
"""Of one key: the parser takes memory by the square of them."""
_PARTS = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')"""
_TOO_DEEP = re.compile(rf"""(?<![A-Za-z0-9_-])(?:{_PARTS}[ \t]*+\.[ \t]*+){{{MAX_PARTS}}}""")
_WINDOWS_PATH = re.compile(r"""^[^#'"\n]*+"[A-Za-z]:\\(?!\\)""", re.MULTILINE)
_NO_BACKSLASH = "a path with \\ needs single quotes, or / in place of each \\"
_AT_LINE = re.compile(r" \(at line ([0-9]+), column [0-9]+\)")
_AT_END = " (at end of document)"
_HEADER = re.compile(r"\s*\[\[?([^\]]+)\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")


class TomlError(ValueError):
    """The text is not TOML, or more than is read: why, and on which line; the last where it ends too early."""

    def __init__(self, detail: str, line: int) -> None:
        super().__init__(f"line {line}: {detail}")
        self.detail, self.line = detail, line


def parse(text: str) -> dict[str, Any]:
    """Return what a file says, whose size its reader bounds. Raise `TomlError`."""
    if (deep := _TOO_DEEP.search(text)) is not None:
        raise TomlError(f"a key has more than {MAX_PARTS} parts", text.count("\n", 0, deep.start()) + 1)
    if (windows := _WINDOWS_PATH.search(text)) is not None:
        raise TomlError(_NO_BACKSLASH, text.count("\n", 0, windows.end()) + 1)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, and what Python says of a number too long
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        line = int(found[1]) if (found := _AT_LINE.search(said)) else 1 + text.rstrip().count("\n")
        detail = _AT_LINE.sub("", said).removesuffix(_AT_END) + unseen(text.replace("\r\n", "\n"), line)
        raise TomlError(detail, line) from error


def lines_of(text: str) -> dict[tuple[str, ...], int]:
    """Return the first line of every key and table that has one of its own; inline tables count as their key."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if (header := _HEADER.fullmatch(line)) is not None:
            table = _parts(header[1])
            lines.setdefault(table, number)
        elif (key := _KEY.match(line)) is not None:
            lines.setdefault((*table, *_parts(key[1])), number)
    return lines


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(text))
