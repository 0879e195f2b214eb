"""SQL lexer, one token at a time: a template's text continues after its last token."""

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
    """Kind of a token."""

    NAME = "name"
    NUMBER = "number"
    STRING = "string"
    VARIABLE = "variable"
    SIGN = "sign"
    HEX = "hex"
    END = "end"


@dataclass(frozen=True, slots=True)
class SqlToken:
    """A token with its value, start and end."""

    kind: SqlTokenKind
    text: str
    """A string without its quotes, or a name as written."""
    where: int
    end: int
    quote: str = ""

    @property
    def word(self) -> str:
        """Return a name in upper case, or an empty text: keywords are case-insensitive."""
        return self.text.upper() if self.kind is SqlTokenKind.NAME else ""


_KINDS = {
    "number": SqlTokenKind.NUMBER,
    "name": SqlTokenKind.NAME,
    "variable": SqlTokenKind.VARIABLE,
    "sign": SqlTokenKind.SIGN,
    "hex": SqlTokenKind.HEX,
}


def next_token(text: str, position: int) -> SqlToken:
    """Return the token at or after `position`. Raise `SqlMistake` for an invalid one."""
    while True:
        if position >= len(text):
            return SqlToken(SqlTokenKind.END, "", len(text), len(text))
        match = _TOKEN.match(text, position)
        if match is None:
            _complain(text, position)
        if match.lastgroup != "space":
            break
        position = match.end()
    group, found = match.lastgroup or "", match.group()
    if found == "/" and text.startswith("/*", position):  # `--` is arithmetic: stored rules may use it
        mistake(position, "The language has no comments.", "Leave the comment out.")
    if group in {"single", "double"}:
        inner = found[1:-1].replace(found[0] * 2, found[0])
        if len(inner) > MAX_STRING_CHARS:
            mistake(position, "A string is longer than 65536 characters.", "Write a shorter one.")
        return SqlToken(SqlTokenKind.STRING, inner, position, match.end(), found[0])
    return SqlToken(_KINDS[group], found, position, match.end())


def _complain(text: str, position: int) -> NoReturn:
    char = text[position]
    if char in "'\"":
        mistake(position, "A string is not terminated.", f"Close it with {char}; double each quotation mark inside it.")
    if char == "`":
        mistake(position, "The language has no names in backticks.", "Read such a name by get(object, 'name').")
    if char == ";":
        mistake(position, "A rule is one statement.", "Leave the semicolon out.")
    shown = char if char.isprintable() else f"U+{ord(char):04X}"
    mistake(position, f"{shown} means nothing here.", "Names of other characters are read by get(object, 'name').")
