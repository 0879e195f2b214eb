"""Cut the text of a statement into words, one at a time: a template's text goes on behind its last word."""

import re
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from birthmark.message_routing.rules.sql.errors import mistake

_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n\f]+)"
    r"|(?P<hex>0[xX][0-9a-fA-F]+)"
    r"|(?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_$][A-Za-z0-9_$]*)"
    r"|(?P<variable>@[A-Za-z0-9_]+)"
    r"|(?P<single>'(?:[^']|'')*')"
    r'|(?P<double>"(?:[^"]|"")*")'
    r"|(?P<sign><>|!=|<=|>=|[-=<>+*/%()\[\]{},.:])"
)
MAX_STRING_CHARS = 64 * 1024


class SqlTokenKind(Enum):
    """What a word is."""

    NAME = "name"
    NUMBER = "number"
    STRING = "string"
    VARIABLE = "variable"
    SIGN = "sign"
    HEX = "hex"
    END = "end"


@dataclass(frozen=True, slots=True)
class SqlToken:
    """A word, its meaning, and where it begins and ends."""

    kind: SqlTokenKind
    text: str
    """A string without its quotes; a name as it is written."""
    where: int
    end: int
    quote: str = ""

    @property
    def word(self) -> str:
        """A name in capitals, or nothing: keywords are written as one likes."""
        return self.text.upper() if self.kind is SqlTokenKind.NAME else ""


_KINDS = {
    "number": SqlTokenKind.NUMBER,
    "name": SqlTokenKind.NAME,
    "variable": SqlTokenKind.VARIABLE,
    "sign": SqlTokenKind.SIGN,
    "hex": SqlTokenKind.HEX,
}


def next_token(text: str, where: int) -> SqlToken:
    """Return the word at or behind `where`. Raise `SqlMistake` where there is none that this language has."""
    while True:
        if where >= len(text):
            return SqlToken(SqlTokenKind.END, "", len(text), len(text))
        match = _TOKEN.match(text, where)
        if match is None:
            _complain(text, where)
        if match.lastgroup != "space":
            break
        where = match.end()
    group, found = match.lastgroup or "", match.group()
    if found == "/" and text.startswith("/*", where):  # `--` is arithmetic: what is stored may have it
        mistake(where, "The language has no comments.", "Leave the comment out.")
    if group in {"single", "double"}:
        inner = found[1:-1].replace(found[0] * 2, found[0])
        if len(inner) > MAX_STRING_CHARS:
            mistake(where, "A string is longer than 65536 characters.", "Write a shorter one.")
        return SqlToken(SqlTokenKind.STRING, inner, where, match.end(), found[0])
    return SqlToken(_KINDS[group], found, where, match.end())


def _complain(text: str, where: int) -> NoReturn:
    char = text[where]
    if char in "'\"":
        mistake(where, "A string has no end.", f"Close it by {char}; inside, a quote is written twice.")
    if char == "`":
        mistake(where, "The language has no names in backticks.", "Read such a name by get(object, 'name').")
    if char == ";":
        mistake(where, "A rule is one statement.", "Leave the semicolon out.")
    shown = char if char.isprintable() else f"U+{ord(char):04X}"
    mistake(where, f"{shown} means nothing here.", "Names of other characters are read by get(object, 'name').")
